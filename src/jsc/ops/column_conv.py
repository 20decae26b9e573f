"""The convolution that CPO and CPS share: encode, then multiply from the compressed columns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import gcd

import numpy as np
import torch
from torch import Tensor

from jsc import _config
from jsc._geometry import ConvGeometry
from jsc._kernels import columns as kernel
from jsc._kernels import cpc
from jsc.ops import columns
from jsc.ops._buffer import buffer, require
from jsc.ops._scratch import Arena
from jsc.ops.cpc import SET, require_packed

# Tile of a band: a share of L2 that leaves room for weights and partial sums, but rows enough to
# make up for those that two bands share, which are walked twice.
BAND_BYTES = 512 * 1024
BAND_ROWS = 8
SWEEP_BYTES = 128 * 1024  # partial sums of the rows of a band that are swept together
LINE = 64  # bytes


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


class Convolution:
    """All of a convolution but its input, so that a call is an allocation and two kernels."""

    def __init__(
        self, packed: Tensor, bias: Tensor | None, g: ConvGeometry, kernels: columns.Kernels,
        *, sets: bool,
    ) -> None:  # fmt: skip
        require_packed(packed, bias, g)
        self.g, self.kernels, self.sets = g, kernels, sets
        self.plan = columns.column_plan(g, sets=sets, pointers=False)
        self.weight, self.dtype = packed.numpy(), packed.dtype
        self.bias = buffer(packed.new_empty(0) if bias is None else bias)
        self.expected, self.shape = (g.N, g.C, g.H, g.W), (g.N, g.K, g.Oh, g.Ow)
        self.nothing = 0 in self.shape or g.C * g.H * g.W == 0 or self.plan.columns == 0
        self.isa = _config.isa()
        self.work, self.encoding = g.macs, g.N * g.C * g.H * g.W
        self.vectors = self.weight.shape[5] * self.weight.itemsize // (16, 32, 64)[self.isa]
        self.made: tuple[tuple[int, int], Tasks, Arena] | None = None

    def _memory(self, threads: int, encoders: int) -> tuple[Tasks, Arena]:
        made = self.made
        if made is None or made[0] != (threads, encoders):
            g, kind = self.g, self.weight.dtype
            row_sums = cpc.tile_columns(g.Kw, g.Sw, g.Dw, g.Ow) * self.weight.shape[5]
            channel_sets = -(-g.C // SET)
            cut = tasks(
                g, kind.itemsize, self.weight.shape[0], row_sums, threads, BAND_BYTES, BAND_ROWS
            )
            arrays = columns.regions(self.plan, g.N * g.C, kind, sets=self.sets, rows=True)
            arrays["transposed"] = (kind, columns.transposed(self.plan, encoders))
            arrays["tile"] = (kind, (threads, channel_sets, cut.tile_rows, cut.row_step))
            arrays["mask"] = (np.uint64, (threads, channel_sets * cut.tile_rows * g.W))
            arrays["partial"] = (kind, (threads, cut.sweep_rows * row_sums))
            made = self.made = (threads, encoders), cut, Arena("columns", arrays)
        return made[1:]

    def __call__(self, input: Tensor) -> Tensor:
        """`input` as the geometry says, of any strides; the output is channels-last."""
        require(input, self.expected, self.dtype, "input")
        out = torch.empty(self.shape, dtype=self.dtype, memory_format=torch.channels_last)
        if self.nothing:
            bias = torch.from_numpy(self.bias)
            return out.copy_(bias.view(1, -1, 1, 1).expand_as(out)) if len(bias) else out.zero_()
        threads, encoders = _config.num_threads(self.work), _config.num_threads(self.encoding)
        cut, arena = self._memory(threads, encoders)
        at = arena()
        start = at["start"]
        streams = columns.Streams(at["DA"], at["IN"], start, at.get("word", start), at["rows"])
        x = input.detach().resolve_neg()
        columns.encode_into(streams, x, self.plan, self.kernels, at["transposed"], encoders)
        kernel.convolve(
            streams.DA, start, streams.rows, self.plan, self.weight, self.bias,
            at["tile"], at["mask"], at["partial"], out.permute(0, 2, 3, 1).numpy(),
            self.g, cut, self.vectors, self.isa, threads,
        )  # fmt: skip
        return out
