"""Bytes of a layer's input activation in the form of each convolution method.

    dense     the map itself, N C H W
    im2col    the matrix it makes of the map: N C Kh Kw Oh Ow
    mec       its compact matrix: N C H' Kw Ow, with H' = H + 2 Ph
    cpo, cps  `nbytes` of the format
    cpc       the map, which its kernels read in place, and a bit for each element beside it
    bf16x3    the map, and three bfloat16 numbers for each element of the bands worked on

These are counted, not read from the allocator: they are what the activation costs in that form.
In a network that runs in torch the map itself also exists until the layer is done. The formats cpo
and cps have to be made to be counted, so that is done only where they are tried.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from torch import Tensor

from jsc import formats
from jsc._geometry import ConvGeometry
from jsc.ops.bf16x3 import SHARED_BYTES


def _dense(x: Tensor, g: ConvGeometry) -> int:
    return x.element_size() * x.numel()


def _im2col(x: Tensor, g: ConvGeometry) -> int:
    return x.element_size() * g.N * g.C * g.Kh * g.Kw * g.Oh * g.Ow


def _mec(x: Tensor, g: ConvGeometry) -> int:
    return x.element_size() * g.N * g.C * (g.H + 2 * g.Ph) * g.Kw * g.Ow


def _cpo(x: Tensor, g: ConvGeometry) -> int:
    return int(formats.CPO.encode(x, *_window(g)).nbytes)


def _cps(x: Tensor, g: ConvGeometry) -> int:
    return int(formats.CPS.encode(x, *_window(g)).nbytes)


def _cpc(x: Tensor, g: ConvGeometry) -> int:
    masks = g.groups * -(-g.C // (64 * g.groups))  # words of 64 channels
    return _dense(x, g) + 8 * g.N * masks * g.H * g.W


def _bf16x3(x: Tensor, g: ConvGeometry) -> int:
    return _dense(x, g) + min(6 * x.numel(), SHARED_BYTES)


def _window(g: ConvGeometry) -> tuple[tuple[int, int], ...]:
    return (g.Kh, g.Kw), (g.Sh, g.Sw), (g.Ph, g.Pw), (g.Dh, g.Dw)


FORMS: dict[str, Callable[[Tensor, ConvGeometry], int]] = {
    "dense": _dense,
    "im2col": _im2col,
    "mec": _mec,
    "cpo": _cpo,
    "cps": _cps,
    "cpc": _cpc,
    "bf16x3": _bf16x3,
}


ENCODED = ("cpo", "cps")  # which take time to count


def activation_bytes(x: Tensor, g: ConvGeometry, tried: Collection[str]) -> dict[str, int]:
    """Bytes of `x` by method; of cpo and cps if they are `tried`. A method whose format cannot hold
    this map is left out."""
    maps = x if x.dim() == 4 else x.unsqueeze(0)
    result = {}
    for method, form in FORMS.items():
        if method in ENCODED and method not in tried:
            continue
        try:
            result[method] = form(maps, g)
        except (ValueError, TypeError):  # too large for the format's indices, or half precision
            continue
    return result
