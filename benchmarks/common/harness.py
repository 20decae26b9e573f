"""Check, then time: methods run in turn in one process, and a wrong result is never timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor


class WrongResult(AssertionError):
    """A method's result is too far from the reference, so that its time would mean nothing."""


def max_error(result: Tensor, reference: Tensor) -> float:
    """max |result - reference| / max |reference|, in float64; infinite when not comparable."""
    if result.shape != reference.shape:
        return float("inf")
    reference = reference.detach().double()
    scale = reference.abs().amax().clamp_min(torch.finfo(torch.float64).tiny)
    error = ((result.detach().double() - reference).abs().amax() / scale).item()
    return error if error == error else float("inf")


def check(name: str, result: Tensor, reference: Tensor, tolerance: float) -> float:
    """The error of `result` (see `max_error`), or `WrongResult` when it is above `tolerance`."""
    error = max_error(result, reference)
    if not error <= tolerance:
        raise WrongResult(
            f"{name}: error {error:.2e} of the largest value, allowed {tolerance:.0e} "
            f"(shape {tuple(result.shape)}, expected {tuple(reference.shape)}); not timed"
        )
    return error


@dataclass(frozen=True)
class Timing:
    """Seconds per call, one sample per round."""

    samples: np.ndarray

    @property
    def median(self) -> float:
        return float(np.median(self.samples))

    def half(self, which: int) -> float:
        """Median of every second round. What was chosen on half 0 is reported on half 1, which the
        choice did not see."""
        return float(np.median(self.samples[which::2]))


@dataclass(frozen=True)
class Ratio:
    """How many times faster: ratio of the medians, and the quartiles of the rounds' own ratios."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, baseline: Timing, method: Timing) -> Ratio:
        rounds = baseline.samples / method.samples
        low, high = np.quantile(rounds, (0.25, 0.75))
        return cls(baseline.median / method.median, float(low), float(high))


def timed(run: Callable[[], Any], count: int) -> float:
    """Seconds a call, the mean of `count` of them after one that is not timed: so that no method is
    charged for what the one before it left in caches and in the allocator."""
    run()
    start = time.perf_counter()
    for _ in range(count):
        run()
    return (time.perf_counter() - start) / count


def interleave(
    methods: Mapping[str, Callable[[], Any]], rounds: int = 11, sample_seconds: float = 2e-3
) -> dict[str, Timing]:
    """`take_turns` of methods in this process."""
    samplers = {name: partial(timed, run) for name, run in methods.items()}
    return take_turns(samplers, rounds, sample_seconds)


def take_turns(
    samplers: Mapping[str, Callable[[int], float]],
    rounds: int = 11,
    sample_seconds: float = 2e-3,
    rest: float = 0.0,
) -> dict[str, Timing]:
    """Time methods in turn, `rounds` times; each round begins with the next one.

    Whatever disturbs the machine then disturbs all of them alike. A sampler gives the seconds of a
    call, as the mean of so many; here it is asked for as many as fill `sample_seconds`. `rest` is
    how long nobody runs before that: threads of some runtimes spin on for tens of milliseconds.
    """
    calls = {}
    for name, sample in samplers.items():
        calls[name] = max(1, round(sample_seconds / max(sample(1), 1e-7)))
    names = list(samplers)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            time.sleep(rest)
            samples[name].append(samplers[name](calls[name]))
    return {name: Timing(np.array(values)) for name, values in samples.items()}


def compare(
    methods: Mapping[str, Callable[[], Tensor]],
    reference: Tensor,
    tolerance: float = 1e-4,
    rounds: int = 11,
    sample_seconds: float = 2e-3,
) -> dict[str, Timing]:
    """`interleave`, after every method's result has been checked against `reference`."""
    for name, run in methods.items():
        check(name, run(), reference, tolerance)
    return interleave(methods, rounds, sample_seconds)


@contextmanager
def num_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def product_rate(threads: int, size: int = 1024, rounds: int = 31) -> float:
    """Multiply-adds a second of torch's matrix product of `size` x `size` float32 matrices, the
    best of `rounds`: what a tuned library gets out of this machine's multiply-add units."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    with num_threads(threads):
        best = interleave({"product": lambda: a @ b}, rounds)["product"].samples.min()
    return size**3 / float(best)


def geometric_mean(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(values)))) if values else float("nan")
