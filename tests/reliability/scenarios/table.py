"""The table of scenarios, which the modules beside this one fill, and what they share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

import jsc
from jsc.methods import available
from tests.reliability.races import Scenario

SIZES = [(8, 8), (21, 17), (40, 40), (5, 33), (12, 3), (30, 31)]
METHODS = [method for method in available() if method != "dense"]


@dataclass
class Entry:
    make: Callable[[], Scenario]
    weight: float  # share of the calls


SCENARIOS: dict[str, Entry] = {}


Maker = Callable[..., Scenario]


def scenario(name: str, weight: float, *arguments: object) -> Callable[[Maker], Maker]:
    def add(make: Maker) -> Maker:
        SCENARIOS[name] = Entry(partial(make, *arguments), weight)
        return make

    return add


def for_each(name: str, weight: float, values: list[object]) -> Callable[[Maker], Maker]:
    def add(make: Maker) -> Maker:
        for value in values:
            scenario(f"{name}, {value}", weight / len(values), value)(make)
        return make

    return add


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randint(-4, 5, shape).to(dtype)


def maps(channels: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [numbers(1, channels, *size, dtype=dtype).relu() for size in SIZES]


def layer(method: str, channels: int = 16, filters: int = 32, **options: object) -> nn.Module:
    module = jsc.nn.SparseConv2d(channels, filters, 3, padding=1, method=method, **options)
    for parameter in module.requires_grad_(False).parameters():
        parameter.copy_(numbers(*parameter.shape))
    return module.eval()


def of(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return F.conv2d(x, module.weight, module.bias, padding=1, groups=module.groups)


def images():
    return [torch.rand(1, 3, *size) for size in SIZES]


def close(a, b):
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-4)


class Shared:
    """A lock that readers share and a writer has alone."""

    def __init__(self) -> None:
        self._lock, self._readers, self._free = threading.Lock(), 0, threading.Condition()

    @contextmanager
    def read(self):
        with self._lock, self._free:
            self._readers += 1
        try:
            yield
        finally:
            with self._free:
                self._readers -= 1
                self._free.notify_all()

    @contextmanager
    def write(self):
        with self._lock, self._free:
            self._free.wait_for(lambda: self._readers == 0)
            yield
