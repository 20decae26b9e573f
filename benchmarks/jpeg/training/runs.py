"""Finished runs: one line of JSON each, under the run's full configuration.

A benchmark that is started again reads what is there and trains what is missing. The weights lie
beside the lines, so that the sensitivity start and `robustness` need not train again. Of several
processes each writes a file of its own, and reads all of them.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import processes
from benchmarks.inputs.image_tasks import BATCH, Task
from benchmarks.jpeg.training import hard_quantizer, loop
from benchmarks.jpeg.training.variants import MAIN, Variant

Config = dict[str, Any]
SCRATCH = Path("out") / "training"


def configuration(task: Task, architecture: str, variant: Variant, seed: int) -> Config:
    """All that determines the result, as plain values."""
    recipe = asdict(variant)
    del recipe["text"]
    return {
        "set": task.name, "architecture": architecture, "seed": seed, "recipe": recipe,
        "images": [len(task.train.y), len(task.test.y)], "side": task.train.x.shape[1],
        "epochs": task.epochs, "batch": BATCH, "weight rate": loop.WEIGHT_RATE,
        "weight decay": loop.WEIGHT_DECAY, "smoothing": loop.SMOOTHING,
    }  # fmt: skip


def key(config: Config) -> str:
    """Name of a configuration; the order of its entries does not matter."""
    return hashlib.sha1(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]


class Runs:
    """The finished runs in `folder/runs*.jsonl`. A line cut off half way counts as not run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rank, _ = processes.place()
        self.file = folder / (f"runs-{rank}.jsonl" if rank else "runs.jsonl")
        self.found: dict[str, dict[str, Any]] = {}
        for file in sorted(folder.glob("runs*.jsonl")):
            for line in file.read_text().splitlines():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:
                    continue
                self.found[record["key"]] = record

    def weights(self, config: Config) -> Path:
        return self.folder / f"{key(config)}.pt"

    def get(self, config: Config) -> dict[str, Any] | None:
        return self.found.get(key(config))

    def add(
        self, config: Config, model: torch.nn.Module | None, result: dict[str, Any]
    ) -> dict[str, Any]:
        """Keep a result, and the weights of `model` where there is one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if model is not None:
            torch.save(model.state_dict(), self.weights(config))
        record = {"key": key(config), "config": config, **result}
        cut = self.file.exists() and not self.file.read_bytes().endswith(b"\n")
        with self.file.open("a") as file:
            file.write("\n" * cut + json.dumps(record) + "\n")
        self.found[record["key"]] = record
        return record


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
    result: dict[str, Any] = {
        "cpu seconds": time.process_time() - begin,
        "losses": losses,
        "accuracy": loop.accuracy(model, task.test),
    }
    layers = loop.jpeg_layers(model)
    if layers:
        result |= {"start": start, "tables": [layer.tables.detach().tolist() for layer in layers]}
        result |= hard_quantizer.swapped(model, task.test)
    return runs.add(configuration(task, architecture, variant, seed), model, result), model
