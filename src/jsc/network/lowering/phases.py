"""Operators that write every s-th row and column: transposed convolution, pixel shuffle.

A transposed convolution of stride s is s x s convolutions, each of which writes the pixels of one
phase: out[s q + r] = sum over j of x[q + b - j] w[k + s j], where k = (r + padding) mod s and
b = (r + padding) div s (W. Shi et al., arXiv:1609.07009).
"""

from __future__ import annotations

from itertools import product
from typing import Any

from torch import Tensor, fx

from jsc.network.graph import Convolution, Copy, Value
from jsc.network.lowering.convolving import optional, parameter, require_sound
from jsc.network.lowering.entries import (
    Entry,
    Lowering,
    Unsupported,
    map_shape,
    out_shape,
    pair,
)


def conv_transpose2d(
    low: Lowering, node: fx.Node, x: Any, weight: Any, bias: Any = None, stride: Any = 1,
    padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Entry:  # fmt: skip
    value = low.map(x, "nchw")
    w, shift = parameter(weight, "weight"), optional(bias, "bias")
    kernel, steps, pads = (w.shape[2], w.shape[3]), pair(stride), pair(padding)
    if min(*steps, groups) < 1 or min(pads) < 0:
        raise ValueError(f"no transposed convolution: stride {steps}, padding {pads}, {groups}")
    if pair(dilation) != (1, 1) or any(k < s for k, s in zip(kernel, steps, strict=True)):
        raise Unsupported("dilated, or with pixels that no tap reaches")
    whole = Value(map_shape(out_shape(node), "nchw"))
    N, H, W, C = value.shape
    _, Oh, Ow, K = whole.shape
    sizes = ((H, Oh), (W, Ow))
    for phase in product(range(min(steps[0], Oh)), range(min(steps[1], Ow))):
        taps, before, cut, outputs = [], [], [], []
        for r, s, p, k, (_, out) in zip(phase, steps, pads, kernel, sizes, strict=True):
            taps.append(len(range((r + p) % s, k, s)))
            before.append(max(0, taps[-1] - 1 - (r + p) // s))
            cut.append(max(0, (r + p) // s - taps[-1] + 1))
            outputs.append(-(-(out - r) // s))
        source = value
        if any(cut):
            if cut[0] >= H or cut[1] >= W:
                raise Unsupported("its padding hides all of the input")
            source = Value((N, H - cut[0], W - cut[1], C), value, (cut[0], cut[1], 0))
        part = Value((N, outputs[0], outputs[1], K), whole, (*phase, 0), steps)
        first = ((phase[0] + pads[0]) % steps[0], (phase[1] + pads[1]) % steps[1])

        def filters(t: Tensor, first: tuple[int, int] = first) -> Tensor:
            taken = t[:, :, first[0] :: steps[0], first[1] :: steps[1]].flip(2, 3)
            grouped = taken.unflatten(0, (groups, -1)).transpose(1, 2)
            return grouped.flatten(0, 1)

        constant = w.constant.then(("phase", first, steps, groups), filters)
        operation = Convolution(
            [source], part, weight=constant, shift=shift, kernel=(taps[0], taps[1]),
            padding=(before[0], before[1]), groups=groups,
        )  # fmt: skip
        # The weight is (channels, filters of a group, ...), so that this is the rule for it too.
        rows = (w.shape[1] * groups, w.shape[0] // groups, *taps)
        low.emit(require_sound(operation, rows))
    return Entry(whole, "nchw")


def pixel_shuffle(low: Lowering, node: fx.Node, x: Any, factor: int) -> Entry:
    value = low.map(x, "nchw")
    whole = Value(map_shape(out_shape(node), "nchw"))
    N, H, W, _ = value.shape
    for i, j in product(range(factor), range(factor)):
        part = Value((N, H, W, whole.C), whole, (i, j, 0), (factor, factor))
        order = tuple((c * factor + i) * factor + j for c in range(whole.C))
        low.emit(Copy([value], part, order=order))
    return Entry(whole, "nchw")


def pixel_unshuffle(low: Lowering, node: fx.Node, x: Any, factor: int) -> Entry:
    value = low.map(x, "nchw")
    out = Value(map_shape(out_shape(node), "nchw"))
    N, H, W, _ = out.shape
    C, phases = value.C, factor * factor
    side = Value(out.shape)  # the phases one after another
    for k, (i, j) in enumerate(product(range(factor), range(factor))):
        part = Value((N, H, W, C), value, (i, j, 0), (factor, factor))
        low.emit(Copy([part], side.part((k * C, C))))
    order = tuple(k * C + c for c in range(C) for k in range(phases))
    return Entry(low.emit(Copy([side], out, order=order)), "nchw")


TABLE = {
    "conv_transpose2d.input": conv_transpose2d,
    "pixel_shuffle.default": pixel_shuffle,
    "pixel_unshuffle.default": pixel_unshuffle,
}
