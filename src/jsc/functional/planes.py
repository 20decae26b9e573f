"""From an image to the DCT coefficients of its planes, and back: what surrounds the quantiser."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from operator import mul

import torch
import torch.nn.functional as F
from torch import Tensor

from jsc.functional.dct import block_dct
from jsc.functional.options import SUBSAMPLINGS, JpegOptions
from jsc.ops import _torch


def split(x: Tensor, options: JpegOptions) -> list[Tensor]:
    """(N, C, H, W), C = 3 or 1 -> [Y (N, 1, ...), Cb and Cr (N, 2, ...)] or [Y], in grey levels
    around 0 and whole blocks. Chroma is averaged."""
    channels = x.shape[1]
    scale, shift = _grey_levels(options, channels)
    if channels == 1:
        planes = x * scale[0] + shift[0]
    else:
        offset = options.chroma_offset
        matrix = [[m * s for m, s in zip(row, scale, strict=True)] for row in _torch.RGB_TO_YCC]
        constant = [sum(map(mul, row, shift)) for row in _torch.RGB_TO_YCC]
        planes = _affine(x, matrix, [constant[0], *(c + offset for c in constant[1:])])
    found = []
    for c, plane in enumerate(planes.split([1, 2] if channels == 3 else [1], 1)):
        v, u = SUBSAMPLINGS[options.subsampling] if c else (1, 1)
        plane = _torch.pad_to_multiple(plane, 8 * v, 8 * u, options.padding)
        if (v, u) != (1, 1):  # far faster than avg_pool2d, forward and backward
            plane = sum(plane[:, :, i::v, j::u] for i in range(v) for j in range(u)) * (1 / (v * u))
        found.append(plane)
    return found


def coefficients(x: Tensor, options: JpegOptions) -> list[Tensor]:
    """The block DCT of the planes of :func:`split`: each (N, planes, rows, columns, 8, 8)."""
    return [block_dct(plane) for plane in split(x, options)]


def join(found: Sequence[Tensor], size: Sequence[int], options: JpegOptions) -> Tensor:
    """The inverse of `split`, for an image of `size` (H, W). Chroma is interpolated."""
    h, w = size
    v, u = SUBSAMPLINGS[options.subsampling] if len(found) == 2 else (1, 1)
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
    scale, shift = _grey_levels(options, planes.shape[1])
    if len(found) == 1:
        return (planes - shift[0]) / scale[0]
    matrix = [[m / s for m in row] for row, s in zip(_torch.YCC_TO_RGB, scale, strict=True)]
    constant = [
        -(options.chroma_offset * (row[1] + row[2]) + t) / s
        for row, t, s in zip(_torch.YCC_TO_RGB, shift, scale, strict=True)
    ]
    return _affine(planes, matrix, constant)


def _grey_levels(options: JpegOptions, channels: int) -> tuple[list[float], list[float]]:
    """Of each channel scale and shift, by which x * scale + shift is in grey levels around 0."""
    means, stds = options.normalisation(channels)
    peak = options.peak
    return [s * 255 / peak for s in stds], [m * 255 / peak - 128 for m in means]


def _affine(x: Tensor, matrix: Sequence[Sequence[float]], constant: Sequence[float]) -> Tensor:
    """A 3x3 matrix and a constant on the channel axis: one library product, one pass over memory,
    in the precision of `x` even where autocast would lower that of products."""
    lowered = x.device.type in ("cpu", "cuda") and torch.is_autocast_enabled(x.device.type)
    with torch.autocast(x.device.type, enabled=False) if lowered else nullcontext():
        weight = x.new_tensor(matrix).expand(x.shape[0], 3, 3)
        return torch.baddbmm(x.new_tensor(constant).view(1, 3, 1), weight, x.flatten(2)).view(
            x.shape
        )
