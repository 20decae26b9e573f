"""One optimisation step (forward, loss, backward, SGD) with kernels of jsc, against torch.

The networks are ResNet-20 and ResNet-56 for CIFAR-10, a VGG-like one without and with batch
normalisation, and ImageNet's ResNet-18 on images of 64x64; "+jpeg" has the trainable JPEG layer in
front, on both sides. Against each stands the same model with every `nn.Conv2d` replaced by
`jsc.nn.SparseConv2d`, which takes torch's kernels, Winograd's or sparse ones pass by pass. torch
runs in both memory formats, and "torch" is the faster of them. With --data the images are real and
the ResNets trained; all other networks are trained here for --steps steps. "Passes" sums up the
passes of the layers: how many skip zeros or go by Winograd's transforms, and the geometric mean of
torch's time over that of the way that is taken.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common import figures, report
from benchmarks.common.harness import (
    Ratio,
    check,
    compare,
    geometric_mean,
    interleave,
    num_threads,
)
from benchmarks.common.report import Figure
from benchmarks.networks import steps
from jsc import methods as ops
from jsc.ops import cpc, cpc_grad, training, winograd

TORCH = ("torch NCHW", "torch NHWC")
LOSS_TOLERANCE = 1e-4  # of the loss in torch
# Of the largest element of a parameter's gradient, against float64; or twice torch's own float32
# error where that is more. It is more than rounding: where the input of a ReLU is within rounding
# of zero, it may be positive in one network and negative in the other.
GRADIENT_TOLERANCE = 2e-2
DENSITIES = ("d(x)", "d(g)")  # of the input, of the gradient of the output
PASS_TOLERANCE = 1e-4  # of one layer's pass, whose inputs are the same
Row = dict[str, Any]


def whole_steps(
    name: str, options: argparse.Namespace
) -> tuple[list[Row], nn.Module, Tensor, Tensor]:
    """A row for each number of threads, and what its passes are to be timed on.

    The loss is compared with torch's first, and all gradients with those in float64.
    """
    model = steps.prepared(name, options.data, options.steps, options.batch)
    x, y = steps.examples(name, options.data, options.batch)
    last = x.contiguous(memory_format=torch.channels_last)
    planar = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    models = {TORCH[0]: (planar, x), TORCH[1]: (copy.deepcopy(model), last)}
    models["jsc"] = steps.sparse(model), last
    methods = {key: steps.step(m, images, y) for key, (m, images) in models.items()}
    exact = copy.deepcopy(model).double()
    steps.step(exact, last.double(), y)()
    rows = []
    for threads in options.threads:
        with num_threads(threads):
            losses = {key: run() for key, run in methods.items()}
            check("loss", losses["jsc"], losses[TORCH[1]], LOSS_TOLERANCE)
            torchs = gradient_error(models[TORCH[1]][0], exact, math.inf)
            allowed = max(GRADIENT_TOLERANCE, 2 * torchs)
            worst = gradient_error(models["jsc"][0], exact, allowed)
            times = interleave(methods, options.rounds, sample_seconds=0)
        best = min(TORCH, key=lambda key: times[key].half(0))
        ratio = Ratio.of(times[best], times["jsc"])
        rows.append({
            "network": name, "threads": threads, "batch": len(y), "loss": losses["jsc"].item(),
            "gradient error": worst, "torch's": torchs,
            **{f"{key} ms": 1e3 * times[key].median for key in methods},
            "best torch": best, "ratio": ratio.value, "low": ratio.low, "high": ratio.high,
        })  # fmt: skip
    return rows, model, last, y


def gradient_error(model: nn.Module, exact: nn.Module, allowed: float) -> float:
    """The largest error of a parameter's gradient, over its largest element."""
    pairs = zip(model.named_parameters(), exact.parameters(), strict=True)
    return max(
        check(key, mine.grad.double(), theirs.grad, allowed)  # type: ignore[union-attr]
        for (key, mine), theirs in pairs
        if theirs.grad.abs().amax() > 1e-6  # type: ignore[union-attr]  # else rounding only
    )


