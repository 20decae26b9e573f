"""The method `cps` and its format: streams of sets of 4 rows, merged while multiplying."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from jsc import _config
from jsc._geometry import ConvGeometry
from jsc._kernels.columns import columns
from jsc.ops import column_order, cpc
from jsc.ops.column_conv import Convolution
from jsc.ops.column_order import ColumnPlan

unsupported = column_order.unsupported
pack = cpc.pack


class Streams(NamedTuple):
    """The compressed planes of a batch; Ptr has a row for every plane that is not all zero."""

    DA: NDArray[np.floating]
    IN: NDArray[np.generic]
    Ptr: NDArray[np.generic]
    offsets: NDArray[np.int64]  # (N * C + 1,) of DA
    word_offsets: NDArray[np.int64]  # (N * C + 1,) of IN


def encode(x: Tensor, plan: ColumnPlan) -> Streams:
    """(N, C, H, W) -> streams that follow one another."""
    made = column_order.encode(x, plan)
    DA, offsets = column_order.gather(made.DA, made.start)
    IN, word_offsets = column_order.gather(made.IN, made.word)
    return Streams(DA, IN, column_order.pointers(made.start, plan), offsets, word_offsets)


def decode(
    DA: Tensor,
    IN: Tensor,
    Ptr: Tensor,
    offsets: Tensor,
    word_offsets: Tensor,
    shape: tuple[int, ...],
    plan: ColumnPlan,
) -> tuple[Tensor, int]:
    """Streams -> (N, C, H, W), and the first plane that is malformed or -1. Lengths and offsets
    must agree already; everything inside the streams is checked."""
    planes = shape[0] * shape[1]
    x = DA.new_zeros(shape)
    valid = np.ones(planes, np.uint8)
    start, word = np.empty((2, planes, plan.columns + 1), np.int32)
    columns.decode(
        DA.numpy(), IN.numpy().view(np.uint8), Ptr.numpy().reshape(-1).view(np.uint8),
        offsets.numpy(),
        word_offsets.numpy(), np.cumsum(np.diff(offsets.numpy()) > 0) - 1, plan, start, word,
        x.view(planes, *shape[2:]).numpy(), valid, _config.num_threads(x.numel()),
    )  # fmt: skip
    bad = np.flatnonzero(valid == 0)
    return x, int(bad[0]) if len(bad) else -1


def prepare(packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> Convolution:
    return Convolution(packed, bias, g, sets=True)


def run(input: Tensor, packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> Tensor:
    return prepare(packed, bias, g)(input)
