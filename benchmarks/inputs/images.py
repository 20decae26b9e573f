"""Image sets kept as npz files, and the exact preprocessing of each network.

A set is either plain uint8 arrays (`x_train, y_train, x_test, y_test`, NHWC), or JPEG/PNG files
back to back: `data[offsets[i]:offsets[i+1]]`, with one `header` for all files that lack theirs.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

COMPLETE_FILE = (b"\xff\xd8", b"\x89P")  # how a JPEG and a PNG begin
SHORT_SIDE = 256
CROP = {192: 224, 299: 256}  # input size: side of the centre crop, when it is not the input size


class ImageSet:
    """`images[i]` is an (H, W, 3) uint8 array, `labels[i]` its class; `split` is test or train."""

    def __init__(self, path: Path, split: str = "test") -> None:
        with np.load(path, allow_pickle=False) as stored:
            self._arrays = {key: stored[key] for key in stored.files}
        self._plain = f"x_{split}" in self._arrays
        if self._plain:
            self._pixels, self.labels = self._arrays[f"x_{split}"], self._arrays[f"y_{split}"]
        else:
            wanted = self._arrays["split"] == (1 if split == "test" else 0)
            self._index = np.flatnonzero(wanted)
            self.labels = self._arrays["labels"][self._index]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> np.ndarray:
        if self._plain:
            return self._pixels[i]
        from PIL import Image

        return np.asarray(Image.open(io.BytesIO(self.file(i))).convert("RGB"))

    def file(self, i: int) -> bytes:
        """The JPEG or PNG file of an image, of a set that keeps files."""
        k = self._index[i]
        offsets = self._arrays["offsets"]
        file: bytes = self._arrays["data"][offsets[k] : offsets[k + 1]].tobytes()
        complete = file[:2] in COMPLETE_FILE
        return file if complete else self._arrays["header"].tobytes() + file


def preprocess(image: np.ndarray, recipe: dict[str, Any]) -> Tensor:
    """(H, W, 3) uint8 to the (3, h, w) float32 a network was trained on.

    Images larger than 32x32: short side to 256, centre crop, then the network's size (bilinear).
    """
    size = recipe["size"][0]
    if size != image.shape[0] or image.shape[0] != image.shape[1]:
        image = _fit(image, CROP.get(size, size), size)
    x = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)
    if recipe["order"] == "BGR":
        x = x.flip(0)
    if recipe["scale"] == "x/255":
        x = x / 255
    elif recipe["scale"] == "x/127.5 - 1":
        x = x / 127.5 - 1
    elif not recipe["scale"].startswith("none"):
        raise ValueError(f"unknown scale {recipe['scale']!r} in the network's preprocessing")
    mean, std = (torch.tensor(recipe[key], dtype=torch.float32) for key in ("mean", "std"))
    return ((x - mean[:, None, None]) / std[:, None, None]).contiguous()


def crop(image: np.ndarray, size: int) -> np.ndarray:
    """The pixels `preprocess` would take, (size, size, 3) uint8."""
    return _fit(image, CROP.get(size, size), size).copy()


def _fit(image: np.ndarray, crop: int, size: int) -> np.ndarray:
    from PIL import Image

    picture = Image.fromarray(image)
    if min(picture.size) != SHORT_SIDE:
        scale = SHORT_SIDE / min(picture.size)
        shape = tuple(round(scale * side) for side in picture.size)
        picture = picture.resize(shape, Image.Resampling.BILINEAR)
    left, top = ((side - crop) // 2 for side in picture.size)
    picture = picture.crop((left, top, left + crop, top + crop))
    if crop != size:
        picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(picture)


def smooth(count: int = 1, size: int = 32) -> Tensor:
    """Random images in [-1, 1] without a data folder: noise at an eighth of the size, enlarged."""
    coarse = 2 * torch.rand(count, 3, size // 8, size // 8) - 1
    return F.interpolate(coarse, scale_factor=8, mode="bilinear")
