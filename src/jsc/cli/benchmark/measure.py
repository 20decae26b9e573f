"""Times and errors of contenders that run in turn."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from jsc.network.accuracy import largest_error, largest_number

WRONG = 1e-2  # of the largest output: a contender that is further off is not timed
WARM_UP = 3
FEWEST = 5


def measure(
    made: Mapping[str, Callable[[], Any] | str], exact: Any, seconds: float, batch: int
) -> list[dict[str, Any]]:
    """One row for each contender; without times where `seconds` is 0."""
    rows: list[dict[str, Any]] = []
    for name, run in made.items():
        row: dict[str, Any] = {
            "name": name, "error": None, "median_ms": None, "p90_ms": None, "images_per_s": None,
            "calls": 0, "problem": run if isinstance(run, str) else "",
        }  # fmt: skip
        rows.append(row)
        if not isinstance(run, str):
            row["error"] = difference(run(), exact)
            if row["error"] is not None and not row["error"] <= WRONG:
                row["problem"] = f"wrong: its error is {row['error']:.1e} of the largest output"
                row["error"] = None if not math.isfinite(row["error"]) else row["error"]
    runs = {r["name"]: made[r["name"]] for r in rows if not r["problem"]}
    if seconds > 0:
        times = _times({n: f for n, f in runs.items() if not isinstance(f, str)}, seconds)
        for row in rows:
            taken = sorted(times.get(row["name"], []))
            if taken:
                median = statistics.median(taken)
                row |= {
                    "median_ms": 1e3 * median,
                    "p90_ms": 1e3 * taken[math.ceil(0.9 * len(taken)) - 1],
                    "images_per_s": batch / median,
                    "calls": len(taken),
                }
    return rows


def _times(runs: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, list[float]]:
    """Seconds of single calls: a call of each in turn, so that all meet the same machine."""
    for run in runs.values():
        for _ in range(WARM_UP):
            run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + seconds * len(runs)
    while time.perf_counter() < end or len(next(iter(times.values()), [0] * FEWEST)) < FEWEST:
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return times


def difference(outputs: Any, exact: Any) -> float | None:
    """The largest one over the largest output, of all outputs; None where nothing compares."""
    worst: float | None = None
    ours, truth = (
        [t for t in pytree.tree_leaves(o) if isinstance(t, Tensor)] for o in (outputs, exact)
    )
    if len(ours) != len(truth):
        return None
    for y, t in zip(ours, truth, strict=True):
        if not t.is_floating_point() or t.numel() == 0:
            continue
        if (largest := largest_number(t)) > 0:
            worst = max(worst or 0.0, largest_error(y, t) / largest)
    return worst
