"""Image files in two forms, pixels and quantised coefficients, and the same views of both."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.inputs.images import ImageSet
from benchmarks.peers import coefficients

SET = "flower_photos5_128"
CROP = 10  # blocks of 8x8 pixels, of the 16 that an image is wide
BATCH = 50


@dataclass(frozen=True)
class Split:
    """Files as `pixels` (N, 3, H, W) uint8 and `levels` (N, 192, H / 8, W / 8) int16, the quantised
    coefficients: 64 of Y, of Cb and of Cr in natural order. `steps` (192,) are the files' own."""

    pixels: Tensor
    levels: Tensor
    y: Tensor
    steps: Tensor
    nbytes: float  # mean size of a file

    def __getitem__(self, index: Tensor) -> Split:
        return replace(self, pixels=self.pixels[index], levels=self.levels[index], y=self.y[index])


@dataclass(frozen=True)
class Files:
    """`validation` is every sixth training image: all choices are made on it."""

    quality: int | None
    train: Split
    validation: Split
    test: Split
    files: list[bytes]  # of the test images


def at_quality(file: bytes, quality: int | None) -> bytes:
    """The file itself, or the same picture written again by libjpeg at this quality."""
    if quality is None:
        return file
    from PIL import Image

    written = io.BytesIO()
    picture = Image.open(io.BytesIO(file)).convert("RGB")
    picture.save(written, "JPEG", quality=quality, subsampling="4:4:4", optimize=True)
    return written.getvalue()


def decode(file: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def load(data: Path, quality: int | None, *, quick: bool = False) -> Files:
    def read(split: str) -> tuple[Split, list[bytes]]:
        images = ImageSet(data / "images" / f"{SET}.npz", split)
        chosen = range(0, len(images), 40 if quick else 1)
        files = [at_quality(images.file(i), quality) for i in chosen]
        return of_files(files, [int(images.labels[i]) for i in chosen]), files

    (train, _), (test, files) = read("train"), read("test")
    index = torch.arange(len(train.y))
    held = index % 6 == 5
    return Files(quality, train[index[~held]], train[index[held]], test, files)


def of_files(files: list[bytes], labels: list[int]) -> Split:
    read = [coefficients.read(file) for file in files]
    steps = read[0][1]
    if not all(np.array_equal(found, steps) for _, found in read):
        raise ValueError("the files of a set must have the same quantisation tables")
    levels = np.stack([found for found, _ in read])
    pixels = np.stack([decode(file).transpose(2, 0, 1) for file in files])
    return Split(
        torch.from_numpy(pixels), torch.from_numpy(levels).flatten(1, 2), torch.tensor(labels),
        torch.from_numpy(steps).flatten(), float(np.mean([len(file) for file in files])),
    )  # fmt: skip


def odd_columns() -> Tensor:
    """-1 for the coefficients that change their sign when an image is mirrored: u odd."""
    u = torch.arange(192) % 8
    return 1 - 2 * (u % 2)


def views(split: Split, generator: torch.Generator, dct: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled batches of crops at whole blocks, every second time mirrored: exact in both forms,
    so that pixels and coefficients with one seed are the same pictures."""
    count, side = len(split.y), split.levels.shape[-1]
    size, crop = min(BATCH, count), min(CROP, side)
    order = torch.randperm(count, generator=generator)
    flipped = odd_columns().to(torch.int16).view(-1, 1, 1)
    for index in order[: count // size * size].split(size):
        places = torch.randint(0, side - crop + 1, (size, 2), generator=generator).tolist()
        mirrored = (torch.rand(size, generator=generator) < 0.5).tolist()
        made = []
        for i, (row, column), mirror in zip(index.tolist(), places, mirrored, strict=True):
            unit = 1 if dct else 8
            source = split.levels[i] if dct else split.pixels[i]
            rows, columns = unit * row, unit * column
            x = source[:, rows : rows + unit * crop, columns : columns + unit * crop]
            if mirror:
                x = x.flip(2) * flipped if dct else x.flip(2)
            made.append(x)
        yield torch.stack(made), split.y[index]
