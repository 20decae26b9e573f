"""Tables for a fixed network against libjpeg's own, and what they save at equal accuracy.

They are trained with `loss + lam * rate`, or follow from the network's sensitivity. What the
network sees is rounded. These are gradients of its loss in log steps, against finite differences of
the rounded loss (1000 images of CIFAR-10, quality 50, sums over diagonals of the table):

* The straight-through gradient has little noise, and is right where coefficients spread over
  several levels. Where most fall to zero it still charges them z^2 / q: .21, .25, .15 on the
  diagonals 6, 7, 8 of luma, where .10, .08, .00 are right. The gradient of the rate at kappa = 1 is
  2.5 to 6 times too small there. Both keep steps of high frequencies too fine. Alone, with the rate
  below, it saved 16 % of libjpeg's bits at 2.6 bits a pixel and needed 13 % more at 1.66 (equal
  cross-entropy, 400 steps).
* The soft quantizer at kappa = 2 is nearly the identity, so it has no distortion and no gradient.
* At kappa = 8 it is right where most fall to zero, but its slope is kappa n / 2 at the edge of
  level n: over batches of 100 its standard deviation is up to .25 at low frequencies, for a value
  of .01.

So each frequency takes the gradient that is right for it (`seen`). The rate is soft at kappa = 8,
within 8 % of its finite differences but for DC and the last diagonals. The tables are the geometric
mean over the second half of Adam's steps: the last ones alone were noisy, and worse. From tables of
the sensitivity, which are fine in high frequencies of chroma, 300 steps did not arrive at lambda
0.5.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import jsc
from benchmarks.common import processes
from jsc._progress import Progress

BATCH = 50
LEARNING_RATE = 0.07  # of log steps
RATE_KAPPA, EDGE_KAPPA = 8.0, 6.0
SPREAD = 0.5  # mean |z| / q above which the straight-through gradient is right
START = 75  # quality
RESAMPLES = 400
KINDS = ("bpp", "top-1 %", "cross-entropy")

Images = tuple[Tensor, Tensor]  # (N, 3, H, W) uint8 and (N,) classes


class Input(nn.Module):
    """RGB in [0, 1] to what a network of benchmarks/inputs/networks.py takes."""

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


def seen(x: Tensor, tables: Tensor, size: Tensor) -> Tensor:
    """x in [0, 1] after rounding by `tables`, clipped; `size` is the mean |z| of each frequency.

    The gradient of a frequency is the straight-through one, or where most of its coefficients fall
    to zero that of the soft quantiser.
    """
    still = tables.detach()
    spread = size > SPREAD * still
    rounded = jsc.functional.jpeg(x, torch.where(spread, tables, still), quantizer="ste")
    soft = jsc.functional.jpeg(x, torch.where(spread, still, tables), kappa=EDGE_KAPPA)
    return (rounded + (soft - soft.detach())).clamp(0, 1)


def train(
    model: nn.Module, images: Images, lam: float, start: Tensor, steps: int, bar: Progress,
    seed: int = 0,
) -> Tensor:  # fmt: skip
    """Tables (2, 8, 8) for `model`, which stays as it is; not yet integers."""
    pixels, labels = images
    luma, *chroma = jsc.jpeg.mean_absolute([pixels[:1000].float() / 255]).float()
    size = torch.stack([luma, sum(chroma) / 2])
    log_steps = start.clamp(1, 255).log().requires_grad_()
    optimizer = torch.optim.Adam([log_steps], lr=LEARNING_RATE, betas=(0.9, 0.99))
    generator = torch.Generator().manual_seed(seed)
    epochs = 1 + steps * BATCH // len(pixels)
    order = torch.cat([torch.randperm(len(pixels), generator=generator) for _ in range(epochs)])
    total = torch.zeros_like(start)
    for step in range(steps):
        chosen = order[step * BATCH : (step + 1) * BATCH]
        x, tables = pixels[chosen].float() / 255, log_steps.exp()
        rate = jsc.functional.jpeg_rate(x, tables, kappa=RATE_KAPPA)
        loss = loss_of(model(seen(x, tables, size)), labels[chosen]) + lam * rate
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            log_steps.clamp_(0, math.log(255))  # what a file can hold
            if step >= steps // 2:
                total += log_steps
        bar.step(f"lambda {lam:g}")
    return (total / (steps - steps // 2)).exp()


def from_sensitivity(model: nn.Module, images: Images) -> Tensor:
    """Tables q ~ S^(-1/2), geometric mean 1: equal marginal loss a bit at fine quantisation."""
    pixels, labels = (part[:1000] for part in images)
    batches = zip((pixels.float() / 255).split(100), labels.split(100), strict=True)
    luma, cb, cr = jsc.jpeg.sensitivity(model, batches, loss_of).float()
    log_steps = -0.5 * torch.stack([luma, cb + cr]).clamp(min=1e-30).log()
    return (log_steps - log_steps.mean()).exp()


def whole(tables: Tensor) -> Tensor:
    return tables.detach().round().clamp(1, 255).long()


def loss_of(scores: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    logs = scores.clamp(min=1e-12).log() if _sums_to_one(scores) else F.log_softmax(scores, 1)
    return F.nll_loss(logs, labels, reduction=reduction)


def _sums_to_one(scores: Tensor) -> bool:
    total = scores.detach().sum(1)
    return bool((scores >= 0).all()) and bool(((total - 1).abs() < 1e-3).all())


@torch.no_grad()
def evaluate(model: nn.Module, images: Images, tables: Tensor) -> np.ndarray:
    """(3, N) figures of images that were written to a file and read back for the network.

    They are the bits a pixel of the scan, 100 or 0 for right or wrong, and the cross-entropy.
    """
    batches = list(zip(images[0].split(100), images[1].split(100), strict=True))
    own = [evaluate_batch(model, *batch, tables) for batch in processes.share(batches)]
    return np.concatenate(processes.merged(own), 1)


def evaluate_batch(model: nn.Module, pixels: Tensor, labels: Tensor, tables: Tensor) -> np.ndarray:
    bits, read = [], []
    for image in pixels:
        file = io.BytesIO()
        jsc.jpeg.save(file, image, tables)
        data = file.getvalue()
        bits.append(8 * (len(data) - data.rindex(b"\xff\xda")) / image[0].numel())
        read.append(jsc.jpeg.load(io.BytesIO(data)))
    scores = model(torch.stack(read).float() / 255)
    right = 100.0 * (scores.argmax(1) == labels)
    return np.array([bits, right.tolist(), loss_of(scores, labels, "none").tolist()])


def curve(
    model: nn.Module, seen_images: Images, other_images: Images, qualities: list[int],
    scales: list[float], lams: list[float], steps: int,
) -> tuple[list[dict[str, Any]], np.ndarray]:  # fmt: skip
    """Rows, and (rows, 3, N) of `evaluate` on the images that no table was made from.

    Each lambda goes on from the tables of the one before, the first from libjpeg's. Several
    processes share the images of `evaluate` and the sensitivity; each trains the same tables.
    """
    rows: list[dict[str, Any]] = []
    measured = []

    def add(name: str, setting: str, tables: Tensor) -> None:
        measured.append(evaluate(model, other_images, tables))
        row = {"tables": name, "setting": setting}
        row |= zip(KINDS, measured[-1].mean(1).tolist(), strict=True)
        if processes.first():
            print(row, flush=True)
        rows.append({**row, "entries": tables.tolist()})

    settings = len(qualities) + len(scales) + len(lams) * (steps + 1)
    with Progress("rate: tables", settings, enabled=processes.first()) as bar:
        for quality in qualities:
            add("libjpeg", f"quality {quality}", jsc.jpeg.quality_tables(quality).long())
            bar.step(f"quality {quality}")
        shape = from_sensitivity(model, seen_images)
        for scale in scales:
            add("sensitivity", f"geometric mean {scale:g}", whole(scale * shape))
            bar.step(f"geometric mean {scale:g}")
        tables = jsc.jpeg.quality_tables(START)
        for lam in sorted(lams):
            tables = train(model, seen_images, lam, tables, steps, bar)
            add("trained", f"lambda {lam:g}", whole(tables))
            bar.step(f"lambda {lam:g}")
    return rows, np.stack(measured)


def savings(
    rows: list[dict[str, Any]], measured: np.ndarray, levels: dict[str, list[float]]
) -> list[dict[str, Any]]:
    """Bits saved over libjpeg, % of the scan, with the 2.5 and 97.5 % points of test sets drawn
    again from the images (all tables meet the same draw). Mean: over what both curves reach."""
    names = np.array([row["tables"] for row in rows])
    count = measured.shape[2]
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    drawn = np.einsum("rkn,dn->drk", measured, draws) / count
    found = []
    for name in dict.fromkeys(names[names != "libjpeg"]):
        for quantity, some in levels.items():
            for level in (*some, None):

                def saved(
                    means: np.ndarray, name: str = name, k: int = KINDS.index(quantity),
                    level: float | None = level,
                ) -> float:  # fmt: skip
                    base, other = means[names == "libjpeg"], means[names == name]
                    return 100 * (1 - math.exp(log_ratio(base, other, k, level)))

                share = saved(measured.mean(2))
                if math.isfinite(share):
                    low, high = np.nanpercentile([saved(means) for means in drawn], [2.5, 97.5])
                    found.append({
                        "tables": str(name),
                        "at equal": quantity + (", mean" if level is None else f" {level:g}"),
                        "bits saved %": share, "from": float(low), "to": float(high),
                    })  # fmt: skip
    return found


def log_ratio(base: np.ndarray, other: np.ndarray, k: int, level: float | None) -> float:
    """log(other's bits / base's) at a level of column k (of `KINDS`), NaN beyond either curve.

    Without a level it is the mean over the range of both curves, as in Bjontegaard's rate.
    """
    levels = np.array([level])
    if level is None:
        ends = [(points[:, k].min(), points[:, k].max()) for points in (base, other)]
        levels = np.linspace(max(end[0] for end in ends), min(end[1] for end in ends), 101)
        if levels[0] >= levels[-1]:
            return math.nan
    logs = []
    for points in (base, other):
        points = points[points[:, k].argsort()]
        logs.append(np.interp(levels, points[:, k], np.log(points[:, 0]), math.nan, math.nan))
    return float((logs[1] - logs[0]).mean())
