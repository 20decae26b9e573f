"""More zeros on purpose: accuracy against density of the activations against time.

A ResNet pretrained on CIFAR-10 gets thresholds (`jsc.sparsify`: FATReLU), a penalty on activations
that are not zero (`jsc.HoyerSquare`), or both, and is fine-tuned on 3,600 training images. All arms
have the same budget, images and order. "ReLU", fine-tuned alike, is what they are compared with.
Density is the share of multiply-adds whose activation is not zero. Accuracy is that of 1,000 test
images: its standard error is 0.9 points at 90 %. Choices (the learning rate, the arm that is
quoted) were made on 400 held-out training images. The pretrained network had seen all of these,
so that validation accuracy is too good for all arms, and most for those that stay near to it.

Times are those of one batch on one thread: "torch" is the faster of NCHW and channels-last, "cpc"
has a `jsc.nn.SparseConv2d` for every convolution but the first, "tuned" is `jsc.tune` and
`jsc.apply` (the live way), "compiled" is `jsc.compile`; with these two a convolution passes over
zeros where that is faster. Every way is checked against float64 first. "gain" is the time of the
fine-tuned ReLU network over that of the arm, run the same way.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import report
from benchmarks.common.harness import num_threads
from benchmarks.common.kept import Runs
from benchmarks.inputs import networks
from benchmarks.networks import sparsity_page as page
from benchmarks.networks import sparsity_times as times
from benchmarks.networks import sparsity_training as training
from benchmarks.networks.sparsity_training import Arm
from jsc._progress import Progress

Row = dict[str, Any]
NETWORKS = ("resnet20_cifar10", "resnet56_cifar10")
DENSITIES = (0.4, 0.3, 0.2, 0.1)
PENALTIES = (1.0, 3.0, 10.0)
BOTH = ((0.3, 3.0),)
PILOTS = (Arm(0.3, 0.0, 2, 0.02), Arm(0.3, 0.0, 2, 0.005))  # the better on validation gave RATE
RATE = 0.02
BASELINE = Arm().name
EPOCHS = 2


def arms(epochs: int) -> list[Arm]:
    """The most telling first: a run that is stopped leaves a curve."""
    found = [Arm(None, 0.0, epochs, RATE), Arm()]
    found += [Arm(density, 0.0, epochs, RATE) for density in DENSITIES]
    found += [Arm(None, penalty, epochs, RATE) for penalty in PENALTIES]
    found += [Arm(density, penalty, epochs, RATE) for density, penalty in BOTH]
    return found + [Arm(density) for density in DENSITIES]


def train(options: argparse.Namespace, kept: Runs, sets: training.Images) -> list[Row]:
    """A row for each network and arm; runs that are kept are not made again.

    When the minutes are over, none is begun but that of the baseline.
    """
    end = time.monotonic() + 60 * options.minutes
    planned = [(name, arm) for name in options.networks for arm in arms(options.epochs)]
    rows = []
    steps = len(sets.train.y) // min(training.image_tasks.BATCH, len(sets.train.y))
    with Progress("sparsity: batches", steps * sum(a.epochs for _, a in planned)) as bar:
        for name, arm in planned:
            config = training.configuration(name, arm, options.seed, sets.train)
            late = arm.name != BASELINE and time.monotonic() > end
            if late and kept.get(config) is None:
                print(f"{name}, {arm.name} is left: start again to go on")
                continue
            record = training.run(kept, options.data, name, arm, options.seed, sets, bar.step)
            rows.append({
                "network": name, "arm": arm.name, "kind": arm.kind, "epochs": arm.epochs,
                **{key: record[key] for key in ("density", "validation", "test", "cpu seconds")},
            })  # fmt: skip
    return rows


def time_arms(
    options: argparse.Namespace, kept: Runs, sets: training.Images, rows: list[Row]
) -> None:
    """Adds "times" to the rows of the arms that were trained, and of the network as it was."""
    for name in options.networks:
        found = {row["arm"] for row in rows if row["network"] == name and row["epochs"]}
        models = {
            arm.name: training.trained(kept, options.data, name, arm, options.seed, sets.train)
            for arm in arms(options.epochs)
            if arm.epochs and arm.name in found
        }
        step = max(1, len(sets.test.y) // options.batch)
        x = training.normalised(sets.test.x[::step][: options.batch]).contiguous()
        with num_threads(1), torch.no_grad():
            taken = times.measure(models, x, options.rounds, options.budget)
        for row in rows:
            if row["network"] == name and row["epochs"]:
                row["times"] = taken[row["arm"]]


def pilots(options: argparse.Namespace, kept: Runs, sets: training.Images) -> list[Row]:
    found = []
    for name in options.networks:
        for arm in PILOTS:
            record = kept.get(training.configuration(name, arm, options.seed, sets.train))
            if record is not None:
                found.append({
                    "network": name, "arm": arm.name, "learning rate": arm.rate,
                    "validation, %": round(record["validation"], 1),
                })  # fmt: skip
    return found


def arguments_of(given: list[str]) -> argparse.Namespace:
    parser = report.parser("sparsity", __doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=[NETWORKS[0]])
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of fine-tuning")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=16, help="images a timed call")
    parser.add_argument("--budget", type=float, default=20, help="seconds to tune a network")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no run later")
    parser.add_argument(
        "--no-times", dest="timed", action="store_false", help="train only, on a busy machine"
    )
    parser.add_argument("--runs", type=Path, default=Path("out") / "sparsity", help="finished runs")
    options = report.parse(parser, given)
    if options.data is None:
        parser.error("--data DIR is needed: the folder with weights/ and images/")
    if options.quick:
        options.runs, options.rounds, options.budget = options.runs / "quick", 3, 0.5
        options.epochs, options.batch = 1, 4
    return options


def main(arguments: list[str]) -> None:
    options = arguments_of(arguments)
    torch.set_num_threads(1)
    options.threads = [1]
    kept = Runs(options.runs)
    for name in options.networks:
        networks.load(options.data, name)  # a missing file is an error before anything is trained
    sets = training.images(options.data, quick=options.quick)
    rows = train(options, kept, sets)
    if options.timed:
        time_arms(options, kept, sets, rows)
    page.write(options, __doc__ or "", rows, pilots(options, kept, sets))
