"""The method `amx`: dense float32 convolution on AMX tiles."""

from __future__ import annotations

from torch import Tensor

from jsc import _config, _precision
from jsc._geometry import ConvGeometry
from jsc.methods.base import Convolution, Method, map_bytes
from jsc.ops import amx


class Amx(Method):
    name = "amx"

    def available(self) -> bool:
        return _config.amx()

    def unsupported(self, g: ConvGeometry) -> str | None:
        return amx.unsupported(g)

    def accepts(self, weight: Tensor) -> bool:
        return amx.takes(weight)

    def pack(self, weight: Tensor, g: ConvGeometry) -> Tensor:
        return amx.pack(weight, g)

    def prepare(self, packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> Convolution:
        return amx.Convolution(packed, bias, g)

    def cost(self, g: ConvGeometry, density: float) -> float:
        """Six products on tiles (at tf32 three, at bf16 one), which few channels do not fill, and
        one pass that splits the input."""
        products = _precision.PRODUCTS[_precision.of_convolutions()]
        return products / 6 * (0.4 + 3 / max(g.C, 1)) * g.macs + 20 * g.N * g.C * g.H * g.W

    def stored_bytes(self, input: Tensor, g: ConvGeometry) -> int:
        """The map, and three bfloat16 numbers for each element of the bands worked on."""
        return map_bytes(input) + min(6 * input.numel(), amx.SHARED_BYTES)
