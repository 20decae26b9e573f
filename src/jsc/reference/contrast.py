"""Local contrast by its definition: every pixel's surroundings, one by one, in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def blur(size: int, deviation: float) -> Tensor:
    """(size, size): row i has the weights of a Gaussian around i, cut off at two deviations, whose
    places beyond an edge count for the edge."""
    reach = int(2 * deviation)
    found = torch.zeros(size, size, dtype=torch.float64)
    here = torch.arange(size)
    for k in range(-reach, reach + 1):
        found[here, (here + k).clamp(0, size - 1)] += math.exp(-(k * k) / (2 * deviation**2))
    return found / found.sum(1, keepdim=True)


def local_contrast(
    x: Tensor,
    deviation: float = 4.0,
    *,
    gain: float = 0.2,
    epsilon: float = 0.05,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    peak: float = 1.0,
) -> Tensor:
    """(N, C, H, W), as `jsc.functional.local_contrast` says; differentiable where the image is not
    flat."""
    down, across = blur(x.shape[2], deviation), blur(x.shape[3], deviation)
    means = torch.tensor(mean or [0.0], dtype=torch.float64).view(-1, 1, 1)
    deviations = torch.tensor(std or [1.0], dtype=torch.float64).view(-1, 1, 1)
    pixels = x.double() * deviations + means
    centred = pixels - down @ pixels @ across.T
    local = (down @ centred.square() @ across.T).sqrt()
    out = peak * (0.5 + gain * centred / (local + epsilon * peak))
    return (out - means) / deviations
