"""A convolution by a method: its weights packed, its calls prepared, groups and memory format."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jsc import _config
from jsc._geometry import ConvGeometry
from jsc.methods.base import Convolution
from jsc.methods.registry import METHODS, get
from jsc.ops import packs


def geometry(
    input: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> ConvGeometry:
    """The geometry of a batched convolution whose arguments have been checked."""
    N, C, H, W = input.shape
    K, _, Kh, Kw = weight.shape
    (Sh, Sw), (Ph, Pw), (Dh, Dw) = stride, padding, dilation
    return ConvGeometry(N, C, H, W, K, Kh, Kw, Sh, Sw, Ph, Pw, Dh, Dw, groups)


def unsupported(method: str, g: ConvGeometry) -> str | None:
    """Why `method` cannot convolve geometry `g`, or None where it can."""
    return get(method).unsupported(g.per_group())


def likely_fastest_first(g: ConvGeometry, density: float) -> tuple[str, ...]:
    """All methods but "dense", in the order of `Method.cost`."""
    one = g.per_group()
    names = (name for name in METHODS if name != "dense")
    return tuple(sorted(names, key=lambda name: get(name).cost(one, density)))


def plain(x: Tensor) -> Tensor:
    """The numbers of `x` as they lie in memory: no gradient, no negation that is yet to be done."""
    return x.detach().resolve_neg()


def pack(weight: Tensor, g: ConvGeometry, method: str) -> Tensor | None:
    """Weights laid out for `method`, one row per group; None where the dense way is the right one.

    That is for weights that the method does not accept, and for depthwise convolution (one channel
    to a group leaves no sum to shorten).
    """
    chosen = get(method)
    if 1 < g.groups == g.C or not chosen.accepts(weight):
        return None
    one = g.per_group()
    packed = [chosen.pack(w, one) for w in plain(weight).chunk(g.groups)]
    return torch.stack(packed) if len(packed) > 1 else packed[0].unsqueeze(0)


def kept_pack(weight: Tensor, g: ConvGeometry, method: str) -> Tensor | None:
    """`pack`, kept with the weight for as long as the weight does not change."""
    what_for = (method, _config.isa(), *g[7:])  # strides, paddings, dilations, groups
    return packs.packed(weight, what_for, lambda: pack(weight, g, method))


def is_channels_last(x: Tensor) -> bool:
    """What the strides say, also where one channel, or maps of one pixel, are contiguous either
    way: `suggest_memory_format` of torch's C++ (that of Python takes 60 us)."""
    _, C, H, W = x.shape
    image, channel, row, pixel = x.stride()
    if channel == 0 or 0 in (C, H, W):
        return False
    ascending = pixel >= channel * C and row >= pixel * W and image >= row * H
    return bool(ascending and row * H != channel)  # equal: one pixel, contiguous


def output_format(input: Tensor, weight: Tensor) -> torch.memory_format:
    """Torch's own rule: channels-last when the input or the weight is."""
    channels_last = is_channels_last(input) or is_channels_last(weight)
    return torch.channels_last if channels_last else torch.contiguous_format


def in_format(out: Tensor, form: torch.memory_format) -> Tensor:
    """A new map in the memory format `form`, with its strides also where the map is contiguous
    either way: the next layer goes by them."""
    out = out.contiguous(memory_format=form)
    _, K, H, W = out.shape
    if K == 1 or H == W == 1:
        last = form == torch.channels_last
        out.as_strided_(out.shape, (K * H * W, 1, K * W, K) if last else (K * H * W, H * W, W, 1))
    return out


def prepare(
    packed: Tensor, bias: Tensor | None, g: ConvGeometry, method: str, form: torch.memory_format
) -> Convolution:
    """The convolution of inputs of this geometry, with all that can be done beforehand done. Its
    output is contiguous in the memory format `form`. It holds the memory of `packed` and `bias`."""
    bias = None if bias is None else plain(bias)
    if g.groups == 1:
        convolution = get(method).prepare(packed[0], bias, g)
        return lambda input: in_format(convolution(input), form)
    one = g.per_group()
    biases = (None,) * g.groups if bias is None else bias.chunk(g.groups)
    parts = [get(method).prepare(w, b, one) for w, b in zip(packed, biases, strict=True)]

    def grouped(input: Tensor) -> Tensor:
        maps = input.detach().chunk(g.groups, 1)
        outputs = [part(x) for part, x in zip(parts, maps, strict=True)]
        return in_format(torch.cat(outputs, 1), form)

    return grouped
