"""Bits: the rate estimate against real files, and tables trained for a network against libjpeg's.

Files are pictures that Pillow writes with the tables of each quality, with standard and with
optimised Huffman codes, in bits per pixel. A scan is a file without its header and tables, which
weigh much in small pictures. The estimate is the zero-order entropy of the quantised coefficients
(`jsc.functional.jpeg_rate`), of all pictures together and picture by picture.

For the accuracy (which needs --data) a ResNet-8 trained on CIFAR-10, which is not trained further,
sees the 1000 lossless test images through real files: 4:4:4, optimised, sized by their scans.
"trained" tables come from `loss + lambda * rate` on 4000 training images, and each lambda goes on
from the tables of the one before; "sensitivity" tables are q ~ S^(-1/2), scaled
(`rate_accuracy.py`). Saved bits are read off the curves, where the logarithm of the bits is
interpolated linearly, with the 95 % interval over test images. That interval does not cover the
variance of the training: 400 steps in place of 700 moved the figures for top-1 by up to 7 points
and those for cross-entropy by up to 2. Below 2 bits a pixel nothing certain is saved. This network
uses all frequencies: S^(-1/2) varies by a factor of 5 over luma and of 2 over chroma. (A curve of
SqueezeNet on 200 ImageNet samples was dropped: its standard error, 3.4 points, was larger than what
it had to show.)
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import figures, report
from benchmarks.inputs import images, networks
from benchmarks.jpeg import rate_accuracy, rate_files

NETWORK = "resnet8_cifar10_mlperftiny"
QUALITIES = [10, 20, 35, 50, 65, 75, 85, 92]
SCALES = [10.0, 15.0, 22.0, 32.0, 48.0]
LAMBDAS = [0.08, 0.2, 0.5, 1.2]
LEVELS = {"top-1 %": [75.0, 80.0], "cross-entropy": [0.8, 0.6]}


def natural(count: int, size: int) -> list[Tensor]:
    """Random pictures with the 1/f spectrum of photographs and strongly correlated colours."""
    frequency = torch.fft.fftfreq(size)[:, None].hypot(torch.fft.rfftfreq(size))
    frequency[0, 0] = 1
    noise = torch.fft.rfft2(torch.randn(count, 3, size, size)) / frequency
    planes = torch.fft.irfft2(noise, s=(size, size))
    planes = planes / planes.std((2, 3), keepdim=True)
    mix = torch.tensor([[1, 0.3, 0.2], [1, 0.1, -0.2], [1, -0.3, 0.1]])
    pixels = 120 + 45 * torch.einsum("ij,njhw->nihw", mix, planes)
    return list(pixels.round().clamp(0, 255).to(torch.uint8))


def stored(path: Path, count: int) -> list[Tensor]:
    photos = images.ImageSet(path)
    chosen = [photos[i * len(photos) // count] for i in range(count)]
    return [torch.from_numpy(p.copy()).permute(2, 0, 1) for p in chosen]


def pictures(options: argparse.Namespace) -> dict[str, list[Tensor]]:
    if options.data is None:
        count, size = (2, 64) if options.quick else (16, 256)
        return {f"1/f noise {size}": natural(count, size)}
    count = 4 if options.quick else 40
    folder = options.data / "images"
    return {
        "ImageNet 256": stored(folder / "imagenet_sample200_256.npz", count),
        "flowers 128": stored(folder / "flower_photos5_128.npz", count),
    }


def accuracy(options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The curves, and the bits saved."""
    if options.data is None:
        return [], []
    network = networks.load(options.data, NETWORK)
    path = options.data / "images" / f"{network.image_set}.npz"
    sets = []
    for split, step in (("train", 20), ("test", 10)):
        photos = images.ImageSet(path, split)
        chosen = range(0, len(photos), step if options.quick else 1)
        pixels = torch.from_numpy(np.stack([photos[i] for i in chosen])).permute(0, 3, 1, 2)
        sets.append((pixels.contiguous(), torch.from_numpy(photos.labels[list(chosen)]).long()))
    found, measured = rate_accuracy.curve(
        rate_accuracy.Input(network.model, network.recipe), *sets,
        QUALITIES[::3] if options.quick else QUALITIES,
        SCALES[::2] if options.quick else SCALES,
        options.lambdas[:2] if options.quick else options.lambdas,
        4 if options.quick else options.steps,
    )  # fmt: skip
    return found, rate_accuracy.savings(found, measured, LEVELS)


def draw(
    folder: Path, files: list[dict[str, Any]], found: list[dict[str, Any]]
) -> list[report.Figure]:
    """Estimate against scan, image by image; accuracy and cross-entropy against bits."""
    wide = 3 if found else 1
    figure, axes = figures.subplots(
        1, wide, figsize=(5 * wide, 4.4), layout="constrained", squeeze=False
    )
    axes = axes[0]
    for key in dict.fromkeys((row["images"], row["subsampling"]) for row in files):
        mine = [row["pairs"] for row in files if (row["images"], row["subsampling"]) == key]
        x, y = zip(*(pair for pairs in mine for pair in pairs), strict=True)
        axes[0].loglog(x, y, ".", alpha=0.5, markersize=4, label=", ".join(key))
    ends = axes[0].get_xlim()
    axes[0].plot(ends, ends, color="black", linewidth=1)
    axes[0].set(xlabel="estimate, bits per pixel", ylabel="optimised scan, bits per pixel")
    axes[0].set_title("Estimate and file, image by image")
    axes[0].legend(fontsize=8)
    for axis, quantity in zip(axes[1:], ("top-1 %", "cross-entropy"), strict=False):
        for name in ("libjpeg", "sensitivity", "trained"):
            mine = sorted((r["bpp"], r[quantity]) for r in found if r["tables"] == name)
            axis.semilogx(*zip(*mine, strict=True), "o-", label=f"{name} tables")
        axis.set(xlabel="bits per pixel of real files (scans)", ylabel=quantity)
        axis.set_title(f"{NETWORK}, weights fixed")
        axis.legend()
        axis.set_xticks([0.5, 1, 2, 4], ["0.5", "1", "2", "4"])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    figures.save(figure, folder / "rate.png")
    title = "The estimate against real files" + ", and accuracy against bits" * bool(found)
    return [report.Figure("rate.png", title)]


def main(arguments: list[str]) -> None:
    parser = report.parser("rate", __doc__, timed=False)
    parser.add_argument("--lambdas", type=float, nargs="+", default=LAMBDAS, metavar="L")
    parser.add_argument("--steps", type=int, default=700, help="of training, for each lambda")
    options = report.parse(parser, arguments)
    torch.manual_seed(0)
    torch.set_num_threads(options.threads[0])
    qualities = [50, 90] if options.quick else [10, 25, 50, 75, 85, 95]
    files = rate_files.compare(pictures(options), qualities)
    found, saved = accuracy(options)
    hidden = ("pairs", "entries")

    def shown(rows: list[dict[str, Any]]) -> str:
        return report.table([{k: v for k, v in r.items() if k not in hidden} for r in rows])

    page = {
        "Agreement of the estimate with optimised scans": report.table(rate_files.agreement(files)),
        "Bits per pixel": shown(files),
        "Bits saved at equal accuracy": report.table(saved) if saved else "",
        "Rate and accuracy": shown(found) if found else "",
    }
    drawn = figures.drawn(draw, options.out, files, found)
    data = {"files": files, "saved": saved, "accuracy": found}
    report.write(options, __doc__, page, data=data, figures=drawn)
