"""Real images for the demo: scikit-learn's own, or a folder of one's own.

The built-in task needs no download: 1797 handwritten digits (8x8, enlarged), each drawn over a
patch of one of two photographs as ``|patch - digit|``, the recipe of MNIST-M (Ganin et al. 2016,
section 4.1). The result has the colours, edges and noise of photographs, so that a JPEG layer has
something to throw away, and is hard enough for a small network not to be perfect.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from jsc.cli.extras import PICTURES, folder_of, need, picture

SIZE = 32
TEST_SHARE = 0.25


@dataclass(frozen=True)
class Task:
    """Images (N, 3, H, W) in [0, 1], labels (N,), and the classes' names."""

    name: str
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: tuple[str, ...]


def _split(x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices of the training and of the test images."""
    order = torch.randperm(len(y), generator=generator)
    cut = max(1, round(TEST_SHARE * len(y)))
    return order[cut:], order[:cut]


def _tensor(image: Any) -> Tensor:
    """A Pillow image as (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def _patches(photo: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Random square patches of a photograph (3, H, W), each reduced to SIZE."""
    side = 2 * SIZE  # a finer patch would be flat, a coarser one would hide the digit
    top = torch.randint(photo.shape[1] - side + 1, (count,), generator=generator).tolist()
    left = torch.randint(photo.shape[2] - side + 1, (count,), generator=generator).tolist()
    cut = [photo[:, i : i + side, j : j + side] for i, j in zip(top, left, strict=True)]
    return F.avg_pool2d(torch.stack(cut), 2)


def digits_on_photographs(generator: torch.Generator, limit: int | None = None) -> Task:
    """The built-in task. Training and test digits lie on different parts of the photographs."""
    # The files are read as they lie there: importing scikit-learn would bring its own OpenMP
    # runtime into the process, beside torch's.
    folder = folder_of("sklearn", "scikit-learn", "demo", "the built-in task") / "datasets"
    pillow = need("PIL.Image", "Pillow", "demo", "the built-in task")
    table = torch.from_numpy(np.loadtxt(folder / "data" / "digits.csv.gz", delimiter=","))[:limit]
    strokes, labels = table[:, :64].float().view(-1, 1, 8, 8) / 16, table[:, 64].long()
    strokes = F.interpolate(strokes, size=(SIZE, SIZE), mode="bicubic", align_corners=False)
    strokes = strokes.clamp(0, 1)
    photos = []
    for name in ("china.jpg", "flower.jpg"):
        with pillow.open(folder / "images" / name) as image:
            photos.append(_tensor(image))
    parts = _split(strokes, labels, generator)
    images = []
    for part, (start, stop) in zip(parts, ((0.0, 0.7), (0.7, 1.0)), strict=True):
        crops = []
        for photo in photos:
            width = photo.shape[2]
            piece = photo[:, :, round(start * width) : round(stop * width)]
            crops.append(_patches(piece, len(part), generator))
        which = torch.randint(len(photos), (len(part),), generator=generator)
        ground = torch.stack(crops)[which, torch.arange(len(part))]
        images.append((ground - strokes[part]).abs())
    (train, test), classes = parts, tuple(map(str, range(10)))
    name = "handwritten digits on photographs (scikit-learn)"
    return Task(name, images[0], labels[train], images[1], labels[test], classes)


def image_folder(folder: Path, generator: torch.Generator, limit: int | None = None) -> Task:
    """DIR/<class>/*.{jpg,png,..}: each image scaled to cover a 32 x 32 square and cropped to it."""
    operations = need("PIL.ImageOps", "Pillow", "demo", "--data")
    if not folder.is_dir():
        raise ValueError(f"--data: there is no folder {folder}")
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    files = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).iterdir())
        if path.suffix.lower() in PICTURES
    ]
    if len(classes) < 2 or len(files) < 8:
        raise ValueError(
            f"--data: expected {folder}/<class>/*.jpg or *.png with two classes and eight images "
            f"at least, found {len(classes)} classes and {len(files)} images"
        )
    if limit is not None:
        keep = torch.randperm(len(files), generator=generator)[:limit].sort().values
        files = [files[i] for i in keep]
    images = []
    for path, _ in files:
        image = picture(path, "RGB", "--data")
        images.append(_tensor(operations.fit(image, (SIZE, SIZE))))
    x, y = torch.stack(images), torch.tensor([label for _, label in files])
    train, test = _split(x, y, generator)
    return Task(str(folder), x[train], y[train], x[test], y[test], tuple(classes))
