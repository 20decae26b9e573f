"""Train a network, alone or together with the tables of a JPEG layer in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jsc._progress import Progress
from jsc.cli.demo.data import Task

BATCH = 64
WEIGHT_RATE = 0.1  # peak of a one-cycle schedule, SGD with momentum
TABLE_RATE = 0.05  # Adam: about this many grey levels a step at the start


@dataclass
class Curve:
    """What was seen after each epoch."""

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)


def batches(x: Tensor, y: Tensor, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Full shuffled batches, each image shifted by up to two pixels."""
    order = torch.randperm(len(y), generator=generator)
    size = min(BATCH, len(y))
    for index in order[: len(y) // size * size].split(size):
        padded = F.pad(x[index], (2, 2, 2, 2), mode="replicate")
        i, j = torch.randint(5, (2,), generator=generator).tolist()
        yield padded[:, :, i : i + x.shape[2], j : j + x.shape[3]], y[index]


def steps_per_epoch(task: Task) -> int:
    """Full batches in one pass over the training images."""
    return len(task.train_y) // min(BATCH, len(task.train_y))


@torch.no_grad()
def scores(model: nn.Module, x: Tensor) -> Tensor:
    """The model's outputs in evaluation mode, in batches."""
    model.eval()
    return torch.cat([model(part) for part in x.split(256)])


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of images whose highest score is the right one."""
    return float((scores(model, x).argmax(1) == y).double().mean())


def train(
    model: nn.Module, task: Task, epochs: int, seed: int, bar: Progress, tables: nn.Parameter | None
) -> Curve:
    """SGD for the weights, Adam for the tables: their gradients differ in scale by orders.

    The order of images and their shifts follow from `seed` alone, so two networks see the same.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = [p for p in model.parameters() if p is not tables]
    steps = epochs * steps_per_epoch(task)
    sgd = torch.optim.SGD(weights, lr=WEIGHT_RATE, momentum=0.9, nesterov=True, weight_decay=5e-4)
    optimizers: list[torch.optim.Optimizer] = [sgd]
    schedules = [torch.optim.lr_scheduler.OneCycleLR(sgd, WEIGHT_RATE, total_steps=steps)]
    if tables is not None:
        optimizers.append(torch.optim.Adam([tables], lr=TABLE_RATE))
    curve = Curve()
    for _ in range(epochs):
        model.train()
        losses = []
        for x, y in batches(task.train_x, task.train_y, generator):
            loss = F.cross_entropy(model(x), y, label_smoothing=0.1)
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            for schedule in schedules:
                schedule.step()
            losses.append(loss.item())
            bar.step(f"loss {losses[-1]:.3f}")
        curve.loss.append(sum(losses) / len(losses))
        curve.accuracy.append(accuracy(model, task.test_x, task.test_y))
    return curve
