"""Hostile values: whatever a caller might put where a tensor, a number or an option is expected.

A plain seeded generator and not Hypothesis: a case must be made anew from its number alone (the
process that found a crash is gone), and a hundred thousand cases must cost less than their calls.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float64)
DTYPES = tuple(
    sorted({v for v in vars(torch).values() if isinstance(v, torch.dtype)}, key=str)
)  # all of this torch's
HUGE = 10**400


class Plain:
    """An object that means nothing to anybody."""


class Broken:
    """An object that cannot even be shown."""

    def __repr__(self) -> str:
        raise ValueError("this object has no repr")


class Wrapped(Tensor):
    """The plainest subclass of a tensor."""


def scalars() -> list[Any]:
    """Made anew each time, so that no call changes them for the next one."""
    return [
        None, True, False, 0, 1, -1, 2, 3, 7, 255, 2**14, 2**31 - 1, 2**31, 2**40, 2**62, 2**63,
        2**64, HUGE, -(2**63), -HUGE, 0.0, -0.0, 0.5, 1.0, -1.5, 1e-320, 1e-30, 1e30, 1.7e308,
        math.nan, math.inf, -math.inf, 1j, "", "abc", "soft", "same", "cpc", "\ud800", "x" * 5000,
        b"abc", (), (1,), [2, 2], (1, 2), (1, 2, 3), (0, 0), (-1, 2), (2**63, 1), (1.5, 2),
        ("a", "b"), [[1, 2], [3]], {}, {"a": 1},
        set(), range(3), Plain(), Broken(), Plain, len, np.float32(2), np.int64(3), np.uint8(200),
        np.zeros(3), np.array(1), np.array(["a"]), torch.Size([1, 2]), torch.float32, torch.strided,
        torch.tensor(3), torch.tensor(2.5), iter([1, 2]), slice(None), Ellipsis, NotImplemented,
    ]  # fmt: skip


def filled(rng: random.Random, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A contiguous tensor of any dtype with usual or unusual numbers."""
    generator = torch.Generator().manual_seed(rng.getrandbits(32))
    kind = rng.choice(["normal", "sparse", "zero", "integer", "unit", "special", "tiny", "large"])
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    if kind == "sparse":
        x = torch.relu(x - 0.5)
    elif kind == "zero":
        x = x * -0.0
    elif kind == "integer":
        x = (x * 3).round()
    elif kind == "unit":
        x = torch.sigmoid(x)
    elif kind == "special" and x.numel():
        where = torch.randint(x.numel(), (3,), generator=generator)
        x.view(-1)[where] = rng.choice([math.nan, math.inf, -math.inf, 3.4e38, 1e308])
    elif kind == "tiny":
        x = x * rng.choice([1e-310, 1e-40, 1e-20])
    elif kind == "large":
        x = x * rng.choice([1e6, 1e19, 1e37, 1e300])
    if dtype.is_floating_point or dtype.is_complex:
        return x.to(dtype)
    return torch.nan_to_num(x * 50, 0, 100, -100).clamp(-(2**30), 2**30).to(dtype)


