"""The operator `jsc::conv2d`: one signature for every convolution method, and its gradient.

A method is a module-like triple (see `Method`); everything they share is here: groups, the output's
memory format, weights that are not finite, empty tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jsc import _config
from jsc._geometry import ConvGeometry
from jsc.ops import bf16x3, cpc, cpo, cps, lowering, packs, training
from jsc.ops._gate import gated
from jsc.ops._library import Function, call, eager, register


@dataclass(frozen=True)
class Method:
    """How one method convolves. `groups` is 1 in every geometry it is given.

    unsupported(g)                why the geometry cannot run, or None
    pack(weight, g)               the weights laid out for `run`: depends on g without N, H, W
    run(input, packed, bias, g)   (N, C, H, W) of any strides -> (N, K, Oh, Ow), contiguous in
                                  the memory format that is natural to the method
    """

    unsupported: Callable[[ConvGeometry], str | None]
    pack: Callable[[Tensor, ConvGeometry], Tensor]
    run: Callable[[Tensor, Tensor, Tensor | None, ConvGeometry], Tensor]


_METHODS = {
    "im2col": Method(lowering.im2col_unsupported, lowering.im2col_pack, lowering.im2col_run),
    "mec": Method(lowering.mec_unsupported, lowering.mec_pack, lowering.mec_run),
    "cpo": Method(cpo.unsupported, cpo.pack, cpo.run),
    "cps": Method(cps.unsupported, cps.pack, cps.run),
    "cpc": Method(cpc.unsupported, cpc.pack, cpc.run),
    "bf16x3": Method(bf16x3.unsupported, bf16x3.pack, bf16x3.run),
}
METHODS = ("dense", *_METHODS)


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
    return None if method == "dense" else _METHODS[method].unsupported(g.per_group())


def available() -> tuple[str, ...]:
    """The methods that this machine's processor can run."""
    return tuple(name for name in METHODS if name != "bf16x3" or _config.amx())


def pack_key() -> int:
    """What besides weight and geometry a layout depends on: the instruction set."""
    return _config.isa()


def pack(weight: Tensor, g: ConvGeometry, method: str) -> Tensor | None:
    """Weights laid out for `method`, one row per group; None where the dense way is the right one.

    That is for weights that are not finite (skipping a zero activation is right only if its
    product is zero: 0 * inf and 0 * nan are not) and for depthwise convolution (one channel to a
    group leaves no sum to shorten).
    """
    if 1 < g.groups == g.C:
        return None
    if not bool(torch.isfinite(weight).all()):
        return None
    if method == "bf16x3" and not bf16x3.takes(weight):
        return None
    one = g.per_group()
    packed = [_METHODS[method].pack(w, one) for w in _plain(weight).chunk(g.groups)]
    return torch.stack(packed) if len(packed) > 1 else packed[0].unsqueeze(0)


def kept_pack(weight: Tensor, g: ConvGeometry, method: str) -> Tensor | None:
    """`pack`, kept with the weight for as long as the weight does not change."""
    what_for = (method, pack_key(), *g[7:])  # strides, paddings, dilations, groups
    return packs.packed(weight, what_for, lambda: pack(weight, g, method))


def is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _output_format(input: Tensor, weight: Tensor) -> torch.memory_format:
    # torch's own rule: channels-last when the input or the weight is.
    channels_last = is_channels_last(input) or is_channels_last(weight)
    return torch.channels_last if channels_last else torch.contiguous_format


def _plain(x: Tensor) -> Tensor:
    """The numbers of `x` as they lie in memory: no gradient, no negation that is yet to be done."""
    return x.detach().resolve_neg()


def _conv2d_cpu(
    input: Tensor, weight: Tensor, packed: Tensor | None, bias: Tensor | None,
    stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
    groups: int, method: str, keep: bool,
) -> Tensor:  # fmt: skip
    g = geometry(input, weight, stride, padding, dilation, groups)
    memory_format = _output_format(input, weight)
    input, bias = _plain(input), None if bias is None else _plain(bias)
    if packed is None and method != "dense":
        packed = kept_pack(weight, g, method) if keep else pack(weight, g, method)
    if packed is None or input.numel() == 0:
        out = torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    elif groups == 1:
        out = _METHODS[method].run(input, packed[0], bias, g)
    else:
        one = g.per_group()
        biases = (None,) * groups if bias is None else bias.chunk(groups)
        parts = zip(input.chunk(groups, 1), packed, biases, strict=True)
        out = torch.cat([_METHODS[method].run(x, w, b, one) for x, w, b in parts], 1)
    return out.contiguous(memory_format=memory_format)


