"""The method `cpo` and its format: streams of non-zeros along columns, merged while multiplying."""

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
    offsets: NDArray[np.int64]  # (N * C + 1,)


def encode(x: Tensor, plan: ColumnPlan) -> Streams:
    """(N, C, H, W) -> streams that follow one another."""
    made = column_order.encode(x, plan)
    DA, offsets = column_order.gather(made.DA, made.start)
    IN, _ = column_order.gather(made.IN, made.start)
    return Streams(DA, IN, column_order.pointers(made.start, plan), offsets)


def prepare(packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> Convolution:
    return Convolution(packed, bias, g, sets=False)
