"""What CPC is to reach, and what was measured.

A ratio is torch's faster convolution over `cpc`, encoding included. Targets are given at densities
for a class of layers. The random inputs have these densities. A real layer has its own: its target
lies on the straight line between the neighbouring ones, both axes logarithmic; a map sparser than
all of them has the target of the sparsest, and a denser one has none. "3x3" are all 3x3 layers of
stride 1, the small ones of CIFAR networks among them. "worst" is the layer furthest below its
target for a single layer, or below that for the mean where there is none. "all timed" takes the
best of all methods that were timed for each layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.common.harness import geometric_mean

Row = dict[str, Any]
Curve = Mapping[float, float]  # density -> ratio


@dataclass(frozen=True)
class Target:
    layers: str
    classes: tuple[str, ...]  # of `workloads.group`
    mean: Curve  # the geometric mean over the layers
    worst: Curve = field(default_factory=dict)  # every single layer
    kernel: str = ""  # as a layer's name begins

    def covers(self, row: Row) -> bool:
        return row["class"] in self.classes and row["layer"].startswith(self.kernel)


SQUARE = ("3x3", "3x3 small")
TARGETS = {
    "avx512": (
        Target(
            "3x3", SQUARE, {0.7: 1.25, 0.5: 1.75, 0.3: 2.8, 0.1: 6},
            {0.7: 1.1, 0.5: 1.4, 0.3: 2.2, 0.1: 4.5},
        ),
        Target("1x1", ("1x1",), {0.5: 1.3, 0.2: 2.5}),
        Target("1x7, 7x1, 5x5", ("long",), {0.5: 1.8, 0.2: 4}),
        Target("3x3, stride 2", ("stride 2",), {0.5: 1.3}, kernel="3x3"),
    ),
    "avx2": (Target("3x3", SQUARE, {0.7: 1, 0.5: 1.4, 0.3: 2.2, 0.1: 4}),),
}  # fmt: skip
NETWORKS = {
    "googlenet_bvlc": 2, "inception_v3_2015_trunk": 2, "resnet18_imagenet_trunk": 2,
    "squeezenet_v1.1": 1.5, "resnet20_cifar10": 2, "resnet56_cifar10": 2,
}  # fmt: skip
OVERHEAD = 15.0  # us above F.conv2d for an input of 1 x 1 x 8 x 8


def at(curve: Curve, density: float) -> float | None:
    """The target at a density; None for a map that is denser than all of them."""
    if not curve or density > max(curve):
        return None
    known = sorted(curve)
    ratios = np.log([curve[d] for d in known])
    return float(np.exp(np.interp(np.log(max(density, 1e-9)), np.log(known), ratios)))


def layers(rows: Iterable[Row], isa: str, method: str = "cpc") -> list[Row]:
    """A line for each target and number of threads: at every density of the random inputs that it
    names, and for the real inputs of each batch."""
    rows = [row for row in rows if row["method"] == method]
    found = []
    for target in TARGETS.get(isa, ()):
        groups: dict[tuple, list[tuple[Row, float]]] = {}
        for row in filter(target.covers, rows):
            real = "network" in row
            density = row["density"] if real else round(row["density"], 1)
            if at(target.mean, density) is not None and (real or density in target.mean):
                inputs = f"real, batch {row['batch']}" if real else f"density {density:g}"
                groups.setdefault((inputs, row["threads"]), []).append((row, density))
        for (inputs, threads), group in groups.items():
            line = {"layers": f"{target.layers} ({len(group)})", "inputs": inputs}
            found.append({**line, "threads": threads, **_line(target, group)})
    return found


def _line(target: Target, group: Sequence[tuple[Row, float]]) -> Row:
    wanted = [at(target.mean, density) for _, density in group]
    single = [at(target.worst, density) for _, density in group]
    ratios = [row["ratio"] for row, _ in group]
    reached = [r / (s or w) for r, s, w in zip(ratios, single, wanted, strict=True)]
    worst = reached.index(min(reached))
    mean, measured = geometric_mean(wanted), geometric_mean(ratios)
    row = group[worst][0]
    met = measured >= mean and all(
        s is None or ratio >= s for s, ratio in zip(single, ratios, strict=True)
    )
    return {
        "mean wanted": mean, "mean": measured, "worst wanted": single[worst],
        "worst": ratios[worst], "worst layer": _name(row), "met": "yes" if met else "**no**",
    }  # fmt: skip


def _name(row: Row) -> str:
    if "network" not in row:
        return row["layer"]
    return f"{row['layer']} at {row['density']:.2f} ({row['network'].split('_')[0]})"


def networks(sums: Sequence[Row], all_methods: Sequence[Row]) -> list[Row]:
    """A line for each sum over a network that has a target. `sums` are those of the best of dense
    and CPC, which the targets are of; `all_methods` those with whatever else was timed."""
    return [
        {
            "network": line["network"], "threads": line["threads"], "batch": line["batch"],
            "wanted": NETWORKS[line["network"]], "dense or CPC": line["ratio"],
            "met": "yes" if line["ratio"] >= NETWORKS[line["network"]] else "**no**",
            "all timed": whole["ratio"],
        }
        for line, whole in zip(sums, all_methods, strict=True)
        if line["network"] in NETWORKS
    ]  # fmt: skip
