"""The method `cpc`: masks of the input, then the register-tiled convolution over its non-zeros."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from jsc import _config
from jsc._geometry import ConvGeometry
from jsc._kernels.cpc import forward
from jsc.ops._buffer import as_pixels, require
from jsc.ops._scratch import memory

SET = 64  # channels to a mask
TILE_BYTES = 128 * 1024  # partial sums of one task: a share of L2 that leaves room for the weights


def vectors_of(K: int, Kw: int, Sw: int, Dw: int, lanes: int) -> int:
    """Vectors of filters to a block: as many as the accumulators leave registers for, without
    computing many filters that do not exist."""
    registers = 28 if _config.isa() == 2 else 13
    sweep = forward.taps(Kw, Sw, Dw)
    live = -(-Kw // Sw) + 1 if sweep else 2  # outputs in registers at a time
    needed = -(-K // lanes)
    choices = [v for v in (1, 2, 4) if v == 1 or v * live <= registers]
    # With AVX2 these spill, and are 5 to 10 % faster all the same: weights are read less often.
    choices += [8] if not sweep else []
    return min(choices, key=lambda v: -(-needed // v) * v * (1 + 0.5 / v))


def _lanes(dtype: torch.dtype) -> int:
    return (16, 32, 64)[_config.isa()] // dtype.itemsize


def blocking(g: ConvGeometry, dtype: torch.dtype) -> int:
    """Filters to a block."""
    lanes = _lanes(dtype)
    return lanes * vectors_of(g.K, g.Kw, g.Sw, g.Dw, lanes)


def pack(weight: Tensor, g: ConvGeometry) -> Tensor:
    """See `pack_blocks`."""
    return pack_blocks(weight.detach(), blocking(g, weight.dtype))


def pack_blocks(weight: Tensor, block: int) -> Tensor:
    """(K, C, Kh, Kw) -> (K blocks, sets, Kh, 64, Kw, block), zero where nothing is."""
    K, C, Kh, Kw = weight.shape
    blocks, sets = -(-K // block), -(-C // SET)
    padded = weight.new_zeros((blocks * block, sets * SET, Kh, Kw))
    padded[:K, :C] = weight
    return padded.view(blocks, block, sets, SET, Kh, Kw).permute(0, 2, 4, 3, 5, 1).contiguous()


def require_packed(packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> None:
    """Stops weights that were packed for another geometry, dtype or instruction set."""
    block = blocking(g, packed.dtype)
    blocks, sets = -(-g.K // block), -(-g.C // SET)
    require(packed, (blocks, sets, g.Kh, SET, g.Kw, block), packed.dtype, "the packed weight")
    if bias is not None:
        require(bias, (g.K,), packed.dtype, "bias")


class Convolution:
    """All of a convolution but its input, so that a call is an allocation and a kernel."""

    def __init__(self, packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> None:
        require_packed(packed, bias, g)
        packed = packed.detach().contiguous()
        bias = None if bias is None else bias.detach().resolve_neg().contiguous()
        blocks, block = packed.shape[0], packed.shape[-1]
        self.g, self.dtype = g, packed.dtype
        self.expected, self.shape = (g.N, g.C, g.H, g.W), (g.N, g.K, g.Oh, g.Ow)
        self._held = packed, bias  # the kernel has their addresses
        self._kernel = forward.Convolution(
            packed.dtype == torch.float64,
            {
                **g.sizes(), "vectors": block // _lanes(packed.dtype), "block": block,
                "weight": packed.data_ptr(), "bias": 0 if bias is None else bias.data_ptr(),
            },
            _config.isa(),
        )  # fmt: skip
        columns = forward.tile_columns(g.Kw, g.Sw, g.Dw, g.Ow) * block
        self._rows = max(1, min(g.Oh, TILE_BYTES // (columns * packed.itemsize)))
        self._tasks_per_band = g.N * blocks
        self._work = g.macs
        self._nothing = 0 in self.shape

    def band_rows(self, threads: int) -> int:
        """Output rows of one task: as many as the tile holds, fewer where threads need more tasks.

        Shorter bands read the weights more often, so one thread takes the tallest.
        """
        rows, wanted = self._rows, 4 * threads if threads > 1 else 1
        while rows > 1 and self._tasks_per_band * -(-self.g.Oh // rows) < wanted:
            rows = -(-rows // 2)
        return rows

    def __call__(self, input: Tensor) -> Tensor:
        """`input` as the geometry says, of any strides; the output is channels-last."""
        require(input, self.expected, self.dtype, "input")
        last = torch.channels_last
        out = torch.empty(self.shape, dtype=self.dtype, device="cpu", memory_format=last)
        if self._nothing:
            return out
        x = as_pixels(input)
        threads = _config.num_threads(self._work)
        rows = self.band_rows(threads)
        scratch = memory(self._kernel.scratch_bytes(rows, threads))
        self._kernel(x.data_ptr(), out.data_ptr(), scratch.address, rows, threads)
        return out


def empty_masks(N: int, C: int, H: int, W: int) -> Tensor:
    return torch.empty((N, -(-C // SET), H, W), dtype=torch.uint64, device="cpu")


def run(input: Tensor, packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> Tensor:
    return Convolution(packed, bias, g)(input)


# ---- the storage format (jsc.formats.CPC) --------------------------------------------------------


def encode(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N, C, H, W) -> non-zeros in channels-last order, masks, where each row of them begins."""
    N, C, H, W = x.shape
    last = as_pixels(x).permute(0, 2, 3, 1).contiguous()
    masks = empty_masks(N, C, H, W).zero_()
    forward.encode(last.numpy(), masks.numpy(), _config.isa(), _config.num_threads(x.numel()))
    nonzero = last != 0
    offsets = torch.zeros(N * H + 1, dtype=torch.int64, device="cpu")
    torch.cumsum(nonzero.view(N * H, W * C).sum(1), 0, out=offsets[1:])
    return last[nonzero], masks, offsets


def occupied(masks: Tensor) -> Tensor:
    """(N, sets, H, W) masks -> (N, H, W, 64 sets) bool."""
    N, sets, H, W = masks.shape
    # Little-endian bytes, so that bit b of byte i is channel 8 i + b.
    octets = np.ascontiguousarray(masks.numpy().transpose(0, 2, 3, 1).astype("<u8")).view(np.uint8)
    bits = np.unpackbits(octets.reshape(N, H, W, sets * 8), axis=3, bitorder="little")
    return torch.from_numpy(bits).bool()


def decode(values: Tensor, occupied: Tensor) -> Tensor:
    """Non-zeros and (N, H, W, C) where they belong -> (N, C, H, W), channels-last."""
    x = values.new_zeros(occupied.shape)
    x[occupied] = values
    return x.permute(0, 3, 1, 2)
