"""Where the time of the CPC convolution goes: one cause of loss after another is taken away.

One image, one thread, random activations. The sweep is timed as it is, over different masks in
turn; then over masks that have the same number of common and of lone channels in every pair of
pixels (every loop ends where the branch predictor expects it); then also with the activations of
all pixels in one place, that is, in L1; then also with one row of weights and one row of partial
sums (nothing but masks and outputs is outside L1). What is then left above the time of the
multiply-adds alone (all operands in registers) goes to two causes: instructions and loads of the
sweep, and its way through pixels without non-zeros and of outputs to memory (timed with empty
masks). The rest is the encoding, the pages of fresh memory for the output, and what else a call
does (Python, threads; their code and data are not in the caches after a long sweep). Shares are of
the sum; to remove a cause would save its share at most. Times are the least of the rounds,
which other load disturbs least.

"repeated %" is what the sweep saves when it sees the same masks again and again, as in a benchmark
and never in use, because the branch predictor learns them. "useful %" are the multiply-adds that an
output needs, of those that are done (the rest fall beyond the edges or on filters that do not
exist). A visit is one non-zero in one kernel row and block of filters. Instructions are counted by
single steps on one row of outputs. Cycles are those of the core: its rate is measured in the run,
by multiplications that wait for each other (3 cycles each).
"""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import jsc
from benchmarks.common import figures, report
from benchmarks.common.harness import interleave, num_threads
from benchmarks.common.report import Figure
from benchmarks.convolution.conv import products as useful_products
from benchmarks.convolution.cpc_sweep import Case, build, clock
from benchmarks.inputs import workloads
from benchmarks.inputs.masks import even, pack, work
from jsc import _config
from jsc._kernels.cpc import forward as kernel

Row = dict[str, Any]
DENSITIES = (0.5, 0.2)
LAYERS = {
    "3x3": [(64, 64, 56, 3, 3, 1), (128, 128, 28, 3, 3, 1), (256, 256, 14, 3, 3, 1)],
    **{key: workloads.LAYERS[key] for key in ("3x3 small", "1x1", "long", "stride 2")},
}
QUICK = [("3x3 small", (16, 16, 8, 3, 3, 1), 0.5), ("1x1", (64, 32, 8, 1, 1, 1), 0.5)]
CAUSES = (
    "multiply-adds", "instructions, loads", "empty pixels, outputs", "weights, sums not in L1",
    "activations not in L1", "mispredictions", "encoding", "fresh memory", "rest of the call",
)  # fmt: skip


