"""Choose a method for every convolution of a network by measuring it on a real sample."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from jsc._progress import Progress
from jsc._share import share
from jsc.methods import METHODS
from jsc.tuning import timing
from jsc.tuning.capture import (
    Layer,
    Sample,
    count_calls,
    evaluating,
    find_layers,
    tensors,
    visit_calls,
    work,
)
from jsc.tuning.convert import restore
from jsc.tuning.measure import Measurement, choose, measure_call, refusal
from jsc.tuning.plan import table
from jsc.tuning.plan.errors import PlanWarning
from jsc.tuning.plan.plan import LayerChoice, Plan
from jsc.tuning.plan.schema import shown
from jsc.tuning.timing import MIN_ROUNDS, Deadline
from jsc.tuning.whole import Whole, verify
from jsc.typing import MethodName

log = logging.getLogger("jsc")

Filter = Callable[[nn.Module, str], bool]

LAYERS_SHARE = 0.7  # of the time budget, at most; the rest is for the model as a whole
LONGEST = 1e9  # seconds: numbers that no float holds, and infinity, mean as long as it takes
WHOLE_RUNS = 3 * (1 + MIN_ROUNDS)  # what comparing the model with a plan and with torch needs


def tune(
    model: nn.Module,
    sample: Any,
    *,
    kwargs: Mapping[str, Any] | None = None,
    methods: Iterable[MethodName] | None = None,
    min_gain: float = 1.05,
    max_error: float = 1e-4,
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

    Then the whole model is compared with and without the plan, and layers go back to dense until
    its outputs are within `max_error` and it is not slower: on the sample, no plan makes the model
    as it was given slower. Torch may be faster still with channels-last weights and maps. So that
    is timed as well, and where it beats the plan, a warning and the printed plan say so.

    Parameters
    ----------
    model : nn.Module on the CPU
        Not touched: a copy of the module tree runs, over the same parameters and copies of the
        buffers, with the hooks of the model. Other threads may use the model meanwhile (their load
        makes the times doubtful). Torch's random state is put back at the end.
    sample : Tensor, tuple (positional arguments) or dict (keyword arguments)
        A *real* batch: the choice depends on how many activations are zero, and random numbers
        have other zeros. A list that the model takes as one argument goes into a tuple:
        ``([image, image],)``.
    kwargs : dict, optional
        Keyword arguments besides those of `sample`.
    methods : names from `jsc.methods.METHODS`, or None for all
        They are tried in this order while the time lasts; with None, each layer's likely fastest
        comes first (`jsc.methods.Method.cost`).
    min_gain : float
        dense time / method time from which on a layer is changed for its own sake.
    max_error : float
        The largest difference of the whole model's outputs, over the largest output, that a plan
        may make; of outputs that are whole numbers, the share that may differ. `Plan.max_error` is
        what it makes.
    repeats : int
        Rounds of timing. A method is as fast as its median and its best round both say.
    budget_s : float
        About how long tuning may take, however many layers there are: a layer's share goes by its
        products, no method is begun after it, and the plan has what was found by then. The least
        it takes is some twelve runs of the model.
    filter_fn : callable (module, name) -> bool
        Layers to try; the others stay dense.
    progress : bool
        A bar on standard error.

    Returns
    -------
    Plan, one entry per convolution; print it.

    Raises
    ------
    TypeError, ValueError  for arguments other than these.

    Warns
    -----
    PlanWarning  where torch alone is faster with everything channels-last.

    Notes
    -----
    A result is right if each output, a sum of n products, differs from the dense one by at most
    ``2 (n + 1) eps (|w| * |x| + |b|)``: the bound on two sums of the same products in two orders;
    and by what factors rounded to fewer bits may add, where torch's switch permits that.
    """
    names = _check_arguments(model, sample, kwargs, methods, min_gain, max_error, repeats, budget_s)
    budget_s = min(budget_s, LONGEST)
    deadline = Deadline(budget_s)
    given = Sample.of(sample, kwargs)
    wanted = _filtered(model, filter_fn)
    # A private copy with dense layers: gains are counted against it.
    model = restore(share(model, buffers=False), inplace=True)
    with evaluating(model) as seed:
        layers = find_layers(model)
        start = timing.clock()
        expected = list(tensors(count_calls(model, given, layers)))
        seconds = timing.clock() - start
        whole = Whole(model, given, expected, seconds, seed, max_error, repeats)
        for_whole = max((1 - LAYERS_SHARE) * budget_s, WHOLE_RUNS * seconds)
        choices = _measure_layers(
            model,
            given,
            layers,
            names,
            min_gain,
            repeats,
            Deadline(deadline.left - min(for_whole, budget_s / 2)),
            wanted,
            progress,
        )
        plan = verify(whole, choices, min_gain, deadline)
    for layer in plan.layers:
        log.info("jsc.tune: %s: %s (%s)", layer.name, layer.method, layer.reason)
    log.info("jsc.tune: the model runs %.2fx as fast", plan.gain)
    if plan.torch_is_faster:
        warnings.warn(table.torch_is_faster(plan), PlanWarning, stacklevel=2)
    return plan


