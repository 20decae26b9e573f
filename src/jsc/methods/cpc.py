"""The method `cpc`: channel bitmasks, and the register-tiled convolution over the non-zeros."""

from __future__ import annotations

from torch import Tensor

from jsc._geometry import ConvGeometry
from jsc.methods.base import Convolution, Method, map_bytes, padded_filters
from jsc.ops import cpc


class Cpc(Method):
    name = "cpc"
    sparse = True
    trains = True

    def pack(self, weight: Tensor, g: ConvGeometry) -> Tensor:
        return cpc.pack(weight, g)

    def prepare(self, packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> Convolution:
        return cpc.Convolution(packed, bias, g)

    def cost(self, g: ConvGeometry, density: float) -> float:
        """The non-zeros, some 17 % for finding them, and one pass that makes the masks."""
        return (0.17 + density) * padded_filters(g) + 10 * g.N * g.C * g.H * g.W

    def stored_bytes(self, input: Tensor, g: ConvGeometry) -> int:
        """The map, which the kernel reads in place, and a bit for each element beside it."""
        masks = g.groups * -(-g.C // (cpc.SET * g.groups))  # words of 64 channels
        return map_bytes(input) + 8 * g.N * masks * g.H * g.W
