"""The measure of `growth`: by how much the memory of this process grows over many calls."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

LIMIT = 256 * 1024
CALLS = 20_000
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Path:
    call: Callable[[], object]
    calls: int = CALLS


Paths = dict[str, Callable[[], Path]]


def into(paths: Paths) -> Callable[[Callable[[], Path]], Callable[[], Path]]:
    """A decorator: the function makes the path of its name."""

    def add(function: Callable[[], Path]) -> Callable[[], Path]:
        paths[function.__name__.replace("_", " ")] = function
        return function

    return add


def resident() -> int:
    """Bytes of this process in memory, what Python and the allocator could give back given back."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # a libc other than glibc
        ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE


def growth(made: Path, calls: int | None = None) -> int:
    """Bytes by which memory grew over the calls, behind a fifth of as many that warm up."""
    calls = made.calls if calls is None else min(calls, made.calls)
    for _ in range(max(50, calls // 5)):
        made.call()
    before = resident()
    for _ in range(calls):
        made.call()
    return resident() - before


def refused(kinds: tuple[type[Exception], ...], *calls: Callable[[], object]) -> Callable[[], None]:
    """Each call has to raise one of `kinds`."""

    def call() -> None:
        for one in calls:
            with contextlib.suppress(*kinds):
                one()
                raise AssertionError("this call was to be refused")

    return call


def numbers(*shape: int) -> torch.Tensor:
    return torch.relu(torch.randn(shape))


def shuffled(sides: range) -> Iterator[tuple[int, int]]:
    """Every size of these sides, again and again: the largest first, then in no order."""
    sizes = list(itertools.product(sides, repeat=2))
    order = sizes[1:]
    random.Random(0).shuffle(order)
    return itertools.cycle([sizes[0], *order])


def without_gradients(call: Callable[[], object]) -> Callable[[], object]:
    return torch.no_grad()(call)
