"""Guards of the public functions: what was expected, what was given, how to mend it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

KERNEL_DTYPES = (torch.float32, torch.float64)
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


def autocast_to_float32(value: Tensor) -> Tensor:
    """Inside an autocast region half-precision tensors are computed in float32, as torch's own
    precision-sensitive operators are; outside of it they are an error (`require_kernel_dtype`)."""
    if value.dtype in (torch.bfloat16, torch.float16) and torch.is_autocast_enabled(
        value.device.type
    ):
        return value.float()
    return value


def pair(value: int | Sequence[int], name: str, minimum: int) -> tuple[int, int]:
    """`value` or (`value`, `value`), each an int of at least `minimum`."""
    both = (
        (value, value)
        if isinstance(value, int)
        else tuple(value)
        if isinstance(value, Sequence)
        else ()
    )
    if len(both) != 2 or not all(
        isinstance(v, (int, torch.SymInt)) and not isinstance(v, bool) for v in both
    ):
        raise TypeError(f"{name} must be an int or a pair of ints, got {value!r}")
    if min(both) < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value!r}")
    if max(both) > MAX_STEP:
        raise ValueError(f"{name} must be at most {MAX_STEP}, got {value!r}")
    return both
