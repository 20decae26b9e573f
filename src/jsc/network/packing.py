"""Weights in the order in which the kernels read them (layouts: the kernels' headers)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from jsc import _config
from jsc._kernels.winograd import winograd as kernel
from jsc.network.constants import FLOATS
from jsc.ops.winograd import LANES


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


def winograd(weight: Tensor, tile: tuple[int, int], lanes: int, vectors: int) -> Tensor:
    """(K, C, 3, 3) -> transformed in float64, for each filter block: (positions, C, filters); then
    plain, for each vector of filters: (3, 3, C, lanes). Missing filters are zero."""
    weight = (weight if weight.dtype == torch.float64 else weight.float()).resolve_neg()
    K, C, Kh, Kw = weight.shape
    if (Kh, Kw) != (3, 3):
        raise ValueError(f"Winograd's transforms are for kernels of 3 x 3; got {Kh} x {Kw}")
    k, c, i, j = weight.stride()
    fields = {
        "K": K, "C": C, "mv": tile[0], "mh": tile[1], "vectors": vectors,
        "k_step": k, "c_step": c, "i_step": i, "j_step": j,
    }  # fmt: skip
    positions = (tile[0] + 2) * (tile[1] + 2)
    packed = torch.empty((positions + 9) * C * (-(-K // lanes) * lanes), **FLOATS)
    kernel.pack(
        weight.data_ptr(), weight.dtype == torch.float64,
        packed.data_ptr(), packed.data_ptr() + winograd_plain(packed, tile),
        fields, LANES.index(lanes), _config.num_threads(9 * K * C),
    )  # fmt: skip
    return packed


def winograd_plain(packed: Tensor, tile: tuple[int, int]) -> int:
    """Where the plain weights of `winograd` begin, in bytes."""
    positions = (tile[0] + 2) * (tile[1] + 2)
    return packed.nbytes // (positions + 9) * positions
