"""The rules for single values of a plan; each raises `PlanError` in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from jsc.tuning.plan.errors import PlanError

MAX_COUNT = 1 << 53  # JSON numbers are exact up to here
MAX_TEXT = 1000
MAX_DURATION = 1e300  # sums and quotients of such numbers are finite


def shown(value: object) -> str:
    """The beginning of a value as text, whatever it is: `str` refuses numbers of 5000 digits."""
    try:
        return str(value)[:40]
    except Exception:
        return "?"


def _found(value: object) -> str:
    return f"{type(value).__name__} {shown(value)!r}"


def require_text(name: str, value: object, *, empty: bool = False) -> str:
    """A short printable string: a plan is printed on terminals, so it has no control characters."""
    if not isinstance(value, str):
        raise PlanError(f"{name} must be a string, got {_found(value)}")
    if len(value) > MAX_TEXT or not value.isprintable() or not (value or empty):
        raise PlanError(f"{name} must be 1 to {MAX_TEXT} printable characters, got {value[:40]!r}")
    return value


def require_count(name: str, value: object) -> int:
    if type(value) is not int or not 0 <= value <= MAX_COUNT:
        raise PlanError(f"{name} must be a whole number >= 0, got {_found(value)}")
    return value


def require_counts(name: str, value: object, lengths: tuple[int, ...]) -> tuple[int, ...]:
    items = tuple(require_count(name, item) for item in require_sequence(name, value))
    if len(items) not in lengths:
        expected = " or ".join(map(str, lengths))
        raise PlanError(f"{name} must have {expected} numbers, got {len(items)}")
    return items


def require_duration(name: str, value: object) -> float:
    """A number from 0 to 1e300."""
    if type(value) not in (int, float) or not 0 <= value <= MAX_DURATION:  # type: ignore[operator]
        raise PlanError(f"{name} must be a finite number >= 0, got {_found(value)}")
    return value  # type: ignore[return-value]


def require_mapping(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise PlanError(f"{name} must be an object, got {_found(value)}")
    return value


def require_sequence(name: str, value: object) -> Sequence[Any]:
    if not isinstance(value, (tuple, list)):
        raise PlanError(f"{name} must be a list, got {_found(value)}")
    return value


def check_fields(cls: Any, body: Mapping[str, Any]) -> None:
    """Exactly the fields of a dataclass: none missing, none unknown."""
    names = [f.name for f in fields(cls)]
    missing = [name for name in names if name not in body]
    unknown = [shown(key) for key in body if key not in names]
    if missing or unknown:
        what = [f"without {', '.join(missing)}"] if missing else []
        what += [f"with unknown {', '.join(unknown)}"] if unknown else []
        raise PlanError(f"{cls.__name__} {' and '.join(what)}")
