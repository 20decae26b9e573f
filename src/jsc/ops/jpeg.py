"""Operators of the JPEG layer in one pass: `jsc::jpeg`, `jsc::jpeg_backward`.

x is (N, C, H, W) with C = 3 or 1; q and kappa are (2, 8, 8), or (1, 8, 8) when C = 1. Only x is
kept for the backward pass. Gradients are at constant kappa (see `jsc.ops.quant`), and second
derivatives are computed in plain torch (`jsc.ops._torch`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jsc import _config
from jsc._kernels.jpeg import jpeg
from jsc.ops import _torch
from jsc.ops._buffer import buffer
from jsc.ops._library import Function, call, register
from jsc.ops.quant import MODES, prepare

WORK = 64  # element operations a pixel and channel


@lru_cache(maxsize=64)
def _colours(
    channels: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    peak: float,
    offset: float,
    dtype: str,
) -> np.ndarray:
    """(4, 12): x -> planes, planes -> y, and the transposes of both matrices, in the kernel's
    order."""
    scale, shift = np.array(std) * (255 / peak), np.array(mean) * (255 / peak) - 128
    into, back = np.array(_torch.RGB_TO_YCC), np.array(_torch.YCC_TO_RGB)
    offsets = np.array([0.0, offset, offset])
    if channels == 1:
        scale, shift = np.resize(scale, 3), np.resize(shift, 3)
        into = back = np.eye(3)
        offsets = np.zeros(3)
    analyse, synthesise = into * scale, back / scale[:, None]
    rows = [
        np.append(analyse, into @ shift + offsets),
        np.append(synthesise, -(back @ offsets + shift) / scale),
        np.append(synthesise.T, np.zeros(3)),
        np.append(analyse.T, np.zeros(3)),
    ]
    return np.stack(rows).astype(dtype)


def _constants(
    x: Tensor, q: Tensor, kappa: Tensor, mode: int, window: int, levels: int,
    mean: Sequence[float], std: Sequence[float], peak: float, offset: float,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    dtype = "float32" if x.dtype == torch.float32 else "float64"
    entries = prepare(q.reshape(-1, 64), kappa.reshape(-1, 64), mode, window, levels)
    return _colours(x.shape[1], tuple(mean), tuple(std), peak, offset, dtype), entries.numpy()


def _forward_cpu(
    x: Tensor, q: Tensor, kappa: Tensor, mode: int, window: int, levels: int,
    mean: Sequence[float], std: Sequence[float], peak: float, offset: float,
) -> Tensor:  # fmt: skip
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    constants = _constants(x, q, kappa, mode, window, levels, mean, std, peak, offset)
    threads = _config.num_threads(WORK * x.numel())
    jpeg.forward(buffer(x), *constants, y.numpy(), _config.isa(), threads)
    return y


def _backward_cpu(
    g: Tensor, x: Tensor, q: Tensor, kappa: Tensor, mode: int, window: int, levels: int,
    mean: Sequence[float], std: Sequence[float], peak: float, offset: float, wanted: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    n, channels, h, w = x.shape
    dx = (
        torch.empty_like(x, memory_format=torch.contiguous_format)
        if wanted & 1
        else x.new_empty((0, 0, 0, 0))
    )
    dq, dkappa = q.new_zeros(q.shape), q.new_zeros(q.shape)
    chunks = -(-n * -(-h // 8) * -(-w // 8) // jpeg.CHUNK_BLOCKS)
    partial = x.new_empty(
        (chunks if wanted & 2 else 0, 128 if channels == 1 else 256), dtype=torch.float64
    )
    jpeg.backward(
        buffer(g), buffer(x),
        *_constants(x, q, kappa, mode, window, levels, mean, std, peak, offset),
        dx.numpy(), partial.numpy(), dq.view(-1, 64).numpy(), dkappa.view(-1, 64).numpy(),
        wanted, _config.isa(), _config.num_threads(2 * WORK * x.numel()),
    )  # fmt: skip
    return dx, dq, dkappa


OPTIONS = "int mode, int window, int levels, float[] mean, float[] std, float peak, float offset"

register(
    f"jpeg(Tensor x, Tensor q, Tensor kappa, {OPTIONS}) -> Tensor",
    _forward_cpu,
    lambda x, *_: x.new_empty(x.shape),
)
register(
    f"jpeg_backward(Tensor g, Tensor x, Tensor q, Tensor kappa, {OPTIONS}, int wanted)"
    " -> (Tensor, Tensor, Tensor)",
    _backward_cpu,
    lambda g, x, q, kappa, *options: (
        x.new_empty(x.shape if options[-1] & 1 else (0, 0, 0, 0)),
        q.new_empty(q.shape),
        q.new_empty(q.shape),
    ),
)


def _plain(
    x: Tensor, q: Tensor, kappa: Tensor, mode: int, window: int, levels: int,
    mean: Sequence[float], std: Sequence[float], peak: float, offset: float,
) -> Tensor:  # fmt: skip
    quantizer = {number: name for name, number in MODES.items()}[mode]
    return _torch.jpeg(
        x, q, kappa, quantizer=quantizer, window=window or None, levels=levels or None,
        mean=mean, std=std, peak=peak, chroma_offset=offset,
    )  # fmt: skip


class Jpeg(Function):
    """`options` are the operator's arguments from `mode` on."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, q: Tensor, kappa: Tensor, options: tuple[Any, ...]) -> Tensor:
        return call("jpeg", x, q, kappa, *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, q, kappa, ctx.options = inputs
        ctx.save_for_backward(x, q, kappa)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, q, kappa = ctx.saved_tensors
        needs = ctx.needs_input_grad
        wanted = (1 if needs[0] else 0) | (2 if needs[1] or needs[2] else 0)
        dx, dq, dkappa = JpegBackward.call(g, x, q, kappa, ctx.options, wanted)
        return dx if needs[0] else None, dq, dkappa, None


class JpegBackward(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        g: Tensor, x: Tensor, q: Tensor, kappa: Tensor, options: tuple[Any, ...], wanted: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        return call("jpeg_backward", g, x, q, kappa, *options, wanted)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        g, x, q, kappa, ctx.options, ctx.wanted = inputs
        ctx.save_for_backward(g, x, q, kappa)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        def first_order(g: Tensor, *inputs: Tensor) -> Any:
            return torch.func.vjp(lambda *a: _plain(*a, *ctx.options), *inputs)[1](g)

        dx, *dtables = grads
        if not ctx.wanted & 1:
            dx = torch.zeros_like(ctx.saved_tensors[1])
        return *torch.func.vjp(first_order, *ctx.saved_tensors)[1]((dx, *dtables)), None, None