def measure(native: ctypes.CDLL, layer: nn.Conv2d, x: Tensor, rounds: int) -> Row:
    density = (x != 0).double().mean().item()
    case, random = Case(native, layer, x), np.random.default_rng(0)
    g = case.g
    occupied = (x[0] != 0).permute(1, 2, 0).numpy()
    visits, products = work(g, occupied, case.blocks, case.vectors)
    # So many masks that the predictor has forgotten the first one when it is used again.
    group = 1 + 400_000 // products
    copies = group * (1 + 40_000 // (g.H * g.W * -(-g.C // 32)) // group)
    drawn = [occupied, *(random.random(occupied.shape) < density for _ in range(copies - 1))]
    same = [even(g, density, random) for _ in range(copies)]
    masks, even_masks = [pack(o) for o in drawn], [pack(o) for o in same]
    encoded = np.zeros((1, *masks[0].shape), np.uint64)
    sparse = jsc.nn.SparseConv2d.from_dense(layer, method="cpc").requires_grad_(False)
    out = sparse(case.x)
    last = {"memory_format": torch.channels_last}
    whole: dict[str, Callable[[], Any]] = {
        "call": lambda: sparse(case.x),
        "encoding": lambda: kernel.encode(case.pixels, encoded, case.isa, 1),
        "fresh": lambda: torch.empty(out.shape, **last).zero_(),
        "old": out.zero_,
    }
    empty = np.zeros_like(masks[0])
    sweeps = {
        "repeated": case.sweep(masks[:1] * group, "as it is", group),
        "as it is": case.sweep(masks, "as it is", group),
        "even": case.sweep(even_masks, "as it is", group),
        "activations": case.sweep(even_masks, "activations in L1", group),
        "all": case.sweep(even_masks, "all in L1", group),
        "empty": case.sweep([empty] * group, "all in L1", group),
    }
    # Single calls: on a busy machine the least of them are those that were not interrupted.
    times = interleave({**whole, **sweeps}, rounds, sample_seconds=0)
    least = {key: float(timing.samples.min()) for key, timing in times.items()}
    least |= {key: least[key] / group for key in sweeps}
    # Each as if it had done as many multiply-adds as the first masks want.
    for key, made in (("as it is", drawn), *((k, same) for k in ("even", "activations", "all"))):
        done = [work(g, o, case.blocks, case.vectors)[1] for o in made]
        least[key] *= products / np.mean(done)
    # One row of outputs in the middle, by single steps.
    row = g.Oh // 2
    read = occupied[row * g.Sh - g.Ph :][: g.Kh]
    one = work(g._replace(H=g.Kh, Ph=0), read, 1, case.vectors)
    return {
        "layer": workloads.name(layer, g.H), "density": density,
        "visits": visits, "vector multiply-adds": products, "seconds": least,
        "useful": useful_products(layer, x) / (products * case.lanes / case.vectors),
        "instructions": native.instructions(case.described(masks[0]), case.isa, row),
        "of visits": one[0], "of multiply-adds": one[1],
    }  # fmt: skip


def causes(row: Row, per_product: float) -> dict[str, float]:
    """Seconds of a call by cause."""
    t, done = row["seconds"], row["vector multiply-adds"] * per_product
    fresh = t["fresh"] - t["old"]
    parts = (
        done, t["all"] - t["empty"] - done, t["empty"], t["activations"] - t["all"],
        t["even"] - t["activations"], t["as it is"] - t["even"], t["encoding"], fresh,
        t["call"] - t["repeated"] - t["encoding"] - fresh,
    )  # fmt: skip
    return dict(zip(CAUSES, parts, strict=True))


def shares(row: Row, cycle: float, per_product: float) -> Row:
    """A row as it is shown: shares in percent of the call."""
    t, counted, parts = row["seconds"], row["instructions"] > 0, causes(row, per_product)
    return {
        "µs": 1e6 * sum(parts.values()),
        "cycles / visit": t["as it is"] / cycle / row["visits"],
        "cycles / vector multiply-add": t["as it is"] / cycle / row["vector multiply-adds"],
        "instructions / visit": row["instructions"] / row["of visits"] if counted else None,
        "multiply-adds / instruction": (
            row["of multiply-adds"] / row["instructions"] if counted else None
        ),
        "useful %": 100 * row["useful"],
        "repeated %": 100 * (1 - t["repeated"] / t["as it is"]),
        **{f"{k} %": 100 * v / sum(parts.values()) for k, v in parts.items()},
    }


def rounded(line: Row) -> Row:
    def short(key: str, value: Any) -> Any:
        if not isinstance(value, float):
            return value
        return round(value) if key.endswith("%") else round(value, 2)

    return {key: short(key, value) for key, value in line.items()}


def classes(rows: list[Row], cycle: float, per_product: float) -> list[Row]:
    """Means over the layers of each class and density."""
    lines = []
    for name in dict.fromkeys(row["class"] for row in rows):
        for density in dict.fromkeys(row["nominal"] for row in rows):
            mine = [r for r in rows if (r["class"], r["nominal"]) == (name, density)]
            shown = [shares(row, cycle, per_product) for row in mine]
            means = {
                key: float(np.mean([line[key] for line in shown]))
                for key in shown[0]
                if key != "µs" and all(line[key] is not None for line in shown)
            }
            lines.append(rounded({"class": name, "layers": len(mine), "density": density} | means))
    return lines


def shares_figure(folder: Path, name: str, lines: list[Row]) -> list[Figure]:
    """The shares of a call's time by cause, for each class and density."""
    bars = {
        f"{line['class']}, density {line['density']}": {c: line[f"{c} %"] for c in CAUSES}
        for line in lines
    }
    figures.bars(folder / f"{name}.png", bars, "% of the time of a call", stacked=True)
    return [Figure(f"{name}.png", "Where the time of a call goes, by class of layers")]


def main(arguments: list[str]) -> None:
    parser = report.parser("bottlenecks", __doc__)
    parser.add_argument("--isa", choices=_config.ISA_NAMES, help="instead of the widest")
    options = report.parse(parser, arguments)
    rounds = min(options.rounds, 3) if options.quick else 9 * options.rounds
    level = options.isa or _config.ISA_NAMES[_config.isa()]
    torch.manual_seed(0)
    rows = []
    with tempfile.TemporaryDirectory() as folder, num_threads(1), _config.use_isa(level):
        native = build(Path(folder), ["-std=c++17", "-O2", "-Wno-psabi"] if options.quick else None)
        cycle, per_product = clock(native)
        cases = [
            (key, shape, d) for key, shapes in LAYERS.items() for shape in shapes for d in DENSITIES
        ]
        for key, shape, density in report.progress(QUICK if options.quick else cases, "layers"):
            inputs, outputs, size, height, width, stride = shape
            layer = workloads.conv(inputs, outputs, (height, width), stride)
            row = measure(native, layer, workloads.activation(inputs, size, density), rounds)
            rows.append({"class": key, "nominal": density, **row})
    lines = [
        rounded({"layer": r["layer"], "density": r["nominal"]} | shares(r, cycle, per_product))
        for r in rows
    ]
    name = f"bottlenecks_{options.isa}" if options.isa else "bottlenecks"
    means = classes(rows, cycle, per_product)
    page = {
        "Rate": (
            f"{1e-9 / cycle:.2f} GHz; one {level} multiply-add from registers takes "
            f"{per_product / cycle:.2f} cycles."
        ),
        "Classes of layers (means)": report.table(means),
    }
    report.write(
        options, __doc__, page, layers={"Layers": report.table(lines)},
        data={"rows": rows, "cycle seconds": cycle, "multiply-add seconds": per_product},
        figures=figures.drawn(shares_figure, options.out, name, means), name=name,
    )  # fmt: skip
