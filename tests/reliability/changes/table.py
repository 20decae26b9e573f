"""The table of changes, which the modules beside this one fill."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

Change = Callable[[nn.Conv2d], nn.Module | None]
CHANGES: dict[str, Change] = {}


def change(function: Change) -> Change:
    CHANGES[function.__name__.replace("_", " ")] = function
    return function


def random_like(tensor: torch.Tensor) -> torch.Tensor:
    return torch.randn(tensor.shape, dtype=tensor.dtype)
