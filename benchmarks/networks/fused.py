"""Layers fused with what follows them, against the same layers one by one and dense torch.

"Networks" times the whole forward pass on one batch: dense torch (the faster of NCHW and
channels-last input), the layers that gain alone, run one by one (likewise the faster), and what
`jsc.tune` makes of the network ("changed": layers that run CPC or bf16x3). The last four columns
are ratios to dense torch, and "over NCHW" is that to torch as it loads the network. "Parts" times
one layer on random activations of density one half: what batch-norm, addition, ReLU and the masks
cost beside it as passes of their own, and all of them together in its store. Outputs are checked
against float64. Losses are the ratios below 1.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import jsc
from benchmarks.common import figures, report
from benchmarks.common.harness import Ratio, compare, interleave, num_threads
from benchmarks.common.report import Figure
from benchmarks.inputs import networks, toy_networks, workloads
from jsc._geometry import ConvGeometry
from jsc.ops import cpc
from jsc.ops.epilogue import Epilogue, Norm

TOLERANCE = 1e-4  # of the largest output: the error of a whole network
LAST = torch.channels_last
DENSITY = 0.5
Row = dict[str, Any]

# channels, size, filters, kernel, stride
LAYERS = [
    (16, 32, 16, 3, 1), (32, 16, 32, 3, 1), (64, 8, 64, 3, 1), (64, 56, 64, 3, 1),
    (128, 28, 128, 3, 1), (256, 14, 256, 3, 1), (512, 7, 512, 3, 1), (64, 56, 128, 3, 2),
    (192, 28, 64, 1, 1), (480, 14, 192, 1, 1), (832, 7, 384, 1, 1), (16, 28, 32, 5, 1),
]  # fmt: skip


def parts(shape: tuple[int, int, int, int, int], options: argparse.Namespace) -> Row:
    """Times of one layer with what follows it, as passes of their own and in its store."""
    C, size, K, kernel, stride = shape
    conv = workloads.conv(C, K, (kernel, kernel), stride)
    x = workloads.activation(C, size, DENSITY, options.batch).contiguous(memory_format=LAST)
    half = kernel // 2
    g = ConvGeometry(
        options.batch, C, size, size, K, kernel, kernel, stride, stride, half, half, 1, 1
    )
    assert conv.bias is not None
    packed, norm = cpc.pack(conv.weight, g), nn.BatchNorm2d(K).eval()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    values = Norm(norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps)
    plain = cpc.Convolution(packed, conv.bias, g)
    whole = cpc.Convolution(packed, conv.bias, g, Epilogue(values, True, True))
    y, masks = whole.fused(x)
    assert masks is not None
    given, added = cpc.encode(x)[1], torch.rand(y.shape).contiguous(memory_format=LAST)
    expected = torch.relu(norm(plain(x)) + added)
    if not torch.equal(whole.fused(x, added, given)[0], expected):
        raise AssertionError("the fused layer has other bits")
    runs: dict[str, Callable[[], Any]] = {
        "alone": lambda: plain(x),
        "masks given": lambda: plain.fused(x, None, given),
        "batch-norm": lambda: norm(y),
        "addition": lambda: y + added,
        "ReLU": lambda: torch.relu(y),
        "one by one": lambda: torch.relu(norm(plain(x)) + added),
        "fused": lambda: whole.fused(x, added, given),
    }
    times = {name: t.median for name, t in interleave(runs, options.rounds).items()}
    passes = {n: times[n] / times["alone"] for n in ("batch-norm", "addition", "ReLU")}
    encode = 1 - times["masks given"] / times["alone"]
    ratio = times["one by one"] / times["fused"]
    return {
        "layer": workloads.name(conv, size), "threads": torch.get_num_threads(),
        "alone ms": 1e3 * times["alone"], "of it encoding %": round(100 * encode, 1),
        **{f"+ {name} %": round(100 * share, 1) for name, share in passes.items()},
        "one by one ms": 1e3 * times["one by one"], "fused ms": 1e3 * times["fused"],
        "ratio": round(ratio, 2),
    }  # fmt: skip


def whole_networks(options: argparse.Namespace) -> Iterator[tuple[str, nn.Module, Tensor]]:
    for name, model in (
        ("small ResNet", toy_networks.small_resnet(32, 3)),
        ("small VGG", toy_networks.small_vgg(64)),
    ):
        yield name, model, toy_networks.image(options.batch)
        if options.quick:
            return
    if options.data is not None:
        for name in options.networks or networks.names(options.data):
            network = networks.load(options.data, name)
            yield name, network.model, network.batch(options.data, options.batch)


def network(name: str, model: nn.Module, x: Tensor, options: argparse.Namespace) -> Row:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jsc.PlanWarning)  # dense NHWC is a column of its own
        plan = jsc.tune(
            model, x, methods=["cpc"], progress=False, fuse=True,
            budget_s=1 if options.quick else options.budget,
        )  # fmt: skip
    alone = {
        layer.name: "cpc" if layer.times_ms.get("cpc", 1e9) * 1.05 < layer.dense_ms else "dense"
        for layer in plan.layers
    }
    single = jsc.apply(model, plan.override(alone), on_mismatch="dense")
    tuned, last = jsc.apply(model, plan, fuse=True), x.contiguous(memory_format=LAST)
    exact = copy.deepcopy(model).double()(x.double())
    runs = {
        "dense NCHW": lambda: model(x),
        "dense NHWC": lambda: model(last),
        "single NCHW": lambda: single(x),
        "single NHWC": lambda: single(last),
        "tuned": lambda: tuned(x),
    }
    times = compare(runs, exact, TOLERANCE, options.rounds)

    def better(kind: str) -> str:
        return min((f"{kind} NCHW", f"{kind} NHWC"), key=lambda key: times[key].half(0))

    dense, one = times[better("dense")], times[better("single")]
    ratio = Ratio.of(dense, times["tuned"])
    return {
        "network": name, "threads": torch.get_num_threads(), "batch": options.batch,
        "dense NCHW ms": 1e3 * times["dense NCHW"].median,
        "dense NHWC ms": 1e3 * times["dense NHWC"].median,
        "one by one ms": 1e3 * one.median, "tuned ms": 1e3 * times["tuned"].median,
        "changed": f"{len(plan.chosen)} of {len(plan.layers)}", "maps": plan.memory_format,
        "one by one": round(Ratio.of(dense, one).value, 2), "tuned": round(ratio.value, 2),
        "quartiles": f"{ratio.low:.2f}–{ratio.high:.2f}",
        "over NCHW": round(Ratio.of(times["dense NCHW"], times["tuned"]).value, 2),
    }  # fmt: skip


def main(arguments: list[str]) -> None:
    parser = report.parser("fused", __doc__)
    parser.add_argument("--networks", nargs="+", metavar="NAME", help="only these networks")
    parser.add_argument("--batch", type=int, default=1, help="images per call")
    parser.add_argument("--budget", type=float, default=30, help="seconds to tune a network")
    options = report.parse(parser, arguments)
    if options.quick:
        options.rounds = min(options.rounds, 3)
    torch.manual_seed(0)
    layers, nets = [], []
    with torch.no_grad():
        for threads in options.threads:
            with num_threads(threads):
                for shape in report.progress(LAYERS[: 2 if options.quick else None], "layers"):
                    layers.append(parts(shape, options))
                for case in report.progress(whole_networks(options), "networks"):
                    nets.append(network(*case, options))
    page = {"Networks": report.table(nets), "Parts": report.table(layers)}
    shown = figures.drawn(network_figure, options.out, nets)
    report.write(options, __doc__, page, data={"networks": nets, "layers": layers}, figures=shown)


def network_figure(folder: Path, rows: Sequence[Row]) -> list[Figure]:
    """How many times as fast as dense torch each network is, one by one and fused."""
    bars = {
        f"{row['network']}, {row['threads']} thr.": {
            key: row[key] for key in ("one by one", "tuned")
        }
        for row in rows
    }
    figures.bars(folder / "fused.png", bars, "times as fast as dense torch's better layout", line=1)
    return [Figure("fused.png", "Networks one by one and fused, in times of dense torch")]
