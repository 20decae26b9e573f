"""What common operators give, without numbers: the shapes of a network in milliseconds.

Torch has these rules too, but most of them are Python that imports its compiler first, which takes
longer than all else that `jsc.load` does. Each rule here knows float32 tensors, and says None where
it is not sure: then torch is asked, and says what is wrong with an operator that does not fit its
arguments. Shapes are torch's, steps are not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
Rule = Callable[..., Any]


def result(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What `target` gives, on the meta device; None: ask torch."""
    rule = RULES.get(target)
    if rule is None or not all(map(_plain, (*args, *kwargs.values()))):
        return None
    # A tensor in a number's place, or one argument too many, is for torch to refuse.
    expected = target._schema.arguments
    if len(args) > len(expected) or any(isinstance(a, Tensor) for a in kwargs.values()):
        return None
    for a, argument in zip(args, expected, strict=False):
        if isinstance(a, Tensor) and "Tensor" not in str(argument.type):
            return None
    try:
        return rule(*args, **kwargs)
    except (TypeError, ValueError, IndexError, ZeroDivisionError):  # what the rule does not know
        return None


def _plain(a: Any) -> bool:
    if isinstance(a, (list, tuple)):
        return all(map(_plain, a))
    if isinstance(a, Tensor):
        return a.dtype == torch.float32 and a.is_meta
    return not isinstance(a, complex)


def _new(shape: Sequence[int]) -> Tensor:
    """Its steps are those of a contiguous tensor, whatever torch's would be."""
    return torch.empty(tuple(shape), dtype=torch.float32, device="meta")


def elementwise(*args: Any, **options: Any) -> Tensor | None:
    """Shapes of tensors are broadcast; other arguments are numbers."""
    tensors = [a for a in (*args, *options.values()) if isinstance(a, Tensor)]
    if all(t.shape == tensors[0].shape for t in tensors):
        return _new(tensors[0].shape)
    sizes = []
    for axis in zip_longest(*(reversed(t.shape) for t in tensors), fillvalue=1):
        wide = {n for n in axis if n != 1}
        if len(wide) > 1:
            return None
        sizes.append(wide.pop() if wide else 1)
    return _new(sizes[::-1])


def prelu(x: Tensor, weight: Tensor) -> Tensor | None:
    channels = x.shape[1] if x.dim() > 1 else 1
    return _new(x.shape) if weight.numel() in (1, channels) else None


def batch_norm(
    x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, *numbers: Any
) -> tuple[Tensor, ...] | None:
    given = [t for t in (weight, bias, mean, var) if t is not None]
    if x.dim() < 2 or any(t.shape != (x.shape[1],) for t in given):
        return None
    return _new(x.shape), _new(x.shape[1:2]), _new(x.shape[1:2])


def layer_norm(
    x: Tensor, shape: Sequence[int], weight: Any, bias: Any, eps: float
) -> tuple[Tensor, ...] | None:
    own = x.shape[x.dim() - len(shape) :]
    given = [t.shape for t in (weight, bias) if t is not None]
    if not shape or any(tuple(s) != tuple(own) for s in (shape, *given)):
        return None
    rest = (*x.shape[: x.dim() - len(shape)], *(1 for _ in shape))
    return _new(x.shape), _new(rest), _new(rest)


