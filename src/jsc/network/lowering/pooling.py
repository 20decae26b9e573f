"""Pools, means, resizing, normalisations over channels, softmax."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import fx

from jsc.network.blocking import norm_floats
from jsc.network.constants import FLOATS, Constant
from jsc.network.graph import (
    Activation,
    AdaptivePool,
    Convolution,
    Elementwise,
    GroupNorm,
    LayerNorm,
    Lrn,
    Pool,
    Resize,
    Softmax,
    Value,
)
from jsc.network.lowering.convolving import batch_norm, optional
from jsc.network.lowering.elementwise import arithmetic
from jsc.network.lowering.entries import (
    CHANNELS_SECOND,
    Entry,
    Lowering,
    Unsupported,
    map_shape,
    out_shape,
    pair,
)
from jsc.network.lowering.patterns import match_layer_norm, match_lrn


def max_pool2d(
    low: Lowering, node: fx.Node, x: Any, kernel: Any, stride: Any = (), padding: Any = 0,
    dilation: Any = 1, ceil_mode: bool = False,
) -> Entry:  # fmt: skip
    value = low.map(x, "nchw")
    kernel = pair(kernel)
    out = Value(map_shape(out_shape(node), "nchw"))
    operation = Pool(
        [value], out, mode="max", kernel=kernel, stride=pair(stride) if stride else kernel,
        padding=pair(padding), dilation=pair(dilation),
    )  # fmt: skip
    return Entry(low.emit(operation), "nchw")


def max_pool2d_with_indices(low: Lowering, node: fx.Node, *args: Any, **options: Any) -> Any:
    if any(user.args[1] != 0 for user in node.users):
        raise Unsupported("max-pool with indices")
    return max_pool2d(low, _first(node), *args, **options), None


def _first(node: fx.Node) -> Any:
    """What has the first of a node's results, in place of the node."""
    return SimpleNamespace(meta={**node.meta, "val": node.meta["val"][0]})


def avg_pool2d(
    low: Lowering, node: fx.Node, x: Any, kernel: Any, stride: Any = (), padding: Any = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
) -> Entry:  # fmt: skip
    value = low.map(x, "nchw")
    kernel, padding = pair(kernel), pair(padding)
    out = Value(map_shape(out_shape(node), "nchw"))
    operation = Pool(
        [value], out, mode="average", kernel=kernel, stride=pair(stride) if stride else kernel,
        padding=padding, divisor=divisor_override or 0,
        count_padding=count_include_pad,
    )  # fmt: skip
    return Entry(low.emit(operation), "nchw")


def adaptive_avg_pool2d(low: Lowering, node: fx.Node, x: Any, size: Any) -> Entry:
    value = low.map(x, "nchw")
    out = Value(map_shape(out_shape(node), "nchw"))
    return Entry(low.emit(AdaptivePool([value], out, mode="average")), "nchw")


def adaptive_max_pool2d(low: Lowering, node: fx.Node, x: Any, size: Any) -> Any:
    if any(user.args[1] != 0 for user in node.users):
        raise Unsupported("max-pool with indices")
    value = low.map(x, "nchw")
    out = Value(map_shape(out_shape(_first(node)), "nchw"))
    return Entry(low.emit(AdaptivePool([value], out, mode="max")), "nchw"), None


def max_pool1d(
    low: Lowering, node: fx.Node, x: Any, kernel: Any, stride: Any = (), padding: Any = 0,
    dilation: Any = 1, ceil_mode: bool = False,
) -> Entry:  # fmt: skip
    operation = _pool_of_rows(low, node, x, kernel, stride, padding)
    operation.dilation = (1, pair(dilation)[0])
    return Entry(low.emit(operation), "ncl")


def avg_pool1d(
    low: Lowering, node: fx.Node, x: Any, kernel: Any, stride: Any = (), padding: Any = 0,
    ceil_mode: bool = False, count_include_pad: bool = True,
) -> Entry:  # fmt: skip
    operation = _pool_of_rows(low, node, x, kernel, stride, padding)
    operation.mode, operation.count_padding = "average", count_include_pad
    return Entry(low.emit(operation), "ncl")


def _pool_of_rows(
    low: Lowering, node: fx.Node, x: Any, kernel: Any, stride: Any, padding: Any
) -> Pool:
    value, out = low.map(x, "ncl"), Value(map_shape(out_shape(node), "ncl"))
    size, step = pair(kernel)[0], pair(stride or kernel)[0]
    return Pool(
        [value], out, kernel=(1, size), stride=(1, step), padding=(0, pair(padding)[0])
    )  # fmt: skip


def adaptive_avg_pool1d(low: Lowering, node: fx.Node, x: Any, size: Any) -> Entry:
    value, out = low.map(x, "ncl"), Value(map_shape(out_shape(node), "ncl"))
    return Entry(low.emit(AdaptivePool([value], out, mode="average")), "ncl")


