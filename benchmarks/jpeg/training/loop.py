"""One training run, the same for all variants, and what is asked of the trained network."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import jsc
from benchmarks.inputs.architectures import ARCHITECTURES
from benchmarks.inputs.image_tasks import BATCH, Split, Task, batches, to_float

WEIGHT_RATE = 0.1  # peak of the one-cycle schedule
WEIGHT_DECAY = 5e-4
SMOOTHING = 0.1


class Classifier(nn.Module):
    """layer -> normalisation -> network; the network in bfloat16 where `fast`, weights float32.

    The layer is always evaluated in float32.
    """

    def __init__(self, layer: nn.Module, task: Task, architecture: str, fast: bool = True) -> None:
        super().__init__()
        self.layer, self.fast = layer, fast
        self.network = ARCHITECTURES[architecture](task.classes)
        self.network.to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor(task.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(task.std).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.layer(x))

    def classify(self, x: Tensor) -> Tensor:
        """What follows the layer."""
        x = (x - self.mean) / self.std
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.fast):
            return self.network(x).float()


def jpeg_layers(model: nn.Module) -> list[jsc.nn.JPEG]:
    return [module for module in model.modules() if isinstance(module, jsc.nn.JPEG)]


def train(
    model: nn.Module,
    task: Task,
    seed: int,
    table_rate: float,
    step: Callable[[str], None],
    *,
    weight_rate: float = WEIGHT_RATE,
    smoothing: float = SMOOTHING,
) -> list[float]:
    """Mean loss of each epoch. SGD with momentum for the weights, `weight_rate` at the peak of its
    schedule; Adam for tables and hardness.

    Order and augmentation of the images follow from `seed` alone: all variants see the same.
    """
    generator = torch.Generator().manual_seed(seed)
    layer = [p for m in jpeg_layers(model) for p in m.parameters() if p.requires_grad]
    held = {id(p) for m in jpeg_layers(model) for p in m.parameters()}
    weights = [p for p in model.parameters() if id(p) not in held]
    sgd = torch.optim.SGD(
        weights, weight_rate, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY
    )
    optimizers: list[torch.optim.Optimizer] = [sgd]
    if layer:
        optimizers.append(torch.optim.Adam(layer, table_rate))
    steps = task.epochs * (len(task.train.y) // min(BATCH, len(task.train.y)))
    schedule = torch.optim.lr_scheduler.OneCycleLR(sgd, weight_rate, total_steps=steps)
    losses = []
    for _ in range(task.epochs):
        model.train()
        seen = []
        for x, y in batches(task.train, generator):
            loss = F.cross_entropy(model(x), y, label_smoothing=smoothing)
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            schedule.step()
            seen.append(loss.item())
            step(f"loss {seen[-1]:.3f}")
        losses.append(sum(seen) / len(seen))
    return losses


@torch.no_grad()
def right(model: nn.Module, split: Split) -> Tensor:
    """Of which images is the highest score the right one, in evaluation mode?"""
    model.eval()
    found = [
        model(to_float(x)).argmax(1) == y
        for x, y in zip(split.x.split(100), split.y.split(100), strict=True)
    ]
    return torch.cat(found)


def accuracy(model: nn.Module, split: Split) -> float:
    """Per cent of images that `right` finds."""
    return 100 * float(right(model, split).double().mean())


def sensitivity(model: nn.Module, split: Split, images: int = 600) -> Tensor:
    """`jsc.jpeg.sensitivity` of a network trained alone, on training images evenly taken."""
    index = torch.linspace(0, len(split.y) - 1, min(images, len(split.y))).long()
    parts = zip(split.x[index].split(100), split.y[index].split(100), strict=True)
    loader = ((to_float(x), y) for x, y in parts)
    # Other processes train other networks meanwhile.
    return jsc.jpeg.sensitivity(model, loader, F.cross_entropy, processes="alone", progress=False)
