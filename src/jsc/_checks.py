"""Guards of the public functions: what was expected, what was given, how to mend it."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from numbers import Real
from typing import Any, TypeGuard

import torch
from torch import Tensor

KERNEL_DTYPES = (torch.float32, torch.float64)
HALF_DTYPES = (torch.float16, torch.bfloat16)
MAX_STEP = 2**60  # of stride, padding, dilation: what is computed from them stays in 64 bits


def require_tensor(value: object, name: str) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} must be a torch.Tensor, got {type(value).__name__}; "
            "torch.as_tensor(...) makes one"
        )
    if value.layout != torch.strided:
        raise TypeError(
            f"{name} must be a dense (strided) tensor, got layout {value.layout}; call .to_dense()"
        )


def require_kernel_dtype(value: Tensor, name: str) -> None:
    if value.dtype not in KERNEL_DTYPES:
        raise TypeError(
            f"{name} must be float32 or float64, got {value.dtype}; convert it with {name}.float()"
        )


def require_same_dtype(value: Tensor, name: str, other: Tensor, other_name: str) -> None:
    if value.dtype != other.dtype:
        raise TypeError(
            f"{name} must have the dtype of {other_name}, got {value.dtype} and {other.dtype}; "
            f"convert one of them, for example {name}.to({other_name}.dtype)"
        )


def require_same_device(value: Tensor, name: str, other: Tensor, other_name: str) -> None:
    if value.device != other.device:
        raise ValueError(
            f"{name} must be on the device of {other_name}, got {value.device} and {other.device}; "
            f"move one of them, for example {name}.to({other_name}.device)"
        )


def as_computed(value: Tensor, name: str, or_bytes: bool = False) -> Tensor:
    """`value` in the precision that the JPEG layer computes in: half precision in float32, and
    8-bit images (where they may be given) as they are."""
    if value.dtype in HALF_DTYPES:
        return value.float()
    if value.dtype not in KERNEL_DTYPES and not (or_bytes and value.dtype == torch.uint8):
        floats = "float16, bfloat16, float32"
        known = f"{floats}, float64 or uint8" if or_bytes else f"{floats} or float64"
        raise TypeError(
            f"{name} must be {known}, got {value.dtype}; convert it with {name}.float()"
        )
    return value


def result_dtype(value: Tensor) -> torch.dtype:
    """That of `value`; but float32 for half precision inside an autocast region, as torch's own
    precision-sensitive operators return it there."""
    kind = value.device.type
    if value.dtype in HALF_DTYPES and torch.amp.is_autocast_available(kind):
        return torch.float32 if torch.is_autocast_enabled(kind) else value.dtype
    return value.dtype


def shown(value: object) -> str:
    """`value` for an error message: short, whatever it is."""
    try:
        text = repr(value)
    except Exception:  # an integer of thousands of digits, an object whose repr is broken
        return f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:76]} ..."


def is_whole(value: object) -> TypeGuard[int]:
    """Whether `value` is an integer of Python's, numpy's or a traced program's, and no bool."""
    if isinstance(value, (int, torch.SymInt)):
        return not isinstance(value, bool)
    return hasattr(value, "__index__") and not isinstance(value, Tensor)


def number(value: Any, name: str, kind: str = "a number") -> float:
    """`value`, a finite real number of Python's or numpy's, as a float."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Real)):
        raise TypeError(f"{name} must be {kind}, got {shown(value)}")
    try:
        found = float(value)
    except OverflowError:  # an int of hundreds of digits
        found = math.inf
    if not abs(found) < math.inf:
        raise ValueError(f"{name} must be finite, got {shown(value)}")
    return found


def pair(value: int | Sequence[int], name: str, minimum: int) -> tuple[int, int]:
    """`value` or (`value`, `value`), each an int of at least `minimum`.

    As torch does, it takes one number in a sequence, and whatever Python takes as an index.
    """
    both = tuple(value) if isinstance(value, Sequence) else (value,)
    if len(both) == 1:
        both *= 2
    if len(both) != 2 or not all(map(is_whole, both)):
        raise TypeError(f"{name} must be an int or a pair of ints, got {shown(value)}")
    first, second = (v if isinstance(v, torch.SymInt) else operator.index(v) for v in both)
    if first < minimum or second < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {shown(value)}")
    if first > MAX_STEP or second > MAX_STEP:
        raise ValueError(f"{name} must be at most {MAX_STEP}, got {shown(value)}")
    return first, second
