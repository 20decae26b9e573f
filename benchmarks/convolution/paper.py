"""CPO and CPS as in their paper: against im2col and MEC, encode included, one image at a time.

The layers are 13 of Inception-v3 at the densities its authors measured (random activations), the
non-pointwise ones of these at other densities too, and with --data the convolutions of trained
networks, each on the input it really receives from a photograph. im2col is the faster of its two
memory layouts, and so is torch's own convolution ("dense"); all others get channels-last maps.
Offline selection takes the fastest of im2col, CPO and CPS for each layer, and im2col for 1x1
layers, as in the paper. It chooses on every second round; all times here are medians of the other
rounds. CPC, which is not in the paper, stands beside and is never selected unless a column says so.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

import jsc
from benchmarks.common import figures, report
from benchmarks.common.harness import check, interleave, num_threads
from benchmarks.convolution import claims, memory, plots
from benchmarks.convolution.claims import OURS, RANDOM, SWEEP, Row
from benchmarks.inputs import networks, workloads
from jsc import methods as ops
from jsc.ops import column_order

METHODS = ("im2col", "mec", "cpo", "cps", "cpc")
POINTWISE = ("im2col", "cpc")  # of networks: 1x1 layers take no part in the selection
NETWORKS = (
    "inception_v3_2015_trunk", "googlenet_bvlc", "resnet18_imagenet_trunk", "squeezenet_v1.1",
    "resnet20_cifar10", "resnet56_cifar10",
)  # fmt: skip
DENSITIES = (0.1, 0.3, 0.5, 0.7, 1.0)
TOLERANCE = 2e-5  # of the largest output, against float64
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
Case = tuple[nn.Conv2d, Tensor, Row]


def is_pointwise(layer: nn.Conv2d) -> bool:
    return layer.kernel_size == (1, 1)


def convolutions(layer: nn.Conv2d, x: Tensor, methods: tuple[str, ...]) -> dict[str, Callable]:
    """Every method as a call without arguments, dense and im2col in both layouts."""
    maps = {name: x.contiguous(memory_format=form) for name, form in LAYOUTS.items()}
    found: dict[str, Callable] = {}
    for layout, form in LAYOUTS.items():
        dense = copy.deepcopy(layer).to(memory_format=form)
        lowered = jsc.nn.SparseConv2d.from_dense(layer, method="im2col")
        found[f"dense {layout}"] = lambda dense=dense, layout=layout: dense(maps[layout])
        found[f"im2col {layout}"] = lambda lowered=lowered, layout=layout: lowered(maps[layout])
    for method in methods:
        if method != "im2col":
            sparse = jsc.nn.SparseConv2d.from_dense(layer, method=method)
            found[method] = lambda sparse=sparse: sparse(maps["NHWC"])
    return found


def encoders(layer: nn.Conv2d, x: Tensor) -> dict[str, Callable]:
    """What `cpo` and `cps` do before they multiply, as calls without arguments."""
    pixels = x.contiguous(memory_format=torch.channels_last)
    g = ops.geometry(x, layer.weight, layer.stride, layer.padding, layer.dilation, layer.groups)
    return {
        f"encode {name}": lambda sets=sets: column_order.encode(
            pixels, column_order.column_plan(g, sets=sets), for_now=True
        )
        for name, sets in (("cpo", False), ("cps", True))
    }


def measure(layer: nn.Conv2d, x: Tensor, labels: Row, options: argparse.Namespace) -> list[Row]:
    """A row (see `claims`) for each number of threads."""
    only_dense = is_pointwise(layer) and labels["source"] != RANDOM
    calls = convolutions(layer, x, POINTWISE if only_dense else METHODS)
    exact = copy.deepcopy(layer).double()(x.double())
    shared = {
        **labels,
        "layer": workloads.name(layer, x.shape[2]),
        "pointwise": is_pointwise(layer),
        "stride": max(layer.stride),
        "density": (x != 0).double().mean().item(),
        "sizes": {key: size.elements for key, size in memory.footprint(layer, x).items()},
    }
    rows = []
    for threads in options.threads:
        with num_threads(threads):
            for name, call in calls.items():
                check(name, call(), exact, TOLERANCE)
            timed = calls if only_dense else {**calls, **encoders(layer, x)}
            taken = interleave(timed, options.rounds)
        times = {name: [1e3 * t.half(0), 1e3 * t.half(1)] for name, t in taken.items()}
        for method in ("dense", "im2col"):
            layouts = [f"{method} {layout}" for layout in LAYOUTS]
            best = min(layouts, key=lambda name: times[name][0])
            times[method] = times[best]
            for name in layouts:
                del times[name]
        rows.append({**shared, "threads": threads, "times": times})
    return rows


def random_cases(options: argparse.Namespace) -> Iterator[Case]:
    for key, inputs, outputs, size, height, width, measured in workloads.PAPER:
        if options.quick and size * inputs > 17 * 160:
            continue
        layer = workloads.conv(inputs, outputs, (height, width))
        image = workloads.activation(inputs, size, measured, options.batch)
        yield layer, image, {"source": RANDOM, "id": key}
        for density in () if is_pointwise(layer) else options.densities or DENSITIES:
            image = workloads.activation(inputs, size, density, options.batch)
            yield layer, image, {"source": SWEEP, "id": key}


def network_cases(options: argparse.Namespace) -> Iterator[Case]:
    if options.data is None:
        return
    there = networks.names(options.data)
    for name in options.networks or [n for n in NETWORKS if n in there] or there:
        network = networks.load(options.data, name)
        inputs = networks.conv_inputs(network.model, network.batch(options.data, options.batch))
        convs = dict(network.model.named_modules())
        for key, x in list(inputs.items())[: 4 if options.quick else None]:
            if convs[key].groups == 1:
                yield convs[key], x.clone(), {"source": name, "name": key}


def layer_table(rows: list[Row]) -> str:
    shown = []
    for row in rows:
        times, sizes = row["times"], row["sizes"]
        line = {
            "layer": f"{row['name']} ({row['layer']})" if "name" in row else row["layer"],
            "threads": row["threads"], "density": round(row["density"], 3),
        }  # fmt: skip
        for method in ("dense", *METHODS):
            label = method if method in ("dense", "im2col") else method.upper()
            line[f"{label} ms"] = times[method][1] if method in times else None
        for method in OURS:
            if method in times:
                share = 100 * times[f"encode {method}"][1] / times[method][1]
                line[f"encode {method.upper()} %"] = round(share)
        for key in ("MEC", *memory.RATIOS):
            line[f"CR {key}"] = round(sizes["im2col"] / max(1, sizes[key]), 2)
        method = claims.selection(row)
        line["selected"] = method if method == "im2col" else method.upper()
        for method in (*OURS, "cpc"):
            if method in times:
                line[f"saved {method.upper()} %"] = round(claims.saving(row, method, "im2col"))
        shown.append(line)
    return report.table(shown)


CLAIMS = """The paper's column is its abstract; its tables, machine and thread counts are not known,
and its networks were run whole, where ours are the sum of all convolutions. MEC is parallel here
too. "random" are the non-pointwise ones of the 13 layers, "real" those of the networks; the mean of
a ratio is the geometric mean. The CR of a network is im2col's elements over those of the selection,
1x1 layers and others that im2col keeps included, so that it also falls where time decides for
im2col.

