"""The JPEG-DL authors' layer, as their code computes it (JpegInspiredDl/JPEG-Inspired-DL 071650f).

    s = x - 128; YCbCr of s, chroma + 0.5; zero padding to multiples of 8; 8x8 DCT;
    z' = sum_k p_k k q,  p = softmax_k(-alpha (z - k q)^2),  k = the `window` levels nearest to
    round(z/q) within [-levels, levels];  inverse of all that. No clipping, no rounding.

Left out: the mean/std normalisation that follows. float32 costs 17 saved numbers a coefficient.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RED, GREEN, BLUE = 0.299, 0.587, 0.114


def dct_matrix(dtype: torch.dtype = torch.float32) -> Tensor:
    """D[k, n] = c_k / 2 cos((2n + 1) k pi / 16), c_0 = 1/sqrt 2, otherwise 1."""
    k = torch.arange(8, dtype=torch.float64)
    basis = 0.5 * torch.cos((2 * k + 1) * k[:, None] * math.pi / 16)
    basis[0] /= math.sqrt(2)
    return basis.to(dtype)


def soft_quantize(
    z: Tensor, q: Tensor, alpha: Tensor | float, window: int = 5, levels: int | None = 127
) -> Tensor:
    first = (z / q).detach().round() - window // 2
    if levels is not None:
        first = first.clamp(-levels, levels + 1 - window)
    offset = torch.arange(window, dtype=z.dtype) * q.unsqueeze(-1)
    values = (first * q).unsqueeze(-1) + offset
    distance = (z.unsqueeze(-1) - values) ** 2
    weight = alpha.unsqueeze(-1) if isinstance(alpha, Tensor) else alpha
    probability = torch.softmax(-weight * distance, -1)
    return (probability * values).sum(-1)


class AuthorsJPEG(nn.Module):
    """(N, 3, H, W) RGB in 0..255 to the same; `tables` and `alpha` are (2, 8, 8), Y and CbCr, or
    (K, 2, 8, 8) for K layers of the quantiser one after another."""

    def __init__(
        self,
        tables: Tensor,
        alpha: Tensor | float = 5.0,
        window: int = 5,
        levels: int | None = 127,
        chroma_offset: float = 0.5,
    ) -> None:
        super().__init__()
        self.tables = nn.Parameter(tables.clone())
        self.alpha = alpha if isinstance(alpha, Tensor) else torch.full_like(tables, alpha)
        self.window, self.levels, self.chroma_offset = window, levels, chroma_offset
        self.basis = dct_matrix(tables.dtype)

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        planes = F.pad(self._to_ycbcr(x - 128), (0, -width % 8, 0, -height % 8))
        padded = planes.shape[2:]
        columns = F.unfold(planes.view(3 * n, 1, *padded), 8, stride=8)
        blocks = columns.transpose(1, 2).reshape(n, 3, -1, 8, 8)
        z = self.basis @ blocks @ self.basis.T
        rounds = (t.view(-1, 2, 8, 8) for t in (self.tables, self.alpha))
        for tables, alphas in zip(*rounds, strict=True):
            luma, chroma = (
                soft_quantize(part, table, alpha, self.window, self.levels)
                for part, table, alpha in zip(z.split((1, 2), 1), tables, alphas, strict=True)
            )
            z = torch.cat((luma, chroma), 1)
        blocks = self.basis.T @ z @ self.basis
        columns = blocks.reshape(3 * n, -1, 64).transpose(1, 2)
        planes = F.fold(columns, padded, 8, stride=8).view(n, 3, *padded)
        return self._to_rgb(planes[:, :, :height, :width]) + 128

    def _to_ycbcr(self, x: Tensor) -> Tensor:
        red, green, blue = x.unbind(1)
        luma = RED * red + GREEN * green + BLUE * blue
        cb = (blue - luma) / (2 * (1 - BLUE)) + self.chroma_offset
        cr = (red - luma) / (2 * (1 - RED)) + self.chroma_offset
        return torch.stack((luma, cb, cr), 1)

    def _to_rgb(self, planes: Tensor) -> Tensor:
        luma, cb, cr = planes.unbind(1)
        cb, cr = cb - self.chroma_offset, cr - self.chroma_offset
        red, blue = luma + 2 * (1 - RED) * cr, luma + 2 * (1 - BLUE) * cb
        return torch.stack((red, (luma - RED * red - BLUE * blue) / GREEN, blue), 1)
