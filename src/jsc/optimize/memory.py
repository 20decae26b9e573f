"""Bytes a convolution method needs for its input activation.

    dense          the map itself, N C H W
    im2col         the matrix it makes beside the map: N C Kh Kw Oh Ow (all groups)
    mec            its compact matrix: N C H' Kw Ow, with H' = H + 2 Ph
    cpo, cps, cpc  the encoded map: `nbytes` of the format, which can stand in for the map

These are counted, not read from the allocator: they say what the form of the data costs. While a
network runs in torch the dense map exists beside the encoded one until the layer is done.
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


def method_bytes(method: str, x: Tensor, g: ConvGeometry) -> int:
    """Bytes of the form in which `method` reads the activation `x`."""
    if method in FORMATS:
        encoded = FORMATS[method].encode(x, (g.Kh, g.Kw), (g.Sh, g.Sw), (g.Ph, g.Pw))
        return int(encoded.nbytes)
    if method == "im2col":
        return im2col_bytes(g, x.element_size())
    if method == "mec":
        return x.element_size() * g.N * g.C * (g.H + 2 * g.Ph) * g.Kw * g.Ow
    return map_bytes(g, x.element_size())
