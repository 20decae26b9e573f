"""Operators of the JPEG layer in one pass: `jsc::jpeg`, `jsc::jpeg_backward`.

x is (N, C, H, W) with C = 3 or 1, in 8 bits or in the dtype of q; q and kappa are
(rounds, 2, 8, 8), or (rounds, 1, 8, 8) when C = 1. Only x is kept for the backward pass. Gradients
are at constant kappa (see `jsc.ops.quant`); where levels are drawn they are those of the mean, at
what was drawn. Second derivatives are
computed in plain torch (`jsc.ops._torch_jpeg`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jsc import _config
from jsc._checks import KERNEL_DTYPES
from jsc._kernels.jpeg import jpeg
from jsc.ops import _torch
from jsc.ops._buffer import buffer, require
from jsc.ops._library import Function, call, implement, unlowered
from jsc.ops._scratch import LINE, memory
from jsc.ops._torch_jpeg import SAMPLE, SOFT, Settings, layer
from jsc.ops.quant import ENTRY_SIZE, prepare, require_options

WORK = 64  # element operations a pixel and channel
CHROMA = {1: ((1, 1),), 3: ((1, 1), (1, 2), (2, 2))}  # v and u that there are, by channels


@lru_cache(maxsize=64)
def _colours(
    channels: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    peak: float,
    offset: float,
    bytes: bool,
    dtype: str,
) -> np.ndarray:
    """(4, 12): x -> planes, planes -> y, and the transposes of both matrices, in the kernel's
    order. With `bytes` x holds the 8-bit pixels themselves."""
    scale, shift = np.array(std) * (255 / peak), np.array(mean) * (255 / peak) - 128
    into, back = np.array(_torch.RGB_TO_YCC), np.array(_torch.YCC_TO_RGB)
    offsets = np.array([0.0, offset, offset])
    if channels == 1:
        scale, shift = np.resize(scale, 3), np.resize(shift, 3)
        into = back = np.eye(3)
        offsets = np.zeros(3)
    analyse, synthesise = into * scale, back / scale[:, None]
    first = np.append(analyse, into @ shift + offsets)
    if bytes:
        first = np.append(into, into @ np.full(3, -128.0) + offsets)
    rows = [
        first,
        np.append(synthesise, -(back @ offsets + shift) / scale),
        np.append(synthesise.T, np.zeros(3)),
        np.append(analyse.T, np.zeros(3)),
    ]
    return np.stack(rows).astype(dtype)


def _require(x: Tensor, q: Tensor, kappa: Tensor, seed: Tensor | None, s: Settings) -> None:
    """An operator may be called by itself, or be named in a file: the kernels have no checks of
    their own."""
    if x.ndim != 4 or x.shape[1] not in CHROMA:
        raise ValueError(f"x must be (N, 3, H, W) or (N, 1, H, W), got {tuple(x.shape)}")
    channels = x.shape[1]
    table = (2 if channels == 3 else 1, 8, 8)
    if q.dtype not in KERNEL_DTYPES or q.ndim != 4 or not len(q) or q.shape[1:] != table:
        raise ValueError(
            f"q must be (rounds, {table[0]}, 8, 8) of float32 or float64 for images of {channels} "
            f"channels, got {tuple(q.shape)} of {q.dtype}"
        )
    require(kappa, tuple(q.shape), q.dtype, "kappa")
    if x.dtype not in (q.dtype, torch.uint8):
        raise ValueError(f"x must be uint8 or {q.dtype}, the dtype of q, got {x.dtype}")
    require_options(s.mode, s.window, s.levels, modes=4)
    if (s.v, s.u) not in CHROMA[channels]:
        raise ValueError(
            f"v and u must be one of {CHROMA[channels]} for images of {channels} channels, "
            f"got {(s.v, s.u)}"
        )
    if len(s.mean) != channels or len(s.std) != channels:
        raise ValueError(
            f"each of {channels} channels must have a mean and a std, got {s.mean} and {s.std}"
        )
    if s.mode == SAMPLE and (seed is None or seed.numel() != 1):
        raise ValueError("seed must be a tensor of one number where levels are drawn (mode 3)")


def _constants(
    x: Tensor, q: Tensor, kappa: Tensor, mode: int, s: Settings
) -> tuple[np.ndarray, np.ndarray]:
    dtype = "float32" if q.dtype == torch.float32 else "float64"
    entries = prepare(q.reshape(-1, 64), kappa.reshape(-1, 64), mode, s.window, s.levels)
    colours = _colours(
        x.shape[1], tuple(s.mean), tuple(s.std), s.peak, s.offset, x.dtype == torch.uint8, dtype
    )
    return colours, entries.numpy().reshape(len(q), -1, 64, ENTRY_SIZE)


def _source(x: Tensor, q: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
    """As numbers or as 8-bit pixels, of which the kernel takes any strides."""
    if x.dtype != torch.uint8:
        return buffer(x), None
    return q.new_empty((0, 0, 0, 0)).numpy(), x.detach().numpy()


def _scratch(
    x: Tensor, q: Tensor, s: Settings, draws: bool, threads: int, backward: bool
) -> np.ndarray:
    """(threads, numbers) in the arena of this thread."""
    dtype = np.dtype("float32" if q.dtype == torch.float32 else "float64")
    _, channels, h, w = x.shape
    numbers = jpeg.scratch_numbers(
        channels, h, w, s.v, s.u, s.zero, draws, len(q), backward, dtype.itemsize
    )
    each = -(-numbers * dtype.itemsize // LINE) * LINE // dtype.itemsize
    held = memory(threads * each * dtype.itemsize).bytes
    return held[: threads * each * dtype.itemsize].view(dtype).reshape(threads, each)


def _seed(seed: Tensor | None) -> int:
    return 0 if seed is None else int(seed.item()) & 0xFFFFFFFFFFFFFFFF


def _forward_cpu(
    x: Tensor, q: Tensor, kappa: Tensor, seed: Tensor | None, *settings: Any
) -> Tensor:
    s = Settings(*settings)
    _require(x, q, kappa, seed, s)
    y = q.new_empty(x.shape)
    if not x.numel():
        return y
    isa, threads = _config.isa(), _config.num_threads(WORK * x.numel())
    colours, entries = _constants(x, q, kappa, s.mode, s)
    draws = s.mode == SAMPLE
    jpeg.forward(
        *_source(x, q), colours, entries, y.numpy(), _scratch(x, q, s, draws, threads, False),
        s.v, s.u, s.zero, draws, _seed(seed), isa, threads,
    )  # fmt: skip
    return y


def _backward_cpu(
    g: Tensor, x: Tensor, q: Tensor, kappa: Tensor, seed: Tensor | None, *settings_and_wanted: Any
) -> tuple[Tensor, Tensor, Tensor]:
    *settings, wanted = settings_and_wanted
    s = Settings(*settings)
    _require(x, q, kappa, seed, s)
    require(g, tuple(x.shape), q.dtype, "the gradient")
    if wanted not in range(4):
        raise ValueError(f"wanted must be from 0 to 3, got {wanted}")
    draws = s.mode == SAMPLE and len(q) > 1  # of the last round only the mean is asked for
    dx = q.new_empty(x.shape if wanted & 1 else (0, 0, 0, 0))
    dq, dkappa = q.new_zeros(q.shape), q.new_zeros(q.shape)
    if not x.numel():
        return dx, dq, dkappa
    sums = dq.view(-1, 64).numpy(), dkappa.view(-1, 64).numpy()
    isa, threads = _config.isa(), _config.num_threads(2 * WORK * x.numel())
    mean = s._replace(mode=SOFT if s.mode == SAMPLE else s.mode)
    colours, entries = _constants(x, q, kappa, mean.mode, s)
    n, channels, h, w = x.shape
    chunks = jpeg.gradient_chunks(n, channels, h, w, s.v, s.u, s.zero, draws)
    partial = q.new_empty((chunks, 2 * q.numel()), dtype=torch.float64).numpy()
    drawn = _constants(x, q, kappa, SAMPLE, s)[1] if draws else entries
    jpeg.backward(
        buffer(g), *_source(x, q), colours, entries, drawn, dx.numpy(), partial, *sums,
        _scratch(x, q, s, draws, threads, True), s.v, s.u, s.zero, draws, _seed(seed), wanted,
        isa, threads,
    )  # fmt: skip
    return dx, dq, dkappa


implement(
    "jpeg",
    _forward_cpu,
    lambda x, q, *_: q.new_empty(x.shape),
)
implement(
    "jpeg_backward",
    _backward_cpu,
    lambda g, x, q, kappa, seed, *options: (
        q.new_empty(x.shape if options[-1] & 1 else (0, 0, 0, 0)),
        q.new_empty(q.shape),
        q.new_empty(q.shape),
    ),
)


class Jpeg(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, q: Tensor, kappa: Tensor, seed: Tensor | None, settings: Settings
    ) -> Tensor:
        return call("jpeg", x, q, kappa, seed, *settings)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, q, kappa, seed, ctx.settings = inputs
        ctx.save_for_backward(x, q, kappa, seed)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, q, kappa, seed = ctx.saved_tensors
        needs = ctx.needs_input_grad
        wanted = (1 if needs[0] else 0) | (2 if needs[1] or needs[2] else 0)
        dx, dq, dkappa = JpegBackward.call(g, x, q, kappa, seed, ctx.settings, wanted)
        return dx if needs[0] else None, dq, dkappa, None, None


class JpegBackward(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        g: Tensor, x: Tensor, q: Tensor, kappa: Tensor, seed: Tensor | None, settings: Settings,
        wanted: int,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        return call("jpeg_backward", g, x, q, kappa, seed, *settings, wanted)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        g, x, q, kappa, seed, ctx.settings, ctx.wanted = inputs
        ctx.save_for_backward(g, x, q, kappa, seed)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        with unlowered(grads[0]):  # the kernel's own precision, which is that of q
            return JpegBackward._second_orders(ctx, *grads)

    @staticmethod
    def _second_orders(ctx: Any, dx: Tensor, *dtables: Tensor) -> tuple[Tensor | None, ...]:
        g, x, q, kappa, seed = ctx.saved_tensors

        def plain(x: Tensor, q: Tensor, kappa: Tensor) -> Tensor:
            return layer(x, q, kappa, seed, ctx.settings)

        if x.dtype == torch.uint8:  # has no gradient

            def first_order(g: Tensor, *tables: Tensor) -> Any:
                return torch.func.vjp(lambda *t: plain(x, *t), *tables)[1](g)

            dg, dq, dkappa = torch.func.vjp(first_order, g, q, kappa)[1](tuple(dtables))
            return dg, None, dq, dkappa, None, None, None

        def first_orders(g: Tensor, *inputs: Tensor) -> Any:
            return torch.func.vjp(plain, *inputs)[1](g)

        if not ctx.wanted & 1:
            dx = torch.zeros_like(x)
        found = torch.func.vjp(first_orders, g, x, q, kappa)[1]((dx, *dtables))
        return *found, None, None, None
