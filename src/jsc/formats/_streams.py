"""What the column formats share: arguments, bookkeeping, and the checks of their arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jsc import _checks
from jsc._geometry import ConvGeometry
from jsc.ops import column_order
from jsc.ops.column_order import ColumnPlan

Pair = int | Sequence[int]


def geometry(
    shape: Sequence[int], kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair,
    *, pointers: bool = True,
) -> ConvGeometry:  # fmt: skip
    """The checked geometry of a map (N, C, H, W) under a kernel, for a format with `pointers` to
    the windows or without."""
    if len(shape) != 4 or min(shape) < 0:
        raise ValueError(
            f"the map must be (N, C, H, W), got shape {tuple(shape)}; "
            "unsqueeze(0) makes a batch of one"
        )
    kernel, strides = _checks.pair(kernel_size, "kernel_size", 1), _checks.pair(stride, "stride", 1)
    paddings, dilations = _checks.pair(padding, "padding", 0), _checks.pair(dilation, "dilation", 1)
    N, C, H, W = shape
    g = ConvGeometry(N, C, H, W, 1, *kernel, *strides, *paddings, *dilations)
    if g.Oh < 1 or g.Ow < 1:
        raise ValueError(
            f"kernel_size {kernel} with dilation {dilations} does not fit into the padded map "
            f"({g.H + 2 * g.Ph}, {g.W + 2 * g.Pw}); pad more or use a smaller kernel"
        )
    if reason := column_order.unsupported(g):
        raise ValueError(f"{reason}; cut the map into smaller ones")
    if pointers and column_order.pointer_entries(g) > 64 * g.H * g.W + 2**16:
        raise ValueError(
            f"a channel of {g.H} x {g.W} has {g.Oh} x {g.Ow} windows with padding {paddings}: "
            f"most would see nothing, and Ptr would have {column_order.pointer_entries(g)} entries "
            "for it; pad less"
        )
    if 0 in shape and N * max(C, H) > 2**24:
        raise ValueError(
            f"a map of shape {tuple(shape)} has no elements, and offsets for {N * max(C, H)} "
            "channels or rows; take a batch with elements"
        )
    return g


def checked(g: ConvGeometry, *, pointers: bool = True) -> ConvGeometry:
    """The same geometry; ValueError or TypeError if it was made up by hand and makes no sense."""
    kernel, stride, padding = (g.Kh, g.Kw), (g.Sh, g.Sw), (g.Ph, g.Pw)
    shape, dilation = (g.N, g.C, g.H, g.W), (g.Dh, g.Dw)
    return geometry(shape, kernel, stride, padding, dilation, pointers=pointers)


def require_map(x: Tensor) -> None:
    _checks.require_tensor(x, "x")
    _checks.require_kernel_dtype(x, "x")
    if x.device.type != "cpu":
        raise ValueError(f"x must be on the CPU, got {x.device}; call x.cpu()")


def require_array(value: Tensor, name: str, dtype: torch.dtype, ndim: int) -> None:
    _checks.require_tensor(value, name)
    if value.dtype != dtype:
        raise TypeError(f"{name} must be {dtype} for this shape, got {value.dtype}")
    if value.ndim != ndim or not value.is_contiguous() or value.device.type != "cpu":
        raise ValueError(
            f"{name} must be a contiguous {ndim}-D tensor on the CPU, "
            f"got shape {tuple(value.shape)} on {value.device}"
        )


def index_dtype(plan: ColumnPlan) -> torch.dtype:
    return torch.int32 if plan.wide else torch.uint16


def require_offsets(offsets: Tensor, name: str, planes: int, length: int, of: str) -> None:
    """`planes` + 1 places, ascending from 0 to `length`."""
    require_array(offsets, name, torch.int64, 1)
    places = offsets.numpy()
    if len(places) != planes + 1:
        raise ValueError(f"{name} must have N * C + 1 = {planes + 1} entries, got {len(places)}")
    if places[0] != 0 or places[-1] != length or bool((np.diff(places) < 0).any()):
        raise ValueError(f"{name} must ascend from 0 to {length}, the length of {of}")


def require_ptr(Ptr: Tensor, plan: ColumnPlan, offsets: Tensor) -> None:
    require_array(Ptr, "Ptr", index_dtype(plan), 2)
    stored = int(np.count_nonzero(np.diff(offsets.numpy())))
    if tuple(Ptr.shape) != (stored, plan.entries):
        raise ValueError(
            f"Ptr must be ({stored}, {plan.entries}), a row for each channel that is not all zero, "
            f"got {tuple(Ptr.shape)}"
        )


def malformed(kind: str, plane: int, channels: int) -> ValueError:
    return ValueError(
        f"the {kind} arrays of image {plane // channels}, channel {plane % channels} contradict "
        f"each other or the shape; {kind}.encode makes valid ones"
    )


class Format(ABC):
    """What each format says of itself; a dataclass of tensors, `DA` the first, and `geometry`."""

    DA: Tensor
    geometry: ConvGeometry

    def __post_init__(self) -> None:
        """Arrays are read by their memory: no gradients, no negation that is yet to be done."""
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                object.__setattr__(self, field.name, value.detach().resolve_neg())

    def _arrays(self) -> list[Tensor]:
        held = (getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]
        return [value for value in held if isinstance(value, Tensor)]

    @property
    @abstractmethod
    def elements(self) -> int:
        """Stored elements in the paper's measure."""

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, offsets too."""
        return sum(a.numel() * a.element_size() for a in self._arrays())

    @property
    def compression_ratio(self) -> float:
        """Elements of the im2col matrix for each of `elements` (inf for an all-zero map)."""
        g = self.geometry
        dense = g.N * g.C * g.Oh * g.Ow * g.Kh * g.Kw
        return dense / self.elements if self.elements else float("inf")

    def __repr__(self) -> str:
        g = self.geometry
        size = g.N * g.C * g.H * g.W
        density = len(self.DA) / size if size else 0.0
        return (
            f"{type(self).__name__}({g.N} x {g.C} x {g.H} x {g.W}, kernel {g.Kh} x {g.Kw}, "
            f"density {density:.3f}, {self.elements} elements, {self.nbytes} bytes, "
            f"{self.compression_ratio:.2f} x smaller than im2col)"
        )

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, Format) or type(self) is not type(other):
            return NotImplemented
        pairs = zip(self._arrays(), other._arrays(), strict=True)
        return self.geometry == other.geometry and all(torch.equal(a, b) for a, b in pairs)

    __hash__ = None  # type: ignore[assignment]
