"""Convolution, linear layers and batch-norm."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from jsc.network.constants import Constant
from jsc.network.graph import Affine, Convolution, Linear, Value
from jsc.network.lowering.entries import (
    CHANNELS_SECOND,
    Entry,
    Lowering,
    Parameter,
    Unsupported,
    map_shape,
    out_shape,
    pair,
)


def parameter(entry: Any, what: str) -> Parameter:
    if not isinstance(entry, Parameter):
        raise Unsupported(f"its {what} is computed by the network")
    if entry.meta.dtype != torch.float32:
        raise Unsupported(f"its {what} is {entry.meta.dtype}")
    return entry


def optional(entry: Any, what: str) -> Constant | None:
    return None if entry is None else parameter(entry, what).constant


def require_sound(conv: Convolution, filters: tuple[int, ...]) -> Convolution:
    """`filters` is the shape of the weight. What a damaged file says reaches no kernel."""
    C, K, groups = conv.inputs[0].C, conv.out.C, conv.groups
    if (
        min(*conv.stride, *conv.dilation, groups) < 1
        or min(conv.padding) < 0
        or C % groups
        or K % groups
        or filters != (K, C // groups, *conv.kernel)
    ):
        raise ValueError(f"no convolution of {C} channels: {conv}, weights {filters}")
    return conv


def own_name(weight: Parameter) -> str:
    """Of a tensor that is no part of the model's state, whose key holds for this process only."""
    key = weight.constant.key
    return weight.name if isinstance(key, tuple) and key[0] == "made" else ""


def conv2d(
    low: Lowering, node: fx.Node, x: Any, weight: Any, bias: Any = None, stride: Any = 1,
    padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Entry:  # fmt: skip
    value = low.map(x, "nchw")
    w = parameter(weight, "weight")
    shape = out_shape(node)
    kernel = (w.shape[2], w.shape[3])
    dilation = pair(dilation)
    if isinstance(padding, str):
        # torch puts the odd one of "same" below and to the right.
        total = [
            d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True)
        ]
        padding = (total[0] // 2, total[1] // 2)
    operation = Convolution(
        [value], Value(map_shape(shape, "nchw")), weight=w.constant, shift=optional(bias, "bias"),
        kernel=kernel, stride=pair(stride), padding=pair(padding), dilation=dilation, groups=groups,
        first_name=own_name(w),
    )  # fmt: skip
    return Entry(low.emit(require_sound(operation, w.shape)), "nchw")


def conv1d(
    low: Lowering, node: fx.Node, x: Any, weight: Any, bias: Any = None, stride: Any = 1,
    padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Entry:  # fmt: skip
    """A convolution of maps of one row."""
    w = parameter(weight, "weight")
    value = low.row(x).value
    stride, dilation = pair(stride)[0], pair(dilation)[0]
    if isinstance(padding, str):
        padding = dilation * (w.shape[2] - 1) // 2 if padding == "same" else 0
    operation = Convolution(
        [value], Value(map_shape(out_shape(node), "ncl")),
        weight=w.constant.then("one row", lambda t: t.unsqueeze(2)), shift=optional(bias, "bias"),
        kernel=(1, w.shape[2]), stride=(1, stride), padding=(0, pair(padding)[0]),
        dilation=(1, dilation), groups=groups, first_name=own_name(w),
    )  # fmt: skip
    filters = (*w.shape[:2], 1, w.shape[2])
    return Entry(low.emit(require_sound(operation, filters)), "ncl")


def convolution(
    low: Lowering, node: fx.Node, x: Any, weight: Any, bias: Any, stride: Any, padding: Any,
    dilation: Any, transposed: bool, output_padding: Any, groups: int,
) -> Entry:  # fmt: skip
    if transposed:
        raise Unsupported("transposed convolution")
    one = isinstance(weight, Parameter) and len(weight.shape) == 3
    return (conv1d if one else conv2d)(
        low, node, x, weight, bias, stride, padding, dilation, groups
    )


def linear(low: Lowering, node: fx.Node, x: Any, weight: Any, bias: Any = None) -> Entry:
    entry = low.native(x, "nc", "flat", "nhwc", "nlc")
    w = parameter(weight, "weight")
    shift = optional(bias, "bias")
    out_shape(node)
    N, H, W, _ = entry.value.shape
    K = w.shape[0]
    if len(w.shape) != 2 or (bias is not None and tuple(bias.shape) != (K,)):
        raise Unsupported("a weight that is no matrix, or a bias that is broadcast")
    if entry.form in ("nhwc", "nlc"):
        as_filters = w.constant.then("1x1", lambda t: t[:, :, None, None])
        out = Value((N, H, W, K))
        operation = Convolution(
            [entry.value], out, weight=as_filters, shift=shift, first_name=own_name(w), linear=True
        )
        return Entry(low.emit(require_sound(operation, (*w.shape, 1, 1))), entry.form)
    out = Value((N, 1, 1, K))
    return Entry(low.emit(Linear([entry.value], out, weight=w.constant, shift=shift)), "nc")


def scale_and_shift(
    weight: Constant | None, bias: Constant | None, mean: Constant, var: Constant, eps: float
) -> tuple[Constant, Constant]:
    """Batch-norm as scale x + shift, computed in float64."""
    key = (*(None if c is None else c.key for c in (weight, bias, mean, var)), eps)

    def scale(state: Any) -> Tensor:
        factor = (var.recipe(state).double() + eps).rsqrt()
        return factor if weight is None else factor * weight.recipe(state).double()

    def shift(state: Any) -> Tensor:
        moved = -mean.recipe(state).double() * scale(state)
        return moved if bias is None else moved + bias.recipe(state).double()

    return Constant(("bn scale", key), scale), Constant(("bn shift", key), shift)


def batch_norm(
    low: Lowering, node: fx.Node, x: Any, weight: Any, bias: Any, mean: Any, var: Any,
    momentum: float, eps: float,
) -> tuple[Entry, None, None]:  # fmt: skip
    entry = low.native(x, *CHANNELS_SECOND)
    if mean is None or var is None:
        raise Unsupported("batch-norm without running statistics")
    scale, shift = scale_and_shift(
        optional(weight, "weight"), optional(bias, "bias"),
        parameter(mean, "mean").constant, parameter(var, "variance").constant, eps,
    )  # fmt: skip
    out = Value(entry.value.shape)
    return (
        Entry(low.emit(Affine([entry.value], out, scale=scale, shift=shift)), entry.form),
        None,
        None,
    )


TABLE = {
    "conv2d.default": conv2d,
    "conv2d.padding": conv2d,
    "conv1d.default": conv1d,
    "conv1d.padding": conv1d,
    "convolution.default": convolution,
    "linear.default": linear,
    "_native_batch_norm_legit_no_training.default": batch_norm,
}
