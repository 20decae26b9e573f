"""The methods `im2col` and `mec`: windows written out, then the library's matrix product."""

from __future__ import annotations

from torch import Tensor

from jsc._geometry import ConvGeometry
from jsc.methods.base import Convolution, Method
from jsc.ops import lowering

WRITE = 50.0  # multiply-adds that writing one number of the matrix, and reading it again, takes


class Im2col(Method):
    """The matrix has every window: N C Kh Kw Oh Ow numbers."""

    name = "im2col"

    def pack(self, weight: Tensor, g: ConvGeometry) -> Tensor:
        return lowering.im2col_pack(weight, g)

    def prepare(self, packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> Convolution:
        return lambda input: lowering.im2col_run(input, packed, bias, g)

    def cost(self, g: ConvGeometry, density: float) -> float:
        return g.macs + _writing(g, _im2col_numbers(g))

    def stored_bytes(self, input: Tensor, g: ConvGeometry) -> int:
        return input.element_size() * _im2col_numbers(g)


class Mec(Method):
    """The compact matrix has windows in one direction only: N C H' Kw Ow numbers, H' = H + 2 Ph."""

    name = "mec"

    def unsupported(self, g: ConvGeometry) -> str | None:
        return lowering.mec_unsupported(g)

    def pack(self, weight: Tensor, g: ConvGeometry) -> Tensor:
        return lowering.im2col_pack(weight, g)

    def prepare(self, packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> Convolution:
        return lambda input: lowering.mec_run(input, packed, bias, g)

    def cost(self, g: ConvGeometry, density: float) -> float:
        return g.macs + _writing(g, _mec_numbers(g))

    def stored_bytes(self, input: Tensor, g: ConvGeometry) -> int:
        return input.element_size() * _mec_numbers(g)


def _im2col_numbers(g: ConvGeometry) -> int:
    return g.N * g.C * g.Kh * g.Kw * g.Oh * g.Ow


def _mec_numbers(g: ConvGeometry) -> int:
    return g.N * g.C * (g.H + 2 * g.Ph) * g.Kw * g.Ow


def _writing(g: ConvGeometry, numbers: int) -> float:
    """What the matrix costs; that of a 1x1 kernel is the channels-last map itself."""
    steps = (g.Kh, g.Kw, g.Sh, g.Sw, g.Ph, g.Pw)
    return 0.0 if steps == (1, 1, 1, 1, 0, 0) else WRITE * numbers
