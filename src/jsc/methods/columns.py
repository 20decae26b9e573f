"""The methods `cpo` and `cps`: the input compressed by columns, and multiplied from there."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from jsc import formats
from jsc._geometry import ConvGeometry
from jsc.methods.base import Convolution, Method, padded_filters
from jsc.ops import column_order, cpc, cpo, cps


class _ByColumns(Method):
    sparse = True
    slow_to_count = True
    encode: ClassVar[float]  # multiply-adds that encoding one number of the input takes

    def unsupported(self, g: ConvGeometry) -> str | None:
        return column_order.unsupported(g)

    def pack(self, weight: Tensor, g: ConvGeometry) -> Tensor:
        return cpc.pack(weight, g)

    def cost(self, g: ConvGeometry, density: float) -> float:
        """The non-zeros, each in a scattered row of outputs, after encoding."""
        return (0.25 + 1.3 * density) * padded_filters(g) + self.encode * g.N * g.C * g.H * g.W


def _window(g: ConvGeometry) -> tuple[tuple[int, int], ...]:
    return (g.Kh, g.Kw), (g.Sh, g.Sw), (g.Ph, g.Pw), (g.Dh, g.Dw)


class Cpo(_ByColumns):
    name = "cpo"
    encode = 150.0

    def prepare(self, packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> Convolution:
        return cpo.prepare(packed, bias, g)

    def stored_bytes(self, input: Tensor, g: ConvGeometry) -> int:
        return int(formats.CPO.encode(input, *_window(g)).nbytes)


class Cps(_ByColumns):
    name = "cps"
    encode = 60.0

    def prepare(self, packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> Convolution:
        return cps.prepare(packed, bias, g)

    def stored_bytes(self, input: Tensor, g: ConvGeometry) -> int:
        return int(formats.CPS.encode(input, *_window(g)).nbytes)
