"""A differentiable JPEG in the style of Diff-JPEG (Reich et al., WACV 2024): 4:2:0, cubic rounding.

round(x) + (x - round(x))^3 in place of round(x), for the coefficients; a 4-D 8x8 DCT, as there;
chroma halved by averaging and doubled by repeating; the result clipped to 0..255.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers.jpeg_dl import BLUE, GREEN, RED, dct_matrix


def cubic_round(x: Tensor) -> Tensor:
    nearest = x.detach().round()
    return nearest + (x - nearest) ** 3


class CubicJPEG(nn.Module):
    """(N, 3, H, W) RGB in 0..255 to the same, H and W multiples of 16; `tables` (2, 8, 8)."""

    def __init__(self, tables: Tensor) -> None:
        super().__init__()
        self.tables = nn.Parameter(tables.clone())
        basis = dct_matrix(tables.dtype)
        self.basis = torch.einsum("ux,vy->uvxy", basis, basis).contiguous()
        forward = [
            [RED, GREEN, BLUE],
            [-RED / (2 - 2 * BLUE), -GREEN / (2 - 2 * BLUE), 0.5],
            [0.5, -GREEN / (2 - 2 * RED), -BLUE / (2 - 2 * RED)],
        ]
        self.colour = torch.tensor(forward, dtype=torch.float64)
        self.inverse = torch.linalg.inv(self.colour).to(tables.dtype)
        self.colour = self.colour.to(tables.dtype)

    def forward(self, x: Tensor) -> Tensor:
        planes = torch.einsum("dc,nchw->ndhw", self.colour, x - 128)
        luma = self._code(planes[:, :1], self.tables[0])
        chroma = self._code(F.avg_pool2d(planes[:, 1:], 2), self.tables[1])
        chroma = F.interpolate(chroma, scale_factor=2, mode="nearest")
        y = torch.einsum("dc,nchw->ndhw", self.inverse, torch.cat((luma, chroma), 1)) + 128
        return y.clamp(0, 255)

    def _code(self, planes: Tensor, table: Tensor) -> Tensor:
        n, c, height, width = planes.shape
        blocks = planes.view(n, c, height // 8, 8, width // 8, 8).transpose(3, 4)
        z = torch.tensordot(blocks, self.basis, dims=((4, 5), (2, 3)))
        coded = cubic_round(z / table) * table
        blocks = torch.tensordot(coded, self.basis, dims=((4, 5), (0, 1)))
        return blocks.transpose(3, 4).reshape(n, c, height, width)