def _filtered(model: nn.Module, filter_fn: Filter | None) -> Callable[[str], bool]:
    """The filter for names: it is asked about the user's own modules."""
    if filter_fn is None:
        return lambda name: True
    modules = dict(model.named_modules(remove_duplicate=False))
    return lambda name: filter_fn(modules[name], name)


def _measure_layers(
    model: nn.Module,
    sample: Sample,
    layers: list[Layer],
    methods: tuple[str, ...] | None,
    min_gain: float,
    repeats: int,
    deadline: Deadline,
    wanted: Callable[[str], bool],
    progress: bool,
) -> list[LayerChoice]:
    """A choice for each layer."""
    measured = {id(layer): Measurement(layer, refusal(layer.conv)) for layer in layers}
    for layer in layers:
        if not all(map(wanted, layer.names)):
            measured[id(layer)].refused = "left out by filter_fn"
    calls, left = (sum(getattr(x, name) for x in layers) for name in ("calls", "work"))
    order: list[Layer] = []
    pace: dict[str, float] = {}
    for layer in layers:
        layer.calls = 0  # counted again: a model need not call the same layers twice

    with Progress("tune", calls, enabled=progress) as bar:

        def visit(layer: Layer, x: Tensor) -> None:
            nonlocal left
            own = work(layer.conv, x)
            share = Deadline(deadline.left * own / max(own, left, 1))
            left -= own
            layer.calls += 1
            order.append(layer)
            measure_call(measured[id(layer)], x, methods, repeats, share, deadline, pace)
            bar.step(layer.names[0])

        visit_calls(model, sample, layers, visit)
    found = [measured[id(layer)] for layer in layers]
    return [choose(m, min_gain, bool(order) and m.layer is order[0]) for m in found]


def _check_arguments(
    model: Any,
    sample: Any,
    kwargs: Any,
    methods: Any,
    min_gain: float,
    max_error: float,
    repeats: int,
    budget_s: float,
) -> tuple[str, ...] | None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule) or hasattr(model, "_orig_mod"):
        raise TypeError("tune the model itself, then compile or script what jsc.apply returns")
    if methods is not None and (isinstance(methods, str) or not isinstance(methods, Iterable)):
        raise TypeError(f"methods must be a list of names, got {shown(methods)!r}")
    names = None if methods is None else tuple(methods)
    for name in names or ():
        if name not in METHODS:
            raise ValueError(f"unknown method {shown(name)!r}; known are {', '.join(METHODS)}")
    numbers = {"min_gain": min_gain, "max_error": max_error, "repeats": repeats}
    for name, value in {**numbers, "budget_s": budget_s}.items():
        if isinstance(value, bool) or not isinstance(value, int if name == "repeats" else Real):
            kind = "an int" if name == "repeats" else "a number"
            raise TypeError(f"{name} must be {kind}, got {type(value).__name__}")
    if not (min_gain >= 1 and max_error >= 0 and budget_s > 0 and repeats >= 1):
        raise ValueError(
            "expected min_gain >= 1, max_error >= 0, repeats >= 1 and budget_s > 0, "
            f"got {', '.join(map(shown, (min_gain, max_error, repeats, budget_s)))}"
        )
    _check_sample(model, sample, kwargs)
    return None if names is None else tuple(name for name in names if name != "dense")


def _check_sample(model: nn.Module, sample: Any, kwargs: Any) -> None:
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TypeError(f"kwargs must be a dict, got {type(kwargs).__name__}")
    if isinstance(sample, list):
        raise TypeError(
            "sample is a list, which can mean two things: make it a tuple if its items are the "
            "positional arguments, or put it into one, (sample,), if the model takes a list"
        )
    given = Sample.of(sample, kwargs).tensors
    if not given:
        raise TypeError(
            "sample must be a tensor, a tuple of positional or a dict of keyword arguments, "
            f"got {type(sample).__name__}"
        )
    if not any(x.numel() for x in given):
        raise ValueError(
            f"sample is empty (shape {tuple(given[0].shape)}): tuning needs a real batch, whose "
            "zeros are those of the activations"
        )
    held = [*given, *model.parameters(), *model.buffers()]
    devices = sorted({str(t.device) for t in held if t.device.type != "cpu"})
    if devices:
        raise ValueError(
            f"tune measures CPU kernels, but found tensors on {', '.join(devices)}; "
            "call model.cpu() and sample.cpu() first"
        )