def passes(one: steps.Seen, options: argparse.Namespace) -> list[Row]:
    """Each pass of one layer: torch in both formats, and each way of skipping zeros."""
    layer, x, grad = one.layer, one.x, one.grad
    weight = layer.weight.detach()
    geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)
    g = ops.geometry(x, weight, *geometry)  # type: ignore[arg-type]
    dx, dg = (float((t != 0).double().mean()) for t in (x, grad))
    planar = [t.contiguous() for t in (grad, x, weight)]

    def dense(maps: list[Tensor], which: int) -> Callable[[], Tensor]:
        wanted = [which == 0, which == 1, False]
        steps_of = (layer.stride, layer.padding, layer.dilation, False, (0, 0), layer.groups)
        run = torch.ops.aten.convolution_backward
        return lambda: run(*maps, None, *steps_of, wanted)[which]

    found: dict[str, dict[str, Callable[[], Tensor]]] = {
        "forward": {
            TORCH[0]: lambda: torch.conv2d(planar[1], planar[2], None, *geometry),
            TORCH[1]: lambda: torch.conv2d(x, weight, None, *geometry),
            "sweep": lambda: cpc.run(x, cpc_grad.sweep_weight(weight, g, turned=False), None, g),
        }
    }
    maps = [grad, x, weight]
    straight = g.Sh == g.Sw == 1
    for which, name in enumerate(("grad-input", "grad-weight")):
        if which or one.differentiable:
            found[name] = {TORCH[0]: dense(planar, which), TORCH[1]: dense(maps, which)}
    if winograd.unsupported(g) is None:
        found["forward"]["winograd"] = lambda: winograd.Convolution(
            winograd.pack(weight, g, winograd.tile()), None, g
        )(x)
        found["grad-weight"]["winograd"] = lambda: winograd.weight_gradient(x, grad, weight, g)
        if "grad-input" in found:
            found["grad-input"]["winograd"] = lambda: winograd.input_gradient(grad, weight, g)
    if straight and "grad-input" in found:
        found["grad-input"]["sweep"] = lambda: training._sweep(grad, weight, g)
    if not cpc_grad.unsupported(g):
        gradients = cpc_grad.gradients
        found["grad-weight"]["visits of x"] = lambda: gradients(
            x, grad, weight, g, over_input=True
        )[1]
        if straight:
            found["grad-weight"]["visits of g"] = lambda: gradients(
                grad, x, weight, g, over_input=False
            )[1]
        if one.gated:
            found["both"] = {
                key: _both(run, found["grad-weight"][key])
                for key, run in found["grad-input"].items()
                if key in TORCH
            }
            found["both"]["gated"] = lambda: torch.cat([
                part.reshape(-1)
                for part in gradients(x, grad, weight, g, over_input=True, input_grad=True)
            ])  # fmt: skip
    wanted = "grad-input" in found, True
    able = training.input_density(x, g) is not None
    chosen = ("dense", "dense")
    if able:
        chosen = training._choose(dx, dg, g, weight.dtype, wanted, lambda: one.gated)
    forward = training.forward_weight(dx, weight, g)[0] if able else "dense"
    taken = {
        "forward": {"cpc": "sweep"}.get(forward, forward),
        "grad-input": chosen[0] if chosen[0] != "gated" else "dense",
        "grad-weight": {"input": "visits of x", "output": "visits of g"}.get(chosen[1], chosen[1]),
        "both": "gated" if chosen[0] == "gated" else "dense",
    }
    rows = []
    for name, methods in found.items():
        exact = methods[TORCH[1]]()
        if name == "both":
            exact = torch.cat(
                [exact[: x.numel()].view_as(x).mul(x != 0).reshape(-1), exact[x.numel() :]]
            )
            check("gated", methods["gated"](), exact, PASS_TOLERANCE)
            times = interleave(methods, options.rounds)
        else:
            times = compare(methods, exact, PASS_TOLERANCE, options.rounds)
        best = min(TORCH, key=lambda key: times[key].median)
        row = {
            "layer": one.name, "shape": f"{g.C}-{g.K} at {g.H}" + ("" if straight else f" /{g.Sh}"),
            "d(x)": dx, "d(g)": dg, "pass": name, "torch ms": 1e3 * times[best].median,
            "taken": taken[name],
        }  # fmt: skip
        for key in methods:
            if key not in TORCH:
                row[key] = times[best].median / times[key].median
        rows.append(row)
    return rows


