"""Operators of the quantiser: `jsc::soft_quantize` and its backward.

Tensors are (O, G, N, P): entry (g, p) of `q` and `kappa` belongs to z[:, g, :, p]. Gradients are at
constant kappa; callers that hold alpha constant write kappa = alpha q^2, and autograd adds what
follows from that.
Second and higher derivatives are computed in plain torch (`jsc.ops._torch`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from jsc import _config
from jsc._checks import KERNEL_DTYPES
from jsc._kernels.jpeg import quant
from jsc.ops import _torch
from jsc.ops._buffer import buffer, require
from jsc.ops._library import Function, call, implement

MODES = {"soft": 0, "hard": 1, "ste": 2, "sample": 3}
ENTRY_SIZE = quant.ENTRY_SIZE  # numbers that a kernel is told of each entry
WORK = 32  # element operations a coefficient
WINDOWS = range(3, 24, 2)  # how many levels a window may have; the kernels have no room for more


def require_options(mode: int, window: int, levels: int, modes: int = 3) -> None:
    """The options of an operator, of which those that draw have one mode more. An operator may be
    called by itself, or be named in a file: the kernels have no checks of their own."""
    if mode not in range(modes):
        raise ValueError(f"mode must be from 0 to {modes - 1}, got {mode}")
    if window and window not in WINDOWS:
        raise ValueError(
            f"window must be 0 or odd, from {WINDOWS[0]} to {WINDOWS[-1]}, got {window}"
        )
    if levels and not max(1, window // 2) <= levels < 2**31:
        raise ValueError(
            f"levels must be 0, or from (window - 1) / 2 to 2^31 - 1, got {levels} and a window of "
            f"{window}"
        )


def _require(z: Tensor, q: Tensor, kappa: Tensor, mode: int, window: int, levels: int) -> None:
    if z.ndim != 4 or z.dtype not in KERNEL_DTYPES:
        raise ValueError(
            "z must be (outer, groups, rows, period) of float32 or float64, "
            f"got {tuple(z.shape)} of {z.dtype}"
        )
    for table, name in ((q, "q"), (kappa, "kappa")):
        require(table, (z.shape[1], z.shape[3]), z.dtype, name)
    require_options(mode, window, levels)


def prepare(q: Tensor, kappa: Tensor, mode: int, window: int, levels: int) -> Tensor:
    """What the kernels need to know of each entry of q and kappa (G, P)."""
    entries = q.new_empty((*q.shape, ENTRY_SIZE))
    if q.numel():
        quant.prepare(buffer(q), buffer(kappa), entries.numpy(), mode, window, levels)
    return entries


def _forward_cpu(
    z: Tensor, q: Tensor, kappa: Tensor, mode: int, window: int, levels: int
) -> Tensor:
    _require(z, q, kappa, mode, window, levels)
    y = torch.empty_like(z, memory_format=torch.contiguous_format)
    quant.forward(
        buffer(z), prepare(q, kappa, mode, window, levels).numpy(), y.numpy(),
        _config.isa(), _config.num_threads(WORK * z.numel()),
    )  # fmt: skip
    return y


def _backward_cpu(
    g: Tensor, z: Tensor, q: Tensor, kappa: Tensor, mode: int, window: int, levels: int
) -> tuple[Tensor, Tensor, Tensor]:
    _require(z, q, kappa, mode, window, levels)
    require(g, tuple(z.shape), z.dtype, "the gradient")
    outer, groups, rows, period = z.shape
    dz = torch.empty_like(z, memory_format=torch.contiguous_format)
    dq, dkappa = q.new_zeros((groups, period)), q.new_zeros((groups, period))
    chunks = -(-rows // quant.chunk_rows(max(period, 1)))
    quant.backward(
        buffer(g), buffer(z),
        prepare(q, kappa, mode, window, levels).numpy(), dz.numpy(),
        z.new_empty((outer, groups, chunks, 2 * period), dtype=torch.float64).numpy(),
        dq.numpy(), dkappa.numpy(),
        _config.isa(), _config.num_threads(2 * WORK * z.numel()),
    )  # fmt: skip
    return dz, dq, dkappa


implement(
    "soft_quantize",
    _forward_cpu,
    lambda z, q, kappa, mode, window, levels: z.new_empty(z.shape),
)
implement(
    "soft_quantize_backward",
    _backward_cpu,
    lambda g, z, q, kappa, mode, window, levels: (
        z.new_empty(z.shape),
        q.new_empty(q.shape),
        q.new_empty(q.shape),
    ),
)


def _plain(z: Tensor, q: Tensor, kappa: Tensor, mode: int, window: int, levels: int) -> Tensor:
    q, kappa = q.unsqueeze(1), kappa.unsqueeze(1)
    if mode == MODES["soft"]:
        return _torch.soft_quantize(z, q, kappa, window or None, levels or None)
    quantize = _torch.hard_quantize if mode == MODES["hard"] else _torch.ste_quantize
    return quantize(z, q, levels or None)


class Floor(Function):
    """max(q, least). Below the floor a gradient passes if descending along it raises q, and stops
    if it would lower it: a projected gradient, so that none runs away."""

    generate_vmap_rule = True

    @staticmethod
    def forward(q: Tensor, least: float) -> Tensor:
        return q.clamp(min=least)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        q, ctx.least = inputs
        ctx.save_for_backward(q)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (q,) = ctx.saved_tensors
        return torch.where((q > ctx.least) | (g < 0), g, torch.zeros_like(g)), None


class SoftQuantize(Function):
    """`options`: mode, window, levels."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, q: Tensor, kappa: Tensor, options: tuple[int, int, int]) -> Tensor:
        return call("soft_quantize", z, q, kappa, *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        z, q, kappa, ctx.options = inputs
        ctx.save_for_backward(z, q, kappa)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        z, q, kappa = ctx.saved_tensors
        dz, dq, dkappa = SoftQuantizeBackward.call(g, z, q, kappa, ctx.options)
        return dz, dq, dkappa, None


class SoftQuantizeBackward(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        g: Tensor, z: Tensor, q: Tensor, kappa: Tensor, options: tuple[int, int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        return call("soft_quantize_backward", g, z, q, kappa, *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        g, z, q, kappa, ctx.options = inputs
        ctx.save_for_backward(g, z, q, kappa)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        def first_order(g: Tensor, *inputs: Tensor) -> Any:
            return torch.func.vjp(lambda *a: _plain(*a, *ctx.options), *inputs)[1](g)

        return *torch.func.vjp(first_order, *ctx.saved_tensors)[1](grads), None
