"""CPO, Compressed Pattern Overlap."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jsc._geometry import ConvGeometry
from jsc.formats import _streams
from jsc.formats._streams import Pair
from jsc.ops import column_order, cpo


@dataclass(frozen=True, eq=False, repr=False)
class CPO(_streams.Format):
    """Activation maps, every non-zero stored once, in the order in which a convolution meets them.

    A column of the padded map is read by 1, 2, ... output windows: its *pattern*. Columns are
    stored by pattern, then by the leftmost window that reads them, from left to right, and each
    from top to bottom. The arrays of the channels (image by image) follow one another.

    IN and Ptr are uint16 where the shape lets them fit, else int32. An all-zero channel costs its
    offset. :meth:`encode` makes one, :meth:`from_arrays` checks arrays from elsewhere. Encoding
    is one pass and needs room for a full map meanwhile; no gradient flows through a format.

    Source: Amer et al., arXiv 2104.08314, extended to any stride, padding, dilation and narrow
    maps.

    Attributes
    ----------
    DA : (nonzeros,) float32 or float64
        The values.
    IN : (nonzeros,)
        ``i Kw + c``: padded row i, kernel column c in the leftmost window.
    Ptr : (channels that are not all zero, entries)
        For every pattern and window, the non-zeros of the pattern before it. A pattern that only
        the two outermost windows have keeps three entries.
    offsets : (N C + 1,) int64
        Where each channel begins in DA and IN.
    """

    DA: Tensor
    IN: Tensor
    Ptr: Tensor
    offsets: Tensor
    geometry: ConvGeometry

    @classmethod
    def encode(
        cls, x: Tensor, kernel_size: Pair, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1
    ) -> CPO:
        """Compress `x`, (N, C, H, W) float32 or float64 on the CPU, for a convolution.

        Elements that no window reads (a stride wider than the kernel leaves some) are not stored.
        NaN is a non-zero, -0.0 is a zero.

        Raises TypeError for anything but such a tensor, ValueError when the kernel does not fit.
        """
        _streams.require_map(x)
        g = _streams.geometry(x.shape, kernel_size, stride, padding, dilation)
        DA, IN, Ptr, offsets = map(torch.from_numpy, cpo.encode(x, column_order.column_plan(g)))
        return cls(DA, IN, Ptr, offsets, g)

    @classmethod
    def from_arrays(
        cls, DA: Tensor, IN: Tensor, Ptr: Tensor, offsets: Tensor, shape: tuple[int, int, int, int],
        kernel_size: Pair, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1,
    ) -> CPO:  # fmt: skip
        """A CPO of arrays made elsewhere, checked completely. Raises TypeError or ValueError."""
        made = cls(
            DA, IN, Ptr, offsets, _streams.geometry(shape, kernel_size, stride, padding, dilation)
        )
        made.decode()
        return made

    def decode(self) -> Tensor:
        """The map, (N, C, H, W), zero where nothing is stored.

        The arrays are checked on the way: ValueError where they contradict each other or the shape.
        """
        g = _streams.checked(self.geometry)
        plan = column_order.column_plan(g)
        _streams.require_map(self.DA)
        _streams.require_array(self.DA, "DA", self.DA.dtype, 1)
        _streams.require_array(self.IN, "IN", _streams.index_dtype(plan), 1)
        if len(self.IN) != len(self.DA):
            raise ValueError(
                f"IN must have an entry for each of the {len(self.DA)} values, got {len(self.IN)}"
            )
        _streams.require_offsets(self.offsets, "offsets", g.N * g.C, len(self.DA), "DA")
        _streams.require_ptr(self.Ptr, plan, self.offsets)
        shape = (g.N, g.C, g.H, g.W)
        x, bad = column_order.decode(
            self.DA, self.IN, self.Ptr, self.offsets, self.offsets, shape, plan
        )
        if bad >= 0:
            raise _streams.malformed("CPO", bad, g.C)
        return x

    @property
    def elements(self) -> int:
        """Stored elements in the paper's measure: #DA + #IN + #Ptr, each counting one."""
        return self.DA.numel() + self.IN.numel() + self.Ptr.numel()
