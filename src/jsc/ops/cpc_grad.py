"""Gradients of a convolution over the non-zeros of one map only (_kernels/cpc/nonzeros.h)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jsc import _config
from jsc._geometry import ConvGeometry
from jsc._kernels.cpc import gradient
from jsc.ops import cpc
from jsc.ops._buffer import require
from jsc.ops._scratch import memory
from jsc.ops.column_order import KEPT_COLUMNS

CHANNELS = 16  # of the map S, whose non-zeros are taken, to a task
BLOCK_BYTES = 28 * 1024  # of the other map, with its border: most of L1
RANGE_PIXELS = 4096  # at a time: their planes are to stay in L2
TASKS = 16  # at least, where the map is large enough
WIDTHS = (1, 2, 3, 5, 7)  # kernel columns that are compiled
MOST_FILTERS = 64  # of a block of the other map


class _Part(NamedTuple):
    """A convolution of stride 1: S (Cs, H, W), a part of the map whose non-zeros are taken, and D
    (Cd, Hd, Wd)."""

    N: int
    Cs: int
    H: int
    W: int
    Cd: int
    Hd: int
    Wd: int
    Kh: int
    Kw: int
    top: int
    left: int
    first: int  # elements into the map of S, whose strides are:
    image_step: int
    row_step: int
    pixel_step: int
    turned: bool
    tap: tuple[int, int, int, int]  # first kernel row and column, steps to the next


class _Plan:
    """All of a part's gradients that follows from shapes, and their kernel."""

    def __init__(self, part: _Part, isa: int, dtype: torch.dtype) -> None:
        lanes = (16, 32, 64)[isa] // dtype.itemsize
        rows_together = 3 if part.Kh == part.Kw == 3 else 1
        wide = 4 if part.Kw <= 2 else 2
        fits = rows_together * part.Kw * wide <= (24 if isa == 2 else 10)
        vectors = wide if fits and part.Cd > lanes * (wide - 1) else 1
        block = vectors * lanes
        pitch = part.W + part.Kw - 1
        row = pitch * block * dtype.itemsize
        rows = max(1, min(part.H, BLOCK_BYTES // row - (part.Kh - 1)))
        bands = -(-part.H // rows)
        rows = -(-part.H // bands)
        bands = -(-part.H // rows)
        image = row * (rows + part.Kh - 1)
        group = max(1, min(part.N, BLOCK_BYTES // image)) if bands == 1 else 1
        # Ranges of units: enough tasks for many threads, each with planes that fit into L2.
        wanted = -(-TASKS // -(-part.Cs // CHANNELS))
        all_units = part.N * bands
        step = min(max(1, RANGE_PIXELS // (rows * part.W)), -(-all_units // wanted))
        units = -(-step // group) * group
        u, y, x = np.ogrid[:group, :rows, : part.W]
        S_offset = u * part.image_step + y * part.row_step + x * part.pixel_step
        D_offset = ((u * (rows + part.Kh - 1) + y) * pitch + x) * block
        self.S_offset: NDArray[Any] = S_offset.ravel().astype(np.int64)
        self.D_offset: NDArray[Any] = D_offset.ravel().astype(np.int32)
        even = np.zeros(-(-self.D_offset.size // 64) * 64, np.uint8)
        even[: self.D_offset.size] = np.broadcast_to(
            (x % 2 == 0) & (x + 1 < part.W), (group, rows, part.W)
        ).ravel()
        # A word cannot see the first pixel of the next one.
        even[63::64] = 0
        self.pairs: NDArray[Any] = np.packbits(even, bitorder="little").view("<u8")
        sizes = {k: v for k, v in part._asdict().items() if k not in ("first", "pixel_step", "tap")}
        self.kernel = gradient.Gradient(
            dtype == torch.float64,
            {
                **sizes, "rows": rows, "group": group, "units": units,
                "ranges": min(wanted, -(-all_units // units)), "vectors": vectors, "block": block,
                "S_offset": self.S_offset.ctypes.data, "D_offset": self.D_offset.ctypes.data,
                "pairs": self.pairs.ctypes.data,
            },
            isa,
        )  # fmt: skip


_kept = lru_cache(maxsize=512)(_Plan)


def _plan(part: _Part, isa: int, dtype: torch.dtype) -> _Plan:
    return (_kept if part.W <= KEPT_COLUMNS else _Plan)(part, isa, dtype)


def unsupported(g: ConvGeometry) -> bool:
    """Whether no pass of `g` (of one group) can take non-zeros alone."""
    row = (max(g.W, g.Ow) + g.Kw) * g.Kh * MOST_FILTERS  # of a block: its places have 32 bits
    if g.Dh > 1 or g.Dw > 1 or row >= 2**31:
        return True
    return not all(p.Kw in WIDTHS for p in _input_parts(g))


@lru_cache(maxsize=512)
def _input_parts(g: ConvGeometry) -> tuple[_Part, ...]:
    """S is the input: with a stride, its rows and columns of each phase by themselves."""
    parts = []
    for a in range(min(g.Sh, g.Kh)):
        for b in range(min(g.Sw, g.Kw)):
            y, x = (a - g.Ph) % g.Sh, (b - g.Pw) % g.Sw  # first row and column of the phase
            H, W = -(-(g.H - y) // g.Sh), -(-(g.W - x) // g.Sw)
            Kh, Kw = -(-(g.Kh - a) // g.Sh), -(-(g.Kw - b) // g.Sw)
            if H < 1 or W < 1:
                continue
            parts.append(_Part(
                g.N, g.C, H, W, g.K, g.Oh, g.Ow, Kh, Kw,
                Kh - 1 - (y + g.Ph - a) // g.Sh, Kw - 1 - (x + g.Pw - b) // g.Sw,
                (y * g.W + x) * g.C, g.H * g.W * g.C, g.Sh * g.W * g.C, g.Sw * g.C,
                True, (a, b, g.Sh, g.Sw),
            ))  # fmt: skip
    return tuple(parts)


@lru_cache(maxsize=512)
def _output_parts(g: ConvGeometry) -> tuple[_Part, ...]:
    """S is the gradient of the output, for stride 1."""
    return (
        _Part(
            g.N, g.K, g.Oh, g.Ow, g.C, g.H, g.W, g.Kh, g.Kw, g.Ph, g.Pw,
            0, g.Oh * g.Ow * g.K, g.Ow * g.K, g.K, False, (0, 0, 1, 1),
        ),
    )  # fmt: skip


def _steps(weight: Tensor, part: _Part, over_input: bool) -> tuple[int, dict[str, int]]:
    """Address of a part's first kernel element, and the strides from there."""
    k, c, i, j = weight.stride()
    a, b, Sh, Sw = part.tap
    first = weight.data_ptr() + (a * i + b * j) * weight.itemsize
    s, d = (c, k) if over_input else (k, c)
    return first, {"s": s, "d": d, "i": i * Sh, "j": j * Sw}


def gradients(
    S: Tensor,
    D: Tensor,
    weight: Tensor,
    g: ConvGeometry,
    *,
    over_input: bool,
    weight_grad: bool = True,
    input_grad: bool = False,
) -> tuple[Tensor | None, Tensor | None] | None:
    """Gradients of input and weight, those that are wanted; None where maps or weights are not
    finite, or have no elements.

    `S`, channels-last, is the map whose non-zeros are taken: the input (`over_input`) or (stride 1,
    no `input_grad`) the gradient of the output; `D` is the other. The gradient of the input is zero
    where the input is.
    """
    if 0 in (S.numel(), D.numel(), weight.numel()):
        return None
    maps = {"input": (g.N, g.C, g.H, g.W), "grad": (g.N, g.K, g.Oh, g.Ow)}
    for x, name in zip((S, D), maps if over_input else reversed(maps), strict=True):
        require(x, maps[name], weight.dtype, name)
    require(weight, (g.K, g.C, g.Kh, g.Kw), weight.dtype, "weight")
    S, D, weight = S.resolve_neg(), D.resolve_neg(), weight.resolve_neg()
    isa, threads = _config.isa(), _config.num_threads(g.macs)
    parts = _input_parts(g) if over_input else _output_parts(g)
    gx = gw = None
    if input_grad:
        gx = (torch.empty_like if len(parts) == g.Sh * g.Sw else torch.zeros_like)(S)
    if weight_grad:  # a phase without pixels has no part
        phases = min(g.Sh, g.Kh) * min(g.Sw, g.Kw) if over_input else 1
        gw = (torch.empty_like if len(parts) == phases else torch.zeros_like)(weight)
    for part in parts:
        plan = _plan(part, isa, S.dtype)  # held: its kernel has addresses of its arrays
        kernel = plan.kernel
        first, steps = _steps(weight, part, over_input)
        to, to_steps = (0, steps) if gw is None else _steps(gw, part, over_input)
        offset = part.first * S.itemsize
        scratch = memory(kernel.scratch_bytes(input_grad, weight_grad, threads))
        finite = kernel(
            S.data_ptr() + offset, D.data_ptr(), first, steps,
            0 if gx is None else gx.data_ptr() + offset, to, to_steps, scratch.address, threads,
        )  # fmt: skip
        if not finite:
            return None
    return gx, gw


def sweep_weight(weight: Tensor, g: ConvGeometry, *, turned: bool) -> Tensor | None:
    """`cpc.pack` of weights that change every step, or None where they are not finite. With
    `turned`, those of the gradient of the input: kernels by 180 degrees, filters as channels."""
    weight = weight.resolve_neg()
    k, c, i, j = weight.stride()
    name = "float" if weight.dtype == torch.float32 else "double"
    block, sets = cpc.blocking(g, weight.dtype), -(-g.C // cpc.SET)
    packed = weight.new_empty((-(-g.K // block), sets, g.Kh, cpc.SET, g.Kw, block))
    s, d = (k, c) if turned else (c, k)
    kernel = {
        "Cd": g.K, "Kh": g.Kh, "Kw": g.Kw, "VL": block, "turned": int(turned),
        "s_step": s, "d_step": d, "i_step": i, "j_step": j,
    }  # fmt: skip
    finite = gradient.pack_sweep[name](
        weight.data_ptr(), packed.numpy(), g.C, kernel, _config.num_threads(g.macs)
    )
    return packed if finite else None


COUNT_ROW, COUNT_ROWS = 16, 256  # a cache line of float32: what a look at a map costs is misses


def density(x: Tensor) -> float:
    """Share of non-zeros in a dense tensor, from some 4000 elements all over its memory."""
    rows = x.numel() // COUNT_ROW
    if rows < 2 * COUNT_ROWS:
        return float((x != 0).sum()) / max(1, x.numel())
    every = rows // COUNT_ROWS | 1  # odd: not always the same channels or column
    name = "float" if x.dtype == torch.float32 else "double"
    x = x.resolve_neg()
    found = gradient.count[name](x.data_ptr(), 0.0, rows, COUNT_ROW, every, _config.isa())
    return float(found) / (-(-rows // every) * COUNT_ROW)
