"""Weights in the order in which the kernels read them (layouts: the kernels' headers)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def direct(weight: Tensor, groups: int, lanes: int, vectors: int, chunk: int) -> Tensor:
    """(K, C / groups, Kh, Kw) -> per group, filter block, chunk: (Kh, Kw, chunk, filters)."""
    parts = []
    for group in weight.float().chunk(groups):
        for block in group.split(vectors * lanes):
            missing = -block.shape[0] % lanes
            block = F.pad(block, (0, 0, 0, 0, 0, 0, 0, missing))
            for piece in block.split(chunk, 1):
                parts.append(piece.permute(2, 3, 1, 0).reshape(-1))
    return torch.cat(parts)


def depthwise(weight: Tensor) -> Tensor:
    """(C, 1, Kh, Kw) -> (Kh, Kw, C)."""
    return weight.float()[:, 0].permute(1, 2, 0).contiguous()


def _transform(outputs: int) -> Tensor:
    """G of F(outputs, 3): (outputs + 2, 3), by the points of winograd.h."""
    points = {2: [0.0, 1.0, -1.0], 4: [0.0, 0.75, -0.75, 1.5, -1.5]}[outputs]
    rows = []
    for i, p in enumerate(points):
        others = [p - q for j, q in enumerate(points) if j != i]
        rows.append([p**power / math.prod(others) for power in range(3)])
    return torch.tensor([*rows, [0.0, 0.0, 1.0]], dtype=torch.float64)


def winograd(weight: Tensor, tile: tuple[int, int], lanes: int, vectors: int) -> Tensor:
    """(K, C, 3, 3) -> for each filter block: (positions, C, filters), transformed in float64."""
    down, across = (_transform(m) for m in tile)
    transformed = torch.einsum("iu,kcuv,jv->ijkc", down, weight.double(), across).flatten(0, 1)
    parts = []
    for block in transformed.split(vectors * lanes, 1):
        missing = -block.shape[1] % lanes
        parts.append(F.pad(block, (0, 0, 0, missing)).transpose(1, 2).reshape(-1))
    return torch.cat(parts).float()
