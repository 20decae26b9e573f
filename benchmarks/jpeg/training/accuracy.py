"""Standard training against JPEG-DL: test accuracy after the last epoch, never that of the best.

Seed by seed, all variants share the augmentation (shift by up to an eighth, mirroring), the
schedule (one-cycle SGD to .1, batch 50, weight decay 5e-4, label smoothing .1), the order of images
and the network's first weights. Tables are trained by Adam. Their sensitivity start comes from the
standard run of the same seed, so that JPEG-DL costs two trainings. Gains are paired by seed, and ±
is the standard deviation over seeds. It leaves out that all seeds share one small test split: a
run's own standard error is 1 to 3 points. Pilots, which have other seeds, were judged on the same
test images.

Weights are float32, the network's convolutions run in bfloat16, the JPEG layer in float32. Finished
runs are kept in `--runs` and are not made again.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch

from benchmarks.common import figures, processes, report
from benchmarks.inputs import image_tasks
from benchmarks.inputs.architectures import ARCHITECTURES
from benchmarks.jpeg.training import figures as training_figures
from benchmarks.jpeg.training import runs as store
from benchmarks.jpeg.training.options import parse
from benchmarks.jpeg.training.variants import CONTROLS, MAIN, VARIANTS, name_of
from jsc._progress import Progress

Record = dict[str, Any]
Run = tuple[str, str, str, int]  # set, architecture, variant, seed
SETS = ["flower_photos5", "flowers12", "cifar10"]
CONTROL_PAIR = ("flower_photos5", "resnet")
PILOT_SEED = 100  # seeds from here on served to choose recipes


def plan(options: argparse.Namespace) -> list[Run]:
    """What to train, the most telling first: all pairs at a seed, its controls, the next seed."""
    found: list[Run] = []
    for seed in options.seeds:
        pairs = [(s, a) for s in options.sets for a in options.architectures]
        main = [variant for variant in options.variants if variant in MAIN]
        rest = [variant for variant in options.variants if variant not in MAIN]
        found += [(s, a, variant, seed) for s, a in pairs for variant in main]
        # controls run on one pair, unless only controls are asked for
        some = [p for p in pairs if p == CONTROL_PAIR] if main else pairs
        found += [(s, a, variant, seed) for s, a in some for variant in rest]
    return found


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
    tasks = {
        name: image_tasks.load(name, options.data, quick=options.quick)
        for name in dict.fromkeys(name for name, *_ in wanted)
    }
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


def mean_std(values: list[float]) -> str:
    deviation = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{deviation}"


def summary(found: list[tuple[Run, Record]]) -> list[Record]:
    """One row per set, architecture and variant; gains over "standard" of the same seeds."""
    accuracy = {run: record["accuracy"] for run, record in found}
    groups: dict[tuple[str, str, str], dict[int, Record]] = {}
    for (*group, seed), record in found:
        groups.setdefault(tuple(group), {})[seed] = record  # type: ignore[arg-type]
    rows = []
    for (name, architecture, variant), by_seed in groups.items():
        row: Record = {
            "set": name, "architecture": architecture, "variant": variant, "seeds": list(by_seed),
            "accuracy": [record["accuracy"] for record in by_seed.values()],
        }  # fmt: skip
        paired = {s: accuracy.get((name, architecture, "standard", s)) for s in by_seed}
        row["gain"] = [
            by_seed[s]["accuracy"] - base for s, base in paired.items() if base is not None
        ]
        for key in ("hard accuracy", "bpp", "saturated"):
            row[key] = [record[key] for record in by_seed.values() if key in record]
        rows.append(row)
    return rows


def ahead(standard: Record, ours: Record) -> bool:
    """Mean gain above one standard deviation: of either variant, and of the paired differences."""
    if min(len(standard["accuracy"]), len(ours["gain"])) < 2:
        return False
    spread = [np.std(v, ddof=1) for v in (standard["accuracy"], ours["accuracy"], ours["gain"])]
    return bool(np.mean(ours["gain"]) > max(spread))


def main_table(rows: list[Record]) -> str:
    lines = []
    for ours in rows:
        if ours["variant"] != "jpeg-dl" or not ours["gain"]:
            continue
        pair = (ours["set"], ours["architecture"])
        standard = next(
            r for r in rows if (r["set"], r["architecture"], r["variant"]) == (*pair, "standard")
        )
        lines.append({
            "set": pair[0], "architecture": pair[1], "seeds": len(ours["gain"]),
            "standard, %": mean_std(standard["accuracy"]), "JPEG-DL, %": mean_std(ours["accuracy"]),
            "gain, points": mean_std(ours["gain"]),
            "by seed": " ".join(f"{g:+.1f}" for g in ours["gain"]),
            "beyond one std": "yes" if ahead(standard, ours) else "no",
        })  # fmt: skip
    return report.table(lines) if lines else ""


def words(rows: list[Record]) -> str:
    """Where JPEG-DL is ahead, and what explains it on the pair that has the controls."""
    standard = {(r["set"], r["architecture"]): r for r in rows if r["variant"] == "standard"}
    verdicts = [
        (f"{pair[0]} {pair[1]} ({np.mean(row['gain']):+.1f})", ahead(standard[pair], row))
        for row in rows
        if row["variant"] == "jpeg-dl" and (pair := (row["set"], row["architecture"])) in standard
    ]
    lines = []
    for beyond, text in ((True, "Ahead beyond one standard deviation"), (False, "Not so")):
        pairs = [name for name, verdict in verdicts if verdict is beyond]
        lines += [f"- {text}: {', '.join(pairs)}."] if pairs else []
    gains = {
        row["variant"]: float(np.mean(row["gain"]))
        for row in rows
        if (row["set"], row["architecture"]) == CONTROL_PAIR and row["gain"]
    }
    gains.pop("standard", None)
    if len(gains) > 1:
        ranked = sorted(gains, key=gains.__getitem__, reverse=True)
        ranking = ", ".join(f"{variant} {gains[variant]:+.1f}" for variant in ranked)
        lines.append(f"- Mean gains on {' '.join(CONTROL_PAIR)}: {ranking}.")
    return "\n".join(lines)


def control_table(rows: list[Record]) -> str:
    lines = []
    for row in rows:
        lines.append({
            "set": row["set"], "architecture": row["architecture"], "variant": row["variant"],
            "what": VARIANTS[row["variant"]].text, "seeds": len(row["accuracy"]),
            "accuracy, %": mean_std(row["accuracy"]),
            "gain, points": mean_std(row["gain"])
            if row["gain"] and row["variant"] != "standard" else None,
            "hard quantizer, %": mean_std(row["hard accuracy"]) if row["hard accuracy"] else None,
            "bpp": mean_std(row["bpp"]) if row["bpp"] else None,
            "saturated, %": mean_std([100 * s for s in row["saturated"]])
            if row["saturated"] else None,
        })  # fmt: skip
    return report.table(lines) if lines else ""


def pilots(kept: store.Runs) -> list[Record]:
    """Runs of seed `PILOT_SEED` and up, which no other table uses."""
    lines = []
    for record in kept.found.values():
        config = record["config"]
        variant = name_of(config["recipe"])
        if config["seed"] >= PILOT_SEED and variant is not None:
            lines.append({
                "set": config["set"], "architecture": config["architecture"],
                "epochs": config["epochs"], "seed": config["seed"], "variant": variant,
                "what": VARIANTS[variant].text, "accuracy, %": round(record["accuracy"], 1),
            })  # fmt: skip
    lines.sort(key=lambda line: [str(line[key]) for key in ("set", "architecture", "epochs")])
    return lines


def budget_table(kept: store.Runs, rows: list[Record]) -> str:
    """What a run costs, from those whose processor time was taken."""
    lines: dict[tuple[str, str], Record] = {}
    for record in kept.found.values():
        config = record["config"]
        pair = (config["set"], config["architecture"])
        if config["seed"] >= PILOT_SEED or pair not in {
            (r["set"], r["architecture"]) for r in rows
        }:
            continue
        line = lines.setdefault(pair, {
            "set": pair[0], "architecture": pair[1], "training images": config["images"][0],
            "test images": config["images"][1], "side": config["side"], "epochs": config["epochs"],
            "core seconds a run": [],
        })  # fmt: skip
        if "cpu seconds" in record:
            line["core seconds a run"].append(record["cpu seconds"])
    for line in lines.values():
        taken = line["core seconds a run"]
        line["core seconds a run"] = f"{np.median(taken):.0f}" if taken else None
    return report.table(list(lines.values())) if lines else ""


def arguments_of(given: list[str]) -> argparse.Namespace:
    parser = report.parser("accuracy", __doc__, timed=False)
    parser.add_argument("--sets", nargs="+", choices=image_tasks.SOURCES, default=SETS)
    parser.add_argument(
        "--architectures", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES)
    )
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=[*MAIN, *CONTROLS])
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no run later")
    return parse(parser, given)


def main(arguments: list[str]) -> None:
    options = arguments_of(arguments)
    torch.set_num_threads(options.threads[0])
    rows = summary(train(options, store.Runs(options.runs)))
    kept = store.Runs(options.runs)  # again: of all processes
    tried = pilots(kept)
    main_rows = [row for row in rows if row["variant"] in MAIN]
    controls = [r for r in rows if (r["set"], r["architecture"]) == CONTROL_PAIR]
    page = {
        "Standard training against JPEG-DL": main_table(main_rows),
        "In words": words(rows),
        "Why": control_table(controls),
        "Hard quantizer swapped in after training": control_table(
            [r for r in main_rows if r["bpp"]]
        ),
        "Pilots, one run each": report.table(tried) if tried else "",
        "Budget": budget_table(kept, rows),
    }
    drawn = figures.drawn(training_figures.accuracies, options.out, main_rows, controls)
    data = {"rows": rows, "pilots": tried}
    report.write(options, __doc__, page, data=data, figures=drawn)
