"""Whole networks, compiled by jsc, against torch and the tuned runtimes.

Each network runs eight batches in turn: real images through trained networks of a data folder,
random ones through well-known architectures with random weights. Peers have their best setting:
torch with NCHW and with channels-last maps, `torch.compile` with freezing (`--inductor`, at the
first batch size: it takes half a minute a network), ONNX Runtime and OpenVINO in float32 from the
same ONNX file, and for networks with local response normalisation from one with a real LRN node
too, the faster counting. Each has a process of its own, and they take turns. "ratio" is the time of
the fastest peer over that of jsc, with the quartiles of the rounds; losses are the ratios below 1.
"error" is the largest over the largest output, against float64; a network whose output is wrong is
not timed. "first" is the time from the model to the first answer.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import jsc
from benchmarks.common import figures, report, workers
from benchmarks.common.harness import Ratio, geometric_mean, max_error, take_turns
from benchmarks.common.report import Figure
from benchmarks.common.workers import Workers
from benchmarks.inputs import networks, standard_networks
from benchmarks.peers import runtimes
from jsc import _config
from jsc.typing import PrecisionName

TOLERANCE = 1e-4
INPUTS = 8  # of each network, in turn: the processor would learn the branches of one by heart
REST = 0.1  # seconds: ONNX Runtime's threads spin for half of it, and would keep a core busy
Row = dict[str, Any]


Make = Callable[[], tuple[nn.Module, list[Tensor]]]
Built = tuple[workers.Run, dict[str, Any]]  # a method, and what there is to say about it


def trained(data: Path, name: str, batch: int) -> tuple[nn.Module, list[Tensor]]:
    network = networks.load(data, name)
    return network.model, [network.batch(data, batch, start) for start in range(INPUTS)]


def standard(name: str, batch: int) -> tuple[nn.Module, list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    size = (batch, *standard_networks.INPUT[name])
    xs = [torch.randn(size, generator=generator) for _ in range(INPUTS)]
    return standard_networks.build(name), xs


def cases(options: argparse.Namespace, batch: int) -> Iterator[tuple[str, str, Make]]:
    """kind, name, and what makes model and inputs."""
    wanted = options.networks
    for name in networks.names(options.data) if options.data is not None else ():
        if not wanted or name in wanted:
            yield "trained", name, partial(trained, options.data, name, batch)
    for name in standard_networks.NAMES:
        if name in wanted if wanted else not options.quick or name == "mobilenet_v2":
            yield "random weights", name, partial(standard, name, batch)


# Each is called in a process of its own.


def in_turn(method: Callable[[Any], Tensor], xs: Iterable[Any]) -> workers.Run:
    """Each call takes the next input, beginning with the first."""
    given = itertools.cycle(xs)
    return lambda: method(next(given))


def compiled(make: Make, budget: float, precision: PrecisionName = "ieee") -> Built:
    model, xs = make()
    start = time.perf_counter()
    net = jsc.compile(model, xs[0], precision=precision, budget=budget, check=False, progress=False)
    net(xs[0])
    seconds = time.perf_counter() - start
    about = {"first": seconds, "methods": methods(net), "memory": memory(net)}
    about["megabytes"] = round(net.memory()[0] / 1e6, 1)
    return in_turn(net, xs), about


def in_torch(make: Make, layout: torch.memory_format) -> Built:
    model, xs = make()
    model = model.to(memory_format=layout)  # type: ignore[call-overload]
    return in_turn(model, [x.contiguous(memory_format=layout) for x in xs]), {}


def inductor(make: Make) -> Built:
    model, xs = make()
    last = [x.contiguous(memory_format=torch.channels_last) for x in xs]
    return in_turn(runtimes.torch_compile(model, last[0]), last), {}


def runtime(peer: Callable[..., Callable[[Any], Tensor]], file: Path, make: Make) -> Built:
    return in_turn(peer(file, torch.get_num_threads()), [x.numpy() for x in make()[1]]), {}


def measure(
    kind: str, name: str, make: Make, options: argparse.Namespace, folder: Path, there: Workers
) -> Row:
    model, (x, *_) = make()
    exact = copy.deepcopy(model).double()(x.double())
    made = {
        "jsc": there["jsc"].make(compiled, make, options.budget),
        "torch NCHW": there["torch NCHW"].make(in_torch, make, torch.contiguous_format),
        "torch NHWC": there["torch NHWC"].make(in_torch, make, torch.channels_last),
    }
    if options.inductor and len(x) == options.batch[0]:
        made["torch.compile"] = there["torch.compile"].make(inductor, make)
    if not runtimes.missing():
        for file in runtimes.export(model, x, folder / f"{name}-{len(x)}"):
            note = " LRN" if ".lrn" in file.name else ""
            for title, peer in (("ORT", runtimes.onnxruntime), ("OpenVINO", runtimes.openvino)):
                label = title + note
                made[label] = there[label].make(runtime, peer, file, make)
    errors = {label: max_error(one.result, exact) for label, one in made.items()}
    right = [label for label in made if errors[label] <= TOLERANCE]
    if "jsc" not in right:
        raise AssertionError(f"{name}: jsc is {errors['jsc']:.1e} off; not timed")
    rest = REST if there.threads > 1 else 0.0
    times = take_turns({label: there[label].sample for label in right}, options.rounds, 5e-3, rest)
    peers = [label for label in right if label != "jsc"]
    fastest = min(peers, key=lambda label: times[label].half(0))
    ratio = Ratio.of(times[fastest], times["jsc"])

    def ms(*labels: str) -> float | None:
        found = [1e3 * times[label].median for label in labels if label in times]
        return min(found, default=None)

    return {
        "kind": kind, "network": name, "batch": len(x), "threads": there.threads,
        "jsc ms": ms("jsc"), "torch ms": ms("torch NCHW", "torch NHWC"),
        "torch.compile ms": ms("torch.compile"), "ORT ms": ms("ORT", "ORT LRN"),
        "OpenVINO ms": ms("OpenVINO", "OpenVINO LRN"), "fastest peer": fastest,
        "ratio": round(ratio.value, 2), "quartiles": f"{ratio.low:.2f}–{ratio.high:.2f}",
        "error": f"{errors['jsc']:.0e}", "torch's error": f"{errors['torch NCHW']:.0e}",
        "first s": round(made["jsc"].about["first"], 2),
        "methods": made["jsc"].about["methods"], "memory": made["jsc"].about["memory"],
        "all ms": {label: 1e3 * t.median for label, t in times.items()},
    }  # fmt: skip


def measured(options: argparse.Namespace, one: Callable[..., Row], title: str) -> list[Row]:
    """`one` for each number of threads, batch and network."""
    torch.manual_seed(0)
    rows = []
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for threads in options.threads:
            with Workers(threads) as there:
                for batch in options.batch:
                    for case in report.progress(cases(options, batch), title):
                        rows.append(one(*case, options, Path(folder), there))
    return rows


def methods(net: jsc.CompiledNetwork) -> str:
    """How many convolutions take each method."""
    counts = net.methods()
    return ", ".join(f"{counts[name]} {name}" for name in sorted(counts))


def memory(net: jsc.CompiledNetwork) -> str:
    used, together = net.memory()
    return f"{used / 1e6:.1f} of {together / 1e6:.1f} MB"


def summaries(rows: list[Row]) -> list[Row]:
    found = []
    for kind in ("trained", "random weights"):
        for batch in sorted({r["batch"] for r in rows}):
            for threads in sorted({r["threads"] for r in rows}):
                key = (kind, batch, threads)
                ratios = [r["ratio"] for r in rows if (r["kind"], r["batch"], r["threads"]) == key]
                if ratios:
                    found.append({
                        "networks": kind, "batch": batch, "threads": threads, "of them":
                        len(ratios), "geometric mean": round(geometric_mean(ratios), 2), "least":
                        min(ratios), "most": max(ratios), "slower than a peer": sum(r < 1 for r in
                        ratios),
                    })  # fmt: skip
    return found


def page_name() -> str:
    """Processors of each kind have a page of their own, those with AVX-512 the plain name."""
    isa = _config.isa_name().removesuffix("+bf16")  # which float32 has no use for
    return "networks" if isa == "avx512" else f"networks_{isa.removeprefix('avx512+')}"


def draw(rows: list[Row], folder: Path) -> list[Figure]:
    bars: dict[str, dict[str, float]] = {}
    for r in rows:
        if r["batch"] == min(x["batch"] for x in rows):
            threads = f"{r['threads']} thread{'s' if r['threads'] > 1 else ''}"
            bars.setdefault(r["network"], {})[threads] = r["ratio"]
    file = f"{page_name()}.png"
    figures.bars(folder / file, bars, "time of the fastest peer / time of jsc", line=1.0)
    return [Figure(file, "whole networks against the fastest peer")]


SHOWN = (
    "network", "jsc ms", "torch ms", "torch.compile ms", "ORT ms", "OpenVINO ms", "fastest peer",
    "ratio", "quartiles", "error", "torch's error", "first s", "memory",
)  # fmt: skip


def main(arguments: list[str]) -> None:
    parser = report.parser("networks", __doc__)
    parser.add_argument("--networks", nargs="+", default=[], metavar="NAME", help="only these")
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="images per call")
    parser.add_argument("--budget", type=float, default=20, help="seconds to tune a network")
    parser.add_argument(
        "--inductor",
        action="store_true",
        help="torch.compile with freezing too, at the first batch size",
    )
    options = report.parse(parser, arguments)
    if options.quick:
        options.rounds, options.budget = min(options.rounds, 3), min(options.budget, 1)
    rows = measured(options, measure, "networks")
    page = {"Summary": report.table(summaries(rows))}
    for batch in options.batch:
        for threads in options.threads:
            for kind in ("trained", "random weights"):
                some = [
                    r
                    for r in rows
                    if (r["kind"], r["batch"], r["threads"]) == (kind, batch, threads)
                ]
                title = f"{kind.capitalize()}, batch {batch}, threads {threads}"
                page[title] = report.table(some, SHOWN) if some else ""
    missing = runtimes.missing()
    if missing:
        page["Left out"] = f"not installed: {', '.join(missing)}"
    page["Methods"] = report.table(
        [{k: r[k] for k in ("network", "methods")} for r in rows
         if (r["batch"], r["threads"]) == (options.batch[0], options.threads[0])]
    )  # fmt: skip
    report.write(
        options, __doc__, page, data={"rows": rows}, name=page_name(),
        figures=figures.drawn(draw, rows, options.out),
    )  # fmt: skip
