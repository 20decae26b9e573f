"""The order of columns that CPO and CPS share, and their encoding.

Which output windows read a column, and through which kernel column, depend on the shape alone; the
plan holds this once per shape (definitions: native/columns.h).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jsc import _config
from jsc._geometry import ConvGeometry
from jsc._kernels import columns
from jsc.ops._scratch import scratch

SET_ROWS = 4  # rows to a set of CPS
ROOM = 16  # elements behind a plane's streams (native/columns.h)
ROWS = 64  # to a row mask


@dataclass(frozen=True, eq=False)
class ColumnPlan:
    H: int
    W: int
    Kw: int
    Ph: int
    patterns: int
    wide: bool  # indices need 32 bits
    column: NDArray[np.int32]  # (columns,) in stream order
    kernel_column: NDArray[np.int32]  # (columns,) the one through which the leftmost window reads
    rank: NDArray[np.int32]  # (columns,) place within its group (same pattern and leftmost window)
    ptr_first: NDArray[np.int32]  # (entries,) Ptr[e] counts columns ptr_first[e] .. ptr_last[e]
    ptr_last: NDArray[np.int32]

    @cached_property
    def table(self) -> NDArray[np.int32]:
        """All arrays in one, for the kernels."""
        return np.concatenate(
            [self.column, self.kernel_column, self.rank, self.ptr_first, self.ptr_last]
        )

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        return self.H, self.W, self.Kw, self.Ph, len(self.column), len(self.ptr_first)

    @property
    def columns(self) -> int:
        return len(self.column)

    @property
    def entries(self) -> int:
        return len(self.ptr_first)

    @property
    def index_dtype(self) -> type[np.generic]:
        return np.int32 if self.wide else np.uint16


def _windows(j: int, g: ConvGeometry) -> list[tuple[int, int]]:
    """The windows s that read padded column j = s Sw + c Dw, ascending, with their c."""
    reads = ((j - c * g.Dw, c) for c in reversed(range(g.Kw)))
    return [(r // g.Sw, c) for r, c in reads if r >= 0 and r % g.Sw == 0 and r // g.Sw < g.Ow]


def column_plan(g: ConvGeometry, *, sets: bool = False) -> ColumnPlan:
    """The plan of a shape, for CPO or (sets) CPS."""
    return _plan(g.H, g.W, g.Kw, g.Sw, g.Ph, g.Pw, g.Dw, g.Ow, sets)


@lru_cache(maxsize=256)
def _plan(
    H: int, W: int, Kw: int, Sw: int, Ph: int, Pw: int, Dw: int, Ow: int, sets: bool
) -> ColumnPlan:
    g = ConvGeometry(1, 1, H, W, 1, 1, Kw, 1, Sw, Ph, Pw, 1, Dw)
    read = [(j, _windows(j, g)) for j in range(W + 2 * Pw)]
    read = [(j, windows) for j, windows in read if windows]
    patterns = max((len(windows) for _, windows in read), default=0)
    edge = [w[0][0] for _, w in read if len(w) == 1]

    order: list[tuple[int, int]] = []
    ranks: list[int] = []
    first: list[int] = []
    last: list[int] = []
    for p in range(1, patterns + 1):
        base, ends = len(order), [len(order)]
        for s in range(Ow):
            group = [
                (j - Pw, w[0][1])
                for j, w in read
                if len(w) == p and w[0][0] == s and 0 <= j - Pw < W
            ]
            order += group
            ranks += range(len(group))
            ends.append(len(order))
        # The authors keep three entries of the pattern that only the two outermost windows have.
        if p == 1 and patterns > 1 and set(edge) <= {0, Ow - 1}:
            ends = [ends[0], ends[1], ends[-1]]
        first += [base] * len(ends)
        last += ends

    largest = max(ranks, default=0) * -(-H // SET_ROWS) + -(-H // SET_ROWS)
    code = largest * 2**SET_ROWS if sets else (H + Ph) * Kw
    return ColumnPlan(
        H, W, Kw, Ph, patterns, max(code, H * W + 1) > 2**16,
        np.array([j for j, _ in order], np.int32), np.array([c for _, c in order], np.int32),
        np.array(ranks, np.int32), np.array(first, np.int32), np.array(last, np.int32),
    )  # fmt: skip


class Streams(NamedTuple):
    """Compressed planes, each in a region of its own: DA and IN are (planes, room) arrays."""

    DA: NDArray[np.floating]
    IN: NDArray[np.generic]
    start: NDArray[np.int32]  # (planes, columns + 1) where columns begin in DA
    word: NDArray[np.int32]  # the same for IN; `start` where IN has one entry for each value
    rows: NDArray[np.uint64]  # (planes, columns * words) row masks, (0, 0) where not wanted


class Kernels(Protocol):
    """The module of a format's kernels."""

    def encode_planes(self, *arrays: Any) -> None: ...
    def encode_pixels(self, *arrays: Any) -> None: ...


