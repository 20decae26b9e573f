"""Occupied channels as the CPC sweep meets them: masks, pairs of pixels, multiply-adds."""

from __future__ import annotations

import numpy as np

from jsc._geometry import ConvGeometry
from jsc._kernels.cpc import forward as kernel


def pack(occupied: np.ndarray) -> np.ndarray:
    """(H, W, C) bool -> (sets, H, W) 64-bit masks."""
    height, width, channels = occupied.shape
    padded = np.zeros((height, width, -(-channels // 64) * 64), bool)
    padded[..., :channels] = occupied
    words = np.packbits(padded, axis=2, bitorder="little").view("<u8")
    return np.ascontiguousarray(words.transpose(2, 0, 1)).astype(np.uint64)


def pairs(g: ConvGeometry) -> list[tuple[int, int]]:
    """Columns of the pixels that the sweep takes together; a column may not exist."""
    taps = kernel.taps(g.Kw, g.Sw, g.Dw)
    step, phases = (g.Sw, min(g.Sw, taps)) if taps else (g.Sw, 1)
    first = g.Pw // g.Sw * g.Sw - g.Pw if taps else 0
    return [
        (column + phase, column + phase + step)
        for column in range(first, g.W, 2 * step)
        for phase in range(phases)
    ]


def even(g: ConvGeometry, density: float, random: np.random.Generator) -> np.ndarray:
    """(H, W, C) bool: masks with the same number of common and of lone channels in every pair.

    Each pair has, in each 32 channels (what one loop of the sweep goes through), as many as
    independent channels would have on average, at random places. Where that is no whole number, the
    upper rows have the smaller one.
    """
    occupied = np.zeros((g.H, g.W, g.C), bool)
    dither = ((np.arange(g.H) + 0.5) / g.H)[:, None]
    for left, right in pairs(g):
        for first in range(0, g.C, 32):
            n = min(32, g.C - first)
            rank = random.random((g.H, n)).argsort(1).argsort(1)
            both = np.floor(n * density**2 + dither)
            lone = np.floor(n * density * (1 - density) + dither)
            here = slice(first, first + n)
            if left < 0 or right >= g.W:  # alone
                at = left if 0 <= left < g.W else right
                if 0 <= at < g.W:
                    occupied[:, at, here] = rank < both + lone
                continue
            occupied[:, left, here] = rank < both + lone
            occupied[:, right, here] = (rank < both) | (
                (rank >= both + lone) & (rank < both + 2 * lone)
            )
    return occupied


def work(g: ConvGeometry, occupied: np.ndarray, blocks: int, vectors: int) -> tuple[int, int]:
    """Visits (one non-zero in one kernel row and block of filters) and vector multiply-adds."""
    counts = occupied.sum(2)
    taps = kernel.taps(g.Kw, g.Sw, g.Dw)
    rows = np.zeros(g.H, np.int64)  # how often each is swept
    for y in range(g.Oh):
        inside = y * g.Sh + np.arange(g.Kh) - g.Ph
        rows[inside[(inside >= 0) & (inside < g.H)]] += 1
    columns, weights = np.zeros(g.W, np.int64), np.zeros(g.W, np.int64)
    if taps:  # a pixel through all taps of its phase, also those beyond the edges
        phase = (np.arange(g.W) + g.Pw) % g.Sw
        weights = (taps - phase + g.Sw - 1) // g.Sw
        columns = (weights > 0).astype(np.int64)
    else:
        for tap in range(g.Kw):
            seen = np.arange(g.Ow) * g.Sw + tap - g.Pw
            columns[seen[(seen >= 0) & (seen < g.W)]] += 1
        weights = columns
    visits, products = (int(rows @ counts @ per_column) for per_column in (columns, weights))
    return visits * blocks, products * blocks * vectors
