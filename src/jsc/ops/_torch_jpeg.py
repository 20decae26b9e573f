"""The whole JPEG layer in plain torch, at every setting and differentiable to any order: what runs
on devices without a kernel, what is written down by a trace or an ONNX export, and what the
operator computes its second derivatives with.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from operator import mul
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from jsc.ops import _torch
from jsc.ops._threefry import uniform

SOFT, HARD, STRAIGHT, SAMPLE = range(4)


class Settings(NamedTuple):
    """What the layer computes, in the order of the operators' arguments."""

    mode: int  # SOFT, HARD, STRAIGHT or SAMPLE
    window: int  # number of levels, 0 for all
    levels: int  # the last one, 0 for none
    v: int  # pixels to a sample of chroma, downwards
    u: int  # and across
    zero: bool  # padding is mid-grey, and not the edge repeated
    mean: Sequence[float]  # one for each channel
    std: Sequence[float]
    peak: float
    offset: float  # of Cb and Cr


def layer(x: Tensor, q: Tensor, kappa: Tensor, seed: Tensor | None, settings: Settings) -> Tensor:
    """x: (N, C, H, W), C = 3 or 1, in 8 bits or like q; q and kappa: (rounds, tables, 8, 8)."""
    if x.dtype == torch.uint8:
        x = from_bytes(x, settings, q.dtype)
    if x.numel() == 0:
        return x * q.sum()  # the result stays part of the graph of x and q
    found = split(x, settings)
    out = []
    for c, plane in enumerate(found):
        z = _torch.block_dct(plane)
        for turn, (step, hardness) in enumerate(zip(q[:, c], kappa[:, c], strict=True)):
            noise = None
            if settings.mode == SAMPLE:
                assert seed is not None
                noise = uniform(seed, _numbers(z, c, x.shape, settings), turn, z.dtype)
            z = _quantized(z, step, hardness, noise, settings)
        out.append(_torch.block_idct(z))
    return join(out, x.shape[2:], settings)


def _quantized(
    z: Tensor, q: Tensor, kappa: Tensor, noise: Tensor | None, settings: Settings
) -> Tensor:
    window, levels = settings.window or None, settings.levels or None
    if settings.mode == HARD:
        return _torch.hard_quantize(z, q, levels)
    if settings.mode == STRAIGHT:
        return _torch.ste_quantize(z, q, levels)
    mean = _torch.soft_quantize(z, q, kappa, window, levels)
    if noise is None:
        return mean
    drawn = q * _torch.sample_levels(z, q, kappa, noise, window, levels)
    return mean + (drawn - mean).detach()


def _numbers(z: Tensor, c: int, shape: Sequence[int], settings: Settings) -> Tensor:
    """The numbers that the kernel gives the blocks of a part (_kernels/jpeg/bands.h): those of Y,
    of Cb and of Cr, image after image."""
    n, planes, rows, columns = z.shape[:4]
    v, u = settings.v, settings.u
    luma = -(-shape[2] // 8) * -(-shape[3] // 8)
    chroma = -(-shape[2] // (8 * v)) * -(-shape[3] // (8 * u))
    inside = torch.arange(planes * rows * columns, device=z.device).view(planes, rows, columns)
    images = torch.arange(n, device=z.device).view(-1, 1, 1, 1)
    return images * (luma + 2 * chroma) + luma * (c > 0) + inside


def from_bytes(x: Tensor, settings: Settings, dtype: torch.dtype) -> Tensor:
    """8-bit numbers as the layer would be given them: pixels up to the peak, then normalised."""
    mean, std = (
        torch.tensor(v, dtype=dtype, device=x.device).view(-1, 1, 1)
        for v in (settings.mean, settings.std)
    )
    return (x.to(dtype) * (settings.peak / 255) - mean) / std


def split(x: Tensor, settings: Settings) -> list[Tensor]:
    """(N, C, H, W), C = 3 or 1 -> [Y (N, 1, ...), Cb and Cr (N, 2, ...)] or [Y], in grey levels
    around 0 and whole blocks. Chroma is averaged."""
    channels = x.shape[1]
    scale, shift = _grey_levels(settings)
    if channels == 1:
        planes = x * scale[0] + shift[0]
    else:
        offset = settings.offset
        matrix = [[m * s for m, s in zip(row, scale, strict=True)] for row in _torch.RGB_TO_YCC]
        constant = [sum(map(mul, row, shift)) for row in _torch.RGB_TO_YCC]
        planes = _affine(x, matrix, [constant[0], *(c + offset for c in constant[1:])])
    padding = "zero" if settings.zero else "replicate"
    found = []
    for c, plane in enumerate(planes.split([1, 2] if channels == 3 else [1], 1)):
        v, u = (settings.v, settings.u) if c else (1, 1)
        plane = _torch.pad_to_multiple(plane, 8 * v, 8 * u, padding)
        if (v, u) != (1, 1):  # far faster than avg_pool2d, forward and backward
            plane = sum(plane[:, :, i::v, j::u] for i in range(v) for j in range(u)) * (1 / (v * u))
        found.append(plane)
    return found


def join(found: Sequence[Tensor], size: Sequence[int], settings: Settings) -> Tensor:
    """The inverse of `split`, for an image of `size` (H, W). Chroma is interpolated."""
    h, w = size
    v, u = (settings.v, settings.u) if len(found) == 2 else (1, 1)
    out = []
    for c, plane in enumerate(found):
        if c and (v, u) != (1, 1):
            # As libjpeg's default decoder: a triangle filter over the samples that the image has.
            # Rounded up without a negative number, which ONNX would divide towards zero.
            plane = plane[:, :, : (h + v - 1) // v, : (w + u - 1) // u]
            plane = F.interpolate(
                plane, scale_factor=(float(v), float(u)), mode="bilinear", align_corners=False
            )
        out.append(plane[:, :, :h, :w])
    planes = torch.cat(out, 1)
    scale, shift = _grey_levels(settings)
    if len(found) == 1:
        return (planes - shift[0]) / scale[0]
    matrix = [[m / s for m in row] for row, s in zip(_torch.YCC_TO_RGB, scale, strict=True)]
    constant = [
        -(settings.offset * (row[1] + row[2]) + t) / s
        for row, t, s in zip(_torch.YCC_TO_RGB, shift, scale, strict=True)
    ]
    return _affine(planes, matrix, constant)


def _grey_levels(settings: Settings) -> tuple[list[float], list[float]]:
    """Of each channel scale and shift, by which x * scale + shift is in grey levels around 0."""
    peak = settings.peak
    return [s * 255 / peak for s in settings.std], [m * 255 / peak - 128 for m in settings.mean]


def _affine(x: Tensor, matrix: Sequence[Sequence[float]], constant: Sequence[float]) -> Tensor:
    """A 3x3 matrix and a constant on the channel axis: one library product, one pass over memory,
    in the precision of `x` even where autocast would lower that of products."""
    lowered = x.device.type in ("cpu", "cuda") and torch.is_autocast_enabled(x.device.type)
    with torch.autocast(x.device.type, enabled=False) if lowered else nullcontext():
        # Not by x.new_tensor, which refuses an x whose negation is yet to be done.
        weight, bias = (
            torch.tensor(numbers, dtype=x.dtype, device=x.device) for numbers in (matrix, constant)
        )
        weight, bias = weight.expand(x.shape[0], 3, 3), bias.view(1, 3, 1)
        return torch.baddbmm(bias, weight, x.flatten(2)).view(x.shape)
