"""Operators of local contrast: `jsc::local_contrast` and its gradient; and the same in plain torch,
which runs on other devices, is written down by a trace, and gives second derivatives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from jsc import _config
from jsc._checks import KERNEL_DTYPES
from jsc._kernels import contrast
from jsc.ops._buffer import buffer, require
from jsc.ops._library import Function, call, implement, unlowered
from jsc.ops._scratch import memory

WORK = 100  # operations on a pixel
MOST_DEVIATION = contrast.MOST_REACH // 2


class Settings(NamedTuple):
    """In the order of the operators' arguments; the sequences have a number for each channel."""

    deviation: float  # of the Gaussian, in pixels
    offset: Sequence[float]
    scale: Sequence[float]
    epsilon: Sequence[float]


def reach(deviation: float) -> int:
    """Taps of the Gaussian on each side of its middle."""
    return int(2 * deviation)


def _taps(deviation: float) -> list[float]:
    """The middle first; with both sides their sum is 1."""
    found = [math.exp(-0.5 * (i / deviation) ** 2) for i in range(reach(deviation) + 1)]
    total = 2 * sum(found) - found[0]
    return [tap / total for tap in found]


def _require(x: Tensor, s: Settings) -> None:
    """An operator may be called by itself, or be named in a file: the kernel has no checks of its
    own."""
    if x.ndim != 4 or x.dtype not in KERNEL_DTYPES:
        raise ValueError(
            f"x must be (N, C, H, W) of float32 or float64, got {tuple(x.shape)} of {x.dtype}"
        )
    if not 0.5 <= s.deviation <= MOST_DEVIATION:
        raise ValueError(f"deviation must be from 0.5 to {MOST_DEVIATION}, got {s.deviation}")
    if any(len(values) != x.shape[1] for values in s[1:]):
        raise ValueError(f"each of {x.shape[1]} channels must have an offset, a scale, an epsilon")


def _arguments(x: Tensor, s: Settings) -> tuple[np.ndarray, np.ndarray]:
    dtype = "float32" if x.dtype == torch.float32 else "float64"
    constants = np.array([s.offset, s.scale, s.epsilon], dtype).T
    return np.array(_taps(s.deviation), dtype), np.ascontiguousarray(constants)


def _scratch(x: Tensor, s: Settings, threads: int, backward: bool) -> np.ndarray:
    """(threads, numbers) in the arena of this thread."""
    dtype = np.dtype("float32" if x.dtype == torch.float32 else "float64")
    numbers = contrast.scratch_numbers(x.shape[3], reach(s.deviation), backward)
    size = threads * numbers * dtype.itemsize
    return memory(size).bytes[:size].view(dtype).reshape(threads, numbers)


def _forward_cpu(x: Tensor, *settings: Any) -> Tensor:
    s = Settings(*settings)
    _require(x, s)
    n, c, h, w = x.shape
    y = x.new_empty(x.shape)
    threads = _config.num_threads(WORK * x.numel())
    contrast.forward(
        buffer(x, n * c, h, w), *_arguments(x, s), y.view(n * c, h, w).numpy(),
        _scratch(x, s, threads, False), _config.isa(), threads,
    )  # fmt: skip
    return y


def _backward_cpu(g: Tensor, x: Tensor, *settings: Any) -> Tensor:
    s = Settings(*settings)
    _require(x, s)
    require(g, tuple(x.shape), x.dtype, "the gradient")
    n, c, h, w = x.shape
    dx = x.new_empty(x.shape)
    threads = _config.num_threads(2 * WORK * x.numel())
    contrast.backward(
        buffer(g, n * c, h, w), buffer(x, n * c, h, w), *_arguments(x, s),
        dx.view(n * c, h, w).numpy(), _scratch(x, s, threads, True), _config.isa(), threads,
    )  # fmt: skip
    return dx


implement(
    "local_contrast",
    _forward_cpu,
    lambda x, *_: x.new_empty(x.shape),
)
implement(
    "local_contrast_backward",
    _backward_cpu,
    lambda g, x, *_: x.new_empty(x.shape),
)


def plain(x: Tensor, s: Settings) -> Tensor:
    """(N, C, H, W) in torch's own operators."""
    if not x.numel():
        return x * 1
    offset, scale, epsilon = (
        torch.tensor(list(v), dtype=x.dtype, device=x.device).view(-1, 1, 1) for v in s[1:]
    )
    centred = x - _blurred(x, s.deviation)
    square = _blurred(centred.square(), s.deviation)
    # Where there is no contrast at all, the root has no derivative, and nothing depends on it.
    flat = square == 0
    root = torch.where(flat, torch.zeros_like(square), torch.where(flat, 1, square).sqrt())
    return offset + scale * centred / (root + epsilon)


def _blurred(x: Tensor, deviation: float) -> Tensor:
    half = _taps(deviation)
    taps = torch.tensor(half[:0:-1] + half, dtype=x.dtype, device=x.device)
    size, c = len(half) - 1, x.shape[1]
    x = F.pad(x, (size, size, size, size), mode="replicate")
    x = F.conv2d(x, taps.view(1, 1, -1, 1).expand(c, 1, -1, 1), groups=c)
    return F.conv2d(x, taps.view(1, 1, 1, -1).expand(c, 1, 1, -1), groups=c)


class LocalContrast(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, settings: Settings) -> Tensor:
        return call("local_contrast", x, *settings)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.settings = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return LocalContrastBackward.call(g, x, ctx.settings), None


class LocalContrastBackward(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(g: Tensor, x: Tensor, settings: Settings) -> Tensor:
        return call("local_contrast_backward", g, x, *settings)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        g, x, ctx.settings = inputs
        ctx.save_for_backward(g, x)

    @staticmethod
    def backward(ctx: Any, dd: Tensor) -> tuple[Tensor | None, ...]:
        g, x = ctx.saved_tensors

        def first_order(g: Tensor, x: Tensor) -> Any:
            return torch.func.vjp(lambda x: plain(x, ctx.settings), x)[1](g)[0]

        with unlowered(x):  # the kernel's own precision, which is that of x
            return *torch.func.vjp(first_order, g, x)[1](dd), None
