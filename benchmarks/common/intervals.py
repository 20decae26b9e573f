"""Gains of paired runs, with their 95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# 97.5 %, 1, 2, ... degrees of freedom
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20)


class Gain(NamedTuple):
    """Points over standard; half widths of its 95 % intervals over seeds and over images."""

    mean: float
    seeds: float | None  # None with one seed
    images: float
    count: int  # seeds
    size: int  # images

    @property
    def half(self) -> float:
        """The wider of the two, which decides."""
        return max(self.images, self.seeds or 0.0)

    @property
    def sign(self) -> int:
        """1 or -1 where the interval leaves out zero, else 0."""
        return int(np.sign(self.mean)) if abs(self.mean) > self.half else 0

    def __str__(self) -> str:
        return f"{self.mean:+.1f} ± {self.half:.1f}"


def bits(held: str) -> np.ndarray:
    return np.frombuffer(held.encode(), np.uint8) == ord("1")


def half_width(values: Sequence[float] | np.ndarray) -> float | None:
    """Of the 95 % interval of the mean, by Student's t; None of one value."""
    if len(values) < 2:
        return None
    student = STUDENT[min(len(values) - 1, len(STUDENT)) - 1]
    return float(student * np.std(values, ddof=1) / np.sqrt(len(values)))


def interval(differences: Sequence[np.ndarray]) -> Gain:
    """`differences` has one array a seed, an entry an image."""
    points = 100 * np.stack(differences)
    by_seed, by_image = points.mean(1), points.mean(0)
    images = float(1.96 * by_image.std(ddof=1) / np.sqrt(len(by_image)))
    return Gain(float(points.mean()), half_width(by_seed), images, len(by_seed), len(by_image))
