"""Times of functions that compute the same thing, on a machine that other programs use too."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

clock = time.perf_counter

MIN_ROUNDS = 3
TOO_SLOW = 3.0  # a function that takes so many times the baseline is not timed further


class Deadline:
    """A point in time, so many seconds from now."""

    def __init__(self, seconds: float) -> None:
        self._end = clock() + seconds

    @property
    def left(self) -> float:
        return max(0.0, self._end - clock())

    @property
    def over(self) -> bool:
        return clock() >= self._end


@dataclass
class Times:
    """Milliseconds. The median is what users get; the fastest run is the one that other programs
    disturbed least."""

    median: float = 0.0
    fastest: float = 0.0

    def add(self, other: Times) -> None:
        self.median += other.median
        self.fastest += other.fastest

    @property
    def spread(self) -> float:
        """median / fastest: 1 on an idle machine."""
        return self.median / self.fastest if self.fastest > 0 else 1.0

    def gain_over(self, other: Times) -> float:
        """How many times as fast as `other` it is: the smaller ratio of the two figures."""
        if min(self.median, self.fastest) <= 0:
            return 0.0
        return min(other.median / self.median, other.fastest / self.fastest)


def interleaved(
    candidates: Mapping[str, Callable[[], Any]],
    rounds: int,
    seconds: float,
    baseline: str = "dense",
    least: int = MIN_ROUNDS,
) -> dict[str, Times]:
    """Times of each function, all of which have run before: weights are packed, threads awake.

    The functions run in turn, so that a slow spell of the machine hits all of them. Each round
    starts with another one, so that none always finds the caches that the same predecessor left.
    It stops after `rounds`, or when `seconds` are over and `least` rounds are done.
    """
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    live = list(candidates)
    deadline = Deadline(seconds)
    for done in range(1, rounds + 1):
        for name in live[done % len(live) :] + live[: done % len(live)]:
            start = clock()
            result = candidates[name]()
            samples[name].append(clock() - start)
            del result  # freed outside the clock
        limit = TOO_SLOW * min(samples[baseline])
        live = [name for name in live if name == baseline or min(samples[name]) <= limit]
        if done >= least and deadline.over:
            break
    return {k: Times(1e3 * statistics.median(v), 1e3 * min(v)) for k, v in samples.items()}
