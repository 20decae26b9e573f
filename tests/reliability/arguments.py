"""What the tables of callables share: what a call is, and right arguments."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from jsc.methods import METHODS as METHODS

Arguments = dict[str, Any]


class Call(NamedTuple):
    """`run` takes what `good` makes. Slow calls come more seldom."""

    name: str
    good: Callable[[random.Random], Arguments]
    run: Callable[..., Any]
    weight: float = 1.0
    twin: Callable[..., Any] | None = None  # of torch's: what it raises may be raised here too


def rand(r: random.Random, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(
        shape, generator=torch.Generator().manual_seed(r.getrandbits(32)), dtype=dtype
    )


def sparse(r: random.Random, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    x = rand(r, *shape, dtype=dtype)
    return torch.where(x < r.choice([0.0, 0.5, 0.9, 1.0]), 0.0, x).to(dtype)


def some(r: random.Random, **optional: Any) -> Arguments:
    """Each of them given or left out."""
    return {name: value for name, value in optional.items() if r.random() < 0.4}


def dtype(r: random.Random) -> torch.dtype:
    return r.choice([torch.float32, torch.float32, torch.float64])
