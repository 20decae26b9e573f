"""Sparse convolutions against dense torch, layer by layer.

Random activations always; with --data every convolution of the trained networks, each on the input
it really receives. "dense" is the faster of torch's NCHW and channels-last convolutions. Times of
sparse methods contain the encoding of the input; weights are packed beforehand.
"""

from __future__ import annotations

import argparse
import copy
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import jsc
from benchmarks import networks, paper, report, workloads
from benchmarks.harness import Ratio, Timing, compare, geometric_mean, num_threads

DENSE = ("dense NCHW", "dense NHWC")
TOLERANCE = 2e-5  # of the largest output, against float64
Row = dict[str, Any]


def runners(layer: nn.Conv2d, x: Tensor, methods: list[str]) -> dict[str, Callable[[], Tensor]]:
    """Each method as a call without arguments; one that does not cover the layer is left out."""
    planar, pixels = x.contiguous(), x.contiguous(memory_format=torch.channels_last)
    last = copy.deepcopy(layer).to(memory_format=torch.channels_last)
    found: dict[str, Callable[[], Tensor]] = {
        DENSE[0]: lambda: layer(planar),
        DENSE[1]: lambda: last(pixels),
    }
    for method in methods:
        try:
            sparse = jsc.nn.SparseConv2d.from_dense(layer, method=method)
            sparse(pixels)
        except ValueError:  # the method cannot do this geometry
            continue
        found[method] = lambda sparse=sparse: sparse(pixels)
    return found


def measure(layer: nn.Conv2d, x: Tensor, options: argparse.Namespace, **labels: Any) -> list[Row]:
    """One row per thread count and method; rows of the dense convolution have method "dense"."""
    density = (x != 0).double().mean().item()
    exact = copy.deepcopy(layer).double()(x.double())
    rows = []
    for threads in options.threads:
        with num_threads(threads):
            times = compare(runners(layer, x, options.methods), exact, TOLERANCE, options.rounds)
        # Chosen on one half of the rounds; what is reported of sums comes from the other half.
        best = min(DENSE, key=lambda name: times[name].half(0))
        dense = times[best]
        shared = {
            **labels,
            "layer": workloads.name(layer, x.shape[2]),
            "class": workloads.group(layer),
            "threads": threads,
            "density": density,
        }
        rows.append({**shared, "method": "dense", "layout": best, **_times(dense, dense, 1.0)})
        for method in options.methods:
            if method in times:
                rows.append({**shared, "method": method, **_times(dense, times[method], density)})
    return rows


def _times(dense: Timing, method: Timing, density: float) -> Row:
    ratio = Ratio.of(dense, method)
    return {
        "ms": 1e3 * method.median,
        "ratio": ratio.value,
        "low": ratio.low,
        "high": ratio.high,
        "efficiency": density * ratio.value,
        "halves": [1e3 * method.half(0), 1e3 * method.half(1)],
    }


def random_cases(options: argparse.Namespace) -> Iterator[tuple[nn.Conv2d, Tensor, Row]]:
    layers = [shape for shapes in workloads.LAYERS.values() for shape in shapes]
    densities = options.densities or workloads.DENSITIES
    if options.quick:
        layers, densities = [(16, 16, 16, 3, 3, 1), (64, 32, 8, 1, 1, 1)], densities[:2]
    for inputs, outputs, size, height, width, stride in layers:
        layer = workloads.conv(inputs, outputs, (height, width), stride)
        for density in densities:
            yield layer, workloads.activation(inputs, size, density, options.batch), {}


def network_cases(options: argparse.Namespace) -> Iterator[tuple[nn.Conv2d, Tensor, Row]]:
    if options.data is None:
        return
    for name in options.networks or networks.names(options.data):
        network = networks.load(options.data, name)
        inputs = networks.conv_inputs(network.model, network.batch(options.data, options.batch))
        convs = dict(network.model.named_modules())
        for key, x in list(inputs.items())[: 4 if options.quick else None]:
            yield convs[key], x.clone(), {"network": name, "name": key}


