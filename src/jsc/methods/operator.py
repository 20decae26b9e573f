"""The operator `jsc::conv2d`: one signature for every convolution method, and its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from jsc.methods import convolve
from jsc.methods.convolve import geometry, in_format, output_format, plain
from jsc.ops import training
from jsc.ops._library import Function, call, implement, untransformed
from jsc.ops._relu_gate import behind_relu


def _conv2d_cpu(
    input: Tensor, weight: Tensor, packed: Tensor | None, bias: Tensor | None,
    stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
    groups: int, method: str, keep: bool = False,
) -> Tensor:  # fmt: skip
    """`packed`: the weight's pack, if there is one already; `keep`: one that is made is kept."""
    g = geometry(input, weight, stride, padding, dilation, groups)
    form = output_format(input, weight)
    if packed is None and method != "dense":
        pack = convolve.kept_pack if keep else convolve.pack
        packed = pack(weight, g, method)
    if packed is None or input.numel() == 0:
        bias = None if bias is None else plain(bias)
        out = torch.conv2d(plain(input), weight, bias, stride, padding, dilation, groups)
        return in_format(out, form)
    return convolve.prepare(packed, bias, g, method, form)(input)


def _conv2d_fake(
    input: Tensor, weight: Tensor, packed: Tensor | None, bias: Tensor | None,
    stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
    groups: int, method: str, keep: bool = False,
) -> Tensor:  # fmt: skip
    g = geometry(input, weight, stride, padding, dilation, groups)
    shape, form = (g.N, g.K, g.Oh, g.Ow), output_format(input, weight)
    return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=form)


implement("conv2d", _conv2d_cpu, _conv2d_fake)


class Conv2d(Function):
    """`jsc::conv2d` and its gradient, which is itself differentiable.

    `packed` and `method` are the operator's. With the `density` of the input (`input_density` of
    ops/training.py), the gradient takes kernels of ours where that pays; otherwise, and where it is
    to be differentiated again, it is torch's own.
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
        if ctx.density is not None and not torch.is_grad_enabled() and untransformed(grad):
            g = geometry(input, weight, stride, padding, dilation, groups)
            leaf = ctx.next_functions[1][0] if wanted[1] else None
            found[:2] = training.backward(
                grad, input, weight, g, ctx.density, (wanted[0], wanted[1]),
                lambda: behind_relu(input, ctx._raw_saved_tensors[0], leaf),
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
