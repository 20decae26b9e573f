"""Every kernel that a compiled network has for a convolution of dense maps, against torch.

One convolution with bias, one image of normal noise (no zeros to skip), compiled by itself and
called as users call it. `direct`, `grouped`, `depthwise`, `winograd...` are float32's methods, and
`amx` with tiles; at "bf16" the network may also take operands of 8 bits. torch runs the same
module with NCHW and with channels-last maps, and in bfloat16; NCHW maps are what the first layers
get, and what they give is left channels-last, as within a network. All take turns in one process. A
number under a method is the time of torch's faster float32 layout over the method's: losses are
below 1. "best" is the fastest method that keeps its error, the largest over the largest output
against float64, within twice that of torch's channels-last convolution, as `jsc.compile` wants; "of
the peak" are its multiply-adds a second (those of the definition, however few Winograd needs) over
those of torch's product of large matrices on as many threads. "bf16" is the fastest of jsc's
methods with bfloat16 operands, over torch's float32 and over torch in bfloat16; a network at "bf16"
keeps float32's where they are faster, as in first layers.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor, nn

import jsc
from benchmarks.common import figures, report
from benchmarks.common.harness import (
    geometric_mean,
    interleave,
    max_error,
    num_threads,
    product_rate,
)
from benchmarks.common.report import Figure
from benchmarks.inputs.workloads import DENSE, name
from jsc.network.accuracy import ALLOWED
from jsc.network.choices import METHODS

Row = dict[str, Any]
FLOAT32 = [method for method in METHODS if method not in ("cpc", "direct_bf16")]
# Of the best method over torch, by class, without AMX tiles.
GOALS = {"first layers": 1.0, "3x3": 1.5, "depthwise": 1.3}


class FirstLayer(nn.Module):
    """Reads planes and leaves channels-last maps."""

    def __init__(self, layer: nn.Conv2d):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y.contiguous(memory_format=torch.channels_last)


def layer_of(shape: tuple[int, ...]) -> tuple[nn.Conv2d, Tensor, str]:
    """The module, its input, and their name."""
    inputs, filters, height, width, kh, kw, stride, groups = shape
    torch.manual_seed(0)
    layer = nn.Conv2d(inputs, filters, (kh, kw), stride, (kh // 2, kw // 2), groups=groups)
    size = f"{height}" if height == width else f"{height}x{width}"
    shown = name(layer, height).replace(f"@{height}", f"@{size}")
    x = torch.randn(1, inputs, height, width)
    if inputs > 4:
        x = x.contiguous(memory_format=torch.channels_last)
    return layer.eval().requires_grad_(False), x, shown


def compiled(layer: nn.Conv2d, x: Tensor, precision: str) -> dict[str, jsc.CompiledNetwork]:
    """The layer by each method that fits it at this precision."""
    module = layer if x.is_contiguous(memory_format=torch.channels_last) else FirstLayer(layer)
    options: Any = {"precision": precision, "check": False, "progress": False}
    tuned = jsc.compile(module, x, budget=1.0, **options)
    found = dict.fromkeys(tuned.methods(), tuned)
    for method in FLOAT32 if precision == "ieee" else METHODS:
        plan = dict.fromkeys(tuned.plan, method)  # the network has a name for its one layer
        net = jsc.compile(module, x, plan=plan, budget=0.0, **options)
        if method in net.methods():
            found[method] = net
    return {method: net for method, net in found.items() if method != "cpc"}


def measure(shape: tuple[int, ...], kind: str, threads: int, rounds: int, peak: float) -> Row:
    layer, x, shown = layer_of(shape)
    half, x_half = layer_of(shape)[0].bfloat16(), x.bfloat16()
    exact = layer_of(shape)[0].double()(x.double())
    last = x.contiguous(memory_format=torch.channels_last)
    first = x.contiguous()
    nets = compiled(layer, x, "ieee")
    lower = compiled(layer, x, "bf16")
    lower = {method: net for method, net in lower.items() if method in ("direct_bf16", "amx")}
    runs: dict[str, Any] = {m: lambda net=net: net(x) for m, net in nets.items()}
    runs |= {f"{m}, bf16": lambda net=net: net(x) for m, net in lower.items()}
    runs |= {
        "torch NCHW": lambda: layer(first), "torch channels-last": lambda: layer(last),
        "torch bf16": lambda: half(x_half),
    }  # fmt: skip
    with torch.inference_mode():
        errors = {label: max_error(run(), exact) for label, run in runs.items()}
        times = {k: t.median for k, t in interleave(runs, rounds, 4e-3).items()}
    torch_ms = min(times["torch NCHW"], times["torch channels-last"])
    torch_error = errors["torch channels-last"]
    right = [method for method in nets if errors[method] <= ALLOWED * torch_error]
    best = min(right, key=times.__getitem__, default="")
    in_bf16 = min((t for k, t in times.items() if k.endswith(", bf16")), default=None)
    macs = exact.numel() * layer.weight[0].numel()
    row: Row = {"class": kind, "layer": shown, "threads": threads, "torch ms": 1e3 * torch_ms}
    row |= {method: round(torch_ms / times[method], 2) for method in nets}
    row |= {
        "best": best,
        "best ratio": round(torch_ms / times[best], 2) if best else None,
        "of the peak": round(macs / times[best] / peak, 2) if best else None,
        "error": f"{errors[best]:.0e}" if best else "", "torch's error": f"{torch_error:.0e}",
        "bf16": round(torch_ms / in_bf16, 2) if in_bf16 else None,
        "bf16 over torch bf16": round(times["torch bf16"] / in_bf16, 2) if in_bf16 else None,
        "too far off": ", ".join(method for method in nets if method not in right),
    }  # fmt: skip
    return row


def summaries(rows: list[Row]) -> list[Row]:
    """Geometric means of each class."""

    def mean(some: list[Row], key: str) -> float | None:
        values = [r[key] for r in some if r.get(key)]
        return round(geometric_mean(values), 2) if values else None

    found = []
    for kind, threads in dict.fromkeys((r["class"], r["threads"]) for r in rows):
        some = [r for r in rows if (r["class"], r["threads"]) == (kind, threads)]
        ratios = [r["best ratio"] for r in some if r["best ratio"]]
        found.append({
            "class": kind, "threads": threads, "layers": len(some), "direct": mean(some, "direct"),
            "best": mean(some, "best ratio"), "least": min(ratios, default=None),
            "goal": GOALS.get(kind), "of the peak": mean(some, "of the peak"),
            "bf16": mean(some, "bf16"), "bf16 over torch bf16": mean(some, "bf16 over torch bf16"),
        })  # fmt: skip
    return found


def draw(rows: list[Row], folder: Any) -> list[Figure]:
    least = min(r["threads"] for r in rows)
    shown = {
        f"{r['class']}: {r['layer']}": {
            label: r[key]
            for label, key in (("best at float32", "best ratio"), ("at bf16", "bf16"))
            if r[key]
        }
        for r in rows
        if r["threads"] == least
    }
    figures.bars(folder / "dense.png", shown, "times as fast as torch in float32", line=1.0)
    return [Figure("dense.png", f"Each layer against torch's faster layout, {least} thread(s)")]


def arguments_of(given: list[str]) -> argparse.Namespace:
    parser = report.parser("dense", __doc__)
    parser.add_argument("--classes", nargs="+", choices=DENSE, default=list(DENSE))
    return report.parse(parser, given)


def main(arguments: list[str]) -> None:
    options = arguments_of(arguments)
    shapes = [(kind, shape) for kind in options.classes for shape in DENSE[kind]]
    if options.quick:
        shapes = [(k, DENSE[k][0]) for k in options.classes if k != "large maps"]
        options.rounds = min(options.rounds, 3)
    rows = []
    for threads in options.threads:
        with num_threads(threads):
            peak = product_rate(threads)
            for kind, shape in report.progress(shapes, f"dense, {threads} threads"):
                rows.append(measure(shape, kind, threads, options.rounds, peak))
    page = {"Summary": report.table(summaries(rows))}
    for threads in options.threads:
        mine = [r for r in rows if r["threads"] == threads]
        columns = [m for m in FLOAT32 if any(m in r for r in mine)]
        page[f"Threads {threads}"] = report.table(
            mine,
            ("class", "layer", "torch ms", *columns, "best", "best ratio", "of the peak", "error",
             "torch's error", "bf16", "bf16 over torch bf16", "too far off"),
        )  # fmt: skip
    report.write(
        options, __doc__, page, data={"rows": rows},
        figures=figures.drawn(draw, rows, options.out),
    )  # fmt: skip
