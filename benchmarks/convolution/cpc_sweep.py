"""The CPC sweep as `bottlenecks` runs it: a small program around the kernel's own header.

The program (cpc_sweep.cpp) takes one cause of loss after another away from the sweep, and counts
the instructions of a row. Bands and weights are those that the product takes (`jsc.ops.cpc`).
"""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common.harness import interleave
from jsc import _config
from jsc import methods as ops
from jsc._kernels.cpc import forward as kernel
from jsc.ops import cpc

SOURCE = Path(__file__).with_name("cpc_sweep.cpp")
KERNELS = Path(__file__).parents[2] / "src" / "jsc" / "_kernels"
# Those of setup.py that change code.
FLAGS = ["-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]
WHERE = {"as it is": 0, "activations in L1": 1, "all in L1": 2}


class Layer(ctypes.Structure):
    """The fields of `Layer` in cpc_sweep.cpp."""

    _fields_ = [
        *[(name, ctypes.c_void_p) for name in ("x", "mask", "weight", "tile", "out")],
        *[
            (name, ctypes.c_int64)
            for name in [*"CHWK", "Kh", "Kw", "Sh", "Sw", "Ph", "Pw", "Oh", "Ow"]
        ],
        *[(name, ctypes.c_int64) for name in ("V", "lanes", "band_rows")],
    ]


def build(folder: Path, flags: list[str] | None = None) -> ctypes.CDLL:
    """The measuring program, compiled around the kernel's own header."""
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        raise SystemExit(f"bottlenecks compiles a program, and there is no compiler {compiler!r}")
    library = folder / "cpc_sweep.so"
    command = [compiler, *(flags or FLAGS), "-shared", "-fPIC", f"-I{KERNELS}", str(SOURCE)]
    subprocess.run([*command, "-o", str(library)], check=True)
    native = ctypes.CDLL(str(library))
    addresses = ctypes.POINTER(ctypes.c_void_p)
    native.sweep.argtypes = [addresses, ctypes.c_int, ctypes.c_int, ctypes.c_int]
    native.instructions.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int64]
    native.instructions.restype = ctypes.c_int64
    native.products.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_void_p]
    native.chain.argtypes = [ctypes.c_int64, ctypes.c_uint64]
    native.chain.restype = ctypes.c_uint64
    return native


class Case:
    """A layer on one thread: its memory, and its sweeps as calls."""

    def __init__(self, native: ctypes.CDLL, layer: nn.Conv2d, x: Tensor) -> None:
        self.native, self.isa, self.layer = native, _config.isa(), layer
        self.g = g = ops.geometry(x, layer.weight, layer.stride, layer.padding, (1, 1), 1)
        self.x = x.contiguous(memory_format=torch.channels_last)
        self.pixels = self.x.permute(0, 2, 3, 1).numpy()
        packed = cpc.pack(layer.weight, g)
        self.weight = packed.numpy()
        self.blocks, block = self.weight.shape[0], self.weight.shape[5]
        self.vectors = block // cpc._lanes(layer.weight.dtype)
        columns = kernel.tile_columns(g.Kw, g.Sw, 1, g.Ow) * block
        rows = cpc.Convolution(packed, None, g).band_rows(threads=1)
        self.tile, self.out = aligned(rows * columns), aligned(g.Oh * g.Ow * g.K)
        self.rows, self.lanes = rows, block
        self.kept: list[Any] = []  # what the native side has addresses of

    def described(self, masks: np.ndarray) -> int:
        """The address of a `Layer` with these masks."""
        g = self.g
        arrays = (self.pixels, masks, self.weight, self.tile, self.out)
        made = Layer(
            *(array.ctypes.data for array in arrays), g.C, g.H, g.W, g.K, g.Kh, g.Kw, g.Sh, g.Sw,
            g.Ph, g.Pw, g.Oh, g.Ow, self.vectors, self.lanes, self.rows,
        )  # fmt: skip
        self.kept += [made, masks]
        return ctypes.addressof(made)

    def sweep(self, masks: list[np.ndarray], where: str, group: int) -> Callable[[], None]:
        """A call that sweeps over the next `group` of `masks`."""
        at = [self.described(m) for m in masks]
        groups = [at[i : i + group] for i in range(0, len(at), group)]
        turn = itertools.cycle([(ctypes.c_void_p * group)(*g) for g in groups])
        code = WHERE[where]
        return lambda: self.native.sweep(next(turn), group, self.isa, code)  # keeps the memory


def aligned(count: int) -> np.ndarray:
    """`count` float32 zeros that begin at a cache line."""
    memory = np.zeros(count + 16, np.float32)
    first = -memory.ctypes.data % 64 // 4
    return memory[first : first + count]


def clock(native: ctypes.CDLL) -> tuple[float, float]:
    """Seconds of a cycle of this core, and of a vector multiply-add from registers."""
    sink, n = aligned(32), 120_000
    times = interleave(
        {
            "chain": lambda: native.chain(n, 3),
            "products": lambda: native.products(_config.isa(), n, sink.ctypes.data),
        },
        51,
    )
    return times["chain"].samples.min() / n / 3, times["products"].samples.min() / n
