"""Whole networks compiled at each precision: time, error, and the classes that they name.

"ieee" is the network's float32, "tf32" and "bf16" allow operands of 11 and of 8 bits
(`jsc.compile(precision=)`). Beside them stand OpenVINO in float32 and with its bfloat16 hint, and
torch with a bfloat16 model, channels-last. Each has a process of its own, and they take turns;
trained networks see real images, the others random ones, eight batches in turn. "gain" is the time
at ieee over the time at this precision, "ratio" the time of the faster peer in bfloat16 over jsc's
at bf16; losses are the ratios below 1. "error" is the largest over the largest output, against
float64, on the first batch; torch's is that of its bfloat16 model. "MB" are what the maps of a call
take at ieee and at bf16, where they are stored as bfloat16. "other class" counts the images
among `--images` of the data folder whose largest output is another one than in float32; networks
with maps as outputs have none.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import jsc
from benchmarks.common import figures, report
from benchmarks.common.harness import Ratio, geometric_mean, max_error, take_turns
from benchmarks.common.report import Figure
from benchmarks.common.workers import Workers
from benchmarks.inputs import networks as inputs
from benchmarks.networks.networks import (
    REST,
    Built,
    Make,
    Row,
    compiled,
    in_turn,
    measured,
    runtime,
)
from benchmarks.peers import runtimes
from jsc._precision import PIECES
from jsc.typing import PrecisionName

WRONG = 0.25  # of the largest output: what is further off is no answer, and is not timed


def in_bfloat16(make: Make) -> Built:
    model, xs = make()
    model = model.to(torch.bfloat16, memory_format=torch.channels_last)  # type: ignore[call-overload]
    last = [x.to(torch.bfloat16, memory_format=torch.channels_last) for x in xs]
    return in_turn(lambda x: model(x).float(), last), {}


def in_openvino(file: Path, make: Make, precision: str) -> Built:
    def peer(path: Path, threads: int) -> Callable[[Any], Tensor]:
        return runtimes.openvino(path, threads, precision)

    return runtime(peer, file, make)


def other_classes(
    options: argparse.Namespace, name: str, model: nn.Module, precision: PrecisionName
) -> str:
    """How many images are put into another class than in float32."""
    if options.data is None or name not in inputs.names(options.data):
        return ""
    images = inputs.load(options.data, name).batch(options.data, options.images, 0)
    expected = model(images)
    if expected.dim() != 2:
        return ""
    net = jsc.compile(
        model, images[:2], precision=precision, budget=0.0, check=False, progress=False
    )
    found = torch.cat([net(some) for some in images.split(2)])
    return f"{int((found.argmax(1) != expected.argmax(1)).sum())} of {len(images)}"


def measure(
    kind: str, name: str, make: Make, options: argparse.Namespace, folder: Path, there: Workers
) -> Row:
    model, (x, *_) = make()
    exact = copy.deepcopy(model).double()(x.double())
    made = {p: there[p].make(compiled, make, options.budget, p) for p in PIECES}
    with contextlib.suppress(RuntimeError):  # torch has no average of three dimensions in bfloat16
        made["torch bf16"] = there["torch bf16"].make(in_bfloat16, make)
    if not runtimes.missing():
        for file in runtimes.export(model, x, folder / f"{name}-{len(x)}"):
            note = " LRN" if ".lrn" in file.name else ""
            for hint in ("f32", "bf16"):
                label = f"OpenVINO {hint}{note}"
                made[label] = there[label].make(in_openvino, file, make, hint)
    errors = {label: max_error(one.result, exact) for label, one in made.items()}
    right = [label for label in made if errors[label] <= WRONG]
    if not right or any(p not in right for p in PIECES):
        raise AssertionError(f"{name}: the errors are {errors}; not timed")
    rest = REST if there.threads > 1 else 0.0
    times = take_turns({label: there[label].sample for label in right}, options.rounds, 5e-3, rest)
    peers = [label for label in right if "bf16" in label and label != "bf16"]
    fastest = min(peers, key=lambda label: times[label].half(0), default="")
    ratio = Ratio.of(times[fastest], times["bf16"]) if peers else None

    def ms(*labels: str) -> float | None:
        return min((1e3 * times[label].median for label in labels if label in times), default=None)

    first = (len(x), there.threads) == (options.batch[0], options.threads[0])

    def gain(precision: str) -> float:
        return round(Ratio.of(times["ieee"], times[precision]).value, 2)

    return {
        "kind": kind, "network": name, "batch": len(x), "threads": there.threads,
        "ieee ms": ms("ieee"), "tf32 ms": ms("tf32"), "bf16 ms": ms("bf16"),
        "gain tf32": gain("tf32"), "gain bf16": gain("bf16"),
        "OpenVINO f32 ms": ms("OpenVINO f32", "OpenVINO f32 LRN"),
        "OpenVINO bf16 ms": ms("OpenVINO bf16", "OpenVINO bf16 LRN"),
        "torch bf16 ms": ms("torch bf16"), "fastest bf16 peer": fastest,
        "ratio": round(ratio.value, 2) if ratio else None,
        "quartiles": f"{ratio.low:.2f}–{ratio.high:.2f}" if ratio else "",
        "error ieee": f"{errors['ieee']:.0e}", "error bf16": f"{errors['bf16']:.0e}",
        "torch's error": f"{errors['torch bf16']:.0e}" if "torch bf16" in errors else "",
        "other class, bf16": other_classes(options, name, model, "bf16") if first else "",
        "methods at bf16": made["bf16"].about["methods"],
        "MB ieee": made["ieee"].about["megabytes"], "MB bf16": made["bf16"].about["megabytes"],
    }  # fmt: skip


def summaries(rows: list[Row]) -> list[Row]:
    found = []
    for batch, threads in sorted({(r["batch"], r["threads"]) for r in rows}):
        some = [r for r in rows if (r["batch"], r["threads"]) == (batch, threads)]
        means = {
            k: round(geometric_mean([r[k] for r in some if r[k]]), 2)
            for k in ("gain tf32", "gain bf16", "ratio")
            if any(r[k] for r in some)
        }
        lost = sum(r["ratio"] is not None and r["ratio"] < 1 for r in some)
        found.append({"batch": batch, "threads": threads, "networks": len(some), **means,
                      "slower than a bf16 peer": lost})  # fmt: skip
    return found


def draw(rows: list[Row], folder: Path) -> list[Figure]:
    bars: dict[str, dict[str, float]] = {}
    least = min((r["batch"], r["threads"]) for r in rows)
    for r in rows:
        if (r["batch"], r["threads"]) == least:
            ieee = r["ieee ms"]
            one = {"jsc ieee": 1.0, "jsc bf16": r["gain bf16"]}
            for peer in ("OpenVINO f32", "OpenVINO bf16", "torch bf16"):
                time = r[f"{peer} ms"]
                if time:
                    one[peer] = ieee / time
            bars[r["network"]] = one
    figures.bars(folder / "precision.png", bars, "time of jsc at ieee / time", line=1.0)
    return [Figure("precision.png", "speed at each precision, jsc at float32 = 1")]


SHOWN = (
    "network", "ieee ms", "tf32 ms", "bf16 ms", "gain bf16", "OpenVINO f32 ms", "OpenVINO bf16 ms",
    "torch bf16 ms", "ratio", "quartiles", "MB ieee", "MB bf16", "error ieee", "error bf16",
    "torch's error", "other class, bf16",
)  # fmt: skip


def main(arguments: list[str]) -> None:
    parser = report.parser("precision", __doc__)
    parser.add_argument("--networks", nargs="+", default=[], metavar="NAME", help="only these")
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="images per call")
    parser.add_argument("--budget", type=float, default=20, help="seconds to tune a network")
    parser.add_argument("--images", type=int, default=200, help="images whose class is compared")
    options = report.parse(parser, arguments)
    if options.quick:
        options.rounds, options.budget = min(options.rounds, 3), min(options.budget, 1)
        options.images = min(options.images, 20)
    rows = measured(options, measure, "precision")
    page = {"Summary": report.table(summaries(rows))}
    for batch in options.batch:
        for threads in options.threads:
            some = [r for r in rows if (r["batch"], r["threads"]) == (batch, threads)]
            page[f"Batch {batch}, threads {threads}"] = report.table(some, SHOWN)
    first = (options.batch[0], options.threads[0])
    page["Methods at bf16"] = report.table(
        [{k: r[k] for k in ("network", "methods at bf16")} for r in rows
         if (r["batch"], r["threads"]) == first]
    )  # fmt: skip
    report.write(
        options, __doc__, page, data={"rows": rows}, name="precision",
        figures=figures.drawn(draw, rows, options.out),
    )  # fmt: skip