FORMS = {"nchw": {2, 3}, "nhwc": {1, 2}, "ncl": {2}, "nlc": {1}}  # and the dimensions of pixels


def mean(low: Lowering, node: fx.Node, x: Any, dims: Any = None, keepdim: bool = False) -> Entry:
    entry = low.native(x, *FORMS)
    if keepdim and _is_over_channels(entry, dims):
        return _over_channels(low, node, entry, 1 / entry.value.C)
    return _over_pixels(low, node, entry, "average", dims, keepdim)


def sum_(low: Lowering, node: fx.Node, x: Any, dims: Any = None, keepdim: bool = False) -> Entry:
    entry = low.native(x, *FORMS)
    if keepdim and _is_over_channels(entry, dims):
        return _over_channels(low, node, entry, 1.0)
    _, H, W, _ = entry.value.shape
    average = _over_pixels(low, node, entry, "average", dims, keepdim)
    times = Elementwise(
        [average.value], Value(average.value.shape), op="mul", scalar=float(H * W)
    )  # fmt: skip
    return Entry(low.emit(times), average.form)


def vector_norm(
    low: Lowering, node: fx.Node, x: Any, order: Any = 2, dims: Any = None, keepdim: bool = False,
) -> Entry:  # fmt: skip
    """The Euclidean one, of all pixels of a channel."""
    entry = low.native(x, *FORMS)
    if order != 2:
        raise Unsupported(f"a norm of order {order}")
    value = entry.value
    squares = low.emit(Elementwise([value, value], Value(value.shape), op="mul"))
    average = _over_pixels(low, node, Entry(squares, entry.form), "average", dims, keepdim)
    root = Elementwise(
        [average.value], Value(average.value.shape), op="mul",
        scalar=float(value.shape[1] * value.shape[2]), act=Activation("sqrt"),
    )  # fmt: skip
    return Entry(low.emit(root), average.form)


def amax(low: Lowering, node: fx.Node, x: Any, dims: Any = (), keepdim: bool = False) -> Entry:
    return _over_pixels(low, node, low.native(x, *FORMS), "max", dims, keepdim)


def _over_pixels(
    low: Lowering, node: fx.Node, entry: Entry, mode: str, dims: Any, keepdim: bool
) -> Entry:
    rank = len(entry.shape)
    axes = {d % rank for d in dims or range(rank)}
    if axes != FORMS[entry.form]:
        raise Unsupported(f"{mode} over dimensions {sorted(axes)}")
    N, _, _, C = entry.value.shape
    out_shape(node)
    out = low.emit(AdaptivePool([entry.value], Value((N, 1, 1, C)), mode=mode))
    return Entry(out, entry.form if keepdim else "nc")


def _is_over_channels(entry: Entry, dims: Any) -> bool:
    rank = len(entry.shape)
    channels = 1 if entry.form in CHANNELS_SECOND else rank - 1
    return [d % rank for d in dims or ()] == [channels]


def _over_channels(low: Lowering, node: fx.Node, entry: Entry, factor: float) -> Entry:
    """A convolution with equal weights."""
    N, H, W, C = entry.value.shape
    out_shape(node)
    equal = Constant(("equal", C, factor), lambda _: torch.full((1, C, 1, 1), factor, **FLOATS))
    operation = Convolution([entry.value], Value((N, H, W, 1)), weight=equal, exact=True)
    return Entry(low.emit(operation), entry.form)


def softmax(low: Lowering, node: fx.Node, x: Any, dim: int, half_to_float: Any = None) -> Entry:
    entry = low.native(x, *CHANNELS_SECOND, "nhwc", "nlc")
    if half_to_float not in (None, False):
        raise Unsupported(f"softmax in {half_to_float}")
    rank = len(entry.shape)
    if dim % rank != (1 if entry.form in CHANNELS_SECOND else rank - 1):
        raise Unsupported(f"softmax over dimension {dim}")
    out_shape(node)
    return Entry(low.emit(Softmax([entry.value], Value(entry.value.shape))), entry.form)


def layer_norm(
    low: Lowering, node: fx.Node, x: Any, shape: Any, weight: Any = None, bias: Any = None,
    eps: float = 1e-5, cudnn_enable: bool = True,
) -> Entry:  # fmt: skip
    entry = low.native(x, "nc", "nhwc", "nlc")
    if list(shape) != [entry.value.C]:
        raise Unsupported(f"layer-norm over {list(shape)}")
    out_shape(node)
    operation = LayerNorm(
        [entry.value], Value(entry.value.shape), weight=optional(weight, "weight"),
        shift=optional(bias, "bias"), eps=eps,
    )  # fmt: skip
    return Entry(low.emit(operation), entry.form)


def native_layer_norm(low: Lowering, node: fx.Node, *args: Any) -> Any:
    return layer_norm(low, _first(node), *args), None, None


