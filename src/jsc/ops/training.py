"""Which kernel each pass of a training convolution runs: torch's dense one, Winograd's, or one that
skips zeros.

Estimated times, in units of torch's dense pass (one thread with AVX-512, of an AMD EPYC for
winograd, of a Xeon for the others; batches of 32 to 128, maps of 4 to 32 rows, `python -m
benchmarks train`), follow from sizes, and from the density
of the map whose non-zeros are taken:

    winograd any pass of a 3 x 3 convolution of stride 1 in float32, no zeros skipped
    sweep    forward over x; gradient of the input over that of the output (stride 1)
    nonzeros gradient of the weight over either map (of the output: stride 1)
    gated    gradients of weight and input in one pass over the non-zeros of the input, where a ReLU
             made it: its derivative is zero where the input is

The bits of a result do not depend on the number of threads, because densities are counted, never
timed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from jsc import _config
from jsc._geometry import ConvGeometry
from jsc.ops import cpc, cpc_grad, winograd

SMALL = 4_000_000  # multiply-adds below which calls cost more than they save


def _sweep_cost(d: float, outputs: int, g: ConvGeometry) -> float:
    vectors = -(-outputs // 16) * 16 / outputs  # filters that do not exist are computed too
    strided = 0.4 if g.Sh * g.Sw > 1 else 0.0
    packing = 230 / (g.N * g.Oh * g.Ow)
    return (0.2 + 10 / outputs + d) * vectors + strided + packing


def _nonzeros_cost(d: float, others: int, g: ConvGeometry) -> float:
    vectors = -(-others // 16) * 16 / others
    strided = 0.25 if g.Sh * g.Sw > 1 else 0.0
    return (0.26 + 1.3 * d) * vectors + strided


def _gated_cost(d: float, g: ConvGeometry) -> float:
    return _nonzeros_cost(d, g.K, g) + 0.33 + 1.55 * d


def _winograd_cost(g: ConvGeometry, dtype: torch.dtype, *, of_weight: bool = False) -> float:
    able = dtype == torch.float32 and winograd.unsupported(g) is None and max(g.Ph, g.Pw) <= 2
    if not able or not _config.isa():
        return math.inf
    call = 2e6 / g.macs
    if of_weight:
        return winograd.gradient_cost(g, winograd.tile()) + call
    return winograd.cost(g, winograd.tile()) + 200 / (g.N * g.Oh * g.Ow) + call  # packing


def _takes_nonzeros(g: ConvGeometry) -> bool:
    return g.Kh * g.Kw >= 4 and not cpc_grad.unsupported(g)


def input_density(input: Tensor, g: ConvGeometry) -> float | None:
    """Density of the input where a pass of `g` may be other than dense, else None."""
    fits = g.groups == 1 and g.macs >= SMALL and g.Dh == g.Dw == 1
    if not fits or not input.is_contiguous(memory_format=torch.channels_last):
        return None
    return cpc_grad.density(input.detach())


def stays_dense(dx: float, g: ConvGeometry, dtype: torch.dtype) -> bool:
    """Whether an input of density `dx` leaves all passes to torch, if the gradient of the output
    has no zeros, as behind batch normalisation."""
    least = min(_nonzeros_cost(dx, g.K, g), _gated_cost(dx, g) / 2) if _takes_nonzeros(g) else 1.0
    return min(least, _sweep_cost(dx, g.K, g), _winograd_cost(g, dtype)) >= 1


def forward_weight(dx: float, weight: Tensor, g: ConvGeometry) -> tuple[str, Tensor | None]:
    """The method that is estimated to be the fastest for an input of density `dx`, and the weights
    packed for it; "dense" and None where that is torch's own."""
    sweep, transformed = _sweep_cost(dx, g.K, g), _winograd_cost(g, weight.dtype)
    if min(sweep, transformed) >= 1:
        return "dense", None
    if transformed < sweep:
        return "winograd", winograd.pack(weight, g, winograd.tile()).unsqueeze(0)
    packed = cpc_grad.sweep_weight(weight.detach(), g, turned=False)
    return ("dense", None) if packed is None else ("cpc", packed.unsqueeze(0))


def backward(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    g: ConvGeometry,
    dx: float,
    wanted: tuple[bool, bool],
    behind_relu: Callable[[], bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of input and weight by kernels of ours where that pays, None where torch's is to
    run.

    `dx` is the `input_density`; `behind_relu()` says whether the input's gradient is wanted only
    where the input is not zero.
    """
    last = torch.channels_last
    input, grad, weight = input.detach(), grad.detach(), weight.detach()
    if not any(wanted) or not input.is_contiguous(memory_format=last):
        return None, None
    if not grad.is_contiguous(memory_format=last):
        grad = grad.contiguous(memory_format=last)
    dtype = weight.dtype
    for_input, for_weight = _choose(dx, cpc_grad.density(grad), g, dtype, wanted, behind_relu)
    if for_input == "gated":
        found = cpc_grad.gradients(
            input, grad, weight, g, over_input=True, weight_grad=wanted[1], input_grad=True
        )
        return (None, None) if found is None else found
    gx = None
    if for_input == "sweep":
        gx = _sweep(grad, weight, g)
    elif for_input == "winograd":
        gx = winograd.input_gradient(grad, weight, g)
    if for_weight == "dense":
        return gx, None
    if for_weight == "winograd":
        return gx, winograd.weight_gradient(input, grad, weight, g)
    over_input = for_weight == "input"
    S, D = (input, grad) if over_input else (grad, input)
    found = cpc_grad.gradients(S, D, weight, g, over_input=over_input)
    return gx, None if found is None else found[1]


def _choose(
    dx: float,
    dg: float,
    g: ConvGeometry,
    dtype: torch.dtype,
    wanted: tuple[bool, bool],
    behind_relu: Callable[[], bool],
) -> tuple[str, str]:
    """The cheapest kernel for the gradients of (input, weight). The first is "dense", "winograd",
    "sweep" or "gated"; the second "dense", "winograd", or the map whose non-zeros are taken,
    "input" or "output". With "gated" both come from one pass over the input's non-zeros."""
    straight = g.Sh == g.Sw == 1
    able = _takes_nonzeros(g)
    for_input = {"dense": 1.0, "winograd": _winograd_cost(g, dtype)}
    for_weight = {"dense": 1.0, "winograd": _winograd_cost(g, dtype, of_weight=True)}
    if straight and g.Kh > g.Ph and g.Kw > g.Pw:
        for_input["sweep"] = _sweep_cost(dg, g.C, g)
    if able:
        for_weight["input"] = _nonzeros_cost(dx, g.K, g)
        if straight:
            for_weight["output"] = _nonzeros_cost(dg, g.C, g)
    x, w = min(for_input, key=for_input.__getitem__), min(for_weight, key=for_weight.__getitem__)
    apart = for_input[x] * wanted[0] + for_weight[w] * wanted[1]
    if wanted[0] and able and _gated_cost(dx, g) < apart and behind_relu():
        return "gated", "input"
    return (x if wanted[0] else "dense"), (w if wanted[1] else "dense")


def _sweep(grad: Tensor, weight: Tensor, g: ConvGeometry) -> Tensor | None:
    """Gradient of the input, stride 1: the forward sweep with kernels turned by 180 degrees."""
    back = ConvGeometry(
        g.N, g.K, g.Oh, g.Ow, g.C, g.Kh, g.Kw, 1, 1, g.Kh - 1 - g.Ph, g.Kw - 1 - g.Pw
    )
    packed = cpc_grad.sweep_weight(weight.detach(), back, turned=True)
    return None if packed is None else cpc.run(grad, packed, None, back)
