"""The method `cpo` and its format: streams of non-zeros along columns, merged while multiplying."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jsc import _config
from jsc._geometry import ConvGeometry
from jsc._kernels import cpc as cpc_kernels
from jsc._kernels import cpo
from jsc.ops import columns, cpc
from jsc.ops.columns import ColumnPlan

unsupported = columns.unsupported
pack = cpc.pack


class Streams(NamedTuple):
    """The compressed planes of a batch; Ptr has a row for every plane that is not all zero."""

    DA: NDArray[np.floating]
    IN: NDArray[np.generic]
    Ptr: NDArray[np.generic]
    offsets: NDArray[np.int64]  # (N * C + 1,)
    start: NDArray[np.int32]  # (N * C, columns + 1): by column, not part of the format


def encode(x: Tensor, plan: ColumnPlan, *, with_ptr: bool = True) -> Streams:
    """(N, C, H, W) -> streams. Count, place, fill: memory is what the non-zeros need."""
    planes, threads = x.shape[0] * x.shape[1], _config.num_threads(x.numel())
    source = x.detach().contiguous().view(planes, *x.shape[2:]).numpy()
    start = np.zeros((planes, plan.columns + 1), np.int32)
    total = np.zeros(planes, np.int64)
    cpo.count(source, plan, start, total, _config.isa(), threads)
    offsets = np.zeros(planes + 1, np.int64)
    np.cumsum(total, out=offsets[1:])
    row = np.cumsum(total > 0) - 1
    DA = np.empty(int(offsets[-1]), source.dtype)
    IN = np.empty(len(DA), plan.index_dtype)
    rows = int(row[-1]) + 1 if with_ptr and planes else 0
    Ptr = np.empty((rows, plan.entries), plan.index_dtype)
    cpo.fill(
        source,
        plan,
        start,
        offsets,
        row,
        DA,
        IN.view(np.uint8),
        Ptr.reshape(-1).view(np.uint8),
        _config.isa(),
        threads,
    )
    return Streams(DA, IN, Ptr, offsets, start)


def decode(
    DA: Tensor, IN: Tensor, Ptr: Tensor, offsets: Tensor, shape: tuple[int, ...], plan: ColumnPlan
) -> tuple[Tensor, int]:
    """Streams -> (N, C, H, W), and the first plane that is malformed or -1. Lengths and offsets
    must agree already; everything inside the streams is checked."""
    planes = shape[0] * shape[1]
    x = DA.new_zeros(shape)
    valid = np.ones(planes, np.uint8)
    counts = np.diff(offsets.numpy())
    cpo.decode(
        DA.numpy(), IN.numpy().view(np.uint8), Ptr.numpy().reshape(-1).view(np.uint8),
        offsets.numpy(),
        np.cumsum(counts > 0) - 1, plan, np.empty((planes, plan.columns + 1), np.int32),
        x.view(planes, *shape[2:]).numpy(), valid, _config.num_threads(x.numel()),
    )  # fmt: skip
    bad = np.flatnonzero(valid == 0)
    return x, int(bad[0]) if len(bad) else -1


def run(input: Tensor, packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> Tensor:
    out = torch.empty((g.N, g.K, g.Oh, g.Ow), dtype=input.dtype, memory_format=torch.channels_last)
    if out.numel() == 0:
        return out
    plan = columns.column_plan(g)
    streams = encode(input, plan, with_ptr=False)
    if len(streams.DA) == 0:
        return out.zero_() if bias is None else out.copy_(bias.view(1, -1, 1, 1).expand_as(out))
    threads = _config.num_threads(g.macs)
    block = packed.shape[5]
    cut = columns.tasks(g, input.element_size(), packed.shape[0], threads, 1)
    tile = cut.tile_rows * g.W
    dtype, lanes = streams.DA.dtype, (16, 32, 64)[_config.isa()] // input.element_size()
    biases = np.empty(0, dtype) if bias is None else bias.detach().contiguous().numpy()
    partial = cut.band_rows * cpc_kernels.tile_columns(g.Kw, g.Sw, g.Dw, g.Ow) * block
    cpo.convolve(
        streams.DA, streams.IN.view(np.uint8), streams.offsets, streams.start, plan, packed.numpy(),
        biases,
        np.empty((threads, plan.columns * g.C), np.int32), np.empty((threads, tile * g.C), dtype),
        np.empty((threads, tile * -(-g.C // cpc.SET)), np.uint64),
        np.empty((threads, partial), dtype),
        out.permute(0, 2, 3, 1).numpy(), g, block // lanes, cut.strip_rows, cut.band_rows,
        cut.group_blocks, _config.isa(), threads,
    )  # fmt: skip
    return out
