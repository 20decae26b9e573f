"""The method `winograd`: dense float32 convolution by Winograd's minimal filtering."""

from __future__ import annotations

import torch
from torch import Tensor

from jsc._geometry import ConvGeometry
from jsc.methods.base import Convolution, Method, map_bytes
from jsc.ops import winograd


class Winograd(Method):
    name = "winograd"
    trains = True

    def unsupported(self, g: ConvGeometry) -> str | None:
        return winograd.unsupported(g)

    def accepts(self, weight: Tensor) -> bool:
        return weight.dtype == torch.float32 and super().accepts(weight)

    def pack(self, weight: Tensor, g: ConvGeometry) -> Tensor:
        return winograd.pack(weight, g)

    def prepare(self, packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> Convolution:
        return winograd.Convolution(packed, bias, g)

    def cost(self, g: ConvGeometry, density: float) -> float:
        return g.macs * winograd.cost(g, 2)

    def stored_bytes(self, input: Tensor, g: ConvGeometry) -> int:
        """The map: its tiles are transformed a task at a time."""
        return map_bytes(input)