def prepare(
    input: Tensor, weight: Tensor, packed: Tensor, bias: Tensor | None,
    stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
    groups: int, method: str,
) -> Callable[[Tensor], Tensor] | None:  # fmt: skip
    """`jsc::conv2d` for inputs like this one, with all that can be done beforehand done; None for
    grouped convolutions. It holds the memory of `packed` and `bias`."""
    if groups != 1:
        return None
    g = geometry(input, weight, stride, padding, dilation, groups)
    bias = None if bias is None else _plain(bias)
    memory_format = _output_format(input, weight)
    makers: dict[str, Callable[..., Callable[[Tensor], Tensor]]]
    makers = {
        "cpc": cpc.Convolution,
        "cpo": cpo.prepare,
        "cps": cps.prepare,
        "bf16x3": bf16x3.Convolution,
    }
    if method in makers:
        convolution = makers[method](packed[0], bias, g)
        return lambda input: convolution(input.detach()).contiguous(memory_format=memory_format)
    run = _METHODS[method].run
    return lambda input: run(input.detach(), packed[0], bias, g).contiguous(
        memory_format=memory_format
    )


def _conv2d_fake(
    input: Tensor, weight: Tensor, packed: Tensor | None, bias: Tensor | None,
    stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
    groups: int, method: str, keep: bool,
) -> Tensor:  # fmt: skip
    g = geometry(input, weight, stride, padding, dilation, groups)
    out = input.new_empty((g.N, g.K, g.Oh, g.Ow))
    return out.to(memory_format=_output_format(input, weight))


register(
    "conv2d(Tensor input, Tensor weight, Tensor? packed, Tensor? bias, "
    "SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, SymInt groups, str method, "
    "bool keep) -> Tensor",
    _conv2d_cpu,
    _conv2d_fake,
)


class Conv2d(Function):
    """`jsc::conv2d` and its gradient, which is itself differentiable.

    `packed` and `method` are the operator's. With the `density` of the input (`input_density` of
    ops/training.py), the gradient skips zeros where that pays; otherwise, and where it is to be
    differentiated again, it is torch's own.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        input: Tensor, weight: Tensor, packed: Tensor | None, bias: Tensor | None,
        stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
        groups: int, method: str, density: float | None,
    ) -> Tensor:  # fmt: skip
        return call(
            "conv2d", input, weight, packed, bias, stride, padding, dilation, groups, method, False
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        input, weight, _, bias, *ctx.geometry, _, ctx.density = inputs
        ctx.bias_sizes = None if bias is None else list(bias.shape)
        ctx.save_for_backward(input, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        wanted = [
            ctx.needs_input_grad[0],
            ctx.needs_input_grad[1],
            ctx.needs_input_grad[3] and ctx.bias_sizes is not None,
        ]
        found: list[Tensor | None] = [None, None, None]
        if ctx.density is not None and not torch.is_grad_enabled() and eager(grad):
            g = geometry(input, weight, stride, padding, dilation, groups)
            leaf = ctx.next_functions[1][0] if wanted[1] else None
            found[:2] = training.backward(
                grad, input, weight, g, ctx.density, (wanted[0], wanted[1]),
                lambda: gated(input, leaf),
            )  # fmt: skip
        rest = [want and had is None for want, had in zip(wanted, found, strict=True)]
        if rest == [False, False, True]:
            found[2] = grad.sum((0, 2, 3))
        elif any(rest):
            dense = torch.ops.aten.convolution_backward(
                grad,
                input,
                weight,
                ctx.bias_sizes,
                stride,
                padding,
                dilation,
                False,
                (0, 0),
                groups,
                rest,
            )
            found = [d if want else had for want, had, d in zip(rest, found, dense, strict=True)]
        return found[0], found[1], None, found[2], *(None,) * 6
