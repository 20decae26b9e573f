"""The steps of the JPEG layer in plain torch, differentiable to any order: what runs where no
kernel does (the whole layer: `jsc.ops._torch_jpeg`).

Devices without a compiled kernel run these functions, tables too large for the kernels do, and the
operators compute their second derivatives with them. The equations are in the docstrings of
`jsc.functional`. The oracle of the tests, `jsc.reference`, is written separately.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from jsc.ops._library import recorded

# ITU-T T.871 (JFIF), section 7: full-range BT.601.
RGB_TO_YCC = (
    (0.299, 0.587, 0.114),
    (-0.299 / 1.772, -0.587 / 1.772, 0.5),
    (0.5, -0.587 / 1.402, -0.114 / 1.402),
)
YCC_TO_RGB = (
    (1.0, 0.0, 1.402),
    (1.0, -0.114 * 1.772 / 0.587, -0.299 * 1.402 / 0.587),
    (1.0, 1.772, 0.0),
)

# Below this hardness the sum over levels converges faster in its dual form (`lattice_mean`).
DUAL_BELOW = 2.0
SOFTEST = 0.05

# D of Z = D X D' (ITU-T T.81, A.3.3).
DCT_ROWS = tuple(
    tuple(
        (math.sqrt(0.5) if k == 0 else 1.0) / 2 * math.cos((2 * n + 1) * k * math.pi / 16)
        for n in range(8)
    )
    for k in range(8)
)


def _dct_matrix(like: Tensor) -> Tensor:
    # Not by like.new_tensor, which refuses tensors whose negation is yet to be done.
    return torch.tensor(DCT_ROWS, dtype=like.dtype, device=like.device)


def block_dct(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, H/8, W/8, 8, 8)."""
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // 8, 8, w // 8, 8).transpose(3, 4)
    matrix = _dct_matrix(x)
    return matrix @ blocks @ matrix.T


def block_idct(z: Tensor) -> Tensor:
    """(N, C, H/8, W/8, 8, 8) -> (N, C, H, W)."""
    n, c, rows, columns = z.shape[:4]
    matrix = _dct_matrix(z)
    return (matrix.T @ z @ matrix).transpose(3, 4).reshape(n, c, 8 * rows, 8 * columns)


def _moment(u: Tensor, kappa: Tensor, levels: Tensor) -> Tensor:
    """sum_k k softmax_k(-kappa (u - k)^2) over the last axis of `levels` (constants)."""
    logits = -kappa.unsqueeze(-1) * (u.unsqueeze(-1) - levels) ** 2
    return (torch.softmax(logits, -1) * levels).sum(-1)


def lattice_mean(u: Tensor, kappa: Tensor) -> Tensor:
    """m(u) = sum_k k P(k) over all integers, P(k) ~ exp(-kappa (u - k)^2).

    Direct sum over the 11 levels nearest to u, or Jacobi's transform of it:
    m = u - (2 pi / kappa) sum_j j r_j sin(2 pi j u) / (1 + 2 sum_j r_j cos(2 pi j u)), with
    r_j = exp(-pi^2 j^2 / kappa), four terms. Both are exact to double precision on their side.
    """
    nearest = torch.round(u.detach())
    # Levels are counted from the nearest one: they stay small, so float32 keeps its digits.
    taps = torch.arange(-5, 6, dtype=u.dtype, device=u.device)
    offset = u - nearest
    # The gradient of `clamp` at the bound itself differs between versions of torch; that of `where`
    # does not.
    soft = kappa < DUAL_BELOW
    hard = torch.where(soft, DUAL_BELOW, kappa)
    direct = nearest + _moment(offset, hard, taps.expand(*u.shape, 11))
    # Below SOFTEST the deviation from u is smaller than 1e-80.
    hardness = torch.where(kappa < SOFTEST, SOFTEST, torch.where(soft, kappa, DUAL_BELOW))
    numerator = torch.zeros_like(u)
    denominator = torch.ones_like(u)
    for j in range(1, 5):
        weight = torch.exp(-((math.pi * j) ** 2) / hardness)
        numerator = numerator + j * weight * torch.sin(2 * math.pi * j * offset)
        denominator = denominator + 2 * weight * torch.cos(2 * math.pi * j * offset)
    dual = u - 2 * math.pi / hardness * numerator / denominator
    return torch.where(soft, dual, direct)


