"""The random numbers by which the JPEG layer draws levels, in plain torch: the same as the kernel's
(_kernels/simd/threefry.h), so that a seed draws the same levels wherever the layer runs.

Threefry-4x32 with 20 rounds (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2,
3", SC 2011): words that count and a key -> random words.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MASK = 0xFFFFFFFF
ROTATIONS = ((10, 26), (11, 21), (13, 27), (23, 5), (6, 20), (17, 11), (25, 10), (18, 20))
PARITY = 0x1BD11BDA


def threefry(words: Sequence[Tensor], key: Sequence[Tensor]) -> list[Tensor]:
    """Four int64 tensors of 32-bit words, and four words of the key, that broadcast."""
    keys = [*key, key[0] ^ key[1] ^ key[2] ^ key[3] ^ PARITY]
    x = [(word + k) & MASK for word, k in zip(words, keys, strict=False)]
    for i in range(20):
        b, d = (1, 3) if i % 2 == 0 else (3, 1)
        for to, of, bits in ((0, b, ROTATIONS[i % 8][0]), (2, d, ROTATIONS[i % 8][1])):
            x[to] = (x[to] + x[of]) & MASK
            x[of] = (((x[of] << bits) | (x[of] >> (32 - bits))) & MASK) ^ x[to]
        if i % 4 == 3:
            n = i // 4 + 1
            x = [(x[j] + keys[(n + j) % 5]) & MASK for j in range(4)]
            x[3] = (x[3] + n) & MASK
    return x


def uniform(seed: Tensor, blocks: Tensor, turn: int, dtype: torch.dtype) -> Tensor:
    """Numbers in (0, 1) for the 64 coefficients of blocks: (...) int64 -> (..., 8, 8), the middles
    of 2^23 equal intervals in float32 and of 2^31 in float64. `seed` is one int64; `turn` counts
    the rounds."""
    seed, blocks = seed.reshape(()), blocks.unsqueeze(-1)
    zero = torch.zeros_like(blocks)
    quads = torch.arange(16, device=blocks.device)
    words = (blocks & MASK, (blocks >> 32) & MASK, zero + quads, zero + turn)
    found = threefry(words, (seed & MASK, (seed >> 32) & MASK, seed * 0, seed * 0))
    # Words of a quad are those of four neighbours.
    bits = torch.stack(torch.broadcast_tensors(*found), -1).reshape(*blocks.shape[:-1], 8, 8)
    if dtype == torch.float64:
        return ((bits >> 1).to(dtype) + 0.5) * 2.0**-31
    return ((bits >> 9).to(dtype) + 0.5) * 2.0**-23
