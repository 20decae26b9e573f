"""The methods `im2col` and `mec`: windows written out, then the library's matrix product."""

from __future__ import annotations

from torch import Tensor

from jsc._geometry import ConvGeometry
from jsc.methods.base import Convolution, Method
from jsc.ops import lowering


class Im2col(Method):
    """The matrix has every window: N C Kh Kw Oh Ow numbers."""

    name = "im2col"

    def unsupported(self, g: ConvGeometry) -> str | None:
        return lowering.im2col_unsupported(g)

    def pack(self, weight: Tensor, g: ConvGeometry) -> Tensor:
        return lowering.im2col_pack(weight, g)

    def prepare(self, packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> Convolution:
        return lambda input: lowering.im2col_run(input, packed, bias, g)

    def stored_bytes(self, input: Tensor, g: ConvGeometry) -> int:
        return input.element_size() * g.N * g.C * g.Kh * g.Kw * g.Oh * g.Ow


class Mec(Method):
    """The compact matrix has windows in one direction only: N C H' Kw Ow numbers, H' = H + 2 Ph."""

    name = "mec"

    def unsupported(self, g: ConvGeometry) -> str | None:
        return lowering.mec_unsupported(g)

    def pack(self, weight: Tensor, g: ConvGeometry) -> Tensor:
        return lowering.mec_pack(weight, g)

    def prepare(self, packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> Convolution:
        return lambda input: lowering.mec_run(input, packed, bias, g)

    def stored_bytes(self, input: Tensor, g: ConvGeometry) -> int:
        return input.element_size() * g.N * g.C * (g.H + 2 * g.Ph) * g.Kw * g.Ow
