"""The order of columns that CPO and CPS share, and how their convolutions are cut into tasks.

Which output windows read a column, and through which kernel column, depend on the shape alone; the
plan holds this once per shape (definitions: native/columns.h).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import gcd
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jsc import _config
from jsc._geometry import ConvGeometry
from jsc._kernels import columns, cpc
from jsc.ops._scratch import scratch
from jsc.ops.cpc import SET

SET_ROWS = 4  # rows to a set of CPS
# Tile of a band: a share of L2 that leaves room for weights and partial sums, but rows enough to
# make up for those that two bands share, which are walked twice.
BAND_BYTES = 512 * 1024
BAND_ROWS = 8
SWEEP_BYTES = 128 * 1024  # partial sums of the rows of a band that are swept together
ROOM = 16  # elements behind a plane's streams (native/columns.h)
LINE = 64  # bytes
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


def _fresh(name: str, dtype: Any, *shape: int) -> NDArray[Any]:
    return np.empty(shape, dtype)


def encode(
    x: Tensor, plan: ColumnPlan, kernels: Kernels, *, sets: bool = False, for_now: bool = False
) -> Streams:
    """(N, C, H, W) -> streams, in one pass. A region has room for a full plane; memory that is not
    written is not touched either. `for_now`: in scratch memory, with row masks, for a convolution
    that follows at once."""
    new = scratch if for_now else _fresh
    x = x.detach()
    planes, threads = x.shape[0] * x.shape[1], _config.num_threads(x.numel())
    height, width = -(-plan.H // ROOM) * ROOM, -(-plan.W // ROOM) * ROOM
    channels_last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    if channels_last:
        kernel, maps = kernels.encode_pixels, x.permute(0, 2, 3, 1).numpy()
        transposed = ROOM * height
    else:
        kernel, maps = kernels.encode_planes, x.contiguous().view(planes, *x.shape[2:]).numpy()
        transposed = width * height
    index_room = -(-plan.H // SET_ROWS) * plan.W if sets else plan.H * plan.W
    room = -(-plan.H * plan.W // ROOM) * ROOM + ROOM
    DA = new("columns DA", maps.dtype, planes, room)
    IN = new("columns IN", plan.index_dtype, planes, -(-index_room // ROOM) * ROOM + ROOM)
    start = new("columns start", np.int32, planes, plan.columns + 1)
    word: tuple[NDArray[np.int32], ...] = ()
    if sets:
        word = (new("columns word", np.int32, *start.shape),)
    masks = (planes, plan.columns * -(-plan.H // ROWS)) if for_now else (0, 0)
    rows = new("columns rows", np.uint64, *masks)
    kernel(
        maps, plan, start, *word, DA, IN.view(np.uint8), rows,
        scratch("columns transposed", maps.dtype, threads, transposed), _config.isa(), threads,
    )  # fmt: skip
    return Streams(DA, IN, start, word[0] if sets else start, rows)


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


@dataclass(frozen=True)
class Tasks:
    """A strip of output rows is swept band by band; filter blocks are shared out in groups."""

    strip_rows: int
    band_rows: int
    sweep_rows: int
    group_blocks: int
    tile_rows: int
    pixel_step: int  # elements of the tile from one pixel to the next, of the same set
    row_step: int


@lru_cache(maxsize=256)
def tasks(
    g: ConvGeometry, itemsize: int, blocks: int, row_sums: int, threads: int,
    band_bytes: int, least_rows: int,
) -> Tasks:  # fmt: skip
    """Strips by threads (results do not depend on them), bands and sweeps by what fits L2."""
    strips = min(threads // gcd(g.N, threads), -(-g.Oh // 2)) if g.N else 1
    strip_rows = -(-g.Oh // strips)
    strips = -(-g.Oh // strip_rows)
    groups = min(blocks, -(-threads // (g.N * strips)))
    overlap = (g.Kh - 1) * g.Dh + 1

    line = LINE // itemsize
    pixel_step = min(SET, -(-g.C // line) * line)
    lines = g.W * pixel_step // line
    row_step = (lines + (4 - lines) % 8) * line  # rows of a block fall into different sets of L1
    fit = band_bytes // max(1, row_step * itemsize * -(-g.C // SET))
    band_rows = min(strip_rows, max(least_rows, (fit - overlap) // g.Sh + 1))
    band_rows = -(-strip_rows // -(-strip_rows // band_rows))  # bands of equal height
    sweep_rows = min(band_rows, max(1, SWEEP_BYTES // (row_sums * itemsize)))
    sweep_rows = -(-band_rows // -(-band_rows // sweep_rows))
    tile_rows = max(1, min((band_rows - 1) * g.Sh + overlap, g.H))
    return Tasks(
        strip_rows, band_rows, sweep_rows, -(-blocks // groups), tile_rows, pixel_step, row_step
    )


def run(
    input: Tensor,
    packed: Tensor,
    bias: Tensor | None,
    g: ConvGeometry,
    kernels: Kernels,
    *,
    sets: bool,
) -> Tensor:
    """Encode, then convolve: (N, C, H, W) of any strides -> (N, K, Oh, Ow), channels-last."""
    out = torch.empty((g.N, g.K, g.Oh, g.Ow), dtype=input.dtype, memory_format=torch.channels_last)
    plan = column_plan(g, sets=sets)
    if out.numel() == 0 or g.C == 0 or plan.columns == 0:
        return out.zero_() if bias is None else out.copy_(bias.view(1, -1, 1, 1).expand_as(out))
    streams = encode(input, plan, kernels, sets=sets, for_now=True)
    threads = _config.num_threads(g.macs)
    block, channel_sets = packed.shape[5], -(-g.C // SET)
    row_sums = cpc.tile_columns(g.Kw, g.Sw, g.Dw, g.Ow) * block
    cut = tasks(
        g, input.element_size(), packed.shape[0], row_sums, threads, BAND_BYTES, BAND_ROWS
    )  # fmt: skip
    kind = streams.DA.dtype
    lanes = (16, 32, 64)[_config.isa()] // input.element_size()
    columns.convolve(
        streams.DA, streams.start, streams.rows, plan, packed.numpy(),
        (input.new_empty(0) if bias is None else bias.detach().contiguous()).numpy(),
        scratch("columns tile", kind, threads, channel_sets, cut.tile_rows, cut.row_step),
        scratch("columns mask", np.uint64, threads, channel_sets * cut.tile_rows * g.W),
        scratch("columns partial", kind, threads, cut.sweep_rows * row_sums),
        out.permute(0, 2, 3, 1).numpy(), g, cut, block // lanes, _config.isa(), threads,
    )  # fmt: skip
    return out


def unsupported(g: ConvGeometry) -> str | None:
    """Why this shape cannot run: places within a channel are 32-bit numbers."""
    if (g.H + g.Ph) * max(g.W, g.Kw) * 4 >= 2**31:
        return f"a channel of {g.H} x {g.W} with {g.Kh} x {g.Kw} kernels overflows 32-bit places"
    return None
