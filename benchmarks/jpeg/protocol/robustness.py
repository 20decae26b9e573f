"""The robustness claim of the JPEG-DL paper: CIFAR ResNets under attack, standard against JPEG-DL.

Pretrained CIFAR-10 ResNets are fine-tuned, and one is trained from scratch, in four arms alike:
images, their order, augmentation, steps and first weights of a seed are the same. `authors` is the
paper's operator (window 5, 127 levels, alpha 5, tables from the measured sensitivity, Adam .003);
`saturation` has its first tables and its limit of levels but rounds nothing; `zero-dc` takes block
means off. Only 4,000 training images are in the data folder: networks from scratch are weak. The
last 500 of them choose each arm's rate, never the test images; the pretrained networks have seen
them.

FGSM and PGD-5 (steps of epsilon / 2, random start) are those of the authors' script: maximum norm,
ten epsilons from 1 to 4/255, white box through the layer. The stronger ones ask what is left: PGD
with 50 steps and several starts; BPDA (the identity as the layer's derivative); Square, which sees
scores alone; transfer from the standard network of the same seed, which began with the same
weights. "worst" counts an image only if
it withstood every attack at that or a smaller epsilon: it decides.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

import torch

from benchmarks.common import figures, report
from benchmarks.jpeg.protocol import drawing, models, pages, suite
from benchmarks.jpeg.training import runs as store
from benchmarks.jpeg.training.options import parse
from jsc._progress import Progress

Run = tuple[str, int, str]  # recipe, seed, arm
Row = dict[str, Any]


def plan(options: argparse.Namespace) -> list[Run]:
    """The most telling first: all arms of the first network and seed, the other seeds of the two
    main arms, the other networks, what is left."""
    first, *networks = options.networks
    seed, *seeds = options.seeds
    main = [arm for arm in options.arms if arm in models.MAIN]
    found = [(first, seed, arm) for arm in options.arms]
    found += [(first, s, arm) for s in seeds for arm in main]
    found += [(network, seed, arm) for network in networks for arm in main]
    everything = [
        (n, s, arm) for n in options.networks for s in options.seeds for arm in options.arms
    ]
    return list(dict.fromkeys(found + everything))


def attack(options: argparse.Namespace, kept: store.Runs) -> list[Row]:
    """One row for each network, seed and arm, first on the images that meet every attack, then on
    the others. What is not done when the minutes are over is left out, and made when the command is
    started again."""
    task = models.load_task(options.data, quick=options.quick)
    end = time.monotonic() + 60 * options.minutes

    def in_time() -> bool:
        return time.monotonic() < end

    trainer = models.Trainer(kept, task, options.data, in_time)
    wanted = plan(options)
    budgets = {n: suite.QUICK if options.quick else suite.BUDGETS[n] for n in options.networks}
    blocks = [(run, suite.plan(budgets[run[0]], run[2])) for run in wanted]
    rows: dict[Run, Row] = {}
    with Progress("robustness: attacked blocks", sum(len(tasks) for _, tasks in blocks)) as bar:
        for first_images in (True, False):
            for run, tasks in blocks:
                name, seed, arm = run
                budget = budgets[name]
                recipe = replace(models.RECIPES[name], **({"epochs": 1} if options.quick else {}))
                try:
                    pair = [trainer.trained(recipe, a, seed) for a in (arm, suite.STANDARD)]
                except models.NotMade:
                    continue
                victim, source = (suite.Victim(t, task.test, seed, budget.queries) for t in pair)
                row = rows.setdefault(run, row_of(run, pair[0]))
                for block in tasks:
                    if (block.first < budget.heavy) is first_images:
                        held = suite.attack(kept, victim, source, block, in_time)
                        if held is not None:
                            bar.step(f"{name} {arm} seed {seed}: {block.attack}")
                            join(row["held"], block, held)
    if bar.done < bar.total:
        print(f"{bar.total - bar.done} blocks are left: start again to go on")
    return list(rows.values())


def row_of(run: Run, trained: models.Trained) -> Row:
    name, seed, arm = run
    return {
        "network": name, "arm": arm, "seed": seed, "rate": trained.rate,
        "validation": trained.validation, "clean": trained.accuracy,
        "core seconds": trained.seconds, "held": {},
    }  # fmt: skip


def join(held: dict[str, dict[float, str]], block: suite.Block, new: str) -> None:
    """`held` with one more block; a block after a gap is left out."""
    by_epsilon = held.setdefault(block.attack, {})
    before = by_epsilon.get(block.epsilon, "")
    if len(before) == block.first:
        by_epsilon[block.epsilon] = before + new


def arguments_of(given: list[str]) -> argparse.Namespace:
    parser = report.parser("robustness", __doc__, timed=False)
    parser.add_argument(
        "--networks", nargs="+", choices=models.RECIPES, default=list(models.RECIPES)
    )
    parser.add_argument("--arms", nargs="+", choices=models.ARMS, default=list(models.ARMS))
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="begin nothing new later"
    )
    return parse(parser, given)


def main(arguments: list[str]) -> None:
    options = arguments_of(arguments)
    torch.set_num_threads(options.threads[0])
    kept = store.Runs(options.runs)
    rows = attack(options, kept)
    if suite.square_attack() is None:
        print("pyautoattack is not installed: no Square (pip install 'jsc-torch[attacks]')")
    drawn = figures.drawn(drawing.attacked, options.out, rows)
    report.write(options, __doc__, pages.sections(rows), data={"rows": rows}, figures=drawn)
