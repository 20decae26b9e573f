"""Which maps between layers are stored as bfloat16.

At the precision "bf16" a convolution rounds its input. A map that only such operations write and
read is rounded when it is stored instead: the same numbers for whoever multiplies bfloat16, half
the memory, and nothing to convert. Residuals, and the inputs of depthwise and Winograd convolutions
and of pools, which are not rounded otherwise, then have 8 bits as well.

All other maps are float32: the network's inputs and outputs, and what an operation that is not
among these, or torch's own, writes or reads.
"""

from __future__ import annotations

from collections.abc import Callable

from jsc import _config
from jsc._precision import Precision
from jsc.network.choices import TILES, geometry_of
from jsc.network.graph import (
    AdaptivePool,
    Affine,
    Convolution,
    Elementwise,
    Graph,
    Operation,
    Pool,
    Resize,
    Value,
)
from jsc.ops import amx

READERS = ("direct_bf16", "depthwise", "amx", *TILES)
WRITERS = (*READERS, "grouped")


def mark(graph: Graph, precision: Precision, method: Callable[[Convolution], str]) -> None:
    """Sets `bf16` of the maps that are stored so, for convolutions by these methods."""
    if not _config.bf16():
        return
    written: set[Value] = set()
    other: set[Value] = set()
    alike: list[tuple[Value, Value]] = []  # maps of which both are stored so, or none
    for operation in graph.operations:
        reads, writes = _able(operation, precision, method)
        (written if writes else other).add(operation.out.root)
        other.update(v.root for v in operation.inputs if not reads)
        # The first input of some may differ from their output, a residual may not.
        differ = isinstance(operation, (Convolution, AdaptivePool))
        tied = operation.inputs[1:] if differ else operation.inputs
        alike += [(operation.out.root, value.root) for value in tied]
    found = {value for value in written - other if value.tensor is None}
    while mixed := [pair for pair in alike if (pair[0] in found) != (pair[1] in found)]:
        found = found.difference(*mixed)
    for value in found:
        value.bf16 = True


def _able(
    operation: Operation, precision: Precision, method: Callable[[Convolution], str]
) -> tuple[bool, bool]:
    """Can it read maps of bfloat16, and write them?"""
    if isinstance(operation, Convolution):
        if operation.exact or precision.of(operation.linear) != "bf16":
            return False, False
        chosen = method(operation)
        windows = chosen == "amx" and amx.cut(geometry_of(operation), 1)["window"]
        return chosen in READERS and not windows, chosen in WRITERS
    if precision.conv != "bf16":
        return False, False
    if isinstance(operation, (Pool, AdaptivePool, Affine, Elementwise)):
        able = operation.act.kind in ("none", "clamp")
        if isinstance(operation, Elementwise):
            able = able and operation.op in ("add", "mul") and len(operation.inputs) == 2
        return able, able
    resizes = isinstance(operation, Resize)
    return resizes, resizes