"""
TARGETS = """"where chosen" means the layers for which the selection among im2col, CPO and CPS takes
CPO or CPS; the column CPC is the same with CPC in their place, for comparison only.

"""
NETS = """All convolutions: by im2col, and with the selection. What torch's own convolution takes is
beside them, and the best of it and CPC, because beating im2col is not beating torch.

"""


def main(options: argparse.Namespace) -> None:
    """`conv --paper`, with its options."""
    torch.manual_seed(0)
    cases = [] if options.no_random else list(random_cases(options))
    cases += network_cases(options)
    rows: list[Row] = []
    with torch.inference_mode():
        for case in report.progress(cases, "layers"):
            rows += measure(*case, options)
    by_source = {
        source: [row for row in rows if row["source"] == source]
        for source in dict.fromkeys(row["source"] for row in rows)
    }
    data = {
        "claims": claims.claims(rows), "claims of CPC": claims.claims(rows, ("cpc",)),
        "targets": claims.targets(rows), "networks": claims.network_table(rows), "rows": rows,
    }  # fmt: skip
    page = {
        "The paper's claims beside ours (CPO and CPS)": CLAIMS + report.table(data["claims"]),
        "The same with CPC instead of CPO and CPS": report.table(data["claims of CPC"]),
        "Targets": TARGETS + report.table(data["targets"]),
        "Networks": NETS + report.table(data["networks"]) if data["networks"] else "",
        "The paper's layers (random activations)": layer_table(by_source.pop(RANDOM, [])),
    }
    by_source = {"The paper's layers at other densities": by_source.pop(SWEEP, []), **by_source}
    layers = {name: layer_table(group) for name, group in by_source.items() if group}
    drawn = figures.drawn(plots.paper_figures, options.out, rows)
    report.write(
        options, __doc__ or "", page, layers=layers, data=data, figures=drawn, name="paper"
    )
