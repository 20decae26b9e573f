"""Small networks of `accuracy` under attack, standard training against JPEG-DL.

FGSM and PGD in the maximum norm; `robustness` has the paper's own protocol on pretrained networks.

The images are the whole test split, and the networks those of the runs of `accuracy` (trained if
they are missing), all in float32. White-box attacks differentiate through the JPEG layer. BPDA runs
the layer forward and takes the identity backward: where it finds more errors, the layer masks
gradients. Transfer takes the images that PGD-20 made against the standard network of the same seed.
"worst" counts an image only if it withstood every attack at that epsilon, so compare variants by
that line.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import figures, report
from benchmarks.inputs import image_tasks
from benchmarks.inputs.architectures import ARCHITECTURES
from benchmarks.jpeg.training import attacks, loop
from benchmarks.jpeg.training import figures as training_figures
from benchmarks.jpeg.training import runs as store
from benchmarks.jpeg.training.options import parse
from benchmarks.jpeg.training.variants import VARIANTS
from jsc._progress import Progress

EPSILONS = (1, 2, 3, 4)  # of 255
PGD_STEPS = (5, 20)
WORST = "worst"
Row = dict[str, Any]


def right(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(1) == y


def masked(model: loop.Classifier) -> Callable[[Tensor], Tensor]:
    """The same scores, with the identity as the layer's derivative."""
    layer = attacks.Bypass(model.layer)
    return lambda x: model.classify(layer(x))


def attack_all(
    model: loop.Classifier,
    baseline: loop.Classifier,
    x: Tensor,
    y: Tensor,
    seed: int,
    bar: Progress,
) -> dict[str, list[float]]:
    """attack -> accuracy in per cent at each of `EPSILONS`; images already wrong stay wrong."""
    ways: dict[str, Callable[[Tensor], Tensor]] = {"white box": model}
    if len(model.layer):
        ways["BPDA"] = masked(model)
    clean = right(model, x, y)
    found: dict[str, list[float]] = {}
    for epsilon in EPSILONS:
        size, worst = epsilon / 255, clean.clone()

        def count(name: str, made: Tensor, worst: Tensor = worst) -> None:
            held = clean.clone()
            held[clean] = right(model, made, y[clean])
            worst &= held
            found.setdefault(name, []).append(100 * float(held.double().mean()))
            bar.step(name)

        for way, through in ways.items():
            count(f"FGSM, {way}", attacks.fgsm(through, x[clean], y[clean], size))
            for steps in PGD_STEPS:
                generator = torch.Generator().manual_seed(seed)
                made = attacks.pgd(through, x[clean], y[clean], size, steps, generator)
                count(f"PGD-{steps}, {way}", made)
        if model is not baseline:
            generator = torch.Generator().manual_seed(seed)
            made = attacks.pgd(
                baseline, x[clean], y[clean], size, PGD_STEPS[-1], generator, stop=False
            )
            count(f"PGD-{PGD_STEPS[-1]}, transfer", made)
        found.setdefault(WORST, []).append(100 * float(worst.double().mean()))
    return found


def attack(options: argparse.Namespace, kept: store.Runs) -> list[Row]:
    """One row per set, architecture, variant and seed."""
    variants = list(dict.fromkeys(["standard", *options.variants]))
    ways = len(PGD_STEPS) + 1
    a_run = len(EPSILONS) * (ways + (len(variants) - 1) * (2 * ways + 1))
    runs = [(s, a, n) for n in options.seeds for s in options.sets for a in options.architectures]
    rows: list[Row] = []
    with Progress("robustness_small: attacks", a_run * len(runs)) as bar:
        for name, architecture, seed in runs:
            task = image_tasks.load(name, options.data, quick=options.quick)
            x, y = image_tasks.to_float(task.test.x), task.test.y
            models = {}
            for variant in variants:
                trained = VARIANTS[variant]
                model = store.model_of(kept, task, architecture, trained, seed, lambda _: None)
                model.fast = False
                models[variant] = model
                made = attack_all(model, models["standard"], x, y, seed, bar)
                clean = 100 * float(right(model, x, y).double().mean())
                rows.append({
                    "set": name, "architecture": architecture, "variant": variant, "seed": seed,
                    "clean": clean, "attacked": made,
                })  # fmt: skip
    return rows


def table(rows: list[Row]) -> str:
    """Means over seeds; a line for each variant and attack."""
    lines = []
    for group in dict.fromkeys((r["set"], r["architecture"], r["variant"]) for r in rows):
        mine = [r for r in rows if (r["set"], r["architecture"], r["variant"]) == group]
        for name in mine[0]["attacked"]:
            values = np.mean([r["attacked"][name] for r in mine], 0)
            line = dict(zip(("set", "architecture", "variant"), group, strict=True))
            line |= {
                "attack": name,
                "seeds": len(mine),
                "clean": np.mean([r["clean"] for r in mine]),
            }
            line |= {f"{e}/255": float(v) for e, v in zip(EPSILONS, values, strict=True)}
            lines.append({k: float(v) if k == "clean" else v for k, v in line.items()})
    return report.table([
        {k: f"{v:.1f}" if isinstance(v, float) else v for k, v in line.items()} for line in lines
    ])  # fmt: skip


def words(rows: list[Row]) -> str:
    """What the table says: who withstands more, and whether the layer masks gradients."""
    lines = []
    for name, architecture, variant in dict.fromkeys(
        (r["set"], r["architecture"], r["variant"]) for r in rows
    ):
        if variant == "standard":
            continue

        def mean(of: str, attack: str, pair: tuple[str, str] = (name, architecture)) -> np.ndarray:
            wanted = (*pair, of)
            mine = [r for r in rows if (r["set"], r["architecture"], r["variant"]) == wanted]
            return np.mean([r["attacked"][attack] for r in mine], 0)

        gain = mean(variant, WORST) - mean("standard", WORST)
        line = (
            f"- {name}, {architecture}, {variant}: {_signed(gain)} points against standard at "
            f"epsilon {', '.join(map(str, EPSILONS))}/255, worst of all attacks."
        )
        for kind in ("FGSM", f"PGD-{PGD_STEPS[-1]}"):
            gap = mean(variant, f"{kind}, white box") - mean(variant, f"{kind}, BPDA")
            line += f" {kind} leaves {_signed(gap)} more as white box than by BPDA"
            line += ": masked gradients." if gap.max() > 1 else ": no sign of masked gradients."
        lines.append(line)
    return "\n".join(lines)


def _signed(values: np.ndarray) -> str:
    return ", ".join(f"{value:+.1f}" for value in values)


def arguments_of(given: list[str]) -> argparse.Namespace:
    parser = report.parser("robustness_small", __doc__, timed=False)
    parser.add_argument(
        "--sets", nargs="+", choices=image_tasks.SOURCES, default=["flower_photos5"]
    )
    parser.add_argument("--architectures", nargs="+", choices=ARCHITECTURES, default=["resnet"])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["jpeg-dl", "zero-dc"])
    return parse(parser, given)


def main(arguments: list[str]) -> None:
    options = arguments_of(arguments)
    torch.set_num_threads(options.threads[0])
    rows = attack(options, store.Runs(options.runs))
    title = "Accuracy in per cent, clean and attacked at epsilon (maximum norm)"
    page = {title: table(rows), "In words": words(rows)}
    drawn = figures.drawn(training_figures.attacked, options.out, rows, EPSILONS, WORST)
    report.write(options, __doc__, page, data={"rows": rows}, figures=drawn)
