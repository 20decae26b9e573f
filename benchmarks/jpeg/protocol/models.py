"""The networks that are attacked: CIFAR ResNets, each arm trained alike behind its own layer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common.kept import Config, Runs
from benchmarks.inputs import image_tasks, networks
from benchmarks.inputs.image_tasks import BATCH, Split, Task
from benchmarks.jpeg.training import loop
from benchmarks.jpeg.training.variants import VARIANTS

ARMS = ("standard", "authors", "saturation", "zero-dc")
MAIN = ("standard", "authors")  # the comparison of the paper
VALIDATION = 500  # the last images of the training split
PILOT_SEED, PILOT_IMAGES = 100, 1750
SENSITIVITY_IMAGES = 500


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: the same for all arms, but for the rate that each may choose.

    rates : peaks of the schedule, of which pilots take one by their validation accuracy
    pilots : the network that the pilots train, where it is another one
    """

    network: str
    pretrained: bool
    epochs: int
    rates: tuple[float, ...]
    pilots: str = ""

    @property
    def name(self) -> str:
        return f"{self.network.partition('_')[0]}, {'fine-tuned' if self.pretrained else 'scratch'}"


RECIPES = {
    "resnet20": Recipe("resnet20_cifar10", True, 2, (0.003, 0.03)),
    "resnet56": Recipe("resnet56_cifar10", True, 1, (0.003, 0.03), "resnet20_cifar10"),
    "resnet20-scratch": Recipe("resnet20_cifar10", False, 6, (0.05,)),
}


class Classifier(nn.Module):
    """layer -> normalisation -> network, in float32; images in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, layer: nn.Module, network: networks.Network) -> None:
        super().__init__()
        self.layer = layer
        self.network = network.model.to(memory_format=torch.channels_last).requires_grad_(True)
        for name in ("mean", "std"):
            values = torch.tensor(network.recipe[name], dtype=torch.float32)
            self.register_buffer(name, values.view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.layer(x))

    def classify(self, x: Tensor) -> Tensor:
        """What follows the layer."""
        return self.network(self.normalised(x))

    def normalised(self, x: Tensor) -> Tensor:
        return ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


@dataclass
class Trained:
    """A network after training; `config` is all that determines it."""

    config: Config
    model: Classifier
    rate: float
    validation: float
    accuracy: float
    seconds: float


def split(task: Task) -> Task:
    """`task` with its last training images as the images to be judged on, in place of the test."""
    x, y = task.train.x, task.train.y
    count = min(VALIDATION, len(y) // 4)
    return replace(
        task, train=Split(x[:-count], y[:-count]), test=Split(x[-count:], y[-count:])
    )  # fmt: skip


def configuration(task: Task, recipe: Recipe, arm: str, seed: int, rate: float) -> Config:
    return {
        "network": recipe.network, "pretrained": recipe.pretrained,
        "arm": VARIANTS[arm].recipe(), "seed": seed, "rate": rate,
        "epochs": task.epochs, "images": [len(task.train.y), len(task.test.y)],
        "batch": BATCH, "weight decay": loop.WEIGHT_DECAY, "sensitivity": SENSITIVITY_IMAGES,
    }  # fmt: skip


class NotMade(Exception):
    """A run that is neither kept nor wanted."""


class Trainer:
    """Reads what is asked for from `runs`, or trains it while that is `wanted`; else `NotMade`.

    task : CIFAR-10 with its test split; every choice is made on the last images of the training
        split, which no network is trained on here (the pretrained ones have seen them)
    """

    def __init__(self, runs: Runs, task: Task, data: Path, wanted: Callable[[], bool]) -> None:
        self.runs, self.data, self.wanted = runs, data, wanted
        self.task, self.test = split(task), task.test

    def trained(self, recipe: Recipe, arm: str, seed: int) -> Trained:
        task = replace(self.task, epochs=recipe.epochs)
        return self._run(task, recipe, arm, seed, self.rate(recipe, arm))

    def rate(self, recipe: Recipe, arm: str) -> float:
        """The rate of the best pilot; of equals the smallest."""
        if len(recipe.rates) == 1:
            return recipe.rates[0]
        piloted = replace(recipe, network=recipe.pilots or recipe.network)
        found = {rate: self.pilot(piloted, arm, rate) for rate in recipe.rates}
        return min(found, key=lambda rate: (-found[rate], rate))

    def pilot(self, recipe: Recipe, arm: str, rate: float) -> float:
        """Validation accuracy after one pass over a part of the images, with a seed of its own."""
        images = self.task.train
        part = Split(images.x[:PILOT_IMAGES], images.y[:PILOT_IMAGES])
        task = replace(self.task, train=part, epochs=1)
        return self._run(task, recipe, arm, PILOT_SEED, rate).validation

    def _run(self, task: Task, recipe: Recipe, arm: str, seed: int, rate: float) -> Trained:
        config = configuration(task, recipe, arm, seed, rate)
        record = self.runs.get(config)
        variant = VARIANTS[arm]
        if record is not None and self.runs.weights(config).exists():
            model = self._new(recipe, variant.build(lambda: torch.ones(3, 8, 8)), seed)
            model.load_state_dict(torch.load(self.runs.weights(config), weights_only=True))
            return self._trained(config, model.eval(), record)
        if not self.wanted():
            raise NotMade(config)
        model = self._new(recipe, variant.build(lambda: self._sensitivity(recipe, seed)), seed)
        begin = time.process_time()
        losses = loop.train(
            model, task, seed, variant.rate, lambda _: None, weight_rate=rate, smoothing=0.0
        )
        result = {
            "cpu seconds": time.process_time() - begin,
            "losses": losses,
            "validation": loop.accuracy(model, task.test),
            "accuracy": loop.accuracy(model, self.test),
            "tables": [layer.tables.detach().tolist() for layer in loop.jpeg_layers(model)],
        }
        return self._trained(config, model, self.runs.add(config, model, result))

    @staticmethod
    def _trained(config: Config, model: Classifier, record: dict[str, Any]) -> Trained:
        kept = [record[name] for name in ("validation", "accuracy", "cpu seconds")]
        return Trained(config, model, config["rate"], *kept)

    def _new(self, recipe: Recipe, layer: nn.Module, seed: int) -> Classifier:
        """All arms of a seed begin with the same weights."""
        network = networks.load(self.data, recipe.network)
        if not recipe.pretrained:
            torch.manual_seed(seed)
            for module in network.model.modules():
                if hasattr(module, "reset_parameters"):
                    module.reset_parameters()
        return Classifier(layer, network)

    def _sensitivity(self, recipe: Recipe, seed: int) -> Tensor:
        """Of the pretrained network; from scratch, of the standard one of the same seed."""
        if recipe.pretrained:
            model = self._new(recipe, nn.Sequential(), seed)
        else:
            model = self.trained(recipe, "standard", seed).model
        return loop.sensitivity(model, self.task.train, SENSITIVITY_IMAGES)


def load_task(data: Path, *, quick: bool = False) -> Task:
    return image_tasks.load("cifar10", data, quick=quick)
