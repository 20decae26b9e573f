"""Quantised DCT coefficients as the input of a network, against decoding and a pixel stem.

The files of flower_photos5 (128x128, 4:4:4, quality 95) are read twice: as pixels by Pillow, and as
the quantised coefficients that they hold, by jpeglib; and again after libjpeg has written the same
pictures at quality 30, where most coefficients are zeros. Coefficients are 192 channels at an
eighth of the resolution, as in Gueguen et al., Faster Neural Networks Straight from JPEG, NeurIPS
2018 (on ImageNet, 1.77 times as fast as ResNet-50 at about its accuracy). They are multiplied by
their steps over their deviations, so that zeros stay zeros, and go into one 3x3 convolution, 192
channels to 48. Pixels go through ResNet's stem (7x7 of stride 2, pooling) and two residual blocks
to the same 48 channels. The trunk behind is the same.

Both train on 1,000 images from the same seeds with the same budget (one-cycle SGD to .1, batch 50,
weight decay 5e-4, label smoothing .1): the same crops of 10x10 blocks, and mirrorings, which are
exact for coefficients. The test has 300 images, and a run's standard error is 2.7 points. Gains are
paired by seed, ± is the standard deviation over seeds. Nothing was chosen on test images; 200
held-out training images were there for choices, and none was made.

Times are those of one thread. "stem" is everything up to the 48 channels, conversion to float32
included; "cpc" is `jsc.nn.SparseConv2d`; "compiled" is `jsc.compile`, which passes over zeros where
that is faster, and "compiled dense" the same without. "decode at 1/8" is Pillow at an eighth of the
size, where libjpeg decodes every coefficient and transforms almost none: about what the best reader
of coefficients would take. jpeglib reads through Python, which costs more.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import report
from benchmarks.common.harness import num_threads
from benchmarks.common.kept import Runs
from benchmarks.jpeg import dct_files, dct_networks, dct_page, dct_times
from benchmarks.jpeg.dct_files import Files
from jsc._progress import Progress

Row = dict[str, Any]
QUALITIES = (None, 30)  # None: the files as they are


def train(options: argparse.Namespace, kept: Runs, sets: list[Files]) -> list[Row]:
    """A row for each quality, input and seed, pixels and coefficients together; runs that are kept
    are not made again, and none is begun when the minutes are over."""
    end = time.monotonic() + 60 * options.minutes
    planned = [(seed, files) for seed in options.seeds for files in sets]
    rows = []
    size = len(sets[0].train.y)
    steps = options.epochs * (size // min(dct_files.BATCH, size)) * 2 * len(planned)
    with Progress("dct_input: batches", steps) as bar:
        for seed, files in planned:
            configs = [
                dct_networks.configuration(kind, files.quality, seed, options.epochs, size)
                for kind in dct_networks.INPUTS
            ]
            if not all(map(kept.get, configs)) and time.monotonic() > end:
                print(f"quality {files.quality}, seed {seed} is left: start again to go on")
                continue
            for kind in dct_networks.INPUTS:
                record = dct_networks.run(kept, kind, files, seed, options.epochs, bar.step)
                rows.append({
                    "quality": files.quality, "input": kind, "seed": seed,
                    **{key: record[key] for key in ("validation", "test", "cpu seconds")},
                })  # fmt: skip
    return rows


def describe(files: Files) -> Row:
    levels = files.test.levels
    return {
        "quality": files.quality, "bytes": files.test.nbytes,
        "bits a pixel": 8 * files.test.nbytes / files.test.pixels[0, 0].numel(),
        "density": float((levels != 0).double().mean()),
        "density of Y": float((levels[:, :64] != 0).double().mean()),
    }  # fmt: skip


def arguments_of(given: list[str]) -> argparse.Namespace:
    parser = report.parser("dct_input", __doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--epochs", type=int, default=dct_networks.EPOCHS)
    parser.add_argument("--batch", type=int, default=16, help="images a timed call")
    parser.add_argument("--budget", type=float, default=20, help="seconds to tune a network")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no run later")
    parser.add_argument(
        "--no-times", dest="timed", action="store_false", help="train only, on a busy machine"
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("out") / "dct_input", help="finished runs"
    )
    options = report.parse(parser, given)
    if options.data is None:
        parser.error("--data DIR is needed: the folder with images/")
    if options.quick:
        options.runs, options.rounds, options.budget = options.runs / "quick", 3, 0.5
        options.seeds, options.epochs, options.batch = options.seeds[:1], 1, 4
    return options


def main(arguments: list[str]) -> None:
    options = arguments_of(arguments)
    torch.set_num_threads(1)
    options.threads = [1]
    kept = Runs(options.runs)
    sets = [dct_files.load(options.data, quality, quick=options.quick) for quality in QUALITIES]
    rows = train(options, kept, sets)
    sets = [files for files in sets if any(row["quality"] == files.quality for row in rows)]
    if not sets:
        raise SystemExit("no run is finished: start again with more --minutes")
    about = [describe(files) for files in sets]
    for row, files in zip(about, sets, strict=True):
        if not options.timed:
            continue
        models = {
            kind: dct_networks.trained(kept, kind, files, options.seeds[0], options.epochs)
            for kind in dct_networks.INPUTS
        }
        with num_threads(1):
            row["times"] = dct_times.measure(
                files, models, options.batch, options.rounds, options.budget
            )
    dct_page.write(options, __doc__ or "", rows, about)