def window_start(u: Tensor, window: int, levels: int | None) -> Tensor:
    """First of the `window` levels nearest to u, kept inside [-levels, levels]."""
    start = torch.round(u.detach()) - window // 2
    return start if levels is None else start.clamp(-levels, levels + 1 - window)


def soft_quantize(
    z: Tensor, q: Tensor, kappa: Tensor, window: int | None = None, levels: int | None = None
) -> Tensor:
    """Q(z) = q E[k]; arguments broadcast. See `jsc.functional.soft_quantize`."""
    z, q, kappa = torch.broadcast_tensors(z, q, kappa)
    if window is not None:
        u = z / q
        start = window_start(u, window, levels)
        candidates = torch.arange(window, dtype=z.dtype, device=z.device) + start.unsqueeze(-1)
        return q * _moment(u, kappa, candidates)
    u = z / q
    if levels is None:
        return q * lattice_mean(u, kappa)
    inside = u.abs() <= levels
    mean = lattice_mean(torch.where(inside, u, torch.zeros_like(u)), kappa)
    # NaN is not inside, and stays NaN in `clamp`
    return q * torch.where(inside, mean, u.detach().clamp(-levels, levels))


def hard_quantize(z: Tensor, q: Tensor, levels: int | None = None) -> Tensor:
    """q round(z / q): derivative 0 in z, round(z / q) in q."""
    n = torch.round(z.detach() / q.detach())
    return q * (n if levels is None else n.clamp(-levels, levels))


def ste_quantize(z: Tensor, q: Tensor, levels: int | None = None) -> Tensor:
    """`hard_quantize` with the straight-through (LSQ) derivative: 1 in z, round(u) - u in q; beyond
    the last level 0 and that level, at the last level itself still as inside."""
    u = z / q
    clamped = u
    if levels is not None:
        clamped = torch.where(u.abs() <= levels, u, u.detach().clamp(-levels, levels))
    return q * (clamped + (torch.round(clamped) - clamped).detach())


def sample_levels(
    z: Tensor, q: Tensor, kappa: Tensor, noise: Tensor, window: int | None, levels: int | None
) -> Tensor:
    """Levels k drawn from P(k | z) with the uniform `noise`, by inversion over 41 or `window`
    levels.

    Lattices softer than kappa = 0.16 are split by powers of two first: the residue of k is uniform
    to within 4e-7 there, and what remains is a harder lattice (Jacobi's transform again).
    """
    z, q, kappa = torch.broadcast_tensors(z, q, kappa)
    u = z / q
    if window is not None:
        candidates = torch.arange(window, dtype=z.dtype, device=z.device)
        candidates = candidates + window_start(u, window, levels).unsqueeze(-1)
        step, residue = torch.ones_like(u), torch.zeros_like(u)
    else:
        kappa = kappa.clamp(min=1e-8)
        scale = (0.5 * torch.log2(0.64 / kappa)).floor().clamp(0, 12)
        step = torch.exp2(scale)
        residue = torch.floor(noise * step)
        noise = noise * step - residue
        u, kappa = (u - residue) / step, kappa * step * step
        taps = torch.arange(-20, 21, dtype=z.dtype, device=z.device)
        candidates = torch.round(u).unsqueeze(-1) + taps
    weights = torch.softmax(-kappa.unsqueeze(-1) * (u.unsqueeze(-1) - candidates) ** 2, -1)
    below = (weights.cumsum(-1) < noise.unsqueeze(-1)).sum(-1).clamp(max=candidates.shape[-1] - 1)
    k = (candidates[..., 0] + below) * step + residue
    return k if levels is None else k.clamp(-levels, levels)


def pad_to_multiple(x: Tensor, height: int, width: int, padding: str) -> Tensor:
    """Extend right and bottom to multiples of (height, width)."""
    pad = (0, -x.shape[3] % width, 0, -x.shape[2] % height)
    if recorded():  # sizes stay free: not even compared
        return F.pad(x, pad, mode="replicate") if padding == "replicate" else F.pad(x, pad)
    if pad == (0, 0, 0, 0) or x.numel() == 0:
        return x if x.numel() else F.pad(x, pad)
    return F.pad(x, pad, mode="replicate") if padding == "replicate" else F.pad(x, pad)
