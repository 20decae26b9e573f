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
        for block in _whole_vectors(group, lanes).split(vectors * lanes):
            for piece in block.split(chunk, 1):
                parts.append(piece.permute(2, 3, 1, 0).reshape(-1))
    return torch.cat(parts)


def pairs(weight: Tensor) -> Tensor:
    """(K, C, Kh, Kw) -> (K, C / 2, Kh, Kw) float32 whose bits are two bfloat16, of channels 2 c and
    2 c + 1; an odd last one has zeros beside it."""
    even = F.pad(weight, (0, 0, 0, 0, 0, weight.shape[1] % 2)).bfloat16()
    K, C, Kh, Kw = even.shape
    rows = even.permute(0, 2, 3, 1).reshape(K, Kh, Kw, C // 2, 2).contiguous()
    return rows.view(torch.float32)[..., 0].permute(0, 3, 1, 2)


def plain(weight: Tensor, lanes: int) -> Tensor:
    """(K, C, Kh, Kw) -> for each vector of filters: (Kh, Kw, C, lanes), missing ones zero."""
    padded = F.pad(weight, (0, 0, 0, 0, 0, 0, 0, -weight.shape[0] % lanes))
    return padded.float().unflatten(0, (-1, lanes)).permute(0, 3, 4, 2, 1).reshape(-1)


def _whole_vectors(rows: Tensor, lanes: int) -> Tensor:
    """The last vector of rows are the last ones; of fewer than one vector the rest are zero."""
    count = rows.shape[0]
    if count < lanes:
        return F.pad(rows, (0, 0) * (rows.dim() - 1) + (0, lanes - count))
    whole = count // lanes * lanes
    return torch.cat([rows[:whole], rows[count - lanes :]]) if whole < count else rows


def grouped(weight: Tensor, groups: int, lanes: int, most: int) -> Tensor:
    """(K, C / groups, Kh, 3) -> per group, block of at most `most` vectors: (Kh, channels, 3,
    filters)."""
    parts = []
    for group in weight.float().chunk(groups):
        filters, block = group.shape[0], most * lanes
        whole = filters // block * block
        cuts = [(k, block) for k in range(0, whole, block)]
        cuts += [(min(k, filters - lanes), lanes) for k in range(whole, filters, lanes)]
        parts += [group[k : k + n].permute(2, 1, 3, 0).reshape(-1) for k, n in cuts]
    return torch.cat(parts)


def depthwise(weight: Tensor, lanes: int) -> Tensor:
    """(C, 1, Kh, Kw) -> for each vector of channels: (Kh, Kw, lanes); of fewer channels than lanes
    each by itself."""
    kernels = weight.float()[:, 0]
    if kernels.shape[0] < lanes:
        return kernels.reshape(-1)
    vectors = _whole_vectors(kernels, lanes).unflatten(0, (-1, lanes))
    return vectors.permute(0, 2, 3, 1).reshape(-1)


def _transform(outputs: int) -> Tensor:
    """G of F(outputs, 3): (outputs + 2, 3), by the points of winograd.h."""
    points = {2: [0.0, 1.0, -1.0], 4: [0.0, 0.75, -0.75, 1.5, -1.5]}[outputs]
    rows = []
    for i, p in enumerate(points):
        others = [p - q for j, q in enumerate(points) if j != i]
        rows.append([p**power / math.prod(others) for power in range(3)])
    return torch.tensor([*rows, [0.0, 0.0, 1.0]], dtype=torch.float64, device="cpu")


def winograd(weight: Tensor, tile: tuple[int, int], lanes: int, vectors: int) -> Tensor:
    """(K, C, 3, 3) -> for each filter block: (positions, C, filters), transformed in float64."""
    both = torch.kron(*(_transform(m) for m in tile))  # (positions, 9)
    K, C = weight.shape[:2]
    taps = weight.double().permute(2, 3, 1, 0).reshape(9, C * K)
    transformed = (both @ taps).float().reshape(-1, C, K)
    blocks = F.pad(transformed, (0, -K % lanes)).split(vectors * lanes, 2)
    return torch.cat([block.reshape(-1) for block in blocks])
