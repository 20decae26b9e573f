"""Small image sets as tensors, decoded and resized once, and their augmentation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.inputs.images import ImageSet

BATCH = 50


@dataclass(frozen=True)
class Source:
    """Which images: file, side in pixels, passes over them, training images a class (0: all)."""

    file: str
    side: int
    epochs: int
    per_class: int = 0


SOURCES = {
    "cifar10": Source("cifar10_lossless", 32, 15),
    "flower_photos5": Source("flower_photos5_128", 48, 25),
    "flowers12": Source("flowers12_224", 48, 35),
    "tinyimagenet20": Source("tinyimagenet20_64", 48, 15, per_class=100),
}


@dataclass(frozen=True)
class Split:
    """Images (N, H, W, 3) uint8 and labels (N,) int64."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Task:
    """A set to learn; `mean` and `std` are those of its training pixels in [0, 1]."""

    name: str
    train: Split
    test: Split
    classes: int
    epochs: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def load(name: str, data: Path, *, quick: bool = False, side: int | None = None) -> Task:
    """The set `name` from `data/images`; `quick` takes few images and one epoch."""
    source = SOURCES[name]
    source = source if side is None else replace(source, side=side)
    path = data / "images" / f"{source.file}.npz"
    per_class = 10 if quick else source.per_class
    train = _read(ImageSet(path, "train"), source.side, per_class)
    test = _read(ImageSet(path, "test"), source.side, 10 if quick else 0)
    return task(name, train, test, 1 if quick else source.epochs)


def task(name: str, train: Split, test: Split, epochs: int) -> Task:
    pixels = train.x.double().flatten(0, 2) / 255
    return Task(
        name, train, test, int(train.y.max()) + 1, epochs,
        tuple(pixels.mean(0).tolist()), tuple(pixels.std(0).tolist()),
    )  # fmt: skip


def _read(images: ImageSet, side: int, per_class: int) -> Split:
    labels = np.asarray(images.labels, dtype=np.int64)
    index = np.arange(len(labels))
    if per_class:
        firsts = [np.flatnonzero(labels == label)[:per_class] for label in np.unique(labels)]
        index = np.sort(np.concatenate(firsts))
    pixels = np.stack([_fit(images[int(i)], side) for i in index])
    return Split(torch.from_numpy(pixels), torch.from_numpy(labels[index]))


def _fit(image: np.ndarray, side: int) -> np.ndarray:
    from PIL import Image

    if image.shape[:2] == (side, side):
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS))


def to_float(x: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float32 in [0, 1], channels last in memory."""
    return x.permute(0, 3, 1, 2).float() / 255


def batches(split: Split, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Full shuffled batches; each image shifted by up to an eighth of its side and, every second
    time, mirrored. What is drawn depends on `generator` alone."""
    count, side = len(split.y), split.x.shape[1]
    size, reach = min(BATCH, count), side // 8
    order = torch.randperm(count, generator=generator)
    for index in order[: count // size * size].split(size):
        shift = torch.randint(-reach, reach + 1, (2, size, 1), generator=generator)
        # a coordinate outside the image reads the pixel at the edge
        rows, columns = (torch.arange(side) + shift).clamp(0, side - 1)
        mirrored = torch.rand(size, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
        x = split.x[index[:, None, None], rows[:, :, None], columns[:, None, :]]
        yield to_float(x), split.y[index]
