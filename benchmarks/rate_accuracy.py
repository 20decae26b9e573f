"""Tables trained for a fixed network with `loss + lam * rate`, against libjpeg's own."""

from __future__ import annotations

import io
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import jsc
from benchmarks.rate_files import file_bits

BATCH = 10
LEARNING_RATE = 0.1  # of log steps, falling to 0 as a cosine
KAPPA = 1.0
START = 50  # quality


class Input(nn.Module):
    """RGB in [0, 1] to what a network of benchmarks/networks.py takes."""

    def __init__(self, model: nn.Module, recipe: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.flip = model, recipe["order"] == "BGR"
        self.scale = 1.0 if recipe["scale"] == "x/255" else 255.0
        shape = (1, 3, 1, 1)
        self.register_buffer("mean", torch.tensor(recipe["mean"]).float().view(shape))
        self.register_buffer("std", torch.tensor(recipe["std"]).float().view(shape))

    def forward(self, x: Tensor) -> Tensor:
        x = (x.flip(1) if self.flip else x) * self.scale
        return self.model((x - self.mean) / self.std)


def train(
    model: nn.Module, pixels: Tensor, labels: Tensor, lam: float, steps: int, seed: int = 0
) -> Tensor:
    """Integer tables for `model`, which stays as it is."""
    log_steps = jsc.jpeg.quality_tables(START).log().requires_grad_()
    optimizer = torch.optim.Adam([log_steps], lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    options = {"quantizer": "ste", "kappa": KAPPA}
    generator = torch.Generator().manual_seed(seed)
    epochs = 1 + steps * BATCH // len(pixels)
    order = torch.cat([torch.randperm(len(pixels), generator=generator) for _ in range(epochs)])
    for step in range(steps):
        chosen = order[step * BATCH : (step + 1) * BATCH]
        x, tables = pixels[chosen].float() / 255, log_steps.exp()
        rate = jsc.functional.jpeg_rate(x, tables, **options)
        scores = model(jsc.functional.jpeg(x, tables, **options))
        loss = loss_of(scores, labels[chosen]) + lam * rate
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            log_steps.clamp_(0, math.log(255))  # what a file can hold
    return log_steps.detach().exp().round().clamp(1, 255).long()


def loss_of(scores: Tensor, labels: Tensor) -> Tensor:
    logs = scores.clamp(min=1e-12).log() if _sums_to_one(scores) else F.log_softmax(scores, 1)
    return F.nll_loss(logs, labels)


def _sums_to_one(scores: Tensor) -> bool:
    total = scores.detach().sum(1)
    return bool((scores >= 0).all()) and bool(((total - 1).abs() < 1e-3).all())


@torch.no_grad()
def evaluate(model: nn.Module, pixels: Tensor, labels: Tensor, tables: Tensor) -> dict[str, Any]:
    """Every image written to a file, sized, and read back for the network."""
    right, losses, bits = [], [], 0
    for start in range(0, len(pixels), BATCH):
        read = []
        for image in pixels[start : start + BATCH]:
            file = io.BytesIO()
            jsc.jpeg.save(file, image, tables)
            bits += file_bits(image, tables, "4:4:4", True)[1]
            file.seek(0)
            read.append(jsc.jpeg.load(file))
        scores = model(torch.stack(read).float() / 255)
        target = labels[start : start + BATCH]
        right += (scores.argmax(1) == target).tolist()
        losses.append(loss_of(scores, target).item() * len(target))
    count = len(pixels)
    return {"right": sum(right), "loss": sum(losses), "bits": bits, "count": count}


def total(parts: list[dict[str, Any]], pixels: int) -> dict[str, float]:
    count = sum(part["count"] for part in parts)
    return {
        "bpp": sum(part["bits"] for part in parts) / count / pixels,
        "top-1 %": 100 * sum(part["right"] for part in parts) / count,
        "cross-entropy": sum(part["loss"] for part in parts) / count,
    }


def curve(
    model: nn.Module, pixels: Tensor, labels: Tensor, qualities: list[int], lams: list[float],
    steps: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Tables trained on each half of the images and measured on the other; libjpeg's on all."""
    area = pixels.shape[2] * pixels.shape[3]
    half = torch.arange(len(pixels)) % 2 == 0
    rows = []
    for quality in qualities:
        tables = jsc.jpeg.quality_tables(quality).long()
        found = total([evaluate(model, pixels, labels, tables)], area)
        rows.append({"tables": "libjpeg", "setting": f"quality {quality}", **found})
        print(rows[-1], flush=True)
    for lam in lams:
        parts, kept = [], []
        for seen in (half, ~half):
            tables = train(model, pixels[seen], labels[seen], lam, steps)
            parts.append(evaluate(model, pixels[~seen], labels[~seen], tables))
            kept.append(tables.tolist())
        row = {"tables": "trained", "setting": f"lambda {lam:g}", **total(parts, area)}
        rows.append({**row, "trained tables": kept})
        print(row, flush=True)
    return rows
