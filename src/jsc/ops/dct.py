"""Operators of the block DCT: `jsc::block_dct`, `jsc::block_idct`.

Their gradients are each other, so neither has a backward operator and every order of derivative
exists.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from jsc import _config
from jsc._kernels.jpeg import dct
from jsc.ops._buffer import buffer
from jsc.ops._library import Function, call, implement


def _forward_cpu(x: Tensor) -> Tensor:
    # The operator may be called by itself, or from a file: the kernel has no checks of its own.
    if x.ndim != 4 or x.shape[2] % 8 or x.shape[3] % 8:
        raise ValueError(
            f"x must be (N, C, H, W) with H and W multiples of 8, got {tuple(x.shape)}"
        )
    n, c, h, w = x.shape
    z = x.new_empty((n, c, h // 8, w // 8, 8, 8))
    if z.numel():
        dct.forward(
            buffer(x, n * c, h, w),
            z.view(n * c, h // 8, w // 8, 64).numpy(),
            _config.isa(), _config.num_threads(16 * x.numel()),
        )  # fmt: skip
    return z


def _inverse_cpu(z: Tensor) -> Tensor:
    if z.ndim != 6 or z.shape[4:] != (8, 8):
        raise ValueError(f"z must be (N, C, rows, columns, 8, 8), got {tuple(z.shape)}")
    n, c, rows, columns = z.shape[:4]
    x = z.new_empty((n, c, 8 * rows, 8 * columns))
    if x.numel():
        dct.inverse(
            buffer(z, n * c, rows, columns, 64),
            x.view(n * c, 8 * rows, 8 * columns).numpy(),
            _config.isa(), _config.num_threads(16 * x.numel()),
        )  # fmt: skip
    return x


implement(
    "block_dct",
    _forward_cpu,
    lambda x: x.new_empty((x.shape[0], x.shape[1], x.shape[2] // 8, x.shape[3] // 8, 8, 8)),
)
implement(
    "block_idct",
    _inverse_cpu,
    lambda z: z.new_empty((z.shape[0], z.shape[1], 8 * z.shape[2], 8 * z.shape[3])),
)


class BlockDct(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return call("block_dct", x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return BlockIdct.call(grad)


class BlockIdct(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        return call("block_idct", z)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return BlockDct.call(grad)
