"""Choose a method for every convolution of a network by measuring it on a real sample."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from jsc._progress import Progress
from jsc.nn import SparseConv2d
from jsc.ops.conv import METHODS
from jsc.optimize.apply import apply
from jsc.optimize.capture import (
    Layer,
    count_calls,
    evaluating,
    find_layers,
    run,
    tensors,
    visit_calls,
)
from jsc.optimize.convert import restore
from jsc.optimize.measure import Measurement, choose, measure_call, refusal
from jsc.optimize.plan import LayerChoice, Plan
from jsc.optimize.timing import interleaved
from jsc.optimize.variants import PLAIN, bolder, formats, race

M = TypeVar("M", bound=nn.Module)
Filter = Callable[[nn.Module, str], bool]

LAYERS_SHARE = 0.7  # of the time budget; the rest is for the model as a whole


def tune(
    model: nn.Module,
    sample: Any,
    *,
    methods: Iterable[str] | None = None,
    min_gain: float = 1.05,
    repeats: int = 15,
    budget_s: float = 60.0,
    filter_fn: Filter | None = None,
    progress: bool = True,
) -> Plan:
    """Find the fastest convolution method of each layer on this machine, for this kind of input.

    Runs the model on `sample` in evaluation mode. Each time a convolution is called, every method
    is checked against the dense result and timed in turn on the very activation the layer got, in
    the memory format it came in, encoding included, with torch's present number of threads. A
    method that is wrong is not timed; a layer leaves the dense way only for a gain of `min_gain`.
    Then the whole model is timed with and without the plan, as it is, with CPC and bf16x3 also
    where they gain only fused with what follows, and with all maps channels-last; the layer that
    gained least goes back to dense until the plan is not slower: on the sample, no plan makes a
    model slower.

    Parameters
    ----------
    model : nn.Module on the CPU
        Left as it is: training mode, hooks, gradients and torch's random state included.
    sample : Tensor, tuple (positional arguments) or dict (keyword arguments)
        A *real* batch: the choice depends on how many activations are zero, and random numbers
        have other zeros.
    methods : names from `jsc.ops.conv.METHODS`, or None for all
    min_gain : float
        dense time / method time from which on a layer is changed for its own sake.
    repeats : int
        Rounds of timing. A method is as fast as its median and its best round both say.
    budget_s : float
        About how long tuning may take. Fewer rounds are timed when it is short, three at least.
    filter_fn : callable (module, name) -> bool
        Layers to try; the others stay dense.
    progress : bool
        A bar on standard error.

    Returns
    -------
    Plan, one entry per convolution; print it.

    Notes
    -----
    A result is right if each output, a sum of n products, differs from the dense one by at most
    ``2 (n + 1) eps (|w| * |x| + |b|)``: the bound on two sums of the same products in two orders.
    """
    names = _check_arguments(model, sample, methods, min_gain, repeats, budget_s)
    start = time.perf_counter()
    if any(isinstance(module, SparseConv2d) for module in model.modules()):
        model = restore(model)  # gains are counted from the plain network
    with evaluating(model):
        layers = find_layers(model)
        count_calls(model, sample, layers)
        seconds = LAYERS_SHARE * budget_s - (time.perf_counter() - start)
        choices, errors = _measure_layers(
            model, sample, layers, names, min_gain, repeats, seconds, filter_fn, progress
        )
        seconds = budget_s - (time.perf_counter() - start)
        return _verify(model, sample, choices, min_gain, repeats, seconds, progress, errors)


def optimize(model: M, sample: Any, *, inplace: bool = False, **options: Any) -> M:
    """`apply(model, tune(model, sample, **options))`: the network with its fastest methods."""
    return apply(model, tune(model, sample, **options), inplace=inplace)


def _measure_layers(
    model: nn.Module,
    sample: Any,
    layers: list[Layer],
    methods: tuple[str, ...],
    min_gain: float,
    repeats: int,
    seconds: float,
    filter_fn: Filter | None,
    progress: bool,
) -> tuple[list[LayerChoice], dict[str, dict[str, float]]]:
    """A choice for each layer, and by its name the error of every method that was tried."""
    measured = {id(layer): Measurement(layer, refusal(layer.conv)) for layer in layers}
    for layer in layers:
        if filter_fn is not None and not all(filter_fn(layer.conv, n) for n in layer.names):
            measured[id(layer)].refused = "left out by filter_fn"
    total = sum(layer.calls for layer in layers)
    end = time.perf_counter() + seconds
    order: list[Layer] = []
    for layer in layers:
        layer.calls = 0  # counted again: a model need not take the same way twice

    with Progress("tune", total) if progress else Progress("", total, enabled=False) as bar:

        def visit(layer: Layer, x: Tensor) -> None:
            share = max(0.0, end - time.perf_counter()) / max(1, total - bar.done)
            layer.calls += 1
            order.append(layer)
            measure_call(measured[id(layer)], x, methods, repeats, share)
            bar.step(layer.names[0])

        visit_calls(model, sample, layers, visit)
    found = [measured[id(layer)] for layer in layers]
    choices = [choose(m, min_gain, bool(order) and m.layer is order[0]) for m in found]
    errors = {choice.name: m.errors for choice, m in zip(choices, found, strict=True)}
    return choices, errors


def _verify(
    model: nn.Module,
    sample: Any,
    choices: list[LayerChoice],
    min_gain: float,
    repeats: int,
    seconds: float,
    progress: bool,
    errors: dict[str, dict[str, float]],
) -> Plan:
    """Time the whole model with and without the plan; give layers back until it is not slower."""
    plan = Plan(tuple(choices), 0.0, 0.0, 0.0, min_gain)
    end = time.perf_counter() + seconds
    seed = torch.random.get_rng_state()
    expected = list(tensors(run(model, sample)))
    while plan.chosen:
        # Half of what is left, so that another try has its share.
        best = race(model, sample, formats(plan, sample), repeats, (end - time.perf_counter()) / 4)
        bold = bolder(best.plan, errors)
        if bold:
            rivals = {PLAIN: best.plan, **bold}
            best = race(model, sample, rivals, repeats, (end - time.perf_counter()) / 3)
        if best.fast.gain_over(best.dense) >= 1:
            torch.random.set_rng_state(seed)
            error = _relative_error(list(tensors(run(best.model, sample))), expected)
            return replace(
                best.plan,
                dense_ms=best.dense.median,
                tuned_ms=best.fast.median,
                max_error=error,
                spread=best.dense.spread,
            )
        # Out of time: the promise is kept by giving everything back at once.
        late = time.perf_counter() > end
        least = min(layer.gain for layer in plan.chosen)
        plan = replace(
            plan,
            layers=tuple(
                _give_back(x) if x.method != "dense" and (late or x.gain <= least) else x
                for x in plan.layers
            ),
        )
    left = max(0.0, end - time.perf_counter())
    dense = interleaved({"dense": partial(run, model, sample)}, repeats, left)["dense"]
    return replace(plan, dense_ms=dense.median, tuned_ms=dense.median, spread=dense.spread)


def _give_back(layer: LayerChoice) -> LayerChoice:
    reason = f"dense: {layer.method} gains {layer.gain:.2f}x alone, nothing in the whole model"
    return replace(layer, method="dense", reason=reason, max_error=0.0)


def _relative_error(results: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference of the outputs, over the largest of them."""
    worst = 0.0
    for result, right in zip(results, expected, strict=True):
        if right.is_floating_point() and right.numel() and result.shape == right.shape:
            finite = right.isfinite() & result.isfinite()
            scale = float(right[finite].abs().max()) if bool(finite.any()) else 0.0
            difference = float((result - right)[finite].abs().max()) if bool(finite.any()) else 0.0
            worst = max(worst, difference / scale if scale else difference)
    return worst


