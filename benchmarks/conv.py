"""Sparse convolutions against dense torch, layer by layer.

Random activations always (at the first of the batch sizes); with --data every convolution of the
trained networks, each on the input it really receives. "dense" is the faster of torch's NCHW and
channels-last convolutions. Times of sparse methods contain the encoding of the input; weights are
packed beforehand. Small inputs come rolled to other places in turn (`--inputs`): a branch predictor
learns one that is seen again and again, which never happens in use.

"efficiency" is density x ratio. "share" is what the method does of the multiply-adds a second of
torch's best matrix product (1024 x 1024, the same number of threads, measured at the start of the
run), counting only those of non-zeros with outputs that exist; cycles, and where the rest of the
time goes, are in the benchmark `bounds`.
"""

from __future__ import annotations

import argparse
import copy
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import jsc
from benchmarks import isa, networks, paper, report, targets, workloads
from benchmarks.harness import (
    Ratio,
    Timing,
    compare,
    geometric_mean,
    interleave,
    num_threads,
    product_rate,
)
from jsc import _config

DENSE = ("dense NCHW", "dense NHWC")
TOLERANCE = 2e-5  # of the largest output, against float64
Row = dict[str, Any]


def others(x: Tensor, count: int) -> list[Tensor]:
    """`x`, then `x` rolled to up to `count` - 1 other places, 1 MB in all. Timed over and over on
    one small input, a branch predictor learns where it is zero, which it never does in use."""
    count = max(1, min(count, 2**20 // (x.numel() * x.element_size())))
    return [x] + [x.roll((3 * i, 5 * i + 1), (2, 3)) for i in range(1, count)]


def runners(
    layer: nn.Conv2d, x: Tensor, methods: list[str], inputs: int = 1
) -> dict[str, Callable[[], Tensor]]:
    """Each method as a call without arguments, over `inputs` in turn, `x` first; one that does not
    cover the layer is left out."""
    planar = [image.contiguous() for image in others(x, inputs)]
    pixels = [image.contiguous(memory_format=torch.channels_last) for image in planar]
    last = copy.deepcopy(layer).to(memory_format=torch.channels_last)

    def turns(convolution: nn.Module, images: list[Tensor]) -> Callable[[], Tensor]:
        turn = itertools.cycle(images)
        return lambda: convolution(next(turn))

    found = {DENSE[0]: turns(layer, planar), DENSE[1]: turns(last, pixels)}
    for method in methods:
        try:
            sparse = jsc.nn.SparseConv2d.from_dense(layer, method=method)
            sparse(pixels[0])
        except ValueError:  # the method cannot do this geometry
            continue
        found[method] = turns(sparse, pixels)
    return found


def products(layer: nn.Conv2d, x: Tensor) -> int:
    """Multiply-adds of non-zero activations with weights for outputs that exist."""
    nonzeros = (x != 0).sum(1, keepdim=True).double()
    ones = torch.ones(1, 1, *layer.kernel_size, dtype=torch.float64)
    seen = torch.conv2d(nonzeros, ones, None, layer.stride, layer.padding, layer.dilation)
    return int(seen.sum().item()) * layer.out_channels // layer.groups


def measure(layer: nn.Conv2d, x: Tensor, options: argparse.Namespace, **labels: Any) -> list[Row]:
    """One row per thread count and method; rows of the dense convolution have method "dense"."""
    density = (x != 0).double().mean().item()
    done = products(layer, x)
    exact = copy.deepcopy(layer).double()(x.double())
    rows = []
    for threads in options.threads:
        with num_threads(threads):
            calls = runners(layer, x, options.methods, options.inputs)
            times = compare(calls, exact, TOLERANCE, options.rounds)
        # Chosen on one half of the rounds; what is reported of sums comes from the other half.
        best = min(DENSE, key=lambda name: times[name].half(0))
        dense = times[best]
        shared = {
            **labels,
            "layer": workloads.name(layer, x.shape[2]),
            "class": workloads.group(layer),
            "threads": threads,
            "batch": len(x),
            "density": density,
        }
        rows.append({**shared, "method": "dense", "layout": best, **_times(dense, dense, 1.0)})
        for method in options.methods:
            if method in times:
                row = {**shared, "method": method, **_times(dense, times[method], density)}
                row["share"] = 1e3 * done / row["ms"] / options.rates[threads]
                rows.append(row)
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
            yield layer, workloads.activation(inputs, size, density, options.batch[0]), {}


def network_cases(options: argparse.Namespace) -> Iterator[tuple[nn.Conv2d, Tensor, Row]]:
    if options.data is None:
        return
    for name in options.networks or networks.names(options.data):
        network = networks.load(options.data, name)
        convs = dict(network.model.named_modules())
        for batch in options.batch:
            inputs = networks.conv_inputs(network.model, network.batch(options.data, batch))
            for key, x in list(inputs.items())[: 4 if options.quick else None]:
                yield convs[key], x.clone(), {"network": name, "name": key}


def means(rows: list[Row]) -> list[Row]:
    """Geometric mean of the figures of each class of layers; random inputs also by density."""
    groups: dict[tuple, list[Row]] = defaultdict(list)
    for row in rows:
        if row["method"] != "dense":
            density = "real" if "network" in row else f"{row['density']:.1f}"
            key = row["method"], row["batch"], row["threads"], row["class"], density
            groups[key].append(row)
    names = ("method", "batch", "threads", "class", "density")
    figures = ("ratio", "efficiency", "share")
    return [
        {**dict(zip(names, key, strict=True)), "layers": len(group)}
        | {name: geometric_mean([max(row[name], 1e-9) for row in group]) for name in figures}
        for key, group in sorted(groups.items())
    ]


def sums(rows: list[Row]) -> list[Row]:
    """Per network: all convolutions dense, and each with the best of dense and sparse."""
    layers: dict[tuple, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if "network" in row:
            key = row["network"], row["batch"], row["threads"]
            layers[key][row["name"]].append(row)
    found = []
    for (network, batch, threads), by_name in layers.items():
        dense = [next(r for r in group if r["method"] == "dense") for group in by_name.values()]
        best = [min(group, key=lambda r: r["halves"][0]) for group in by_name.values()]
        before, after = (sum(r["halves"][1] for r in chosen) for chosen in (dense, best))
        found.append({
            "network": network, "batch": batch, "threads": threads, "convolutions": len(dense),
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
            "batch": row["batch"], "threads": row["threads"], "density": round(row["density"], 3),
            "dense ms": dense["ms"], "method": row["method"], "ms": row["ms"],
            "ratio": round(row["ratio"], 2), "quartiles": f"{row['low']:.2f}–{row['high']:.2f}",
            "efficiency": round(row["efficiency"], 2), "share": round(row["share"], 2),
        })  # fmt: skip
    return report.table(shown)


def overhead(options: argparse.Namespace) -> list[Row]:
    """Time of a call whose arithmetic is nothing: of the module, above that of F.conv2d."""
    layer, x = workloads.conv(1, 1, (3, 3)), workloads.activation(1, 8, 0.5)
    found = []
    for method in options.methods:
        sparse = jsc.nn.SparseConv2d.from_dense(layer, method=method)
        calls: dict[str, Callable[[], Tensor]] = {
            "dense": lambda: torch.conv2d(x, layer.weight, layer.bias, 1, 1),
            method: lambda sparse=sparse: sparse(x),
        }
        for threads in options.threads:
            with num_threads(threads), torch.inference_mode():
                times = interleave(calls, 3 * options.rounds)
            above = 1e6 * (times[method].median - times["dense"].median)
            found.append({
                "method": method, "threads": threads, "F.conv2d µs": 1e6 * times["dense"].median,
                "above it µs": above, "allowed": targets.OVERHEAD,
                "met": "yes" if above <= targets.OVERHEAD else "**no**",
            })  # fmt: skip
    return found


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = report.parser("conv", __doc__)
    parser.add_argument("--paper", action="store_true", help="the CPO/CPS paper's comparison")
    parser.add_argument(
        "--methods", nargs="+", default=["cpc"], help="jsc methods (--paper: always all)"
    )
    parser.add_argument("--densities", type=float, nargs="+", help="instead of the usual ones")
    parser.add_argument("--networks", nargs="+", metavar="NAME", help="only these networks")
    parser.add_argument("--no-random", action="store_true", help="only the trained networks")
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="images per call")
    parser.add_argument(
        "--inputs", type=int, default=16, help="small inputs are rolled to so many places in turn"
    )
    parser.add_argument(
        "--isa", choices=list(isa.ENVIRONMENTS), help="this instruction set, for torch as well"
    )
    options = parser.parse_args(arguments)
    if options.paper and (options.isa or len(options.batch) > 1):
        parser.error("--paper takes no --isa and one --batch")
    if options.quick:
        options.rounds = min(options.rounds, 3)
    return options


def main(arguments: list[str]) -> None:
    options = parse(arguments)
    made_by = report.command("conv", arguments)
    if options.paper:
        options.batch = options.batch[0]
        paper.main(options, made_by)
        return
    if options.isa and not isa.is_set(options.isa):
        if status := isa.run_again(options.isa, "conv", arguments):
            raise SystemExit(status)
        return
    if options.isa:
        isa.require(options.isa)
    torch.manual_seed(0)

    cases = list(_all_cases(options))
    rows: list[Row] = []
    with torch.inference_mode():
        options.rates = {threads: product_rate(threads) for threads in options.threads}
        for layer, x, labels in report.progress(cases, "layers"):
            rows += measure(layer, x, options, **labels)
    calls = overhead(options)
    data = {
        "rows": rows, "means": means(rows), "networks": sums(rows), "overhead": calls,
        "multiply-adds a second of torch's best matrix product": options.rates,
    }  # fmt: skip
    name = f"conv_{options.isa}" if options.isa else "conv"
    report.write(options.out, name, made_by, __doc__, _sections(rows, options, calls), data)


def _all_cases(options: argparse.Namespace) -> Iterator[tuple[nn.Conv2d, Tensor, Row]]:
    if not options.no_random:
        yield from random_cases(options)
    yield from network_cases(options)


def _targets(rows: list[Row], calls: list[Row]) -> str:
    level = _config.ISA_NAMES[_config.isa()]
    tables = [targets.layers(rows, level)]
    if level == "avx512":  # sums and calls have a target on the widest instruction set only
        pair = [row for row in rows if row["method"] in ("dense", "cpc")]
        tables += [targets.networks(sums(pair), sums(rows)), calls]
    return "\n\n".join(report.table(lines) for lines in tables if lines)


def _sections(rows: list[Row], options: argparse.Namespace, calls: list[Row]) -> dict[str, str]:
    sections = {"Networks": report.table(sums(rows))} if sums(rows) else {}
    if found := _targets(rows, calls):
        sections["Targets"] = f"{targets.__doc__}\n{found}"
    sections["Geometric means"] = report.table(means(rows))
    rates = (f"{rate / 1e9:.1f} on {threads}" for threads, rate in options.rates.items())
    sections["Rate"] = (
        f"torch's best matrix product: {', '.join(rates)} thread(s), in 10⁹ multiply-adds a second."
    )
    random = [row for row in rows if "network" not in row]
    if random:
        sections["Random activations"] = layer_table(random)
    for network in dict.fromkeys(row["network"] for row in rows if "network" in row):
        sections[network] = layer_table([row for row in rows if row.get("network") == network])
    return sections