def mean(x: Tensor, dims: Any, keepdim: bool = False, *, dtype: Any = None) -> Tensor | None:
    if not dims or dtype is not None or not all(-x.dim() <= d < x.dim() for d in dims):
        return None
    gone = {d % x.dim() for d in dims}
    if len(gone) < len(dims):
        return None
    kept = [1 if d in gone else n for d, n in enumerate(x.shape) if keepdim or d not in gone]
    return _new(kept)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor | None:
    first = tensors[0]
    if not -first.dim() <= dim < first.dim():
        return None
    at = dim % first.dim()
    others = {(*t.shape[:at], 1, *t.shape[at + 1 :]) for t in tensors}
    if len(others) > 1 or any(t.dim() != first.dim() for t in tensors):
        return None
    return _new([*first.shape[:at], sum(t.shape[at] for t in tensors), *first.shape[at + 1 :]])


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor | None:
    numbers = (stride, padding, dilation)
    rank = x.dim() - 2
    if transposed or rank not in (1, 2) or any(len(n) not in (1, rank) for n in numbers):
        return None
    stride, padding, dilation = (list(n) * (rank // len(n)) for n in numbers)
    filters = weight.shape[0]
    if (
        weight.dim() != x.dim()
        or min(weight.shape) < 1
        or groups < 1
        or filters % groups
        or weight.shape[1] * groups != x.shape[1]
        or (bias is not None and bias.shape != (filters,))
        or min(stride) < 1
        or min(dilation) < 1
        or min(padding) < 0
    ):
        return None
    sizes = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(
            x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True
        )
    ]
    return _new([x.shape[0], filters, *sizes]) if min(sizes) > 0 else None


def convolution_of(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = (1,),
    padding: Any = (0,),
    dilation: Any = (1,),
    groups: int = 1,
) -> Tensor | None:
    return convolution(x, weight, bias, stride, padding, dilation, False, (0,), groups)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    fits = weight.dim() == 2 and x.dim() > 0 and x.shape[-1] == weight.shape[1]
    if not fits or (bias is not None and bias.shape != weight.shape[:1]):
        return None
    return _new([*x.shape[:-1], weight.shape[0]])


def addmm(bias: Tensor, x: Tensor, weight: Tensor) -> Tensor | None:
    fits = x.dim() == weight.dim() == 2 and x.shape[1] == weight.shape[0]
    if not fits or bias.shape != weight.shape[1:]:
        return None
    return _new([x.shape[0], weight.shape[1]])


def max_pool(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> Tensor | None:
    rank = len(kernel)
    stride, padding, dilation = (
        list(n) * (rank // len(n)) for n in (stride or kernel, padding, dilation)
    )
    # A batch and channels, no maps of one channel without a dimension for it.
    if x.dim() != rank + 2 or any(len(n) != rank for n in (stride, padding, dilation)):
        return None
    if min(*kernel, *stride, *dilation) < 1 or any(
        not 0 <= p <= k // 2 for p, k in zip(padding, kernel, strict=True)
    ):
        return None
    sizes = []
    for n, k, s, p, d in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True):
        size = (n + 2 * p - d * (k - 1) - 1 + (s - 1 if ceil_mode else 0)) // s + 1
        sizes.append(size - (1 if ceil_mode and (size - 1) * s >= n + p else 0))
    return _new([*x.shape[:2], *sizes]) if min(sizes) > 0 else None


def average_pool(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor | None:
    if divisor_override == 0:
        return None
    return max_pool(x, kernel, stride, padding, (1,), ceil_mode)


def adaptive_pool(x: Tensor, size: Sequence[int]) -> Tensor | None:
    return _new([*x.shape[:2], *size]) if x.dim() == 4 and len(size) == 2 else None


def resized(x: Tensor, size: Sequence[int]) -> Tensor | None:
    if x.dim() != 4 or len(size) != 2 or min(*x.shape[1:], *size) < 1:
        return None
    return _new([*x.shape[:2], *size])


def nearest(x: Tensor, size: Sequence[int], *scales: float | None) -> Tensor | None:
    return resized(x, size)


def bilinear(
    x: Tensor, size: Sequence[int], align_corners: bool, *scales: float | None
) -> Tensor | None:
    return resized(x, size)


def nearest_by(
    x: Tensor, size: Sequence[int] | None, factors: Sequence[float] | None
) -> Tensor | None:
    if (size is None) == (factors is None):
        return None
    if factors is not None:
        size = [int(n * f) for n, f in zip(x.shape[2:], factors, strict=True)]
    return resized(x, size or ())


def bilinear_by(
    x: Tensor,
    size: Sequence[int] | None,
    align_corners: bool,
    factors: Sequence[float] | None,
) -> Tensor | None:
    return nearest_by(x, size, factors)


ELEMENTWISE = (
    aten.relu, aten.hardtanh, aten.gelu, aten.hardswish, aten.hardsigmoid, aten.elu, aten.tanh,
    aten.leaky_relu, aten.clamp, aten.clamp_min, aten.clamp_max, aten.exp, aten.abs, aten.mish,
    aten.softplus, aten.sqrt, aten.rsqrt, aten.neg, aten.maximum, aten.minimum, aten.pow,
    aten.add, aten.sub, aten.mul, aten.div, aten.sigmoid, aten.silu,
)  # fmt: skip
# Those that give a float32 tensor for float32 tensors and numbers.
OVERLOADS = ("default", "Tensor", "Scalar", "Tensor_Scalar")
RULES: dict[Any, Rule] = {
    getattr(packet, overload): elementwise
    for packet in ELEMENTWISE
    for overload in OVERLOADS
    if overload in packet.overloads()
} | {
    aten.prelu.default: prelu,
    aten._native_batch_norm_legit_no_training.default: batch_norm,
    aten.native_layer_norm.default: layer_norm,
    aten.mean.dim: mean,
    aten.cat.default: cat,
    aten.convolution.default: convolution,
    aten.conv1d.default: convolution_of,
    aten.conv2d.default: convolution_of,
    aten.max_pool2d.default: max_pool,
    aten.avg_pool2d.default: average_pool,
    aten.avg_pool3d.default: average_pool,
    aten.adaptive_avg_pool2d.default: adaptive_pool,
    aten.upsample_nearest2d.default: nearest,
    aten.upsample_nearest2d.vec: nearest_by,
    aten.upsample_bilinear2d.default: bilinear,
    aten.upsample_bilinear2d.vec: bilinear_by,
    aten.linear.default: linear,
    aten.addmm.default: addmm,
}