def shape_beside(rng: random.Random, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Another shape: another rank, an empty axis, another size."""
    sizes = list(shape)
    kind = rng.randrange(6)
    if kind == 0 or not sizes:
        return tuple(rng.choice([0, 1, 2, 3, 5, 8]) for _ in range(rng.randrange(7)))
    at = rng.randrange(len(sizes))
    if kind == 1:
        sizes[at] = 0
    elif kind == 2:
        sizes.insert(at, rng.choice([1, 2]))
    elif kind == 3:
        del sizes[at]
    elif kind == 4:
        sizes[at] = max(0, sizes[at] + rng.choice([-1, 1]))
    else:
        sizes[at] = rng.choice([1, 8, 64, 257])
    return tuple(sizes)


def _expanded(rng: random.Random, x: Tensor) -> Tensor:
    return x[tuple(slice(0, 1) for _ in x.shape)].expand(x.shape)


def _astronomic(rng: random.Random, x: Tensor) -> Tensor:
    """One element seen as 2^40 and more of them."""
    sizes = [s or 1 for s in x.shape] or [1]
    sizes[rng.randrange(len(sizes))] = rng.choice([2**40, 2**62])
    return x.new_zeros((1,) * len(sizes)).expand(sizes)


def _overlapping(rng: random.Random, x: Tensor) -> Tensor:
    return x.new_zeros(sum(x.shape) + 1).as_strided(x.shape, (1,) * x.ndim)


def _strided(rng: random.Random, x: Tensor) -> Tensor:
    return torch.stack([x, x], -1)[..., 0]


def _offset(rng: random.Random, x: Tensor) -> Tensor:
    flat = torch.cat([x.new_zeros(1), x.reshape(-1)])
    return flat[1:].view(x.shape)


def _unaligned(rng: random.Random, x: Tensor) -> Tensor:
    data = bytearray(1) + bytearray(x.contiguous().numpy().tobytes()) + bytearray(8)
    return torch.frombuffer(data, dtype=x.dtype, count=x.numel(), offset=1).view(x.shape)


def _read_only(rng: random.Random, x: Tensor) -> Tensor:
    array = x.numpy().copy()
    array.flags.writeable = False
    return torch.from_numpy(array)


def _transposed(rng: random.Random, x: Tensor) -> Tensor:
    return x.transpose(-1, -2).contiguous().transpose(-1, -2)


def _inference(rng: random.Random, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return x.clone()


def _quantised(rng: random.Random, x: Tensor) -> Tensor:
    return torch.quantize_per_tensor(x.float(), 0.1, 3, torch.quint8)


LAYOUTS: dict[str, Callable[[random.Random, Tensor], Tensor]] = {
    "channels_last": lambda r, x: x.contiguous(memory_format=torch.channels_last),
    "transposed": _transposed,
    "expanded": _expanded,
    "astronomic": _astronomic,
    "overlapping": _overlapping,
    "strided": _strided,
    "offset": _offset,
    "unaligned": _unaligned,
    "read_only": _read_only,
    "grad": lambda r, x: x.requires_grad_(),
    "parameter": lambda r, x: torch.nn.Parameter(x),
    "intermediate": lambda r, x: x.requires_grad_() * 1,
    "inference": _inference,
    "negated": lambda r, x: torch._neg_view(x),
    "imaginary": lambda r, x: torch.complex(x, x).conj().imag,
    "conjugated": lambda r, x: torch.complex(x, x).conj(),
    "subclass": lambda r, x: x.as_subclass(Wrapped),
    "meta": lambda r, x: x.to("meta"),
    "sparse": lambda r, x: x.to_sparse(),
    "csr": lambda r, x: x.to_sparse_csr(),
    "mkldnn": lambda r, x: x.float().to_mkldnn(),
    "quantised": _quantised,
    "nested": lambda r, x: torch.nested.nested_tensor([x, x]),
    "numpy": lambda r, x: x.numpy(),
    "list": lambda r, x: x.tolist(),
}


def tensor_like(rng: random.Random, x: Tensor) -> Any:
    """A tensor that differs from `x` in shape, dtype, numbers or the way it lies in memory."""
    shape, dtype = tuple(x.shape), x.dtype
    if rng.random() < 0.35:
        shape = shape_beside(rng, shape)
    if rng.random() < 0.25:
        dtype = rng.choice(DTYPES)
    found: Any
    try:
        found = filled(rng, shape, dtype)
    except (RuntimeError, TypeError):  # this torch cannot make such a tensor
        found = filled(rng, shape, torch.float32)
    if rng.random() < 0.6:
        try:
            found = rng.choice(list(LAYOUTS.values()))(rng, found)
        except (RuntimeError, TypeError, ValueError, IndexError):  # nor such a layout of it
            return found
    return found


def hostile(rng: random.Random, good: Any) -> Any:
    """Something else in place of the argument `good`."""
    if isinstance(good, Tensor) and rng.random() < 0.85:
        return tensor_like(rng, good)
    if rng.random() < 0.1:
        return filled(rng, shape_beside(rng, (2, 2)), torch.float32)
    return rng.choice(scalars())


def shown(value: Any) -> str:
    """One argument in a line of a report."""
    if isinstance(value, Tensor):
        marks = (
            [f"strides {value.stride()}"] if value.layout == torch.strided else [str(value.layout)]
        )
        marks += [name for name in ("requires_grad", "is_meta") if getattr(value, name)]
        marks += [name for name in ("is_neg", "is_conj", "is_inference") if getattr(value, name)()]
        kind = type(value).__name__
        return f"{kind}({value.dtype} {tuple(value.shape)} {' '.join(marks)})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {shown(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__}({', '.join(map(shown, value[:8]))})"
    try:
        text = repr(value)
    except ValueError:
        return type(value).__name__
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:50]}...({len(text)} characters)"
