"""The rate estimate beside the sizes of real files."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from torch import Tensor

import jsc
from benchmarks.common import processes
from jsc._progress import Progress

SUBSAMPLINGS = ("4:4:4", "4:2:0")


def file_bits(image: Tensor, tables: Tensor, subsampling: str, optimize: bool) -> tuple[int, int]:
    """Bits of the whole file, and of its scan alone (no header, no tables)."""
    file = io.BytesIO()
    jsc.jpeg.save(file, image, tables, subsampling=subsampling, optimize=optimize)
    data = file.getvalue()
    return 8 * len(data), 8 * (len(data) - data.rindex(b"\xff\xda"))


def compare(sets: dict[str, list[Tensor]], qualities: list[int]) -> list[dict[str, Any]]:
    """A row for each set of pictures, subsampling and quality; several processes share the rows."""
    cases = [(n, s, q) for n in sets for s in SUBSAMPLINGS for q in qualities]
    own = processes.share(cases)
    rows = []
    with Progress("rate: files", len(own), enabled=processes.first()) as bar:
        for name, subsampling, quality in own:
            rows.append(compare_at(name, sets[name], subsampling, quality))
            bar.step(f"{name}, {subsampling}, quality {quality}")
    return processes.merged(rows)


def compare_at(name: str, pictures: list[Tensor], subsampling: str, quality: int) -> dict[str, Any]:
    """Means over uint8 pictures (3, H, W) of one size."""
    batch = torch.stack(pictures).float() / 255
    pixels = batch.shape[2] * batch.shape[3]
    tables = jsc.jpeg.quality_tables(quality)
    options = {"subsampling": subsampling, "quantizer": "hard"}
    whole = tables.long()
    plain = [file_bits(p, whole, subsampling, False) for p in pictures]
    small = [file_bits(p, whole, subsampling, True) for p in pictures]
    alone = [jsc.functional.jpeg_rate(x[None], tables, **options).item() for x in batch]
    return {
        "images": name, "subsampling": subsampling, "quality": quality,
        "file": mean(plain, 0, pixels), "optimised": mean(small, 0, pixels),
        "scan": mean(plain, 1, pixels), "optimised scan": mean(small, 1, pixels),
        "estimate": jsc.functional.jpeg_rate(batch, tables, **options).item(),
        "estimate, image by image": float(np.mean(alone)),
        "pairs": [(a, s[1] / pixels) for a, s in zip(alone, small, strict=True)],
    }  # fmt: skip


def mean(bits: list[tuple[int, int]], which: int, pixels: int) -> float:
    return float(np.mean([b[which] for b in bits])) / pixels


def agreement(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How the optimised scans follow the estimates, for each set and subsampling.

    The correlation is that over images and qualities; the ratios are scan / estimate.
    """
    found = []
    for key in dict.fromkeys((row["images"], row["subsampling"]) for row in rows):
        mine = [row for row in rows if (row["images"], row["subsampling"]) == key]
        pairs = np.array([pair for row in mine for pair in row["pairs"]])
        within = [np.corrcoef(np.array(row["pairs"]).T)[0, 1] for row in mine]
        ratios = [row["optimised scan"] / row["estimate"] for row in mine]
        found.append({
            "images": key[0], "subsampling": key[1],
            "correlation": float(np.corrcoef(pairs.T)[0, 1]),
            "correlation at one quality, least": float(min(within)),
            "scan / estimate, least": min(ratios), "most": max(ratios),
        })  # fmt: skip
    return found
