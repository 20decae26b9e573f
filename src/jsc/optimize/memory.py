"""Bytes of a layer's input activation in the form of a convolution method.

    dense          the map itself, N C H W
    im2col         the matrix it makes of the map: N C Kh Kw Oh Ow
    mec            its compact matrix: N C H' Kw Ow, with H' = H + 2 Ph
    cpo, cps, cpc  the encoded map: `nbytes` of the format

These are counted, not read from the allocator: they are what the activation costs where it is
kept in that form. In a network that runs in torch the dense map exists beside it until the layer is
done, and the cpc kernels read that map in place, with masks of 1/32 of its size (float32).
"""

from __future__ import annotations

from torch import Tensor

from jsc import formats
from jsc._geometry import ConvGeometry

FORMATS = {"cpo": formats.CPO, "cps": formats.CPS, "cpc": formats.CPC}


def map_bytes(g: ConvGeometry, itemsize: int) -> int:
    return itemsize * g.N * g.C * g.H * g.W


def im2col_bytes(g: ConvGeometry, itemsize: int) -> int:
    return itemsize * g.N * g.C * g.Kh * g.Kw * g.Oh * g.Ow


def encoded_bytes(method: str, x: Tensor, g: ConvGeometry) -> int:
    """Bytes of the activation `x` in the form of `method`."""
    if method in FORMATS:
        maps = x if x.dim() == 4 else x.unsqueeze(0)
        window = (g.Kh, g.Kw), (g.Sh, g.Sw), (g.Ph, g.Pw), (g.Dh, g.Dw)
        return int(FORMATS[method].encode(maps, *window).nbytes)
    if method == "im2col":
        return im2col_bytes(g, x.element_size())
    if method == "mec":
        return x.element_size() * g.N * g.C * (g.H + 2 * g.Ph) * g.Kw * g.Ow
    return map_bytes(g, x.element_size())