def _both(first: Callable[[], Tensor], second: Callable[[], Tensor]) -> Callable[[], Tensor]:
    return lambda: torch.cat([first().reshape(-1), second().reshape(-1)])


def main(arguments: list[str]) -> None:
    parser = report.parser("train", __doc__)
    parser.add_argument("--networks", nargs="+", choices=steps.NAMES, default=steps.NAMES)
    parser.add_argument("--batch", type=int, default=64, help="images to a step")
    parser.add_argument("--steps", type=int, default=300, help="of training before the timing")
    parser.add_argument("--no-layers", action="store_true", help="only whole steps")
    options = report.parse(parser, arguments)
    if options.quick:
        options.rounds, options.batch, options.steps = min(options.rounds, 3), 8, 2
        options.networks = options.networks if options.networks != steps.NAMES else ("resnet20",)
    rows: list[Row] = []
    layers: dict[str, list[Row]] = {}
    for name in options.networks:
        found, model, x, y = whole_steps(name, options)
        rows += found
        if options.no_layers:
            continue
        with num_threads(options.threads[0]):
            every = list(steps.seen(model, x, y))
            layers[name] = [
                row for one in report.progress(every, name) for row in passes(one, options)
            ]
    page = {"Steps": report.table([_shown(row) for row in rows])}
    if layers:
        page[f"Passes, {options.threads[0]} thread(s)"] = pass_table(layers)
    every_pass = {
        f"{name}: passes, {options.threads[0]} thread(s), ratio to torch of each way": report.table(
            [_rounded(row) for row in found]
        )
        for name, found in layers.items()
    }
    data = {"rows": rows, "layers": layers}
    shown = figures.drawn(step_figure, options.out, rows)
    report.write(options, __doc__, page, layers=every_pass, data=data, figures=shown)


def step_figure(folder: Path, rows: Sequence[Row]) -> list[Figure]:
    """How many times as fast as torch a step of each network is."""
    bars: dict[str, dict[str, float]] = {}
    for row in rows:
        bars.setdefault(row["network"], {})[f"{row['threads']} thread(s)"] = row["ratio"]
    figures.bars(folder / "train.png", bars, "a step, times as fast as torch's better one", line=1)
    return [Figure("train.png", "One optimisation step, in times of torch")]


def pass_table(layers: dict[str, list[Row]]) -> str:
    """One line for each network and pass. A pass that stays dense has ratio 1."""
    shown = []
    for network, rows in layers.items():
        for name in dict.fromkeys(row["pass"] for row in rows):
            mine = [row for row in rows if row["pass"] == name]
            ratios = [row.get(row["taken"], 1.0) for row in mine]
            shown.append({
                "network": network, "pass": name, "layers": len(mine),
                "skip zeros": sum(row["taken"] not in ("dense", "winograd") for row in mine),
                "winograd": sum(row["taken"] == "winograd" for row in mine),
                **{f"mean {d}": round(sum(r[d] for r in mine) / len(mine), 2) for d in DENSITIES},
                "ratio": round(geometric_mean(ratios), 2), "least": round(min(ratios), 2),
            })  # fmt: skip
    return report.table(shown)


def _shown(row: Row) -> Row:
    shown = {key: value for key, value in row.items() if key not in ("low", "high")}
    shown["ratio"] = round(row["ratio"], 2)
    shown["quartiles"] = f"{row['low']:.2f}–{row['high']:.2f}"
    return shown


def _rounded(row: Row) -> Row:
    return {
        key: round(value, 2) if isinstance(value, float) and key != "torch ms" else value
        for key, value in row.items()
    }