def group_norm(
    low: Lowering, node: fx.Node, x: Any, groups: int, weight: Any = None, bias: Any = None,
    eps: float = 1e-5, cudnn_enabled: bool = True,
) -> Entry:  # fmt: skip
    entry = low.native(x, *CHANNELS_SECOND)
    out_shape(node)
    floats = norm_floats(entry.value, groups)
    operation = GroupNorm(
        [entry.value], Value(entry.value.shape), groups=groups, weight=optional(weight, "weight"),
        shift=optional(bias, "bias"), eps=eps, workspace=Value((1, 1, 1, floats)),
    )  # fmt: skip
    return Entry(low.emit(operation), entry.form)


def native_group_norm(
    low: Lowering, node: fx.Node, x: Any, weight: Any, bias: Any, N: int, C: int, pixels: int,
    groups: int, eps: float,
) -> Any:  # fmt: skip
    return group_norm(low, _first(node), x, groups, weight, bias, eps), None, None


def instance_norm(
    low: Lowering, node: fx.Node, x: Any, weight: Any, bias: Any, mean: Any, var: Any,
    use_input: bool, momentum: float, eps: float, cudnn_enabled: bool = True,
) -> Entry:  # fmt: skip
    if not use_input:
        return batch_norm(low, node, x, weight, bias, mean, var, momentum, eps)[0]
    entry = low.native(x, "nchw", "ncl")
    return group_norm(low, node, x, entry.value.C, weight, bias, eps)


def _resized(
    low: Lowering, node: fx.Node, x: Any, mode: str, align: bool, scales: Sequence[float | None]
) -> Entry:
    value, out = low.map(x, "nchw"), Value(map_shape(out_shape(node), "nchw"))
    down, across = (0.0 if s is None else float(s) for s in scales)
    made = Resize([value], out, mode=mode, align_corners=align, scales=(down, across))
    return Entry(low.emit(made), "nchw")


def nearest(
    low: Lowering, node: fx.Node, x: Any, size: Any, down: float | None = None,
    across: float | None = None,
) -> Entry:  # fmt: skip
    return _resized(low, node, x, "nearest", False, (down, across))


def nearest_vec(low: Lowering, node: fx.Node, x: Any, size: Any, scales: Any) -> Entry:
    return _resized(low, node, x, "nearest", False, scales or (None, None))


def bilinear(
    low: Lowering, node: fx.Node, x: Any, size: Any, align: bool, down: float | None = None,
    across: float | None = None,
) -> Entry:  # fmt: skip
    return _resized(low, node, x, "bilinear", align, (down, across))


def bilinear_vec(
    low: Lowering, node: fx.Node, x: Any, size: Any, align: bool, scales: Any
) -> Entry:
    return _resized(low, node, x, "bilinear", align, scales or (None, None))


def divide(low: Lowering, node: fx.Node, a: Any, b: Any) -> Entry:
    normed = match_layer_norm(node)
    if normed is not None and isinstance(low.env.get(normed[0]), Entry):
        entry = low.native(low.env[normed[0]], "nchw")
        layer = LayerNorm([entry.value], Value(entry.value.shape), eps=normed[1])
        return Entry(low.emit(layer), "nchw")
    found = match_lrn(node)
    if found is None:
        return arithmetic("div", False)(low, node, a, b)
    entry = low.native(a, "nchw")
    _, size, alpha, beta, k = found
    operation = Lrn([entry.value], Value(entry.value.shape), size=size, alpha=alpha, beta=beta, k=k)
    return Entry(low.emit(operation), entry.form)


TABLE = {
    "div.Tensor": divide,
    "max_pool2d.default": max_pool2d,
    "max_pool2d_with_indices.default": max_pool2d_with_indices,
    "avg_pool2d.default": avg_pool2d,
    "max_pool1d.default": max_pool1d,
    "avg_pool1d.default": avg_pool1d,
    "adaptive_avg_pool1d.default": adaptive_avg_pool1d,
    "adaptive_avg_pool2d.default": adaptive_avg_pool2d,
    "_adaptive_avg_pool2d.default": adaptive_avg_pool2d,
    "adaptive_max_pool2d.default": adaptive_max_pool2d,
    "mean.dim": mean,
    "sum.dim_IntList": sum_,
    "linalg_vector_norm.default": vector_norm,
    "amax.default": amax,
    "softmax.int": softmax,
    "_softmax.default": softmax,
    "layer_norm.default": layer_norm,
    "native_layer_norm.default": native_layer_norm,
    "group_norm.default": group_norm,
    "native_group_norm.default": native_group_norm,
    "instance_norm.default": instance_norm,
    "upsample_nearest2d.vec": nearest_vec,
    "upsample_nearest2d.default": nearest,
    "upsample_bilinear2d.vec": bilinear_vec,
    "upsample_bilinear2d.default": bilinear,
}
