"""Networks from a file to the first answer, each time in a new process.

jsc reads what `CompiledNetwork.save` wrote, after `--budget` seconds of tuning; ONNX Runtime and
OpenVINO read an ONNX file, and choose and pack what they run each time. "import" is that of the
runtime, for jsc beyond torch's own. "memory" is by how much the most memory that the process has
had grew from before the import until after the answer: code, weights as they are read and as they
are packed, maps. Times are medians of processes that take turns. An answer that is wrong is not
timed.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

import jsc
from benchmarks.common import figures, report
from benchmarks.common.harness import max_error
from benchmarks.common.report import Figure
from benchmarks.networks.networks import TOLERANCE, cases
from benchmarks.peers import runtimes

PARTS = ("import", "load", "first answer")
Row = dict[str, Any]


def first_answer(runtime: str, file: Path, given: Path, threads: int) -> tuple[list[float], Any]:
    answer = given.with_name("answer.npy")
    module = "benchmarks.networks.first_answer"
    command = [sys.executable, "-W", "ignore", "-m", module, runtime, file, given, threads, answer]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{runtime}: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.splitlines()[-1]), torch.from_numpy(np.load(answer))


def measure(
    name: str, make: Any, options: argparse.Namespace, folder: Path, threads: int
) -> list[Row]:
    model, (x, *_) = make()
    exact = copy.deepcopy(model).double()(x.double())
    net = jsc.compile(model, x, budget=options.budget, check=False, progress=False)
    net(x)
    files = {"jsc": folder / f"{name}.jsc"}
    net.save(files["jsc"])
    if not runtimes.missing():
        plain, *_ = runtimes.export(model, x, folder / name)
        files |= {"ORT": plain, "OpenVINO": plain}
    given = folder / "given.npy"
    np.save(given, x.numpy())
    found: dict[str, list[list[float]]] = {runtime: [] for runtime in files}
    for _ in range(options.rounds):
        for runtime, file in files.items():
            seconds, y = first_answer(runtime, file, given, threads)
            if not max_error(y, exact) <= TOLERANCE:
                raise AssertionError(f"{name}: {runtime} is {max_error(y, exact):.1e} off")
            found[runtime].append(seconds)
    return [
        {
            "network": name, "runtime": runtime, "threads": threads,
            "MB": files[runtime].stat().st_size / 1e6,
            **{f"{part}, s": round(median(s[i] for s in runs), 3) for i, part in enumerate(PARTS)},
            "together, s": round(median(sum(s[:3]) for s in runs), 3),
            "memory, MB": round(median(s[3] for s in runs), 1),
        }
        for runtime, runs in found.items()
    ]  # fmt: skip


def by_network(rows: list[Row]) -> list[Row]:
    """A line for each network: jsc's parts, and all of each runtime."""
    lines: dict[tuple[str, int], Row] = {}
    for row in rows:
        key = (row["network"], row["threads"])
        line = lines.setdefault(key, {"network": key[0], "threads": key[1]})
        if row["runtime"] == "jsc":
            line |= {"MB": round(row["MB"], 1)}
            line |= {f"jsc {part}, s": row[f"{part}, s"] for part in PARTS}
        line[f"{row['runtime']}, s"] = row["together, s"]
        line[f"{row['runtime']} memory, MB"] = row["memory, MB"]
    return [dict(sorted(line.items(), key=_times_first)) for line in lines.values()]


def _times_first(cell: tuple[str, Any]) -> bool:
    return cell[0].endswith("memory, MB")


def draw(rows: list[Row], folder: Path) -> list[Figure]:
    bars: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["threads"] == rows[0]["threads"]:
            bars.setdefault(row["network"], {})[row["runtime"]] = row["together, s"]
    figures.bars(folder / "load.png", bars, "seconds")
    return [Figure("load.png", "From the runtime's import to the first answer")]


def main(arguments: list[str]) -> None:
    parser = report.parser("load", __doc__)
    parser.add_argument("--networks", nargs="+", default=[], metavar="NAME", help="only these")
    parser.add_argument("--budget", type=float, default=5, help="seconds to tune a network")
    options = report.parse(parser, arguments)
    if options.quick:
        options.rounds, options.budget = min(options.rounds, 2), min(options.budget, 1)
    torch.manual_seed(0)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for threads in options.threads:
            torch.set_num_threads(threads)
            for _, name, make in report.progress(cases(options, 1), "load"):
                rows += measure(name, make, options, Path(folder), threads)
    page = {
        "From the import to the first answer": report.table(by_network(rows)),
        "Parts": report.table(rows),
    }
    missing = runtimes.missing()
    if missing:
        page["Left out"] = f"not installed: {', '.join(missing)}"
    drawn = figures.drawn(draw, rows, options.out)
    report.write(options, __doc__, page, data={"rows": rows}, figures=drawn)
