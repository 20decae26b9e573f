"""See the whole of jsc work on real images in about ninety seconds on two cores.

Trains a small network, reads off how sensitive its loss is to each DCT coefficient, trains the same
network again together with the tables of a JPEG layer, compiles the result and compares.
The same seed gives the same accuracies and tables, bit for bit, at the same number of threads."""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jsc._progress import Progress
from jsc.cli.demo import data, report, training
from jsc.cli.demo.network import QUICK_STAGES, STAGES, make_network
from jsc.jpeg import sensitivity
from jsc.network import CompiledNetwork, compile
from jsc.nn import JPEG
from jsc.tuning.timing import interleaved

HELP = "train with and without a JPEG layer on real images, then compile"
EPOCHS = 6
BATCH = 64
Q_MAX = 5.0  # largest step of the initial tables: the method's recommendation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="images as DIR/<class>/*.{jpg,png}"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw a figure (.png, .pdf, .svg)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default 0")
    parser.add_argument("--epochs", type=int, metavar="N", help=f"default {EPOCHS}")
    parser.add_argument("--quick", action="store_true", help="a few seconds, untrained for show")


def run(options: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    """The demo, step by step."""
    start = time.perf_counter()
    epochs = options.epochs if options.epochs is not None else 2 if options.quick else EPOCHS
    if epochs < 1:
        raise ValueError(f"--epochs must be at least 1, got {epochs}")
    if not 0 <= options.seed < 2**63:
        raise ValueError(f"--seed must be from 0 to 2^63 - 1, got {options.seed}")
    stages = QUICK_STAGES if options.quick else STAGES
    limit = 320 if options.quick else None
    generator = torch.Generator().manual_seed(options.seed)
    if options.data:
        task = data.image_folder(options.data, generator, limit)
    else:
        task = data.digits_on_photographs(generator, limit)
    print(
        f"{task.name}: {len(task.train_y)} training and {len(task.test_y)} test images, "
        f"{len(task.classes)} classes, {torch.get_num_threads()} threads"
    )

    report.heading(1, f"Train a plain network, {epochs} epochs.")
    plain = make_network(len(task.classes), options.seed, stages)
    plain_curve = _train("plain network", plain, task, epochs, options.seed, None)

    report.heading(2, "Sensitivity of its loss to every DCT coefficient -> tables of a JPEG layer.")
    loader = [
        (task.train_x[i : i + 64], task.train_y[i : i + 64])
        for i in range(0, len(task.train_y), 64)
    ]
    layer = JPEG.from_sensitivity(sensitivity(plain, loader, F.cross_entropy), q_max=Q_MAX)
    before = layer.tables.detach().clone()

    report.heading(3, f"Train the same network and the tables together, {epochs} epochs.")
    network = nn.Sequential()
    network.add_module("jpeg", layer)
    network.add_module("net", make_network(len(task.classes), options.seed, stages))
    jpeg_curve = _train("network and tables", network, task, epochs, options.seed, layer.tables)
    after = layer.tables.detach().clone()
    report.print_tables(before, after)

    report.heading(4, "Compile the trained network: one native program for inference.")
    network.eval()
    batch = task.test_x[:BATCH]
    fast = compile(network, batch, budget=2 if options.quick else 15)
    agreement = _agreement(network, fast, task.test_x)
    compiled = _times(network, fast, batch, 3 if options.quick else 15)
    print(fast)
    report.print_times(compiled)

    figures = {
        "task": task.name,
        "seed": options.seed,
        "epochs": epochs,
        "plain": vars(plain_curve),
        "jpeg": vars(jpeg_curve),
        "tables_before": before.tolist(),
        "tables_after": after.tolist(),
        "compiled": compiled,
        "agreement": agreement,
        "seconds": time.perf_counter() - start,
    }
    if options.plot:
        from jsc.cli.demo.plot import draw

        draw(options.plot, figures, before, after)
        print(f"\nFigure: {options.plot}")
    print(f"\n{report.closing_line(figures)}")
    return 0, figures


def _train(
    what: str,
    model: nn.Module,
    task: data.Task,
    epochs: int,
    seed: int,
    tables: nn.Parameter | None,
) -> training.Curve:
    with Progress(what, epochs * training.steps_per_epoch(task)) as bar:
        curve = training.train(model, task, epochs, seed, bar, tables)
    print(f"   accuracy on test images: {100 * curve.accuracy[-1]:.1f} %")
    return curve


def _times(model: nn.Module, fast: CompiledNetwork, batch: Tensor, rounds: int) -> dict[str, float]:
    """Milliseconds for the batch: torch in both memory formats, and compiled."""
    last: Any = copy.deepcopy(model)
    last.to(memory_format=torch.channels_last)
    turned = batch.contiguous(memory_format=torch.channels_last)
    runs = {
        "torch": lambda: model(batch),
        "torch, channels-last": lambda: last(turned),
        "jsc.compile": lambda: fast(batch),
    }
    with torch.no_grad():
        for run in runs.values():
            run()
        times = interleaved(runs, rounds, 10.0, baseline="torch")
    return {name: time.median for name, time in times.items()}


def _agreement(model: nn.Module, fast: nn.Module, x: Tensor) -> float:
    """Share of images for which both networks predict the same class."""
    same = training.scores(model, x).argmax(1) == training.scores(fast, x).argmax(1)
    return float(same.double().mean())
