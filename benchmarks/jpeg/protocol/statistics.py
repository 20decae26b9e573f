"""Accuracy under attack, and gains over the standard network with their intervals.

A row is one network, arm and seed; `held[attack][epsilon]` is a string with a 1 for each image that
withstood, from the first on. Gains are paired: the same seed, the same images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.common.intervals import Gain, bits, interval

Row = dict[str, Any]
STANDARD = "standard"
WORST = "worst"
STRONGEST = "PGD-50, 3 starts"
NEEDED = (*(("PGD-5", e) for e in (1.0, 2.0, 3.0, 4.0)), (STRONGEST, 1.0), (STRONGEST, 2.0))
QUANTISED = ("authors", "saturation")  # BPDA is for these arms


def worst(row: Row, epsilon: float) -> np.ndarray | None:
    """Which images withstood every attack at `epsilon` or below: an image changed less is still
    within reach. Counted are the images that met all of `NEEDED`; Square and transfer, made on
    fewer, leave the others standing. None where there are none."""
    images = reach(row)
    found = np.ones(images, bool)
    for by_epsilon in row["held"].values():
        for at, held in by_epsilon.items():
            if at <= epsilon:
                part = bits(held)[:images]
                found[: len(part)] &= part
    return found if images else None


def reach(row: Row) -> int:
    """How many images met all of `NEEDED`, and BPDA where the arm has a quantiser."""
    needed = NEEDED + (("PGD-50, BPDA", 1.0), ("PGD-50, BPDA", 2.0)) * (row["arm"] in QUANTISED)
    return min(len(row["held"].get(attack, {}).get(e, "")) for attack, e in needed)


def withstood(row: Row, attack: str, epsilon: float) -> np.ndarray | None:
    """Of the attack, or of all together where `attack` is `WORST`; None where it was not made."""
    if attack == WORST:
        return worst(row, epsilon)
    held = row["held"].get(attack, {}).get(epsilon)
    return None if held is None else bits(held)


def of(rows: Iterable[Row], network: str, arm: str) -> list[Row]:
    return [row for row in rows if (row["network"], row["arm"]) == (network, arm)]


def accuracy(
    rows: Sequence[Row], attack: str, epsilon: float, images: int | None = None
) -> tuple[float, int] | None:
    """Per cent of the first `images`, the mean over those seeds that met the attack, and their
    number."""
    found = [withstood(row, attack, epsilon) for row in rows]
    made = [100 * float(held[:images].mean()) for held in found if held is not None]
    return (float(np.mean(made)), len(made)) if made else None


def size(rows: Sequence[Row], attack: str, epsilons: Sequence[float]) -> int:
    """How many images met the attack at each of `epsilons` at which any did, on each seed that met
    it; 0 where none did."""
    found = [withstood(row, attack, epsilon) for row in rows for epsilon in epsilons]
    return min((len(held) for held in found if held is not None), default=0)


def gain(
    rows: Sequence[Row], network: str, arm: str, attack: str, epsilons: Sequence[float]
) -> Gain | None:
    """Mean over `epsilons`, on the images and seeds of which both met the attack at all of them;
    None where there are none."""
    standard = {row["seed"]: row for row in of(rows, network, STANDARD)}
    found: list[list[np.ndarray]] = []
    for row in of(rows, network, arm):
        other = standard.get(row["seed"], {"held": {}})
        masks = [withstood(r, attack, e) for e in epsilons for r in (row, other)]
        made = [mask.astype(float) for mask in masks if mask is not None]
        if made and len(made) == len(masks):
            found.append(made)
    if not found:
        return None
    size = min(len(mask) for made in found for mask in made)
    return interval([
        np.mean([a[:size] - b[:size] for a, b in zip(made[::2], made[1::2], strict=True)], 0)
        for made in found
    ])  # fmt: skip


def pairs(
    rows: Sequence[Row], first: str, second: str, epsilon: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """What withstood either attack, on the images that met both; one pair for each such row."""
    found = []
    for row in rows:
        a, b = (withstood(row, attack, epsilon) for attack in (first, second))
        if a is not None and b is not None:
            size = min(len(a), len(b))
            found.append((a[:size], b[:size]))
    return found


def only(rows: Sequence[Row], first: str, second: str, epsilon: float) -> float | None:
    """Per cent of images that `first` breaks and `second` does not, mean over seeds."""
    shares = [float((~a & b).mean()) for a, b in pairs(rows, first, second, epsilon)]
    return 100 * float(np.mean(shares)) if shares else None


def lead(rows: Sequence[Row], first: str, second: str, epsilon: float) -> float | None:
    """Points that more images withstand `first` than `second`, mean over seeds."""
    points = [float(a.mean() - b.mean()) for a, b in pairs(rows, first, second, epsilon)]
    return 100 * float(np.mean(points)) if points else None
