"""The method `bf16x3`: dense float32 convolution on AMX tiles, for maps with few zeros.

Every float32 is the exact sum of three bfloat16 numbers; the six largest of the nine products of
two such sums are taken on the tiles, which multiply bfloat16 sixteen times as fast as AVX-512
multiplies float32 (native/bf16x3.h).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from jsc import _config
from jsc._geometry import ConvGeometry
from jsc._kernels import bf16x3
from jsc.ops._scratch import scratch

BLOCK = 32  # filters to a block, pixels to a step of a task
ROW = 32  # numbers to a row of a tile: channels of a pixel, or of neighbouring pixels
PLANES_BYTES = 768 * 1024  # the input's pieces of the bands worked on: a share of L2
LARGEST = 3.3895e38  # what is larger rounds to inf in bfloat16


def unsupported(g: ConvGeometry) -> str | None:
    if not _config.amx():
        return "it needs a CPU with AMX tiles for bfloat16 (and JSC_ISA unset)"
    return None


def takes(weight: Tensor) -> bool:
    """Whether the weights have a sum of three bfloat16 numbers each."""
    return weight.dtype == torch.float32 and bool((weight.abs() < LARGEST).all())


def _chunk(g: ConvGeometry) -> int:
    """Channels to a chunk: rows of tiles are filled up with neighbouring pixels (taps of the kernel
    row) where channels are few."""
    if g.Dw > 1 or g.Kw == 1:
        return ROW
    able = [c for c in (32, 16, 8, 4) if c >= 16 or c >= g.C]
    return min(able, key=lambda c: -(-g.C // c) * -(-g.Kw * c // ROW))


def pack(weight: Tensor, g: ConvGeometry) -> Tensor:
    """(K, C, Kh, Kw) -> (K blocks, steps, 3 pieces, 2 tiles, 16 pairs, 16 filters, 2) bfloat16."""
    c = _chunk(g)
    taps = ROW // c
    blocks, chunks, groups = -(-g.K // BLOCK), -(-g.C // c), -(-g.Kw // taps)
    padded = weight.new_zeros((blocks * BLOCK, chunks * c, g.Kh, groups * taps))
    padded[: g.K, : g.C, :, : g.Kw] = weight.detach()
    # (K blocks, tile, filter, chunk, channel, Kh, tap group, tap)
    split = padded.view(blocks, 2, 16, chunks, c, g.Kh, groups, taps)
    # rows of a tile are pairs of (tap, channel)
    rows = split.permute(0, 3, 5, 6, 1, 7, 4, 2)
    rows = rows.reshape(blocks, chunks * g.Kh * groups, 2, ROW // 2, 2, 16).transpose(-1, -2)
    packed = weight.new_empty((*rows.shape[:2], 3, *rows.shape[2:]), dtype=torch.bfloat16)
    left = rows.contiguous()
    for piece in range(3):
        packed[:, :, piece] = left
        left = left - packed[:, :, piece]
    return packed


def unpack(packed: Tensor, g: ConvGeometry) -> Tensor:
    """The weights that `pack` was given, exactly."""
    c = _chunk(g)
    taps = ROW // c
    blocks, chunks, groups = -(-g.K // BLOCK), -(-g.C // c), -(-g.Kw // taps)
    rows = packed[:, :, 2].float() + packed[:, :, 1].float() + packed[:, :, 0].float()
    split = rows.transpose(-1, -2).reshape(blocks, chunks, g.Kh, groups, 2, taps, c, 16)
    padded = split.permute(0, 4, 7, 1, 6, 2, 3, 5)
    return padded.reshape(blocks * BLOCK, chunks * c, g.Kh, groups * taps)[: g.K, : g.C, :, : g.Kw]


class Convolution:
    """All of a convolution but its input, so that a call is an allocation and a kernel."""

    def __init__(self, packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> None:
        c = _chunk(g)
        taps = ROW // c
        blocks, chunks = packed.shape[0], -(-g.C // c)
        self.g, self.shape = g, (g.N, g.K, g.Oh, g.Ow)
        self._packed, self._given_bias = packed, bias
        self._weight = packed.view(torch.int16).view(-1).numpy()
        self._bias = np.zeros(blocks * BLOCK, np.float32)
        if bias is not None:
            self._bias[: g.K] = bias.numpy()

        # Planes: a kernel of one column reads every Sw-th column only, so that is what they hold.
        step = g.Sw if g.Kw == 1 else 1
        across = g.Sw // step
        needed = (g.Ow - 1) * across + (g.Kw - 1) * g.Dw + 1
        end = -(-(g.Pw + g.W) // step)  # columns behind the input's last
        # What a row needs beyond its input is zero, as the left padding of the next row is.
        left = -(-g.Pw // step)
        row_pixels = max(g.Ow, -(-max(min(end, needed), needed - left) // across))
        pitch = row_pixels * across
        phases = min(g.Sh, (g.Kh - 1) * g.Dh + 1)
        halo = (g.Kh - 1) * g.Dh // g.Sh

        row_bytes = 3 * 2 * chunks * c * phases * pitch
        self._band_rows = max(1, min(g.Oh, PLANES_BYTES // row_bytes - halo))
        rows = self._band_rows + halo
        piece = phases * rows * pitch * c
        bands = g.N * -(-g.Oh // self._band_rows)
        self._group = max(1, min(bands, PLANES_BYTES // (3 * 2 * chunks * piece)))
        groups = -(-g.Kw // taps)
        i, j = np.arange(g.Kh)[:, None] * g.Dh, np.arange(groups) * taps * g.Dw
        row = (i % g.Sh * rows + i // g.Sh) * pitch
        within = (row + j) * c
        self._offset = np.ascontiguousarray(
            (np.arange(chunks)[:, None, None] * 3 * piece + within).reshape(-1), np.intp
        )
        # Tiles of the last pixels reach behind them.
        self._slack = (2 * BLOCK + 1) * across * c + int(within.max()) + ROW
        self._planes = self._group * chunks * 3 * piece + self._slack
        self._pixels, self._tasks = self._band_rows * row_pixels, self._group * blocks
        self._sizes = (
            g.N, g.H, g.W, g.C, g.K, g.Oh, g.Ow, g.Sh, g.Ph, g.Pw,
            c, step, across, row_pixels, rows, phases, piece, self._band_rows, self._group,
        )  # fmt: skip

    def __call__(self, input: Tensor) -> Tensor:
        """`input` as the geometry says, of any strides; the output is channels-last."""
        out = torch.empty(self.shape, dtype=torch.float32, memory_format=torch.channels_last)
        threads = _config.num_threads(self.g.macs)
        # Whole bands where there are tasks enough without: weights are then read once a band.
        parts = 1 if threads == 1 else -(-4 * threads // self._tasks)
        pixels = max(BLOCK, -(-self._pixels // (parts * BLOCK)) * BLOCK)
        size = threads * (4096 + 64) + 2 * self._planes
        x = input.contiguous(memory_format=torch.channels_last)
        done = bf16x3.convolve(
            x.data_ptr(), out.data_ptr(), self._weight, self._bias, self._offset,
            scratch("bf16x3", np.uint8, size), *self._sizes, pixels, self._slack, threads,
        )  # fmt: skip
        return out if done else self._dense(x)

    def _dense(self, x: Tensor) -> Tensor:
        g = self.g
        steps = (g.Sh, g.Sw), (g.Ph, g.Pw), (g.Dh, g.Dw)
        return torch.conv2d(x, unpack(self._packed, g), self._given_bias, *steps)


def run(input: Tensor, packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> Tensor:
    return Convolution(packed, bias, g)(input)
