"""Times of rival functions on a machine that other people use too."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

MIN_ROUNDS = 3
HOPELESS = 3.0  # a rival that never came within three times the baseline is not timed further


def interleaved(
    rivals: Mapping[str, Callable[[], Any]], rounds: int, seconds: float, baseline: str = "dense"
) -> dict[str, float]:
    """Median milliseconds of each function.

    The functions run in turn, so that a slow spell of the machine hits all of them, and each round
    starts with another one, so that none always finds the caches its predecessor left. One call
    of each comes before the clock starts: it packs weights and wakes the threads. Stops after
    `rounds`, or when `seconds` are over and `MIN_ROUNDS` are done.
    """
    for function in rivals.values():
        function()
    samples: dict[str, list[float]] = {name: [] for name in rivals}
    live = list(rivals)
    end = time.perf_counter() + seconds
    for done in range(1, rounds + 1):
        for name in live[done % len(live) :] + live[: done % len(live)]:
            start = time.perf_counter()
            result = rivals[name]()
            samples[name].append(time.perf_counter() - start)
            del result  # freed outside the clock
        limit = HOPELESS * min(samples[baseline])
        live = [name for name in live if name == baseline or min(samples[name]) <= limit]
        if done >= MIN_ROUNDS and time.perf_counter() > end:
            break
    return {name: 1e3 * statistics.median(times) for name, times in samples.items()}
