"""Strict JSON: a plan file is either what was written, or a `PlanError`.

Python's own reader accepts NaN, 1e999 (as infinity), repeated keys (the last one wins) and any
size; nothing of that is a plan. A checksum over the canonical text finds what a schema cannot see,
such as another digit in a time.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Any

from jsc.tuning.plan.errors import PlanError

MAX_BYTES = 16 << 20  # some 20 000 layers


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _checksum(document: dict[str, Any]) -> str:
    return "sha256:" + hashlib.sha256(_canonical(document)).hexdigest()


def dumps(document: dict[str, Any]) -> str:
    """The file's text: one key a line, so that two plans can be compared with `diff`."""
    signed = {**document, "checksum": _checksum(document)}
    text = json.dumps(signed, indent=1, allow_nan=False, ensure_ascii=True) + "\n"
    # Lists of plain values on one line. No string holds a newline, so these are all structure.
    return re.sub(r"\[\n[^\[\]{}]*\n *\]", lambda m: re.sub(r"\n *", "", m[0]), text)


def loads(data: bytes, source: str) -> dict[str, Any]:
    """The object `dumps` was given. `source` names the file in errors."""

    def fail(why: str) -> PlanError:
        return PlanError(f"{source} is not a jsc plan: {why}")

    def no_constant(text: str) -> float:
        raise fail(f"it contains {text}, and every number of a plan is finite")

    def finite(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise fail(f"the number {text[:20]} is too large")
        return value

    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise fail(f"the key {twice[:80]!r} appears twice in one object")
        return result

    if len(data) > MAX_BYTES:
        raise fail(f"it is larger than {MAX_BYTES >> 20} MB")
    try:
        document = json.loads(
            data.decode("utf-8"),
            parse_constant=no_constant,
            parse_float=finite,
            object_pairs_hook=no_duplicates,
        )
    except PlanError:
        raise
    except RecursionError:
        raise fail("it is nested too deeply") from None
    except ValueError as error:  # bad JSON, bad UTF-8, an integer of thousands of digits
        raise fail(f"it is damaged or truncated ({error})") from None
    if not isinstance(document, dict):
        raise fail(f"it holds a {type(document).__name__}, not an object")
    return document


def check_checksum(document: dict[str, Any], source: str) -> dict[str, Any]:
    """The document without its checksum, once that has been found right."""
    body = {key: value for key, value in document.items() if key != "checksum"}
    try:
        right = document.get("checksum") == _checksum(body)
    except (ValueError, RecursionError):  # lone surrogates, too deep for the writer
        right = False
    if not right:
        raise PlanError(
            f"{source}: the checksum does not match, so the plan was damaged or edited by hand; "
            "to change a plan use plan.override({layer: method}).save(path)"
        )
    return body