def _check_arguments(
    model: Any, sample: Any, methods: Any, min_gain: float, repeats: int, budget_s: float
) -> tuple[str, ...]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule) or hasattr(model, "_orig_mod"):
        raise TypeError("tune the model itself, then compile or script what jsc.apply returns")
    names = METHODS if methods is None else tuple(methods)
    for name in names:
        if name not in METHODS:
            raise ValueError(f"unknown method {name!r}; known are {', '.join(METHODS)}")
    if not (min_gain >= 1 and budget_s > 0 and repeats >= 1):
        raise ValueError(
            "expected min_gain >= 1, repeats >= 1 and budget_s > 0, "
            f"got {min_gain}, {repeats} and {budget_s}"
        )
    held = [*tensors(sample), *model.parameters(), *model.buffers()]
    if not any(True for _ in tensors(sample)):
        raise TypeError(
            "sample must be a tensor, a tuple of positional or a dict of keyword arguments, "
            f"got {type(sample).__name__}"
        )
    devices = sorted({str(t.device) for t in held if t.device.type != "cpu"})
    if devices:
        raise ValueError(
            f"tune measures CPU kernels, but found tensors on {', '.join(devices)}; "
            "call model.cpu() and sample.cpu() first"
        )
    return tuple(name for name in names if name != "dense")
