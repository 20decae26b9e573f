"""Quantisation tables of JPEG: Annex K, libjpeg's quality scale, zig-zag order."""

from __future__ import annotations

import torch
from torch import Tensor

from jsc import _checks

# ITU-T T.81 (1992), tables K.1 and K.2, natural order.
# fmt: off
LUMINANCE = (
    16,  11,  10,  16,  24,  40,  51,  61,
    12,  12,  14,  19,  26,  58,  60,  55,
    14,  13,  16,  24,  40,  57,  69,  56,
    14,  17,  22,  29,  51,  87,  80,  62,
    18,  22,  37,  56,  68, 109, 103,  77,
    24,  35,  55,  64,  81, 104, 113,  92,
    49,  64,  78,  87, 103, 121, 120, 101,
    72,  92,  95,  98, 112, 100, 103,  99,
)
CHROMINANCE = (
    17,  18,  24,  47,  99,  99,  99,  99,
    18,  21,  26,  66,  99,  99,  99,  99,
    24,  26,  56,  99,  99,  99,  99,  99,
    47,  66,  99,  99,  99,  99,  99,  99,
    99,  99,  99,  99,  99,  99,  99,  99,
    99,  99,  99,  99,  99,  99,  99,  99,
    99,  99,  99,  99,  99,  99,  99,  99,
    99,  99,  99,  99,  99,  99,  99,  99,
)
# fmt: on

# Natural index of the i-th coefficient in zig-zag order (T.81, figure A.6): along anti-diagonals,
# odd ones downwards, even ones upwards.
ZIGZAG = tuple(
    sorted(range(64), key=lambda n: (n // 8 + n % 8, n // 8 if (n // 8 + n % 8) % 2 else n % 8))
)


def quality_tables(quality: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The (2, 8, 8) tables that libjpeg writes for `quality` 1 to 100: Y, and Cb and Cr; whole
    numbers from 1 to 255, of `dtype`. 50 is Annex K itself. Raises ValueError unless quality is a
    whole number from 1 to 100.

    Source: jcparam.c of libjpeg, `jpeg_quality_scaling` and `jpeg_add_quant_table` (baseline).
    """
    if not _checks.is_whole(quality) or not 1 <= quality <= 100:
        raise ValueError(f"quality must be an int from 1 to 100, got {_checks.shown(quality)}")
    quality = int(quality)
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    scaled = [
        [min(max((entry * scale + 50) // 100, 1), 255) for entry in base]
        for base in (LUMINANCE, CHROMINANCE)
    ]
    return torch.tensor(scaled, dtype=dtype).view(2, 8, 8)


def to_zigzag(tables: Tensor) -> Tensor:
    """(..., 8, 8) in natural order -> (..., 64) in zig-zag order, any dtype.

    Raises TypeError for what is no tensor, ValueError for another shape.
    """
    _checks.require_tensor(tables, "tables")
    if tables.ndim < 2 or tables.shape[-1] != 8 or tables.shape[-2] != 8:
        raise ValueError(f"tables must be (..., 8, 8), got {tuple(tables.shape)}")
    return tables.flatten(-2)[..., list(ZIGZAG)]


def from_zigzag(coefficients: Tensor) -> Tensor:
    """(..., 64) in zig-zag order -> (..., 8, 8) in natural order, any dtype.

    Raises TypeError for what is no tensor, ValueError for another shape.
    """
    _checks.require_tensor(coefficients, "coefficients")
    if coefficients.ndim < 1 or coefficients.shape[-1] != 64:
        raise ValueError(f"coefficients must be (..., 64), got {tuple(coefficients.shape)}")
    place = sorted(range(64), key=ZIGZAG.__getitem__)
    return coefficients[..., place].unflatten(-1, (8, 8))
