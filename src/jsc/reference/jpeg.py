"""The JPEG layer by its definition: double sums for the DCT, every level for the quantisers.

Production has closed forms, series and one pass over memory; here each equation stands as the
standards and the paper have it. Autograd gives the derivatives.

Source: ITU-T T.81 (1992), A.3.3; ITU-T T.871 (2011), section 7; arXiv:2410.07081, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# Below this hardness the mean of all levels is u, to 2 pi / kappa exp(-pi^2 / kappa) < 1e-400.
IDENTITY_BELOW = 0.01


def dct_basis() -> Tensor:
    """(8, 8, 8, 8) float64: basis[k, l, m, n], by which T.81 weights pixel (m, n) in Z(k, l)."""
    basis = torch.zeros(8, 8, 8, 8, dtype=torch.float64)
    for k in range(8):
        for l in range(8):  # noqa: E741
            scale = (math.sqrt(0.5) if k == 0 else 1) * (math.sqrt(0.5) if l == 0 else 1) / 4
            for m in range(8):
                for n in range(8):
                    vertical = math.cos((2 * m + 1) * k * math.pi / 16)
                    basis[k, l, m, n] = scale * vertical * math.cos((2 * n + 1) * l * math.pi / 16)
    return basis


BASIS = dct_basis()


def block_dct(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, H/8, W/8, 8, 8): Z(k, l) = sum_m,n basis[k, l, m, n] x(m, n)."""
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // 8, 8, w // 8, 8)
    return torch.einsum("abymxn,klmn->abyxkl", blocks, BASIS.to(x))


def block_idct(z: Tensor) -> Tensor:
    """(N, C, H/8, W/8, 8, 8) -> (N, C, H, W): x(m, n) = sum_k,l basis[k, l, m, n] Z(k, l)."""
    n, c, rows, columns = z.shape[:4]
    blocks = torch.einsum("abyxkl,klmn->abymxn", z, BASIS.to(z))
    return blocks.reshape(n, c, 8 * rows, 8 * columns)


