"""The order of columns that CPO and CPS share, and their encoding.

Which output windows read a column, and through which kernel column, depend on the shape alone; the
plan holds this once per shape (definitions: _kernels/columns/columns.h).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import gcd
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jsc import _config
from jsc._geometry import ConvGeometry
from jsc._kernels.columns import columns
from jsc.ops._scratch import Booking

SET_ROWS = 4  # rows to a set of CPS
ROWS = 64  # to a row mask
KEPT_COLUMNS = 4096  # plans of wider maps are made anew: they would fill memory


@dataclass(frozen=True, eq=False)
class ColumnPlan:
    H: int
    W: int
    Kw: int
    Ph: int
    sets: bool  # of CPS
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


def column_plan(g: ConvGeometry, *, sets: bool = False, pointers: bool = True) -> ColumnPlan:
    """The plan of a shape, for CPO or (sets) CPS; a convolution needs no `pointers`."""
    make = _kept if g.W <= KEPT_COLUMNS else _plan
    return make(g.H, g.W, g.Kw, g.Sw, g.Ph, g.Pw, g.Dw, g.Ow, sets, pointers)


def _readers(
    W: int, Kw: int, Sw: int, Pw: int, Dw: int, Ow: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """For every column of the map: how many windows read it, the leftmost, and its kernel column.

    Window s reads padded column j = s Sw + c Dw through kernel column c. With Sw = a G, Dw = b G
    and a, b coprime, that is one residue of c modulo a, and each further window lies b to the
    right, its kernel column a to the left.
    """
    j = np.arange(W, dtype=np.int64) + Pw
    G = gcd(Sw, Dw)
    a, b = Sw // G, Dw // G
    inverse = pow(b, -1, a)
    if a < 2**31:
        residue = j // G % a * inverse % a
    else:  # products beyond 64 bits
        residue = np.array([k // G * inverse % a for k in range(Pw, Pw + W)], np.int64)
    least = np.maximum(0, -(((Ow - 1) * Sw - j) // Dw))
    most = np.minimum(Kw - 1, j // Dw)
    c = most - (most - residue) % a
    read = (j % G == 0) & (c >= least)
    c = np.where(read, c, 0)
    count = np.where(read, (c - least) // a + 1, 0)
    return count, (j - c * Dw) // Sw, c


def _patterns(Kw: int, Sw: int, Dw: int, Ow: int) -> tuple[int, bool]:
    """The largest number of windows that read a padded column, and whether columns with a single
    reader belong to the two outermost windows only. Window s, kernel column c and s + b, c - a read
    the same one."""
    a, b = Sw // gcd(Sw, Dw), Dw // gcd(Sw, Dw)
    inner = Ow > 2 and (b > 1 or Kw < 2 * a)
    return min(-(-Ow // b), -(-Kw // a)), not inner


def pointer_entries(g: ConvGeometry) -> int:
    """Entries of Ptr to a channel, at most."""
    return _patterns(g.Kw, g.Sw, g.Dw, g.Ow)[0] * (g.Ow + 1)


def _plan(
    H: int, W: int, Kw: int, Sw: int, Ph: int, Pw: int, Dw: int, Ow: int, sets: bool, pointers: bool
) -> ColumnPlan:
    count, window, kernel_column = _readers(W, Kw, Sw, Pw, Dw, Ow)
    order = np.lexsort((window, count))[np.count_nonzero(count == 0) :]
    count, window = count[order], window[order]
    place = np.arange(len(order))
    begins = np.ones(len(order), bool)
    begins[1:] = (count[1:] != count[:-1]) | (window[1:] != window[:-1])
    rank = place - np.maximum.accumulate(np.where(begins, place, 0))

    patterns, trimmed = _patterns(Kw, Sw, Dw, Ow)
    first: list[NDArray[np.intp]] = []
    last: list[NDArray[np.intp]] = []
    for p in range(1, patterns + 1) if pointers else ():
        base, end = np.searchsorted(count, [p, p + 1])
        upto = base + np.searchsorted(window[base:end], np.arange(-1, Ow), side="right")
        # The authors keep three entries of the pattern that only the two outermost windows have.
        if p == 1 and patterns > 1 and trimmed:
            upto = upto[[0, 1, -1]]
        first.append(np.full(len(upto), base))
        last.append(upto)

    largest = int(rank.max(initial=0)) * -(-H // SET_ROWS) + -(-H // SET_ROWS)
    code = largest * 2**SET_ROWS if sets else (H + Ph) * Kw
    none = np.empty(0, np.int32)
    return ColumnPlan(
        H, W, Kw, Ph, sets, max(code, H * W + 1) > 2**16,
        order.astype(np.int32), kernel_column[order].astype(np.int32), rank.astype(np.int32),
        np.concatenate([none, *first]).astype(np.int32),
        np.concatenate([none, *last]).astype(np.int32),
    )  # fmt: skip


_kept = lru_cache(maxsize=256)(_plan)


class Streams(NamedTuple):
    """Compressed planes, each in a region of its own: DA and IN are (planes, room) arrays."""

    DA: NDArray[np.floating]
    IN: NDArray[np.generic]
    start: NDArray[np.int32]  # (planes, columns + 1) where columns begin in DA
    word: NDArray[np.int32]  # the same for IN; `start` where IN has one entry for each value
    rows: NDArray[np.uint64]  # (planes, columns * words) row masks, (0, 0) where not wanted


Arrays = dict[str, tuple[Any, tuple[int, ...]]]  # name: dtype, shape


def regions(plan: ColumnPlan, planes: int, dtype: Any, *, rows: bool) -> Arrays:
    """The arrays of `Streams`. A region has room for a full plane; memory that is not written is
    not touched either."""
    value_room, index_room, _ = columns.rooms(plan)
    made: Arrays = {
        "DA": (dtype, (planes, value_room)),
        "IN": (plan.index_dtype, (planes, index_room)),
        "start": (np.int32, (planes, plan.columns + 1)),
        "rows": (np.uint64, (planes, plan.columns * -(-plan.H // ROWS)) if rows else (0, 0)),
    }
    if plan.sets:
        made["word"] = made["start"]
    return made


def laid_out(x: Tensor) -> tuple[Tensor, bool]:
    """(N, C, H, W) as kernels read it by its address, and whether it is channels-last."""
    x = x.detach().resolve_neg()
    if not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return x, True
    return x.contiguous(), False


def encode(x: Tensor, plan: ColumnPlan, *, for_now: bool = False) -> Streams:
    """(N, C, H, W) -> streams. `for_now`: in scratch memory, with row masks, as a convolution has
    them."""
    N, C = x.shape[:2]
    threads, dtype = _config.num_threads(x.numel()), x.new_empty(0).numpy().dtype
    wanted = regions(plan, N * C, dtype, rows=for_now)
    work: Arrays = {"transposed": (dtype, (threads, columns.rooms(plan)[2]))}
    made = Booking(work | wanted if for_now else work)()
    if not for_now:
        made = made | {name: np.empty(shape, kind) for name, (kind, shape) in wanted.items()}
    start = made["start"]
    streams = Streams(made["DA"], made["IN"], start, made.get("word", start), made["rows"])
    maps, channels_last = laid_out(x)
    columns.encode(
        maps.data_ptr(), channels_last, N, C, plan, start, streams.word, streams.DA,
        streams.IN.view(np.uint8), streams.rows, made["transposed"], _config.isa(), threads,
    )  # fmt: skip
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


def decode(
    DA: Tensor,
    IN: Tensor,
    Ptr: Tensor,
    offsets: Tensor,
    word_offsets: Tensor,
    shape: tuple[int, ...],
    plan: ColumnPlan,
) -> tuple[Tensor, int]:
    """Streams -> (N, C, H, W), and the first plane that is malformed or -1. Lengths and offsets
    must agree already; everything inside the streams is checked."""
    planes = shape[0] * shape[1]
    x = DA.new_zeros(shape)
    valid = np.ones(planes, np.uint8)
    start = np.empty((planes, plan.columns + 1), np.int32)
    word = np.empty_like(start) if plan.sets else start
    columns.decode(
        DA.numpy(), IN.numpy().view(np.uint8), Ptr.numpy().reshape(-1).view(np.uint8),
        offsets.numpy(), word_offsets.numpy(), np.cumsum(np.diff(offsets.numpy()) > 0) - 1, plan,
        start, word, x.view(planes, *shape[2:]).numpy(), valid, _config.num_threads(x.numel()),
    )  # fmt: skip
    bad = np.flatnonzero(valid == 0)
    return x, int(bad[0]) if len(bad) else -1


def unsupported(g: ConvGeometry) -> str | None:
    """Why this shape cannot run: places within a channel are 32-bit numbers."""
    rows = max(1, -(-g.H // SET_ROWS) * SET_ROWS + g.Ph)
    if rows * max(g.W, g.Kw) * 4 >= 2**31:
        return f"a channel of {g.H} x {g.W} with {g.Kh} x {g.Kw} kernels overflows 32-bit places"
    return None
