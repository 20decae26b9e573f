"""From an image to the DCT coefficients of its planes, and back: what surrounds the quantiser."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from jsc.functional.dct import block_dct, block_idct
from jsc.reference import jpeg as reference

SUBSAMPLINGS = {"4:4:4": (1, 1), "4:2:2": (1, 2), "4:2:0": (2, 2)}  # vertical, horizontal


def coefficients(
    x: Tensor, subsampling: str, mean: Sequence[float], std: Sequence[float], peak: float,
    chroma_offset: float, padding: str,
) -> list[Tensor]:  # fmt: skip
    """(N, C, H, W), C = 3 or 1 -> [Y (N, 1, ...), Cb and Cr (N, 2, ...)] or [Y], each (N, planes,
    rows, columns, 8, 8) in grey levels. Chroma is averaged before the DCT."""
    channels = x.shape[1]
    mean_, std_ = _normalisation(x, mean, std)
    grey = (x * std_ + mean_) * (255 / peak) - 128
    planes = reference.colour(grey, reference.RGB_TO_YCC) if channels == 3 else grey
    found = []
    for c, plane in enumerate(planes.split([1, 2] if channels == 3 else [1], 1)):
        v, u = SUBSAMPLINGS[subsampling] if c else (1, 1)
        offset = chroma_offset if c else 0.0
        plane = reference.pad_to_multiple(plane + offset, 8 * v, 8 * u, padding)
        found.append(block_dct(plane if (v, u) == (1, 1) else F.avg_pool2d(plane, (v, u))))
    return found


def image(
    found: Sequence[Tensor], size: Sequence[int], subsampling: str, mean: Sequence[float],
    std: Sequence[float], peak: float, chroma_offset: float,
) -> Tensor:  # fmt: skip
    """The inverse of `coefficients`, for an image of `size` (H, W). Chroma is interpolated."""
    h, w = size
    v, u = SUBSAMPLINGS[subsampling] if len(found) == 2 else (1, 1)
    out = []
    for c, z in enumerate(found):
        plane = block_idct(z) - (chroma_offset if c else 0.0)
        if c and (v, u) != (1, 1):
            # As libjpeg's default decoder: a triangle filter over the samples that the image has.
            plane = plane[:, :, : -(-h // v), : -(-w // u)]
            plane = F.interpolate(
                plane, scale_factor=(float(v), float(u)), mode="bilinear", align_corners=False
            )
        out.append(plane[:, :, :h, :w])
    planes = torch.cat(out, 1)
    grey = reference.colour(planes, reference.YCC_TO_RGB) if len(found) == 2 else planes
    mean_, std_ = _normalisation(planes, mean, std)
    return ((grey + 128) * (peak / 255) - mean_) / std_


def _normalisation(
    like: Tensor, mean: Sequence[float], std: Sequence[float]
) -> tuple[Tensor, Tensor]:
    shape = (1, like.shape[1], 1, 1)
    return like.new_tensor(mean).view(shape), like.new_tensor(std).view(shape)
