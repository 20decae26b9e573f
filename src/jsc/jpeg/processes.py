"""Sums over a data set by one process, or by all of `torch.distributed`, with the same bits.

Each process computes one batch, then all of them exchange what they found and add it up in the
order of the batches. So there is one order of additions for any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple, get_args

import torch
import torch.distributed as dist
from torch import Tensor

from jsc import _checks
from jsc._progress import Progress
from jsc.typing import Processes


class Part(NamedTuple):
    """What one batch adds."""

    total: Tensor
    images: int
    blocks: int


def summed(
    what: str,
    loader: Iterable[Any],
    of: Callable[[Any], Part],
    max_images: int | None,
    processes: Processes,
    progress: bool,
) -> Part:
    """The sum of `of(batch)` until there are `max_images`. Raises ValueError without images."""
    if max_images is not None and (not _checks.is_whole(max_images) or max_images < 1):
        raise ValueError(
            f"max_images must be None or an int of at least 1, got {_checks.shown(max_images)}"
        )
    if processes not in get_args(Processes):
        raise ValueError(
            f"processes must be one of {', '.join(get_args(Processes))}; "
            f"got {_checks.shown(processes)}"
        )
    together = processes != "alone" and dist.is_available() and dist.is_initialized()
    rank, count = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)
    batches = islice(loader, rank, None, count) if processes == "share" else iter(loader)
    total = torch.zeros(3, 8, 8, dtype=torch.float64, device="cpu")  # whatever the default is
    images = blocks = 0
    with Progress(what, _length(loader, processes, count), enabled=progress and rank == 0) as bar:
        for parts in _rounds(batches, of, count):
            for part in parts:
                if max_images is not None and images >= max_images:
                    break
                total += part.total
                images, blocks = images + part.images, blocks + part.blocks
                bar.step(f"{images} images")
            if max_images is not None and images >= max_images:
                break
    if images == 0:
        raise ValueError("the loader gave no images")
    return Part(total, images, blocks)


def _length(loader: Iterable[Any], processes: Processes, count: int) -> int | None:
    """How many batches there are, where the loader knows; about as many in each process."""
    try:
        return len(loader) * (count if processes == "parts" else 1)  # type: ignore[arg-type]
    except TypeError:
        return None


def _rounds(batches: Iterator[Any], of: Callable[[Any], Part], count: int) -> Iterator[list[Part]]:
    """What each process found in its next batch, those without one left out; until all are done."""
    while True:
        mine = next(map(of, batches), None)
        found: list[Part | None] = [mine]
        if count > 1:
            found = [None] * count
            dist.all_gather_object(found, mine)
        parts = [part for part in found if part is not None]
        if not parts:
            return
        yield parts
