"""CPC, Compressed Pattern Channels, as a storage format."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jsc._geometry import ConvGeometry
from jsc.formats import _streams
from jsc.formats._streams import Pair
from jsc.ops import cpc


@dataclass(frozen=True, eq=False, repr=False)
class CPC(_streams.Format):
    """Activation maps as one bit per activation, and the non-zeros one after the other.

    That is ``4 density + 1/8`` bytes to a float32 activation, for any kernel: index positions of 64
    neighbours take one word, whatever the density. The method `cpc` multiplies from the same masks,
    with the values in place. :meth:`encode` makes one, :meth:`from_arrays` checks arrays from
    elsewhere. No gradient flows through a format.

    Attributes
    ----------
    DA : (nonzeros,) float32 or float64
        The values: pixel by pixel, channels ascending.
    masks : (N, ceil(C / 64), H, W) uint64
        Bit b of set s says whether channel 64 s + b is not zero.
    offsets : (N H + 1,) int64
        Where each row of pixels begins in DA.
    """

    DA: Tensor
    masks: Tensor
    offsets: Tensor
    geometry: ConvGeometry

    @classmethod
    def encode(
        cls, x: Tensor, kernel_size: Pair, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1
    ) -> CPC:
        """Compress `x`, (N, C, H, W) float32 or float64 on the CPU.

        The convolution's arguments do not change what is stored, only what it is compared with
        (`compression_ratio`). NaN is a non-zero, -0.0 is a zero.

        Raises TypeError for anything but such a tensor, ValueError when the kernel does not fit.
        """
        _streams.require_map(x)
        g = _streams.geometry(x.shape, kernel_size, stride, padding, dilation, pointers=False)
        return cls(*cpc.encode(x), g)

    @classmethod
    def from_arrays(
        cls, DA: Tensor, masks: Tensor, offsets: Tensor, shape: tuple[int, int, int, int],
        kernel_size: Pair, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1,
    ) -> CPC:  # fmt: skip
        """A CPC of arrays made elsewhere, checked completely. Raises TypeError or ValueError."""
        g = _streams.geometry(shape, kernel_size, stride, padding, dilation, pointers=False)
        made = cls(DA, masks, offsets, g)
        made.decode()
        return made

    def decode(self) -> Tensor:
        """The map, (N, C, H, W) channels-last, zero where nothing is stored.

        The arrays are checked on the way: ValueError where they contradict each other or the shape.
        """
        g = _streams.checked(self.geometry, pointers=False)
        _streams.require_map(self.DA)
        _streams.require_array(self.DA, "DA", self.DA.dtype, 1)
        _streams.require_array(self.masks, "masks", torch.uint64, 4)
        expected = (g.N, -(-g.C // cpc.SET), g.H, g.W)
        if tuple(self.masks.shape) != expected:
            raise ValueError(f"masks must be {expected}, got {tuple(self.masks.shape)}")
        _streams.require_offsets(self.offsets, "offsets", g.N * g.H, len(self.DA), "DA")
        occupied = cpc.occupied(self.masks)
        if bool(occupied[..., g.C :].any()):
            raise ValueError(f"masks have bits behind channel {g.C - 1}, the last one")
        if not torch.equal(occupied.sum((2, 3)).view(-1), self.offsets.diff()):
            raise ValueError("masks and offsets count different numbers of non-zeros in a row")
        return cpc.decode(self.DA, occupied[..., : g.C])

    @property
    def elements(self) -> int:
        """Stored elements in the paper's measure, each counting one: values, masks, offsets."""
        return self.DA.numel() + self.masks.numel() + self.offsets.numel()
