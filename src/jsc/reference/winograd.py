"""Winograd's minimal filtering by matrices: 3 x 3 convolution of stride 1, and the gradient of its
weights.

    tile of the output = A' [sum(c) U[k, c] .* V[c]] A,   V = B' d B,   U = G w G'

for tiles of m x m outputs, m = 2 or 4. The points are those of `_kernels/winograd/transforms.h`;
the matrices follow from them by Cook's and Toom's interpolation, whatever the kernels write out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, 0.75, -0.75, 1.5, -1.5)}  # and infinity


def matrices(m: int) -> tuple[Tensor, Tensor, Tensor]:
    """A' (m, m + 2), G (m + 2, 3), B' (m + 2, m + 2), float64."""
    points = POINTS[m]
    A = torch.tensor([[p**i for p in points] for i in range(m)], dtype=torch.float64)
    A = torch.cat([A, torch.zeros(m, 1, dtype=torch.float64)], 1)
    A[-1, -1] = 1
    G, B = (torch.zeros(m + 2, columns, dtype=torch.float64) for columns in (3, m + 2))
    for row, p in enumerate(points):
        others = [q for q in points if q != p]
        scale = math.prod(p - q for q in others)
        G[row] = torch.tensor([p**i / scale for i in range(3)], dtype=torch.float64)
        B[row, : m + 1] = _polynomial(others)
    G[-1, -1] = 1
    B[-1] = _polynomial(list(points))
    return A, G, B


def _polynomial(roots: list[float]) -> Tensor:
    """Coefficients of the product of (x - root), the constant first."""
    found = torch.ones(1, dtype=torch.float64)
    for root in roots:
        found = torch.cat([found.new_zeros(1), found]) - root * torch.cat(
            [found, found.new_zeros(1)]
        )
    return found


def _tiles(x: Tensor, m: int, padding: tuple[int, int]) -> Tensor:
    """(N, C, H, W) -> (N, C, rows, columns, m + 2, m + 2)."""
    (down, across), (H, W) = padding, x.shape[2:]
    fill = [-(size + 2 * p - 2) % m for size, p in zip((H, W), padding, strict=True)]
    x = torch.nn.functional.pad(x, (across, across + fill[1], down, down + fill[0]))
    return x.unfold(2, m + 2, m).unfold(3, m + 2, m)


def conv2d(x: Tensor, weight: Tensor, padding: tuple[int, int], m: int) -> Tensor:
    """(N, C, H, W), (K, C, 3, 3) -> (N, K, H + 2 Ph - 2, W + 2 Pw - 2)."""
    A, G, B = (matrix.to(x) for matrix in matrices(m))
    V = torch.einsum("pi,ncyxij,qj->ncyxpq", B, _tiles(x, m, padding), B)
    U = torch.einsum("pi,kcij,qj->kcpq", G, weight, G)
    M = torch.einsum("kcpq,ncyxpq->nkyxpq", U, V)
    tiles = torch.einsum("ip,nkyxpq,jq->nkyixj", A, M, A)
    out = tiles.flatten(2, 3).flatten(3, 4)
    return out[..., : x.shape[2] + 2 * padding[0] - 2, : x.shape[3] + 2 * padding[1] - 2]


def weight_gradient(x: Tensor, grad: Tensor, padding: tuple[int, int], m: int) -> Tensor:
    """The adjoint of `conv2d` in its weight: (N, K, Oh, Ow) -> (K, C, 3, 3)."""
    A, G, B = (matrix.to(x) for matrix in matrices(m))
    V = torch.einsum("pi,ncyxij,qj->ncyxpq", B, _tiles(x, m, padding), B)
    fill = [-size % m for size in grad.shape[2:]]
    grad = torch.nn.functional.pad(grad, (0, fill[1], 0, fill[0]))
    tiles = grad.unfold(2, m, m).unfold(3, m, m)
    Q = torch.einsum("ip,nkyxij,jq->nkyxpq", A, tiles, A)
    return torch.einsum("pi,nkyxpq,ncyxpq,qj->kcij", G, Q, V, G)


def products(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], groups: int = 1
) -> Tensor:
    """What an error of an output is relative to, float64: the transforms mix a tile's inputs and a
    kernel's taps, so it is all |x| of the 7 x 7 pixels that may share a tile, times all |w| of the
    kernel, and |bias|. Of a direct convolution it would be the output's own products."""
    x, weight = x.double().abs(), weight.double().abs()
    bias = None if bias is None else bias.double().abs()
    taps = weight.sum((2, 3), keepdim=True).expand(-1, -1, 7, 7)
    around = (padding[0] + 2, padding[1] + 2)
    return torch.nn.functional.conv2d(x.contiguous(), taps, bias, 1, around, 1, groups)
