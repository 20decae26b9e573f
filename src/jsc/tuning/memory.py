"""Bytes of a layer's input activation in the form of each convolution method."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from jsc import methods
from jsc._geometry import ConvGeometry


def activation_bytes(x: Tensor, g: ConvGeometry, tried: Collection[str]) -> dict[str, int]:
    """Bytes of `x` by method; of methods that are slow to count only where they are `tried`. A
    method whose form cannot hold this map is left out."""
    maps = x if x.dim() == 4 else x.unsqueeze(0)
    result: dict[str, int] = {}
    for name in methods.METHODS:
        method = methods.get(name)
        if method.slow_to_count and name not in tried:
            continue
        try:
            result[name] = method.stored_bytes(maps, g)
        except (ValueError, TypeError):  # too large for the format's indices, or half precision
            continue
    return result
