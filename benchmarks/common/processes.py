"""A benchmark as several processes that `torchrun` started, on one machine or on many.

    torchrun --nproc-per-node 4 -m benchmarks NAME ...

Each process takes its share of what is independent, then all exchange what they found; the first
one writes. Nothing here does anything where there is one process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

T = TypeVar("T")
LONGEST = timedelta(
    days=7
)  # that a process waits for one with more to do; torch's own is half an hour


@contextmanager
def joined() -> Iterator[None]:
    """With the other processes of `torchrun`, if there are any."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    dist.init_process_group("gloo", timeout=LONGEST)
    try:
        yield
    finally:
        dist.destroy_process_group()


def place() -> tuple[int, int]:
    """The number of this process and how many there are: (0, 1) where it is alone."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def first() -> bool:
    """Whether this is the process that writes."""
    return place()[0] == 0


def share(items: Sequence[T]) -> list[T]:
    """Every count-th of `items`: those of this process."""
    rank, count = place()
    return list(items[rank::count])


def gathered(value: Any) -> list[Any]:
    """The `value` of each process, in order, in all of them."""
    count = place()[1]
    found = [value] * count
    if count > 1:
        dist.all_gather_object(found, value)
    return found


def merged(parts: Sequence[T]) -> list[T]:
    """What each process made of its `share`, in the order of all items."""
    every = gathered(list(parts))
    rounds = max(len(found) for found in every)
    return [found[i] for i in range(rounds) for found in every if i < len(found)]
