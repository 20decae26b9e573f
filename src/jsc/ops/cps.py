"""The method `cps` and its format: streams of sets of 4 rows, merged while multiplying."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from jsc._geometry import ConvGeometry
from jsc.ops import column_order
from jsc.ops.column_conv import Convolution
from jsc.ops.column_order import ColumnPlan


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


def prepare(packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> Convolution:
    return Convolution(packed, bias, g, sets=True)
