"""The methods `cpo` and `cps`: the input compressed by columns, and multiplied from there."""

from __future__ import annotations

from torch import Tensor

from jsc import formats
from jsc._geometry import ConvGeometry
from jsc.methods.base import Convolution, Method
from jsc.ops import columns, cpc, cpo, cps


class _ByColumns(Method):
    sparse = True
    slow_to_count = True

    def unsupported(self, g: ConvGeometry) -> str | None:
        return columns.unsupported(g)

    def pack(self, weight: Tensor, g: ConvGeometry) -> Tensor:
        return cpc.pack(weight, g)


def _window(g: ConvGeometry) -> tuple[tuple[int, int], ...]:
    return (g.Kh, g.Kw), (g.Sh, g.Sw), (g.Ph, g.Pw), (g.Dh, g.Dw)


class Cpo(_ByColumns):
    name = "cpo"

    def prepare(self, packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> Convolution:
        return cpo.prepare(packed, bias, g)

    def stored_bytes(self, input: Tensor, g: ConvGeometry) -> int:
        return int(formats.CPO.encode(input, *_window(g)).nbytes)


class Cps(_ByColumns):
    name = "cps"

    def prepare(self, packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> Convolution:
        return cps.prepare(packed, bias, g)

    def stored_bytes(self, input: Tensor, g: ConvGeometry) -> int:
        return int(formats.CPS.encode(input, *_window(g)).nbytes)
