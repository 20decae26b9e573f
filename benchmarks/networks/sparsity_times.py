"""Times of one network before and after it was made sparser, four ways of running it, in turn."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import jsc
from benchmarks.common.harness import Ratio, WrongResult, interleave

WAYS = ("torch", "cpc", "tuned", "compiled")
TOLERANCE = 1e-4
FEW = 0.25  # of the images may be off by more: where an activation lies at its threshold
LAST = torch.channels_last


def ways(model: nn.Module, x: Tensor, budget: float) -> dict[str, Callable[[], Tensor]]:
    """The ways of running `model` on `x`, each checked against float64."""
    nchw = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    nhwc, x_last = copy.deepcopy(model).to(memory_format=LAST), x.contiguous(memory_format=LAST)
    exact = copy.deepcopy(model).double()(x.double())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jsc.PlanWarning)
        # A threshold is a jump: whether a plan is right is checked below, image by image.
        plan = jsc.tune(nhwc, x_last, max_error=1.0, budget_s=budget, progress=False)
    tuned = jsc.apply(nhwc, plan)
    sparse = copy.deepcopy(nhwc)
    for name, conv in list(sparse.named_modules()):
        if isinstance(conv, nn.Conv2d) and conv.in_channels > 3:
            made = jsc.nn.SparseConv2d.from_dense(conv, method="cpc")
            parent, _, last = name.rpartition(".")
            setattr(sparse.get_submodule(parent), last, made)
    net = jsc.compile(nhwc, x_last, budget=budget, check=False, progress=False)
    found = {
        "torch": lambda: nhwc(x_last), "torch NCHW": lambda: nchw(x), "cpc": lambda: sparse(x_last),
        "tuned": lambda: tuned(x_last), "compiled": lambda: net(x_last),
    }  # fmt: skip
    for name, run in found.items():
        check(name, run(), exact)
    return found


def check(name: str, result: Tensor, exact: Tensor) -> None:
    """`WrongResult` if more than a few images are off. Where an activation lies so near to its
    threshold that rounding decides, two right programs may differ by the whole activation."""
    exact = exact.double()
    errors = (result.double() - exact).abs().amax(1) / exact.abs().amax()
    wrong = float((~(errors <= TOLERANCE)).double().mean())
    if wrong > FEW:
        raise WrongResult(f"{name}: {100 * wrong:.0f} % of the images are off; not timed")


def measure(
    models: Mapping[str, nn.Module], x: Tensor, rounds: int, budget: float
) -> dict[str, dict[str, Any]]:
    """By arm and way: milliseconds an image, and how many times faster than the first arm that
    way, with quartiles. All arms and ways take turns in one process."""
    runs = {
        (arm, way): run
        for arm, model in models.items()
        for way, run in ways(model, x, budget).items()
    }
    taken = interleave(runs, rounds, 5e-3)  # type: ignore[type-var, arg-type]
    times = {key: timing for key, timing in taken.items() if key[1] != "torch NCHW"}
    for arm in models:  # dense is the faster layout of the two
        both = (taken[arm, "torch"], taken[arm, "torch NCHW"])
        times[arm, "torch"] = min(both, key=lambda timing: timing.half(0))
    first = next(iter(models))
    found: dict[str, dict[str, Any]] = {arm: {} for arm in models}
    for (arm, way), timing in times.items():
        ratio = Ratio.of(times[first, way], timing)
        dense = Ratio.of(times[arm, "torch"], timing)
        found[arm][way] = {
            "ms": 1e3 * timing.median / len(x),
            "quartiles": (1e3 / len(x) * np.quantile(timing.samples, (0.25, 0.75))).tolist(),
            "gain": [ratio.value, ratio.low, ratio.high],
            "over torch": [dense.value, dense.low, dense.high],
        }
    return found
