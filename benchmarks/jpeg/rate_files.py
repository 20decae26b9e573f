"""The rate estimate beside the sizes of real files."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from torch import Tensor

import jsc

SUBSAMPLINGS = ("4:4:4", "4:2:0")


def file_bits(image: Tensor, tables: Tensor, subsampling: str, optimize: bool) -> tuple[int, int]:
    """Bits of the whole file, and of its scan alone (no header, no tables)."""
    file = io.BytesIO()
    jsc.jpeg.save(file, image, tables, subsampling=subsampling, optimize=optimize)
    data = file.getvalue()
    return 8 * len(data), 8 * (len(data) - data.rindex(b"\xff\xda"))


def compare(name: str, pictures: list[Tensor], qualities: list[int]) -> list[dict[str, Any]]:
    """One row a subsampling and quality: means over uint8 pictures (3, H, W) of one size."""
    batch = torch.stack(pictures).float() / 255
    pixels = batch.shape[2] * batch.shape[3]
    rows = []
    for subsampling in SUBSAMPLINGS:
        for quality in qualities:
            tables = jsc.jpeg.quality_tables(quality)
            options = {"subsampling": subsampling, "quantizer": "hard"}
            whole = tables.long()
            plain = [file_bits(p, whole, subsampling, False) for p in pictures]
            small = [file_bits(p, whole, subsampling, True) for p in pictures]
            alone = [jsc.functional.jpeg_rate(x[None], tables, **options).item() for x in batch]
            rows.append({
                "images": name, "subsampling": subsampling, "quality": quality,
                "file": mean(plain, 0, pixels), "optimised": mean(small, 0, pixels),
                "scan": mean(plain, 1, pixels), "optimised scan": mean(small, 1, pixels),
                "estimate": jsc.functional.jpeg_rate(batch, tables, **options).item(),
                "estimate, image by image": float(np.mean(alone)),
                "pairs": [(a, s[1] / pixels) for a, s in zip(alone, small, strict=True)],
            })  # fmt: skip
    return rows


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