Arrays = dict[str, tuple[Any, tuple[int, ...]]]  # name: dtype, shape


def regions(plan: ColumnPlan, planes: int, dtype: Any, *, sets: bool, rows: bool) -> Arrays:
    """The arrays of `Streams`. A region has room for a full plane; memory that is not written is
    not touched either."""
    index_room = -(-plan.H // SET_ROWS) * plan.W if sets else plan.H * plan.W
    made: Arrays = {
        "DA": (dtype, (planes, -(-plan.H * plan.W // ROOM) * ROOM + ROOM)),
        "IN": (plan.index_dtype, (planes, -(-index_room // ROOM) * ROOM + ROOM)),
        "start": (np.int32, (planes, plan.columns + 1)),
        "rows": (np.uint64, (planes, plan.columns * -(-plan.H // ROWS)) if rows else (0, 0)),
    }
    if sets:
        made["word"] = made["start"]
    return made


def transposed(plan: ColumnPlan, threads: int) -> tuple[int, int]:
    """Scratch of an encoding: a whole plane by columns, for each thread."""
    return threads, -(-plan.H // ROOM) * ROOM * -(-plan.W // ROOM) * ROOM


def encode_into(
    streams: Streams, x: Tensor, plan: ColumnPlan, kernels: Kernels, work: NDArray[Any],
    threads: int,
) -> None:  # fmt: skip
    """(N, C, H, W) of any strides -> `streams`, in one pass."""
    if not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        kernel, maps = kernels.encode_pixels, x.permute(0, 2, 3, 1).numpy()
    else:
        kernel, maps = kernels.encode_planes, x.contiguous().view(-1, *x.shape[2:]).numpy()
    DA, IN, start, word, rows = streams
    words = () if word is start else (word,)
    index = IN.view(np.uint8)
    kernel(maps, plan, start, *words, DA, index, rows, work, _config.isa(), threads)


def encode(
    x: Tensor, plan: ColumnPlan, kernels: Kernels, *, sets: bool = False, for_now: bool = False
) -> Streams:
    """(N, C, H, W) -> streams. `for_now`: in scratch memory, with row masks, as a convolution has
    them."""
    x = x.detach()
    threads, dtype = _config.num_threads(x.numel()), x.new_empty(0).numpy().dtype
    wanted = regions(plan, x.shape[0] * x.shape[1], dtype, sets=sets, rows=for_now)
    made: dict[str, NDArray[Any]] = {
        name: scratch(f"columns {name}", kind, *shape) if for_now else np.empty(shape, kind)
        for name, (kind, shape) in wanted.items()
    }
    start = made["start"]
    streams = Streams(made["DA"], made["IN"], start, made.get("word", start), made["rows"])
    if x.numel():
        work = scratch("columns transposed", dtype, *transposed(plan, threads))
        encode_into(streams, x, plan, kernels, work, threads)
    return streams


def gather(
    regions: NDArray[Any], places: NDArray[np.int32]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """One stream after the other from regions, and where each begins (planes + 1)."""
    offsets = np.zeros(len(places) + 1, np.int64)
    np.cumsum(places[:, -1], out=offsets[1:])
    stream = np.empty(int(offsets[-1]), regions.dtype)
    columns.gather(
        regions.view(np.uint8), offsets * regions.itemsize, stream.view(np.uint8),
        _config.num_threads(stream.nbytes),
    )  # fmt: skip
    return stream, offsets


def pointers(start: NDArray[np.int32], plan: ColumnPlan) -> NDArray[np.generic]:
    """Ptr: a row for every plane that is not all zero."""
    stored = start[start[:, -1] > 0]
    counts = stored[:, plan.ptr_last] - stored[:, plan.ptr_first]
    return counts.astype(plan.index_dtype, order="C")


def unsupported(g: ConvGeometry) -> str | None:
    """Why this shape cannot run: places within a channel are 32-bit numbers."""
    if (g.H + g.Ph) * max(g.W, g.Kw) * 4 >= 2**31:
        return f"a channel of {g.H} x {g.W} with {g.Kh} x {g.Kw} kernels overflows 32-bit places"
    return None
