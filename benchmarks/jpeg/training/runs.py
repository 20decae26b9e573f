"""The runs of `accuracy`: what determines one, and how it is made or found again.

Finished runs are kept with their weights (`common/kept.py`), so that the sensitivity start and
`robustness` need not train again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.kept import Config, Runs
from benchmarks.common.kept import key as key
from benchmarks.inputs.image_tasks import BATCH, Task
from benchmarks.jpeg.training import hard_quantizer, loop
from benchmarks.jpeg.training.variants import MAIN, Variant

SCRATCH = Path("out") / "training"


def configuration(task: Task, architecture: str, variant: Variant, seed: int) -> Config:
    """All that determines the result, as plain values."""
    return {
        "set": task.name, "architecture": architecture, "seed": seed, "recipe": variant.recipe(),
        "images": [len(task.train.y), len(task.test.y)], "side": task.train.x.shape[1],
        "epochs": task.epochs, "batch": BATCH, "weight rate": loop.WEIGHT_RATE,
        "weight decay": loop.WEIGHT_DECAY, "smoothing": loop.SMOOTHING,
    }  # fmt: skip


def model_of(
    runs: Runs,
    task: Task,
    architecture: str,
    variant: Variant,
    seed: int,
    step: Callable[[str], None],
) -> loop.Classifier:
    """The trained model of a run; trained now if it is not there."""
    config = configuration(task, architecture, variant, seed)
    if runs.get(config) is None or not runs.weights(config).exists():
        return run(runs, task, architecture, variant, seed, step)[1]
    model = build(task, architecture, variant, seed, lambda: torch.ones(3, 8, 8))
    model.load_state_dict(torch.load(runs.weights(config), weights_only=True))
    return model.eval()


def build(
    task: Task, architecture: str, variant: Variant, seed: int, sensitivity: Callable[[], Tensor]
) -> loop.Classifier:
    layer = variant.build(sensitivity)
    torch.manual_seed(seed)  # after the layer: all variants begin with the same weights
    return loop.Classifier(layer, task, architecture)


def run(
    runs: Runs,
    task: Task,
    architecture: str,
    variant: Variant,
    seed: int,
    step: Callable[[str], None],
) -> tuple[dict[str, Any], loop.Classifier]:
    """Train, evaluate after the last epoch, and keep."""

    def measured() -> Tensor:
        baseline = model_of(runs, task, architecture, MAIN["standard"], seed, step)
        return loop.sensitivity(baseline, task.train)

    model = build(task, architecture, variant, seed, measured)
    start = [layer.tables.detach().tolist() for layer in loop.jpeg_layers(model)]
    begin = time.process_time()
    losses = loop.train(model, task, seed, variant.rate, step)
    right = loop.right(model, task.test)
    result: dict[str, Any] = {
        "cpu seconds": time.process_time() - begin,
        "losses": losses,
        "accuracy": 100 * float(right.double().mean()),
        "right": "".join(map(str, right.int().tolist())),
    }
    layers = loop.jpeg_layers(model)
    if layers:
        result |= {"start": start, "tables": [layer.tables.detach().tolist() for layer in layers]}
        result |= hard_quantizer.swapped(model, task.test)
    return runs.add(configuration(task, architecture, variant, seed), model, result), model
