"""CPS, Compressed Pattern Sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from jsc._geometry import ConvGeometry
from jsc.formats import _streams
from jsc.formats._streams import Pair
from jsc.ops import column_order, cps

# Words the paper's form spends on a set, by its pattern: one or two positions, or (prefix, mask).
_PAPER_WORDS = np.array([min(bin(pattern).count("1"), 2) for pattern in range(16)])


@dataclass(frozen=True, eq=False, repr=False)
class CPS(_streams.Format):
    """CPO with a shorter index stream: one word for up to four non-zeros below each other.

    Values and Ptr are those of :class:`CPO`. The rows of a column are cut into sets of four (rows
    0-3, 4-7, ... of the map without padding), and each set that is not empty has one word.

    IN and Ptr are uint16 where the shape lets them fit, else int32. An all-zero channel costs its
    offsets. :meth:`encode` makes one, :meth:`from_arrays` checks arrays from elsewhere. Encoding
    is one pass and needs room for a full map meanwhile; no gradient flows through a format.

    Source: Amer et al., arXiv 2104.08314; the paper's index stream cannot be decoded without a
    flag, this one delimits itself and is never longer (`elements` counts the paper's,
    `packed_elements` this).

    Attributes
    ----------
    DA : (nonzeros,) float32 or float64
        The values in the order of CPO.
    IN : (sets that are not empty,)
        ``set << 4 | pattern``: bit r of the pattern says that row r of the set is not zero, its bit
        count how many values the word stands for. Sets are numbered from the top of the first
        column that shares pattern and leftmost window.
    Ptr : (channels that are not all zero, entries)
        As in CPO.
    offsets, set_offsets : (N C + 1,) int64
        Where each channel begins in DA and in IN.
    """

    DA: Tensor
    IN: Tensor
    Ptr: Tensor
    offsets: Tensor
    set_offsets: Tensor
    geometry: ConvGeometry

    @classmethod
    def encode(
        cls, x: Tensor, kernel_size: Pair, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1
    ) -> CPS:
        """Compress `x`, (N, C, H, W) float32 or float64 on the CPU, for a convolution.

        Elements that no window reads (a stride wider than the kernel leaves some) are not stored.
        NaN is a non-zero, -0.0 is a zero.

        Raises TypeError for anything but such a tensor, ValueError when the kernel does not fit.
        """
        _streams.require_map(x)
        g = _streams.geometry(x.shape, kernel_size, stride, padding, dilation)
        DA, IN, Ptr, offsets, set_offsets = map(
            torch.from_numpy, cps.encode(x, column_order.column_plan(g, sets=True))
        )
        return cls(DA, IN, Ptr, offsets, set_offsets, g)

    @classmethod
    def from_arrays(
        cls, DA: Tensor, IN: Tensor, Ptr: Tensor, offsets: Tensor, set_offsets: Tensor,
        shape: tuple[int, int, int, int],
        kernel_size: Pair, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1,
    ) -> CPS:  # fmt: skip
        """A CPS of arrays made elsewhere, checked completely. Raises TypeError or ValueError."""
        g = _streams.geometry(shape, kernel_size, stride, padding, dilation)
        made = cls(DA, IN, Ptr, offsets, set_offsets, g)
        made.decode()
        return made

    def decode(self) -> Tensor:
        """The map, (N, C, H, W), zero where nothing is stored.

        The arrays are checked on the way: ValueError where they contradict each other or the shape.
        """
        g = _streams.checked(self.geometry)
        plan = column_order.column_plan(g, sets=True)
        _streams.require_map(self.DA)
        _streams.require_array(self.DA, "DA", self.DA.dtype, 1)
        _streams.require_array(self.IN, "IN", _streams.index_dtype(plan), 1)
        _streams.require_offsets(self.offsets, "offsets", g.N * g.C, len(self.DA), "DA")
        _streams.require_offsets(self.set_offsets, "set_offsets", g.N * g.C, len(self.IN), "IN")
        _streams.require_ptr(self.Ptr, plan, self.offsets)
        if bool(((self.offsets.diff() == 0) & (self.set_offsets.diff() != 0)).any()):
            raise ValueError("set_offsets gives words to a channel that has no values")
        shape = (g.N, g.C, g.H, g.W)
        x, bad = column_order.decode(
            self.DA, self.IN, self.Ptr, self.offsets, self.set_offsets, shape, plan
        )
        if bad >= 0:
            raise _streams.malformed("CPS", bad, g.C)
        return x

    @property
    def elements(self) -> int:
        """Stored elements in the paper's measure, with its index stream: 1, 2, 2 or 2 words for a
        set of 1, 2, 3 or 4 non-zeros."""
        words = int(_PAPER_WORDS[self.IN.numpy() & 15].sum())
        return self.DA.numel() + words + self.Ptr.numel()

    @property
    def packed_elements(self) -> int:
        """Elements that are really stored: #DA + #IN + #Ptr."""
        return self.DA.numel() + self.IN.numel() + self.Ptr.numel()
