"""The method `bf16x3`: dense float32 convolution on AMX tiles, for maps with few zeros.

Every float32 is the exact sum of three bfloat16 numbers; the six largest of the nine products of
two such sums are taken on the tiles, which multiply bfloat16 sixteen times as fast as AVX-512
multiplies float32 (native/bf16x3.h).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jsc import _config
from jsc._geometry import ConvGeometry
from jsc._kernels import bf16x3
from jsc.ops._buffer import as_pixels, buffer, require
from jsc.ops._scratch import scratch
from jsc.ops.epilogue import PLAIN, Epilogue, addresses

BLOCK = 32  # filters to a block, pixels to a step of a task
WINDOW = 512  # numbers of the largest window
ROW = 32  # numbers to a row of a tile: channels of a pixel, or of neighbouring pixels
BANDS = 8  # at least, where every thread works on its own
WEIGHT_BYTES = 512 * 1024  # packed weights that stay in L2 while pixels go by
PLANES_BYTES = 384 * 1024  # the pieces of a thread's band: a share of L2
SHARED_BYTES = (
    1280 * 1024
)  # of bands that threads share: weights come from memory once for all of them
LARGEST_STRIDE = 64  # rows of planes are as long as the input's, times the stride
HALO = 256  # rows and columns of padding that planes always have room for
LARGEST = 3.3895e38  # what is larger rounds to inf in bfloat16


def unsupported(g: ConvGeometry) -> str | None:
    if not _config.amx():
        return "it needs a CPU with AMX tiles for bfloat16 (and JSC_ISA unset)"
    if max(g.Sh, g.Sw) > LARGEST_STRIDE:
        return f"its strides are at most {LARGEST_STRIDE}"
    p = _planes(g)
    rows, columns = p.halo * g.Sh, p.row_pixels * p.across
    if rows > HALO + 8 * (g.H + g.Oh * g.Sh) or columns > HALO + 8 * (g.W + g.Ow * p.across):
        return (
            f"its planes of a map of {g.H} x {g.W} would be nearly all padding, with paddings of "
            f"{(g.Ph, g.Pw)} and dilations of {(g.Dh, g.Dw)}"
        )
    return None


def takes(weight: Tensor) -> bool:
    """Whether the weights have a sum of three bfloat16 numbers each."""
    return weight.dtype == torch.float32 and bool((weight.abs() < LARGEST).all())


def _window(g: ConvGeometry) -> int:
    """Numbers of a window where the planes hold windows: where channels are so few that this takes
    fewer steps. 0 where they hold the map."""
    across, size = g.Kw * g.C, -(-g.Kh * g.Kw * g.C // ROW) * ROW
    steps = min(-(-g.C // c) * -(-g.Kw * c // ROW) for c in (16, 32)) * g.Kh
    able = g.Dw == 1 and g.Kw > 1 and across <= ROW and size <= WINDOW
    return size if able and size // ROW < steps else 0


def _chunk(g: ConvGeometry) -> int:
    """Channels to a chunk: with 16, a row of a tile holds those of two neighbouring pixels, two
    taps of the kernel row."""
    if g.Dw > 1 or g.Kw == 1:
        return ROW
    return min((32, 16), key=lambda c: -(-g.C // c) * -(-g.Kw * c // ROW))


def _rows(weight: Tensor, g: ConvGeometry) -> Tensor:
    """(K, C, Kh, Kw) -> (K, steps, 32): the numbers of a filter in the order of the planes'."""
    if size := _window(g):
        flat = weight.permute(0, 2, 3, 1).reshape(g.K, g.Kh * g.Kw * g.C)
        rows = torch.nn.functional.pad(flat, (0, size - flat.shape[1]))
    else:
        c = _chunk(g)
        taps, chunks, groups = ROW // c, -(-g.C // c), -(-g.Kw * c // ROW)
        padded = weight.new_zeros((g.K, chunks * c, g.Kh, groups * taps))
        padded[:, : g.C, :, : g.Kw] = weight
        split = padded.view(g.K, chunks, c, g.Kh, groups, taps).permute(0, 1, 3, 4, 5, 2)
        size = chunks * g.Kh * groups * ROW
        if c < ROW:
            return split.reshape(g.K, size // ROW, ROW)
        rows = split.reshape(g.K, size)
    # The kernel interleaves the halves of 32 numbers.
    halves = rows.view(g.K, size // ROW, 2, ROW // 2)
    return halves.transpose(2, 3).reshape(g.K, size // ROW, ROW)


def pack(weight: Tensor, g: ConvGeometry) -> Tensor:
    """(K, C, Kh, Kw) -> (K blocks, steps, 3 pieces, 2 tiles, 16 pairs, 16 filters, 2) bfloat16."""
    rows = _rows(weight.detach(), g)
    blocks, steps = -(-g.K // BLOCK), rows.shape[1]
    padded = rows.new_zeros((blocks * BLOCK, steps, ROW))
    padded[: g.K] = rows
    # (K blocks, tile, filter, step, pair, 2) -> (K blocks, step, tile, pair, filter, 2)
    left = padded.view(blocks, 2, 16, steps, 16, 2).permute(0, 3, 1, 4, 2, 5).contiguous()
    packed = left.new_empty((blocks, steps, 3, *left.shape[2:]), dtype=torch.bfloat16)
    for piece in range(3):
        packed[:, :, piece] = left
        left = left - packed[:, :, piece]
    return packed


def unpack(packed: Tensor, g: ConvGeometry) -> Tensor:
    """The weights that `pack` was given, exactly: found where it puts the numbers 0, 1, 2, ..."""
    pieces = packed.float()
    left = pieces[:, :, 2] + pieces[:, :, 1] + pieces[:, :, 0]
    rows = left.permute(0, 2, 4, 1, 3, 5).reshape(len(packed) * BLOCK, packed.shape[1] * ROW)
    count = g.C * g.Kh * g.Kw
    places = _rows(
        torch.arange(1.0, count + 1, dtype=torch.float64).view(1, g.C, g.Kh, g.Kw), g._replace(K=1)
    )
    places = places.view(-1).argsort(descending=True)[:count].flip(0)
    return rows[: g.K, places].view(g.K, g.C, g.Kh, g.Kw)


class _Planes(NamedTuple):
    """Where the pieces of the input lie, for one image (native/bf16x3.h); numbers are bfloat16."""

    step: int  # input columns to a column
    across: int  # columns to an output
    row_pixels: int  # outputs to a row, those beyond its end included
    phases: int
    halo: int  # rows beside those of a band's outputs
    numbers: int  # to a column, of one piece and all phases
    pixel: int  # from an output to the next


def _planes(g: ConvGeometry) -> _Planes:
    if window := _window(g):
        return _Planes(g.Sw, 1, g.Ow, 1, 0, window, window)
    c = _chunk(g)
    # A kernel of one column reads every Sw-th column only: that is what the planes hold.
    step = g.Sw if g.Kw == 1 else 1
    across = g.Sw // step
    needed = (g.Ow - 1) * across + (g.Kw - 1) * g.Dw + 1
    end = -(-(g.Pw + g.W) // step)  # columns behind the input's last
    # What a row needs beyond its input is zero, as the left padding of the next row is.
    left = -(-g.Pw // step)
    row_pixels = max(g.Ow, -(-max(min(end, needed), needed - left) // across))
    phases = min(g.Sh, (g.Kh - 1) * g.Dh + 1)
    halo = (g.Kh - 1) * g.Dh // g.Sh
    return _Planes(step, across, row_pixels, phases, halo, -(-g.C // c) * c * phases, across * c)


def _offsets(g: ConvGeometry, p: _Planes, rows: int, piece: int) -> NDArray[np.intp]:
    """From the first number of an output to that of each step."""
    if window := _window(g):
        return np.arange(0, window, ROW, dtype=np.intp)
    c, pitch = _chunk(g), p.row_pixels * p.across
    chunks = np.arange(-(-g.C // c))[:, None, None] * 3 * piece
    i = np.arange(g.Kh)[:, None] * g.Dh
    j = np.arange(-(-g.Kw * c // ROW)) * (ROW // c) * g.Dw
    offsets = chunks + ((i % g.Sh * rows + i // g.Sh) * pitch + j) * c
    return np.ascontiguousarray(offsets.reshape(-1), np.intp)


class Convolution:
    """All of a convolution but its input, so that a call is an allocation and a kernel."""

    def __init__(
        self, packed: Tensor, bias: Tensor | None, g: ConvGeometry, epilogue: Epilogue = PLAIN
    ) -> None:
        self.epilogue = epilogue  # its masks are not made: CPC finds them
        self._held, self._norm = addresses(epilogue.norm)
        self.g, self.shape = g, (g.N, g.K, g.Oh, g.Ow)
        self.expected = (g.N, g.C, g.H, g.W)
        self._packed, self._given_bias = packed, bias
        self._weight = packed.view(torch.int16).view(-1).numpy()
        self._bias = np.zeros(packed.shape[0] * BLOCK, np.float32)
        if bias is not None:
            require(bias, (g.K,), torch.float32, "bias")
            self._bias[: g.K] = buffer(bias)

        p, c, window = _planes(g), _chunk(g), _window(g)
        light = packed.numel() * 2 <= WEIGHT_BYTES
        alone = window or (g.Kh == g.Kw == g.Sh == g.Sw == 1 and g.Ph == g.Pw == 0)
        together = 0
        if alone and light:  # twice as many where a block may have half its filters
            together = 2 * BLOCK if 0 < g.K % BLOCK <= BLOCK // 2 else BLOCK
        column_bytes = 3 * 2 * p.numbers
        columns = p.row_pixels * p.across
        room = PLANES_BYTES if light else SHARED_BYTES
        band = max(1, min(g.Oh, room // (column_bytes * columns) - p.halo))
        if light:
            band = min(band, max(4, -(-g.N * g.Oh // BANDS)))
        rows, columns = (1, together) if together else (band + p.halo, columns)
        shared = 0
        if not light:
            bands = g.N * -(-g.Oh // band)
            shared = max(1, min(bands, room // (column_bytes * columns * rows)))

        piece = rows * columns * (window or p.phases * c)
        self._offset = _offsets(g, p, rows, piece)
        tiles = (-(-g.K // BLOCK), len(self._offset), 3, 2, 16, 16, 2)
        require(packed, tiles, torch.bfloat16, "the packed weight")
        # Tiles of the last pixels reach behind them.
        within = 0 if window else int(self._offset[: g.Kh * -(-g.Kw * c // ROW)].max(initial=0))
        self._slack = (2 * BLOCK + 1) * p.pixel + within + ROW
        self._planes, self._together, self._shared = (
            column_bytes // 2 * columns * rows,
            together,
            shared,
        )
        self._band_pixels, self._tasks = band * p.row_pixels, shared * packed.shape[0]
        self._sizes = (
            g.N, g.H, g.W, g.C, g.K, g.Oh, g.Ow, g.Sh, g.Ph, g.Pw,
            c, g.Kh, g.Dh, g.Kw * g.C, window,
            p.step, p.across, p.row_pixels, rows, p.phases, piece, band, shared, together,
        )  # fmt: skip

    def __call__(self, input: Tensor) -> Tensor:
        """`input` as the geometry says, of any strides; the output is channels-last."""
        return self.fused(input)[0]

    def fused(
        self, input: Tensor, residual: Tensor | None = None, masks: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """The same with the epilogue; see :class:`jsc.ops.cpc.Convolution`. Masks are not used."""
        require(input, self.expected, torch.float32, "input")
        out = torch.empty(self.shape, dtype=torch.float32, memory_format=torch.channels_last)
        threads = _config.num_threads(self.g.macs)
        pixels = BLOCK
        if together := self._together:
            pixels = -(-self.g.Oh * self.g.Ow // (BANDS * threads * together)) * together
        elif self._shared:
            # Whole bands where there are tasks enough without: weights are then read once a band.
            parts = 1 if threads == 1 else -(-4 * threads // self._tasks)
            pixels = max(BLOCK, -(-self._band_pixels // (parts * BLOCK)) * BLOCK)
        copies = (self._shared, 1) if self._shared else (threads, threads)
        planes = copies[0] * self._planes + copies[1] * self._slack
        size = threads * (4096 + 64) + 8 * self._bias.size + 2 * planes
        x = as_pixels(input)
        if residual is not None:
            require(residual, self.shape, torch.float32, "residual")
            residual = as_pixels(residual)
        done = bf16x3.convolve(
            x.data_ptr(), out.data_ptr(), self._weight, self._bias, self._offset,
            scratch("bf16x3", np.uint8, size),
            *self._norm, 0 if residual is None else residual.data_ptr(), self.epilogue.relu,
            *self._sizes, pixels, self._slack, threads,
        )  # fmt: skip
        return (out if done else self._dense(x, residual)), None

    def _dense(self, x: Tensor, residual: Tensor | None) -> Tensor:
        g, (norm, relu, _) = self.g, self.epilogue
        steps = (g.Sh, g.Sw), (g.Ph, g.Pw), (g.Dh, g.Dw)
        out = torch.conv2d(x, unpack(self._packed, g), self._given_bias, *steps)
        if norm is not None:
            out = torch.nn.functional.batch_norm(out, *norm[:4], False, 0.0, norm.eps)
        out = out if residual is None else out + residual
        return torch.relu(out) if relu else out


def run(input: Tensor, packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> Tensor:
    return Convolution(packed, bias, g)(input)