def means(rows: list[Row]) -> list[Row]:
    """Geometric mean of the ratios of each class of layers; random inputs also by density."""
    groups: dict[tuple, list[float]] = defaultdict(list)
    for row in rows:
        if row["method"] != "dense":
            density = "real" if "network" in row else f"{row['density']:.1f}"
            key = row["method"], row["threads"], row["class"], density
            groups[key].append(row["ratio"])
    names = ("method", "threads", "class", "density")
    return [
        {**dict(zip(names, key, strict=True)), "layers": len(r), "ratio": geometric_mean(r)}
        for key, r in sorted(groups.items())
    ]


def sums(rows: list[Row]) -> list[Row]:
    """Per network: all convolutions dense, and each with the best of dense and sparse."""
    layers: dict[tuple, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if "network" in row:
            layers[row["network"], row["threads"]][row["name"]].append(row)
    found = []
    for (network, threads), by_name in layers.items():
        dense = [next(r for r in group if r["method"] == "dense") for group in by_name.values()]
        best = [min(group, key=lambda r: r["halves"][0]) for group in by_name.values()]
        before, after = (sum(r["halves"][1] for r in chosen) for chosen in (dense, best))
        found.append({
            "network": network, "threads": threads, "convolutions": len(dense),
            "sparse chosen": sum(r["method"] != "dense" for r in best),
            "dense ms": before, "best ms": after, "ratio": before / after,
        })  # fmt: skip
    return found


def layer_table(rows: list[Row]) -> str:
    shown = []
    dense: Row = {}
    for row in rows:
        if row["method"] == "dense":
            dense = row
            continue
        shown.append({
            "layer": f"{row['name']} ({row['layer']})" if "name" in row else row["layer"],
            "threads": row["threads"], "density": round(row["density"], 3),
            "dense ms": dense["ms"], "method": row["method"], "ms": row["ms"],
            "ratio": round(row["ratio"], 2), "quartiles": f"{row['low']:.2f}–{row['high']:.2f}",
            "efficiency": round(row["efficiency"], 2),
        })  # fmt: skip
    return report.table(shown)


def main(arguments: list[str]) -> None:
    parser = report.parser("conv", __doc__)
    parser.add_argument("--paper", action="store_true", help="the CPO/CPS paper's comparison")
    parser.add_argument(
        "--methods", nargs="+", default=["cpc"], help="jsc methods (--paper: always all)"
    )
    parser.add_argument("--densities", type=float, nargs="+", help="instead of the usual ones")
    parser.add_argument("--networks", nargs="+", metavar="NAME", help="only these networks")
    parser.add_argument("--no-random", action="store_true", help="only the trained networks")
    parser.add_argument("--batch", type=int, default=1, help="images per call")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds = min(options.rounds, 3)
    made_by = report.command("conv", arguments)
    if options.paper:
        paper.main(options, made_by)
        return
    torch.manual_seed(0)

    cases = list(_all_cases(options))
    rows: list[Row] = []
    with torch.inference_mode():
        for layer, x, labels in report.progress(cases, "layers"):
            rows += measure(layer, x, options, **labels)
    data = {"rows": rows, "means": means(rows), "networks": sums(rows)}
    report.write(options.out, "conv", made_by, __doc__, _sections(rows), data)


def _all_cases(options: argparse.Namespace) -> Iterator[tuple[nn.Conv2d, Tensor, Row]]:
    if not options.no_random:
        yield from random_cases(options)
    yield from network_cases(options)


def _sections(rows: list[Row]) -> dict[str, str]:
    sections = {"Networks": report.table(sums(rows))} if sums(rows) else {}
    sections["Geometric means"] = report.table(means(rows))
    random = [row for row in rows if "network" not in row]
    if random:
        sections["Random activations"] = layer_table(random)
    for network in dict.fromkeys(row["network"] for row in rows if "network" in row):
        sections[network] = layer_table([row for row in rows if row.get("network") == network])
    return sections
