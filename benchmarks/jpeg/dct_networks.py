"""A network for pixels and one for coefficients, trained alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common.kept import Config, Runs
from benchmarks.inputs.architectures import Residual
from benchmarks.jpeg.dct_files import BATCH, CROP, SET, Files, Split, views

EPOCHS = 12
RATE = 0.1  # peak of the one-cycle schedule
WEIGHT_DECAY, SMOOTHING = 5e-4, 0.1
CLASSES = 5
INPUTS = ("pixels", "coefficients")


class Pixels(nn.Module):
    """uint8 pixels -> normalisation; the stem of ResNet (7x7 of stride 2, pooling) and two blocks
    bring them to an eighth of the resolution."""

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.view(1, -1, 1, 1))
        self.register_buffer("std", std.view(1, -1, 1, 1))
        self.stem = nn.Sequential(
            nn.Conv2d(3, 24, 7, 2, 3, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
            nn.MaxPool2d(3, 2, 1), Residual(24, 24, 1), Residual(24, 48, 2),
        )  # fmt: skip

    def prepared(self, x: Tensor) -> Tensor:
        x = (x.float() / 255 - self.mean) / self.std
        return x.contiguous(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.stem(self.prepared(x))
        return y


class Coefficients(nn.Module):
    """Quantised coefficients times their steps over their deviations: a zero stays a zero. The
    means of the three DC coefficients are taken off. Then one convolution, 192 channels to 48."""

    def __init__(self, scale: Tensor, mean: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale.view(1, -1, 1, 1))
        self.register_buffer("mean", mean.view(1, -1, 1, 1))
        self.stem = nn.Sequential(
            nn.Conv2d(192, 48, 3, padding=1, bias=False), nn.BatchNorm2d(48), nn.ReLU()
        )

    def prepared(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        return x.float() * self.scale - self.mean

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.stem(self.prepared(x))
        return y


def build(kind: str, train: Split, seed: int) -> nn.Sequential:
    """front (`Pixels` or `Coefficients`) and the same trunk behind it, at an eighth of the
    resolution."""
    torch.manual_seed(seed)
    front: nn.Module
    if kind == "pixels":
        pixels = train.pixels.double() / 255
        front = Pixels(pixels.mean((0, 2, 3)).float(), pixels.std((0, 2, 3)).float())
    else:
        values = train.levels.double() * train.steps.double().view(1, -1, 1, 1)
        std = values.square().mean((0, 2, 3)).sqrt().clamp_min(1)
        mean = torch.zeros(192, dtype=torch.float64)
        for dc in (0, 64, 128):
            std[dc] = values[:, dc].std().clamp_min(1)
            mean[dc] = values[:, dc].mean() / std[dc]
        front = Coefficients((train.steps / std).float(), mean.float())
    torch.manual_seed(seed)
    trunk = nn.Sequential(
        Residual(48, 96, 2), Residual(96, 128, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(128, CLASSES),
    )  # fmt: skip
    return nn.Sequential(front, trunk).to(memory_format=torch.channels_last)


def inputs(kind: str, split: Split) -> Tensor:
    return split.pixels if kind == "pixels" else split.levels


@torch.no_grad()
def accuracy(model: nn.Module, kind: str, split: Split) -> float:
    """Whole images, in evaluation mode; per cent."""
    model.eval()
    right = [
        (model(x).argmax(1) == y).double()
        for x, y in zip(inputs(kind, split).split(50), split.y.split(50), strict=True)
    ]
    return 100 * float(torch.cat(right).mean())


def train(
    model: nn.Module, kind: str, split: Split, seed: int, epochs: int, note: Callable[[str], None]
) -> None:
    generator = torch.Generator().manual_seed(seed)
    sgd = torch.optim.SGD(
        model.parameters(), RATE, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY
    )
    steps = epochs * (len(split.y) // min(BATCH, len(split.y)))
    schedule = torch.optim.lr_scheduler.OneCycleLR(sgd, RATE, total_steps=steps)
    for _ in range(epochs):
        model.train()
        for x, y in views(split, generator, kind == "coefficients"):
            loss = F.cross_entropy(model(x), y, label_smoothing=SMOOTHING)
            sgd.zero_grad(set_to_none=True)
            loss.backward()
            sgd.step()
            schedule.step()
            note(f"{kind}: loss {loss.item():.3f}")
    model.eval()


def configuration(kind: str, quality: int | None, seed: int, epochs: int, images: int) -> Config:
    return {
        "benchmark": "dct_input", "set": SET, "input": kind, "quality": quality, "seed": seed,
        "epochs": epochs, "images": images, "crop": CROP, "batch": BATCH, "rate": RATE,
        "weight decay": WEIGHT_DECAY, "smoothing": SMOOTHING,
    }  # fmt: skip


def run(
    kept: Runs, kind: str, files: Files, seed: int, epochs: int, note: Callable[[str], None]
) -> Config:
    """The record of a run, found or made."""
    config = configuration(kind, files.quality, seed, epochs, len(files.train.y))
    found = kept.get(config)
    if found is not None and kept.weights(config).exists():
        return found
    model = build(kind, files.train, seed)
    begin = time.process_time()
    train(model, kind, files.train, seed, epochs, note)
    result = {
        "cpu seconds": time.process_time() - begin,
        "validation": accuracy(model, kind, files.validation),
        "test": accuracy(model, kind, files.test),
    }
    return kept.add(config, model, result)


def trained(kept: Runs, kind: str, files: Files, seed: int, epochs: int) -> nn.Sequential:
    """The model of a finished run."""
    model = build(kind, files.train, seed)
    config = configuration(kind, files.quality, seed, epochs, len(files.train.y))
    path: Path = kept.weights(config)
    model.load_state_dict(torch.load(path, weights_only=True))
    model.eval().requires_grad_(False)
    return model
