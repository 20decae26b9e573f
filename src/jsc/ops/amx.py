"""The method `amx`: dense float32 convolution on AMX tiles, for maps with few zeros.

Every float32 is the exact sum of three bfloat16 numbers; the six largest of the nine products of
two such sums are taken on the tiles, which multiply bfloat16 sixteen times as fast as AVX-512
multiplies float32 (_kernels/amx/product.h). At the precisions "tf32" and "bf16" the sums have two
numbers and one, and the products are three and one; the same packed weights serve all of them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from jsc import _config, _precision
from jsc._geometry import ConvGeometry
from jsc._kernels.amx import amx
from jsc.ops._buffer import as_pixels, require
from jsc.ops._scratch import memory

BLOCK = 32  # filters to a block
WINDOW = 512  # numbers of the largest window
ROW = 32  # numbers to a row of a tile: channels of a pixel, or of neighbouring pixels
WEIGHT_BYTES = 512 * 1024  # packed weights that stay in L2 while pixels go by
PLANES_BYTES = 384 * 1024  # the pieces of a thread's band: a share of L2
# Of bands that threads share: weights come from memory once for all of them.
SHARED_BYTES = 1280 * 1024
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


def pack(weight: Tensor, g: ConvGeometry, pieces: int = 3) -> Tensor:
    """(K, C, Kh, Kw) -> (K blocks, steps, pieces, 2 tiles, 16 pairs, 16 filters, 2) bfloat16."""
    rows = _rows(weight.detach(), g)
    blocks, steps = -(-g.K // BLOCK), rows.shape[1]
    padded = rows.new_zeros((blocks * BLOCK, steps, ROW))
    padded[: g.K] = rows
    # (K blocks, tile, filter, step, pair, 2) -> (K blocks, step, tile, pair, filter, 2)
    left = padded.view(blocks, 2, 16, steps, 16, 2).permute(0, 3, 1, 4, 2, 5).contiguous()
    packed = left.new_empty((blocks, steps, pieces, *left.shape[2:]), dtype=torch.bfloat16)
    for piece in range(pieces):
        packed[:, :, piece] = left
        left = left - packed[:, :, piece]
    return packed


def unpack(packed: Tensor, g: ConvGeometry) -> Tensor:
    """The weights that `pack` was given, exactly: found where it puts the numbers 0, 1, 2, ..."""
    pieces = packed.float()
    left = pieces[:, :, 2] + pieces[:, :, 1] + pieces[:, :, 0]
    rows = left.permute(0, 2, 4, 1, 3, 5).reshape(len(packed) * BLOCK, packed.shape[1] * ROW)
    count = g.C * g.Kh * g.Kw
    numbers = torch.arange(1.0, count + 1, dtype=torch.float64, device="cpu")
    places = _rows(numbers.view(1, g.C, g.Kh, g.Kw), g._replace(K=1))
    places = places.view(-1).argsort(descending=True)[:count].flip(0)
    return rows[: g.K, places].view(g.K, g.C, g.Kh, g.Kw)


class _Planes(NamedTuple):
    """Sizes of the planes that hold the pieces of the input, of one image (_kernels/amx)."""

    step: int  # input columns to a column
    across: int  # columns to an output
    row_pixels: int  # outputs to a row, those beyond its end included
    phases: int
    halo: int  # rows beside those of a band's outputs


def _planes(g: ConvGeometry) -> _Planes:
    if _window(g):
        return _Planes(g.Sw, 1, g.Ow, 1, 0)
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
    return _Planes(step, across, row_pixels, phases, halo)


def cut(g: ConvGeometry, pieces: int = 3) -> dict[str, int]:
    """The fields of the kernel that say how its work is cut."""
    planes = _planes(g)
    return {
        "chunk": _chunk(g), "window": _window(g), "column_step": planes.step,
        "pixel_columns": planes.across, "row_pixels": planes.row_pixels, "phases": planes.phases,
        "halo": planes.halo, "weight_bytes": WEIGHT_BYTES, "band_bytes": PLANES_BYTES,
        "shared_bytes": SHARED_BYTES, "pieces": pieces,
    }  # fmt: skip


class Convolution:
    """All of a convolution but its input, so that a call is an allocation and a kernel."""

    def __init__(self, packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> None:
        packed = packed.detach().contiguous()
        padded = torch.zeros(-(-g.K // BLOCK) * BLOCK, dtype=torch.float32, device="cpu")
        if bias is not None:
            require(bias, (g.K,), torch.float32, "bias")
            padded[: g.K] = bias.detach()
        self.g, self._packed, self._bias = g, packed, padded  # the kernels have their addresses
        self.expected, self.shape = (g.N, g.C, g.H, g.W), (g.N, g.K, g.Oh, g.Ow)
        self._kernels = {word: self._kernel(count) for word, count in _precision.PIECES.items()}
        tiles = (-(-g.K // BLOCK), self._kernels["ieee"].steps, 3, 2, 16, 16, 2)
        require(packed, tiles, torch.bfloat16, "the packed weight")

    def _kernel(self, pieces: int) -> amx.Convolution:
        g = self.g
        return amx.Convolution({
            **g.sizes(), **cut(g, pieces), "packed": 3,
            "x_pitch": g.C, "out_pitch": g.K, "residual_pitch": 0,
            "x_bytes": 4, "out_bytes": 4,
            "weight": self._packed.data_ptr(), "bias": self._bias.data_ptr(), "relu": 0,
        })  # fmt: skip

    def __call__(self, input: Tensor) -> Tensor:
        """`input` as the geometry says, of any strides; the output is channels-last. The precision
        is that of torch's switch now."""
        require(input, self.expected, torch.float32, "input")
        last = torch.channels_last
        out = torch.empty(self.shape, dtype=torch.float32, device="cpu", memory_format=last)
        x = as_pixels(input)
        threads = _config.num_threads(self.g.macs)
        kernel = self._kernels[_precision.of_convolutions()]
        scratch = memory(kernel.scratch_bytes(threads))
        if kernel(x.data_ptr(), out.data_ptr(), scratch.address, threads):
            return out
        g = self.g
        steps = (g.Sh, g.Sw), (g.Ph, g.Pw), (g.Dh, g.Dw)
        # In NCHW: torch 2.13 crashes for some narrow channels-last maps, with AVX-512.
        y = torch.conv2d(x.contiguous(), unpack(self._packed, g), self._bias[: g.K], *steps)
        return y.contiguous(memory_format=torch.channels_last)
