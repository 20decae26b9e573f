"""The ways to do a convolution, and which of them fit it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from jsc.network.blocking import vectors_of
from jsc.network.graph import Convolution

TILES = {"winograd2x2": (2, 2), "winograd2x4": (2, 4), "winograd4x4": (4, 4)}
METHODS = ("direct", "depthwise", *TILES)
SCRATCH_BYTES = 256 << 10  # of a task's transformed tiles: second cache
MOST_TILES = 96


@dataclass(frozen=True)
class Choice:
    """A method by name, one of METHODS."""

    method: str


def choices_of(plan: Mapping[str, str]) -> dict[str, Choice]:
    """The choices of a plan, which names methods. ValueError for one that there is not."""
    for name, method in plan.items():
        if method not in METHODS:
            raise ValueError(
                f"plan: the method of {name} must be one of {', '.join(METHODS)}; got {method!r}"
            )
    return {name: Choice(method) for name, method in plan.items()}


def candidates(conv: Convolution) -> list[Choice]:
    """The ways to do this convolution, the rule's own first."""
    if conv.depthwise:
        return [Choice("depthwise")]
    found = [Choice("direct")]
    geometry = (*conv.kernel, *conv.stride, *conv.dilation)
    plain = geometry == (3, 3, 1, 1, 1, 1)
    if plain and conv.groups == 1 and conv.inputs[0].C >= 8 and conv.out.C >= 8:
        _, H, W, _ = conv.out.shape
        found += [Choice(name) for name, (v, h) in TILES.items() if v <= H and h <= W]
    return found


def tiles_of_a_task(conv: Convolution, tile: tuple[int, int], lanes: int) -> int:
    """Tiles that are transformed together: as many as the scratch holds, in equal tasks."""
    N, H, W, _ = conv.out.shape
    total = N * -(-H // tile[0]) * -(-W // tile[1])
    positions = (tile[0] + 2) * (tile[1] + 2)
    step = 12 if vectors_of(conv.out.C, lanes) == 1 else 6
    most = max(step, min(MOST_TILES, SCRATCH_BYTES // (4 * positions * conv.inputs[0].C)))
    tasks = max(-(-total // most), 2 if total >= 4 * step else 1)
    return math.ceil(total / tasks / step) * step