def rgb_to_ycc(r: Tensor, g: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Y, Cb and Cr of T.871, Cb and Cr around 0."""
    y = 0.299 * r + 0.587 * g + 0.114 * b
    return y, (b - y) / 1.772, (r - y) / 1.402


def ycc_to_rgb(y: Tensor, cb: Tensor, cr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The inverse of `rgb_to_ycc`: its three equations solved for R, B and then G."""
    r, b = y + 1.402 * cr, y + 1.772 * cb
    return r, (y - 0.299 * r - 0.114 * b) / 0.587, b


def mean_level(u: Tensor, kappa: Tensor, levels: Tensor, counts: Tensor | None = None) -> Tensor:
    """sum_k k P(k), P(k) ~ exp(-kappa (u - k)^2), over the last axis of `levels`; only the levels
    where `counts` is true count."""
    logits = -kappa.unsqueeze(-1) * (u.unsqueeze(-1) - levels) ** 2
    if counts is not None:
        logits = logits.masked_fill(~counts, -torch.inf)
    return (torch.softmax(logits, -1) * levels).sum(-1)


def lattice_mean(u: Tensor, kappa: Tensor) -> Tensor:
    """The mean of all integers k under P(k) ~ exp(-kappa (u - k)^2), by enumeration of those whose
    weight is above exp(-40) of the largest."""
    u, kappa = torch.broadcast_tensors(u, kappa)
    if u.numel() == 0:
        return u * kappa
    softest = max(float(kappa.detach().min()), IDENTITY_BELOW)
    reach = math.ceil(6.5 / math.sqrt(softest)) + 1
    nearest = torch.round(u.detach())
    beside = torch.arange(-reach, reach + 1, dtype=u.dtype, device=u.device)
    enumerated = nearest + mean_level(u - nearest, kappa, beside)
    return torch.where(kappa < IDENTITY_BELOW, u, enumerated)


def window_centre(u: Tensor, window: int, levels: int | None) -> Tensor:
    """The middle of the `window` levels nearest to u, all of which are within -levels..levels."""
    centre = torch.round(u.detach())
    if levels is None:
        return centre
    return torch.minimum(
        torch.maximum(centre, torch.full_like(centre, window // 2 - levels)),
        torch.full_like(centre, levels - window // 2),
    )


def soft_quantize(
    z: Tensor, q: Tensor, kappa: Tensor, window: int | None = None, levels: int | None = None
) -> Tensor:
    """Q(z) = q E[k]; arguments broadcast. See `jsc.functional.soft_quantize`."""
    z, q, kappa = torch.broadcast_tensors(z, q, kappa)
    u = z / q
    if window is not None:
        centre = window_centre(u, window, levels).unsqueeze(-1)
        beside = torch.arange(-window, window + 1, dtype=z.dtype, device=z.device)
        return q * mean_level(u, kappa, centre + beside, beside.abs() <= window // 2)
    if levels is None:
        return q * lattice_mean(u, kappa)
    inside = u.abs() <= levels
    mean = lattice_mean(torch.where(inside, u, 0.0), kappa)
    return q * torch.where(inside, mean, levels * torch.sign(u.detach()))


def hard_quantize(z: Tensor, q: Tensor, levels: int | None = None) -> Tensor:
    """q round(z / q): derivative 0 in z, round(z / q) in q."""
    n = torch.round(z.detach() / q.detach())
    return q * (n if levels is None else n.clamp(-levels, levels))


class _StraightThrough(torch.autograd.Function):
    """The value of `hard_quantize` with the derivatives that LSQ (Esser et al., 2020) writes down:
    inside the levels 1 in z and round(u) - u in q, beyond the last one 0 and that level."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, q: Tensor, levels: int | None) -> Tensor:
        ctx.save_for_backward(z, q)
        ctx.levels = math.inf if levels is None else levels
        return hard_quantize(z, q, levels)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:
        z, q = ctx.saved_tensors
        u = z / q
        inside = u.abs() <= ctx.levels
        last = torch.where(u > 0, ctx.levels, -ctx.levels)
        return g * inside, g * torch.where(inside, torch.round(u) - u, last), None


def ste_quantize(z: Tensor, q: Tensor, levels: int | None = None) -> Tensor:
    """`hard_quantize` with the straight-through derivative; first derivatives only."""
    return _StraightThrough.apply(*torch.broadcast_tensors(z, q), levels)


def jpeg(
    x: Tensor,
    q: Tensor,
    kappa: Tensor,
    *,
    quantizer: str = "soft",
    window: int | None = None,
    levels: int | None = None,
    subsampling: str = "4:4:4",
    padding: str = "replicate",
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
    peak: float = 1.0,
    chroma_offset: float = 0.0,
) -> Tensor:
    """The whole layer: x (N, 3 or 1, H, W), q and kappa ([rounds,] tables, 8, 8)."""
    channels, h, w = x.shape[1:]
    planes = [(x[:, c] * std[c] + mean[c]) * 255 / peak for c in range(channels)]
    if channels == 3:
        y, cb, cr = rgb_to_ycc(*planes)
        planes = [y, cb + chroma_offset, cr + chroma_offset]
    planes[0] = planes[0] - 128  # of Cb and Cr, the 128 of T.871 and that of T.81 cancel
    q, kappa = q.reshape(-1, *q.shape[-3:]), kappa.reshape(-1, *kappa.shape[-3:])
    for c in range(channels):
        table = min(c, 1)  # Cb and Cr share the second
        v, u = {"4:4:4": (1, 1), "4:2:2": (1, 2), "4:2:0": (2, 2)}[subsampling] if c else (1, 1)
        samples = average(_whole_blocks(planes[c], 8 * v, 8 * u, padding), v, u)
        z = block_dct(samples.unsqueeze(1))
        for step, hardness in zip(q[:, table], kappa[:, table], strict=True):
            if quantizer == "soft":
                z = soft_quantize(z, step, hardness, window, levels)
            elif quantizer == "hard":
                z = hard_quantize(z, step, levels)
            else:
                z = ste_quantize(z, step, levels)
        samples = block_idct(z)[:, 0, : -(-h // v), : -(-w // u)]
        planes[c] = interpolate(samples, v, u)[:, :h, :w]
    planes[0] = planes[0] + 128
    if channels == 3:
        y, cb, cr = planes
        planes = list(ycc_to_rgb(y, cb - chroma_offset, cr - chroma_offset))
    return torch.stack(
        [(plane * peak / 255 - mean[c]) / std[c] for c, plane in enumerate(planes)], 1
    )


def _whole_blocks(plane: Tensor, height: int, width: int, padding: str) -> Tensor:
    """(N, H, W) -> rows and columns at the end, up to multiples of (height, width): the last ones
    repeated, or zeros."""
    h, w = plane.shape[1:]
    rows, columns = torch.arange(-(-h // height) * height), torch.arange(-(-w // width) * width)
    filled = plane[:, rows.clamp(max=h - 1)][:, :, columns.clamp(max=w - 1)]
    inside = (rows < h).unsqueeze(1) & (columns < w)
    return torch.where(inside, filled, 0.0) if padding == "zero" else filled


def average(plane: Tensor, v: int, u: int) -> Tensor:
    """(N, v H, u W) -> (N, H, W): the mean of v x u pixels."""
    n, h, w = plane.shape
    return plane.reshape(n, h // v, v, w // u, u).mean((2, 4))


def interpolate(samples: Tensor, v: int, u: int) -> Tensor:
    """(N, H, W) -> (N, v H, u W): where there are two pixels to a sample, each has 3/4 of its own
    sample and 1/4 of the next one on its side; the edge is repeated."""
    for axis, factor in ((1, v), (2, u)):
        if factor == 1:
            continue
        size = samples.shape[axis]
        pixel = torch.arange(2 * size)
        near, side = pixel // 2, 2 * (pixel % 2) - 1
        far = (near + side).clamp(0, size - 1)
        samples = samples.index_select(axis, near) * 0.75 + samples.index_select(axis, far) * 0.25
    return samples
