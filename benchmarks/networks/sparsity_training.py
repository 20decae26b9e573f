"""Fine-tuning of a pretrained network towards more zeros, and what comes of it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import jsc
from benchmarks.common.kept import Config, Runs
from benchmarks.inputs import image_tasks, networks
from benchmarks.inputs.image_tasks import Split

VALIDATION = 400  # of the training images, the last: all choices are made on them
CALIBRATION = 128  # training images from which thresholds come
WEIGHT_DECAY = 1e-4
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Arm:
    """What is done to the network: thresholds for a density, a penalty, epochs of training."""

    density: float | None = None
    penalty: float = 0.0
    epochs: int = 0
    rate: float = 0.01

    @property
    def name(self) -> str:
        words = [f"FATReLU {self.density:g}"] if self.density is not None else []
        words += [f"Hoyer {self.penalty:g}"] if self.penalty else []
        return " + ".join(words) or "ReLU"

    @property
    def kind(self) -> str:
        """What arms of a line in the figure have in common."""
        made = [
            w for w, on in (("FATReLU", self.density is not None), ("Hoyer", self.penalty)) if on
        ]
        return f"{' + '.join(made) or 'ReLU'}, {'fine-tuned' if self.epochs else 'not fine-tuned'}"


@dataclass(frozen=True)
class Images:
    """Splits of one set: `train` is trained on, `validation` chooses, `test` is reported."""

    train: Split
    validation: Split
    test: Split


def images(data: Path, *, quick: bool) -> Images:
    task = image_tasks.load("cifar10", data, quick=quick)
    held = VALIDATION if not quick else 20
    x, y = task.train.x, task.train.y
    return Images(Split(x[:-held], y[:-held]), Split(x[-held:], y[-held:]), task.test)


def normalised(x: Tensor) -> Tensor:
    """uint8 or [0, 1] images as the network takes them, channels last."""
    x = image_tasks.to_float(x) if x.dtype == torch.uint8 else x
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)


def start(model: nn.Module, arm: Arm, train: Split) -> nn.Module:
    """A copy of the pretrained network with the arm's thresholds, not yet trained."""
    model = copy.deepcopy(model).requires_grad_(True).to(memory_format=torch.channels_last)
    if arm.density is None:
        return model
    step = max(1, len(train.y) // CALIBRATION)
    return jsc.sparsify(model, normalised(train.x[::step][:CALIBRATION]), arm.density, inplace=True)


def fine_tune(
    model: nn.Module, arm: Arm, train: Split, seed: int, note: Callable[[str], None]
) -> None:
    """SGD with momentum from `arm.rate` down to zero by a cosine; all arms see the same images."""
    generator = torch.Generator().manual_seed(seed)
    sgd = torch.optim.SGD(
        model.parameters(), arm.rate, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY
    )
    steps = arm.epochs * (len(train.y) // min(image_tasks.BATCH, len(train.y)))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, steps)
    model.train()
    with jsc.HoyerSquare(model) if arm.penalty else nullcontext() as penalty:
        for _ in range(arm.epochs):
            for x, y in image_tasks.batches(train, generator):
                loss = F.cross_entropy(model(normalised(x)), y)
                if penalty is not None:
                    loss = loss + arm.penalty * penalty()
                sgd.zero_grad(set_to_none=True)
                loss.backward()
                sgd.step()
                schedule.step()
                note(f"{arm.name}: loss {loss.item():.3f}")
    model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, split: Split) -> float:
    model.eval()
    right = [
        (model(normalised(x)).argmax(1) == y).double()
        for x, y in zip(split.x.split(100), split.y.split(100), strict=True)
    ]
    return 100 * float(torch.cat(right).mean())


@torch.no_grad()
def density(model: nn.Module, x: Tensor) -> float:
    """Share of multiply-adds whose activation is not zero, over all convolutions; edges aside."""
    model.eval()
    work = total = 0.0

    def count(conv: nn.Conv2d, args: tuple[Tensor], out: Tensor) -> None:
        nonlocal work, total
        macs = out[0].numel() * conv.weight[0].numel()
        work += macs * float((args[0] != 0).double().mean())
        total += macs

    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    hooks = [conv.register_forward_hook(count) for conv in convs]
    try:
        model(normalised(x))
    finally:
        for hook in hooks:
            hook.remove()
    return work / total


def configuration(network: str, arm: Arm, seed: int, train: Split) -> Config:
    return {
        "benchmark": "sparsity", "network": network, "arm": asdict(arm), "seed": seed,
        "images": len(train.y), "batch": image_tasks.BATCH, "weight decay": WEIGHT_DECAY,
        "calibration": CALIBRATION,
    }  # fmt: skip


def run(
    kept: Runs, data: Path, network: str, arm: Arm, seed: int, sets: Images,
    note: Callable[[str], None],
) -> Config:  # fmt: skip
    """The record of an arm, found or made."""
    config = configuration(network, arm, seed, sets.train)
    found = kept.get(config)
    if found is not None and kept.weights(config).exists():
        return found
    model = start(networks.load(data, network).model, arm, sets.train)
    begin = time.process_time()
    if arm.epochs:
        fine_tune(model, arm, sets.train, seed, note)
    result = {
        "cpu seconds": time.process_time() - begin,
        "validation": accuracy(model, sets.validation),
        "test": accuracy(model, sets.test),
        "density": density(model, sets.test.x[:200]),
    }
    return kept.add(config, model, result)


def trained(kept: Runs, data: Path, network: str, arm: Arm, seed: int, train: Split) -> nn.Module:
    """The model of a finished run."""
    model = start(networks.load(data, network).model, arm, train)
    config = configuration(network, arm, seed, train)
    model.load_state_dict(torch.load(kept.weights(config), weights_only=True))
    return model.eval().requires_grad_(False)
