"""The method `dense`: torch's own convolution."""

from __future__ import annotations

import torch
from torch import Tensor

from jsc._geometry import ConvGeometry
from jsc.methods.base import Convolution, Method, map_bytes


class Dense(Method):
    name = "dense"

    def pack(self, weight: Tensor, g: ConvGeometry) -> Tensor:
        return weight.detach()

    def prepare(self, packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> Convolution:
        steps = (g.Sh, g.Sw), (g.Ph, g.Pw), (g.Dh, g.Dw)
        return lambda input: torch.conv2d(input, packed, bias, *steps)

    def cost(self, g: ConvGeometry, density: float) -> float:
        return float(g.macs)

    def stored_bytes(self, input: Tensor, g: ConvGeometry) -> int:
        return map_bytes(input)
