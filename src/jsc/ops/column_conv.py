"""The convolution that CPO and CPS share: encode, then multiply from the compressed columns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import gcd

import torch
from torch import Tensor

from jsc import _config
from jsc._geometry import ConvGeometry
from jsc._kernels.columns import columns
from jsc._kernels.cpc import forward
from jsc.ops._buffer import require
from jsc.ops._scratch import memory
from jsc.ops.column_order import column_plan, laid_out
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
    """All of a convolution but its input, so that a call is an allocation and a kernel."""

    def __init__(self, packed: Tensor, bias: Tensor | None, g: ConvGeometry, *, sets: bool) -> None:
        require_packed(packed, bias, g)
        self.g, self.dtype = g, packed.dtype
        self.plan = column_plan(g, sets=sets, pointers=False)
        self.weight = packed.detach().contiguous()
        self.bias = None if bias is None else bias.detach().resolve_neg().contiguous()
        self.expected, self.shape = (g.N, g.C, g.H, g.W), (g.N, g.K, g.Oh, g.Ow)
        self.nothing = 0 in self.shape or g.C * g.H * g.W == 0 or self.plan.columns == 0
        self.isa, self.work = _config.isa(), g.macs
        self.made: tuple[int, columns.Convolution] | None = None

    def _kernel(self, threads: int) -> columns.Convolution:
        """The kernel for so many threads."""
        made = self.made
        if made is None or made[0] != threads:
            g, size, block = self.g, self.weight.itemsize, self.weight.shape[-1]
            row_sums = forward.tile_columns(g.Kw, g.Sw, g.Dw, g.Ow) * block
            cut = tasks(g, size, self.weight.shape[0], row_sums, threads, BAND_BYTES, BAND_ROWS)
            fields = {
                **g.sizes(), **vars(cut), "row_sums": row_sums,
                "vectors": block * size // (16, 32, 64)[self.isa], "block": block,
                "weight": self.weight.data_ptr(),
                "bias": 0 if self.bias is None else self.bias.data_ptr(),
            }  # fmt: skip
            is_double = self.dtype == torch.float64
            made = self.made = threads, columns.Convolution(is_double, fields, self.plan, self.isa)
        return made[1]

    def __call__(self, input: Tensor) -> Tensor:
        """`input` as the geometry says, of any strides; the output is channels-last."""
        require(input, self.expected, self.dtype, "input")
        last = torch.channels_last
        out = torch.empty(self.shape, dtype=self.dtype, device="cpu", memory_format=last)
        if self.nothing:
            bias = self.bias
            return out.zero_() if bias is None else out.copy_(bias.view(1, -1, 1, 1).expand_as(out))
        threads = _config.num_threads(self.work)
        kernel = self._kernel(threads)
        scratch = memory(kernel.scratch_bytes(threads))
        x, channels_last = laid_out(input)
        kernel(x.data_ptr(), channels_last, out.data_ptr(), scratch.address, threads)
        return out
