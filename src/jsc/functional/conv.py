"""`conv2d` with the signature of torch's and a choice of method."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jsc import _checks, methods
from jsc._geometry import ConvGeometry
from jsc.ops import training
from jsc.ops._library import call, forward_mode, untransformed
from jsc.typing import MethodName, NamedPadding


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | NamedPadding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    method: MethodName = "cpc",
) -> Tensor:
    """Convolve, with signature and results of :func:`torch.nn.functional.conv2d`.

        out[n, k, y, x] = bias[k] + sum over c, i, j of
            input[n, c, y Sh + i Dh - Ph, x Sw + j Dw - Pw] weight[k, c, i, j]

    Parameters
    ----------
    input : Tensor, (N, C, H, W) or (C, H, W), float32 or float64, any strides
        The sparse methods gain where it has zeros, as maps behind a ReLU do; any values are taken.
    weight : Tensor, (K, C / groups, Kh, Kw), dtype of `input`
    bias : Tensor, (K,), optional
    stride, dilation : int or pair of int, at least 1
    padding : int or pair of int, at least 0, or "valid" or "same" ("same" needs stride 1)
    groups : int
    method : str
        "dense"   torch's own convolution
        "im2col"  every window written out, then one matrix product (any geometry)
        "mec"     windows written out horizontally only, then overlapping products [2]
                  (no vertical dilation)
        "cpo"     Compressed Pattern Overlap: sparse product over the compressed map [1]
        "cps"     Compressed Pattern Sets: the same with compressed index positions [1]
        "cpc"     Compressed Pattern Channels: channel bitmasks, outputs kept in registers
        "winograd"  dense, F(2 x 2, 3 x 3): 16 products instead of 36 [4] (3 x 3 kernels of stride
                  and dilation 1; float64 runs the dense method)
        "amx"     dense, on AMX tiles: each float32 is the sum of three bfloat16 numbers [3], of
                  two or one where `torch.backends.mkldnn.conv.fp32_precision` says tf32 or bf16
                  (a CPU with AMX; float64 runs the dense method)

    Returns
    -------
    Tensor, (N, K, Oh, Ow) or (K, Oh, Ow); channels-last where torch's would be.

    Raises
    ------
    TypeError   if an argument is no tensor, or a dtype is not supported or not shared.
    ValueError  if shapes do not fit, or the method does not exist, cannot do this geometry or
                cannot run on this CPU ("amx" without AMX).

    Notes
    -----
    Gradient: input, weight and bias, any order. It is torch's dense gradient; with "cpc" and
    "winograd", first order and channels-last maps, each pass skips zeros of the input or of the
    output's gradient, or goes by Winograd's transforms (3 x 3, float32), where that is estimated to
    be faster. Behind a ReLU, the gradient that a plain
    `backward()` hands on is then zero where the input is, as the ReLU's derivative is zero there.
    Weights are laid out anew on every call; :class:`jsc.nn.SparseConv2d` does that once.
    Zeros of the input are skipped only where that cannot change the result: with weights that are
    not finite, and for depthwise convolution, the dense method runs. Cost of the sparse methods:
    proportional to the non-zeros.
    cpo, cps, cpc, winograd and amx give the same bits for any number of threads and split of the
    batch.
    amx is as exact as float32 (products to 2^-22, sums in float32), but counts numbers below
    2^-126 as zero; maps and weights with NaN, inf or numbers from 3.39e38 on run the dense method.
    On devices other than the CPU, under autocast, and for derivatives of forward mode
    (`torch.func.jvp`), every method is torch's own convolution.

    References
    ----------
    [1] H. Amer, A. H. Salamah, A. Sajedi, E.-H. Yang, "High Performance Convolution Using Sparsity
        and Patterns for Inference in Deep Convolutional Neural Networks", arXiv:2104.08314, 2021.
    [2] M. Cho, D. Brand, "MEC: Memory-efficient Convolution for Deep Neural Network", ICML 2017.
    [3] G. Henry, P. T. P. Tang, A. Heinecke, "Leveraging the bfloat16 Artificial Intelligence
        Datatype For Higher-Precision Computations", ARITH 2019.
    [4] A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.

    Examples
    --------
    >>> x = torch.relu(torch.randn(1, 64, 14, 14, generator=torch.Generator().manual_seed(0)))
    >>> w = torch.ones(32, 64, 3, 3)
    >>> y = jsc.functional.conv2d(x, w, padding=1, method="cpc")
    >>> torch.allclose(y, torch.nn.functional.conv2d(x, w, padding=1), atol=1e-3)
    True
    """
    return convolve(input, weight, bias, stride, padding, dilation, groups, method, keep=False)


def convolve(
    input: Tensor, weight: Tensor, bias: Tensor | None,
    stride: int | Sequence[int], padding: int | Sequence[int] | str,
    dilation: int | Sequence[int], groups: int, method: str, *, keep: bool,
) -> Tensor:  # fmt: skip
    """`conv2d`; with `keep`, what is packed of `weight` is kept with it (ops/packs.py)."""
    methods.get(method)
    _checks.require_tensor(input, "input")
    _checks.require_tensor(weight, "weight")
    if bias is not None:
        _checks.require_tensor(bias, "bias")
    if autocast(input):  # dtypes and rules are torch's
        return torch.nn.functional.conv2d(input, weight, bias, stride, padding, dilation, groups)
    _checks.require_kernel_dtype(input, "input")
    for tensor, name in ((weight, "weight"), *(((bias, "bias"),) if bias is not None else ())):
        _checks.require_same_dtype(tensor, name, input, "input")
        _checks.require_same_device(tensor, name, input, "input")
    if input.ndim == 3:
        arguments = stride, padding, dilation, groups, method
        return convolve(input.unsqueeze(0), weight, bias, *arguments, keep=keep).squeeze(0)
    _require_ranks(input, weight)
    stride, dilation = _checks.pair(stride, "stride", 1), _checks.pair(dilation, "dilation", 1)
    if isinstance(padding, str):
        input, padding = named_padding(input, weight, padding, stride, dilation)
    padding = _checks.pair(padding, "padding", 0)
    _require_shapes(input, weight, bias, groups)
    g = methods.geometry(input, weight, stride, padding, dilation, groups)
    require_output(g)
    if method == "dense" or input.device.type not in ("cpu", "meta"):
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    if reason := methods.unsupported(method, g):
        able = [m for m in methods.METHODS if methods.unsupported(m, g) is None]
        raise ValueError(
            f'method "{method}" cannot do this convolution: {reason}; use one of {", ".join(able)}'
        )
    if forward_mode():
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    if torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in (input, weight, bias)
    ):
        counted = methods.get(method).trains and untransformed(input)
        density = training.input_density(input, g) if counted else None
        return methods.Conv2d.call(
            input, weight, None, bias, stride, padding, dilation, groups, method, density
        )
    return call(
        "conv2d", input, weight, None, bias, stride, padding, dilation, groups, method, keep
    )


def autocast(input: Tensor) -> bool:
    """Whether torch chooses the dtype of a convolution of `input`."""
    device = input.device.type
    return device in ("cpu", "cuda") and torch.is_autocast_enabled(device)


def named_padding(
    input: Tensor, weight: Tensor, padding: str, stride: tuple[int, int], dilation: tuple[int, int]
) -> tuple[Tensor, tuple[int, int]]:
    """The input and the padding in numbers of torch's "valid" and "same"."""
    if padding == "valid":
        return input, (0, 0)
    if padding != "same":
        raise ValueError(f'padding must be "valid", "same" or numbers, got {padding!r}')
    if stride != (1, 1):
        raise ValueError(
            f'padding "same" needs stride 1, got {stride}; give the padding in numbers'
        )
    total = [dilation[i] * (weight.shape[2 + i] - 1) for i in (0, 1)]
    before = (total[0] // 2, total[1] // 2)
    odd = (total[0] % 2, total[1] % 2)  # an even window needs one more on the right or below
    return (torch.nn.functional.pad(input, (0, odd[1], 0, odd[0])) if any(odd) else input), before


def _require_ranks(input: Tensor, weight: Tensor) -> None:
    if input.ndim != 4:
        raise ValueError(f"input must be (N, C, H, W) or (C, H, W), got shape {tuple(input.shape)}")
    if weight.ndim != 4 or 0 in weight.shape[2:]:
        raise ValueError(
            "weight must be (K, C / groups, Kh, Kw) with Kh, Kw > 0, "
            f"got shape {tuple(weight.shape)}"
        )


def _require_shapes(input: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> None:
    if not isinstance(groups, int) or groups < 1:
        raise ValueError(f"groups must be a positive int, got {groups!r}")
    if weight.shape[0] % groups or weight.shape[0] == 0:
        raise ValueError(
            f"weight must have a positive multiple of groups={groups} filters, "
            f"got {weight.shape[0]}"
        )
    if input.shape[1] != weight.shape[1] * groups:
        raise ValueError(
            f"input must have {weight.shape[1] * groups} channels (groups={groups} times the "
            f"{weight.shape[1]} of weight {tuple(weight.shape)}), got {input.shape[1]}"
        )
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        raise ValueError(
            f"bias must be ({weight.shape[0]},), one number per filter, got {tuple(bias.shape)}"
        )


def require_output(g: ConvGeometry) -> None:
    """Refuse an output that is empty or has no address for every element."""
    if g.Oh < 1 or g.Ow < 1:
        raise ValueError(
            f"the kernel ({g.Kh}, {g.Kw}) with dilation ({g.Dh}, {g.Dw}) "
            "does not fit into the padded input "
            f"({g.H + 2 * g.Ph}, {g.W + 2 * g.Pw}); pad more or use a smaller kernel"
        )
    count = g.N * g.K * g.Oh * g.Ow
    if isinstance(count, int) and count > _checks.MAX_STEP:
        raise ValueError(
            f"the output ({g.N}, {g.K}, {g.Oh}, {g.Ow}) has more elements than can be addressed; "
            f"pad less than ({g.Ph}, {g.Pw})"
        )
