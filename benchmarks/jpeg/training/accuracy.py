"""Standard training against JPEG-DL: test accuracy after the last epoch, never that of the best.

Seed by seed, all variants share the augmentation (shift by up to an eighth, mirroring), the
schedule (one-cycle SGD to .1, batch 50, weight decay 5e-4, label smoothing .1), the order of images
and the network's first weights. Tables are trained by Adam. Their sensitivity start comes from the
standard run of the same seed, so that JPEG-DL costs two trainings. Gains are paired by seed and by
image; ± after a gain is half its 95 % interval, the wider of two: over seeds (Student's t) and over
the test images, which all seeds share. ± after an accuracy is the standard deviation over seeds.
Three simpler front ends stand beside JPEG-DL on every pair: `fixed tables` are its first ones, not
trained; `saturation` has them and the same limit of levels, and rounds nothing; `local contrast`
knows nothing of JPEG: pixels less their surroundings, over their deviation. The recipe was chosen
with another seed, judged on test images of flower_photos5, flowers12 and cifar10 with `resnet` and
`vgg`: those pairs may flatter it. tinyimagenet20 and `resnet18` (of a quarter of the width) took no
part in it.

Weights are float32, the network's convolutions run in bfloat16, the JPEG layer in float32. Finished
runs are kept in `--runs` and are not made again. Longer training (`--longer`) and images of another
size (`--side`) make a page of their own.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import torch

from benchmarks.common import figures, processes, report
from benchmarks.inputs import image_tasks
from benchmarks.inputs.architectures import ARCHITECTURES
from benchmarks.jpeg.training import accuracy_page as page
from benchmarks.jpeg.training import figures as training_figures
from benchmarks.jpeg.training import runs as store
from benchmarks.jpeg.training.accuracy_page import Record, Run
from benchmarks.jpeg.training.options import parse
from benchmarks.jpeg.training.variants import CONTROLS, MAIN, VARIANTS
from jsc._progress import Progress

SETS = ["flower_photos5", "flowers12", "tinyimagenet20", "cifar10"]


def plan(options: argparse.Namespace) -> list[Run]:
    """What to train, the most telling first: all pairs at a seed, its controls, the next seed."""
    found: list[Run] = []
    for seed in options.seeds:
        pairs = [(s, a) for s in options.sets for a in options.architectures]
        main = [variant for variant in options.variants if variant in MAIN]
        rest = [variant for variant in options.variants if variant not in MAIN]
        found += [(s, a, variant, seed) for s, a in pairs for variant in main]
        # controls run on one pair, unless only controls are asked for
        some = [p for p in pairs if p == page.CONTROL_PAIR] if main else pairs
        found += [(s, a, variant, seed) for s, a in some for variant in rest]
    return found


def task(name: str, options: argparse.Namespace) -> image_tasks.Task:
    found = image_tasks.load(name, options.data, quick=options.quick, side=options.side)
    return replace(found, epochs=found.epochs * options.longer)


def steps(task: image_tasks.Task) -> int:
    return task.epochs * (len(task.train.y) // min(image_tasks.BATCH, len(task.train.y)))


def train(options: argparse.Namespace, kept: store.Runs) -> list[tuple[Run, Record]]:
    """Every planned run's record, in order; stops early when the minutes are spent."""
    wanted = plan(options)
    # The start of JPEG-DL comes from the standard run of its seed: the two go together.
    groups = list(dict.fromkeys((s, a, seed) for s, a, _, seed in wanted))
    own = set(processes.share(groups))
    made = train_own(options, kept, [run for run in wanted if (run[0], run[1], run[3]) in own])
    found = {run: record for part in processes.gathered(made) for run, record in part}
    if len(found) < len(wanted):
        print(f"{len(wanted) - len(found)} runs are left: start again to go on")
    return [(run, found[run]) for run in wanted if run in found]


def train_own(
    options: argparse.Namespace, kept: store.Runs, wanted: list[Run]
) -> list[tuple[Run, Record]]:
    """The part of `train` that is this process's."""
    tasks = {name: task(name, options) for name in dict.fromkeys(name for name, *_ in wanted)}
    end = time.monotonic() + 60 * options.minutes
    found = []

    def known(run: Run) -> Record | None:
        name, architecture, variant, seed = run
        config = store.configuration(tasks[name], architecture, VARIANTS[variant], seed)
        return kept.get(config)

    missing = [run for run in wanted if known(run) is None]
    total = sum(steps(tasks[name]) for name, *_ in missing)
    with Progress("accuracy: batches", total, enabled=processes.first()) as bar:
        for run in wanted:
            name, architecture, variant, seed = run
            record = known(run)
            if record is None:
                if time.monotonic() > end:
                    continue
                words = f"{name} {architecture} {variant} seed {seed}"
                record, _ = store.run(
                    kept, tasks[name], architecture, VARIANTS[variant], seed,
                    lambda note, words=words: bar.step(f"{words}: {note}"),
                )  # fmt: skip
            found.append((run, record))
    return found


def arguments_of(given: list[str]) -> argparse.Namespace:
    parser = report.parser("accuracy", __doc__, timed=False)
    parser.add_argument("--sets", nargs="+", choices=image_tasks.SOURCES, default=SETS)
    parser.add_argument(
        "--architectures", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES)
    )
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=[*MAIN, *CONTROLS])
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no run later")
    parser.add_argument("--longer", type=int, default=1, metavar="N", help="times the epochs")
    parser.add_argument("--side", type=int, help="of the images, in pixels, in place of the set's")
    return parse(parser, given, seeds=5)


def main(arguments: list[str]) -> None:
    options = arguments_of(arguments)
    torch.set_num_threads(options.threads[0])
    usual = options.longer == 1 and options.side is None
    name = "accuracy" if usual else "accuracy_longer"
    found = train(options, store.Runs(options.runs))
    rows = page.summary(found)
    tried = page.pilots(store.Runs(options.runs)) if usual else []  # of all processes
    main_rows = [row for row in rows if row["variant"] in MAIN]
    controls = [r for r in rows if (r["set"], r["architecture"]) == page.CONTROL_PAIR]
    sections = {
        "Standard training against JPEG-DL": page.main_table(main_rows),
        "In words": page.words(rows),
        "Why": page.control_table(controls),
        "Hard quantizer swapped in after training": page.control_table(
            [r for r in main_rows if r["bpp"]]
        ),
        "Pilots, one run each": report.table(tried) if tried else "",
        "Budget": page.budget_table(found),
    }
    drawn = figures.drawn(training_figures.accuracies, options.out, name, main_rows, controls)
    data = {"rows": rows, "pilots": tried}
    report.write(options, __doc__, sections, data=data, figures=drawn, name=name)
