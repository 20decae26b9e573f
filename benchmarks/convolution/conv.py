"""Sparse convolutions against dense torch, layer by layer.

Random activations are always timed (at the first of the batch sizes); with --data also every
convolution of the trained networks, each on the input it really receives. "dense" is the faster of
torch's NCHW and channels-last convolutions, and "ratio" its time over that of the method. Times of
sparse methods contain the encoding of the input; weights are packed beforehand. Small inputs come
rolled to other places in turn (`--inputs`), because a branch predictor learns an input that it sees
again and again, which never happens in use.

"efficiency" is density x ratio. "share" is what the method does of the multiply-adds a second of
torch's best matrix product (1024 x 1024, the same number of threads, measured at the start of the
run), counting only those of non-zeros with outputs that exist. The benchmark `bottlenecks` shows
cycles, and where the rest of the time goes.
"""

from __future__ import annotations

import argparse
import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import jsc
from benchmarks.common import figures, isa, report
from benchmarks.common.harness import Ratio, Timing, compare, interleave, num_threads, product_rate
from benchmarks.convolution import conv_tables, paper, plots, targets
from benchmarks.inputs import networks, workloads
from jsc import _config

DENSE = ("dense NCHW", "dense NHWC")
TOLERANCE = 2e-5  # of the largest output, against float64
Row = dict[str, Any]


def others(x: Tensor, count: int) -> list[Tensor]:
    """`x`, then `x` rolled to up to `count` - 1 other places, 1 MB in all.

    Over one small input that is seen again and again, a branch predictor learns where the zeros
    are, which it never does in use.
    """
    count = max(1, min(count, 2**20 // (x.numel() * x.element_size())))
    return [x] + [x.roll((3 * i, 5 * i + 1), (2, 3)) for i in range(1, count)]


def runners(
    layer: nn.Conv2d, x: Tensor, methods: list[str], inputs: int = 1
) -> dict[str, Callable[[], Tensor]]:
    """Each method as a call without arguments, over `inputs` in turn, `x` first. A method that does
    not cover the layer is left out."""
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


def overhead(options: argparse.Namespace) -> list[Row]:
    """Time of a call with almost no arithmetic: that of the module above that of F.conv2d."""
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
    options = report.parse(parser, arguments)
    if options.paper and (options.isa or len(options.batch) > 1):
        parser.error("--paper takes no --isa and one --batch")
    if options.quick:
        options.rounds = min(options.rounds, 3)
    return options


def _all_cases(options: argparse.Namespace) -> Iterator[tuple[nn.Conv2d, Tensor, Row]]:
    if not options.no_random:
        yield from random_cases(options)
    yield from network_cases(options)


def main(arguments: list[str]) -> None:
    options = parse(arguments)
    if options.paper:
        options.batch = options.batch[0]
        paper.main(options)
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
        "rows": rows, "means": conv_tables.means(rows), "networks": conv_tables.sums(rows),
        "overhead": calls,
        "multiply-adds a second of torch's best matrix product": options.rates,
    }  # fmt: skip
    level = _config.ISA_NAMES[_config.isa()]
    report.write(
        options, __doc__, conv_tables.page(rows, calls, level, options.rates),
        layers=conv_tables.layers(rows), data=data,
        figures=[] if options.isa else figures.drawn(
            plots.conv_figures, options.out, rows, options.threads
        ),
        name=f"conv_{options.isa}" if options.isa else "conv",
    )  # fmt: skip
