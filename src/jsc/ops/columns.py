"""The order of columns that CPO and CPS share, and how their convolutions are cut into tasks.

Which output windows read a column, and through which kernel column, depend on the shape alone; the
plan holds this once per shape (definitions: native/columns.h).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import gcd

import numpy as np
from numpy.typing import NDArray

from jsc._geometry import ConvGeometry

SET_ROWS = 4  # rows to a set of CPS
# Tile of a band: a share of L2 that leaves room for weights and partial sums, but rows enough to
# make up for those that two bands share, which are walked twice.
BAND_BYTES = 384 * 1024
BAND_ROWS = 8


@dataclass(frozen=True, eq=False)
class ColumnPlan:
    H: int
    W: int
    Kw: int
    Ph: int
    patterns: int
    wide: bool  # indices need 32 bits
    slot: NDArray[np.int32]  # (W,) place of a column in stream order, -1 where no window reads it
    column: NDArray[np.int32]  # (columns,)
    kernel_column: NDArray[np.int32]  # (columns,) the one through which the leftmost window reads
    rank: NDArray[np.int32]  # (columns,) place within its group (same pattern and leftmost window)
    ptr_first: NDArray[np.int32]  # (entries,) Ptr[e] counts columns ptr_first[e] .. ptr_last[e]
    ptr_last: NDArray[np.int32]

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

    slot = np.full(W, -1, np.int32)
    slot[[j for j, _ in order]] = range(len(order))
    largest = max(ranks, default=0) * -(-H // SET_ROWS) + -(-H // SET_ROWS)
    code = largest * 2**SET_ROWS if sets else (H + Ph) * Kw
    return ColumnPlan(
        H, W, Kw, Ph, patterns, max(code, H * W + 1) > 2**16, slot,
        np.array([j for j, _ in order], np.int32), np.array([c for _, c in order], np.int32),
        np.array(ranks, np.int32), np.array(first, np.int32), np.array(last, np.int32),
    )  # fmt: skip


@dataclass(frozen=True)
class Tasks:
    """A strip of output rows is swept band by band; filter blocks are shared out in groups."""

    strip_rows: int
    band_rows: int
    tile_rows: int
    group_blocks: int


def tasks(g: ConvGeometry, itemsize: int, blocks: int, threads: int, unit: int) -> Tasks:
    """Strips by threads (results do not depend on them), bands by what fits L2."""
    strips = min(threads // gcd(g.N, threads), -(-g.Oh // 2)) if g.N else 1
    strip_rows = -(-g.Oh // strips)
    strips = -(-g.Oh // strip_rows)
    groups = min(blocks, -(-threads // (g.N * strips)))
    overlap = (g.Kh - 1) * g.Dh + 1 + 2 * (unit - 1)
    fit = BAND_BYTES // max(1, g.W * g.C * itemsize)
    band_rows = min(strip_rows, max(BAND_ROWS, (fit - overlap) // g.Sh + 1))
    band_rows = -(-strip_rows // -(-strip_rows // band_rows))  # bands of equal height
    tile_rows = min((band_rows - 1) * g.Sh + overlap, -(-g.H // unit) * unit)
    return Tasks(strip_rows, band_rows, max(1, tile_rows), -(-blocks // groups))


def unsupported(g: ConvGeometry) -> str | None:
    """Why this shape cannot run: places within a channel are 32-bit numbers."""
    if (g.H + g.Ph) * max(g.W, g.Kw) * 4 >= 2**31:
        return f"a channel of {g.H} x {g.W} with {g.Kh} x {g.Kw} kernels overflows 32-bit places"
    return None
