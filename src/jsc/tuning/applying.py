"""Apply a plan: make a network whose convolutions run the chosen methods."""

from __future__ import annotations

import logging
import warnings
from typing import TypeVar

from torch import nn

from jsc import _config
from jsc._share import share
from jsc.methods import get
from jsc.nn import SparseConv2d
from jsc.tuning.convert import is_converted, to_dense, to_sparse
from jsc.tuning.plan.environment import Environment
from jsc.tuning.plan.errors import PlanError, PlanWarning
from jsc.tuning.plan.plan import LayerChoice, Plan
from jsc.typing import MethodName, OnMismatch

log = logging.getLogger("jsc")

M = TypeVar("M", bound=nn.Module)


def apply(
    model: M,
    plan: Plan,
    *,
    inplace: bool = False,
    on_mismatch: OnMismatch = "error",
) -> M:
    """The model with the plan's methods in its convolutions.

    The result is a new module tree over the *same* parameters and buffers (training one trains the
    other); its `state_dict` keys are unchanged, hooks are kept, shared modules stay shared.
    `jsc.restore` goes back.

    A method that this processor cannot run ("amx" without AMX tiles) is chosen again: the
    fastest of the others by the plan's times, where it gains the plan's `min_gain`; the logger
    "jsc" says so.

    Parameters
    ----------
    model : nn.Module
        The network the plan was made for, or one of the same structure.
    plan : Plan
    inplace : bool
        Convert the given model's own layers instead of a copy's.
    on_mismatch : {"error", "warn", "dense"}
        What to do with a layer that is not in the model or has another shape there: raise
        `PlanError`; leave it dense and warn; leave it dense silently.

    Raises
    ------
    PlanError  as above, before anything has been changed.
    TypeError  if `model` is no nn.Module or `plan` no Plan.

    Warns
    -----
    PlanWarning  when the plan was measured on another processor, instruction set, number of
        threads, library version or permitted precision (results are right, times may differ),
        unless `on_mismatch="dense"`.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    if on_mismatch not in ("error", "warn", "dense"):
        raise ValueError(f"on_mismatch must be 'error', 'warn' or 'dense', got {on_mismatch!r}")
    if not isinstance(plan, Plan):
        raise TypeError(f"plan must be a jsc.Plan, got {type(plan).__name__}; see jsc.Plan.load")
    modules = dict(model.named_modules(remove_duplicate=False))
    problems = {layer.name: _mismatch(modules, layer) for layer in plan.layers}
    found = [f"{name or '(the model)'}: {why}" for name, why in problems.items() if why]
    if found and on_mismatch == "error":
        raise PlanError(
            f"the plan does not fit the model: {'; '.join(found[:5])}"
            f"{f' and {len(found) - 5} more' if len(found) > 5 else ''}. Tune this model, or pass "
            "on_mismatch='warn' to leave these layers dense"
        )
    if on_mismatch != "dense":
        _warn(found, plan.environment.differences(Environment.current()))

    model = model if inplace else share(model)
    modules = dict(model.named_modules(remove_duplicate=False))
    again = {}
    for layer in plan.layers:
        conv = modules.get(layer.name)
        if problems[layer.name]:
            continue
        method = _possible(layer, plan.min_gain)
        if method != layer.method:
            again[layer.name or "(the model)"] = f"{method} for {layer.method}"
        if method != "dense":
            to_sparse(conv, method)  # type: ignore[arg-type]
        elif isinstance(conv, SparseConv2d) and is_converted(conv):
            to_dense(conv)
    if again:
        log.warning(
            "jsc.apply: methods that this processor (%s) cannot run are chosen again, by the times "
            "of the plan: %s",
            _config.isa_name(),
            "; ".join(f"{name}: {change}" for name, change in again.items()),
        )
    return model


def _possible(layer: LayerChoice, min_gain: float) -> MethodName:
    """The layer's method; where it cannot run here, the fastest of those that were timed."""
    if get(layer.method).available():
        return layer.method
    times = {name: t for name, t in layer.times_ms.items() if get(name).available() and t > 0}
    fastest = min(times, key=times.__getitem__, default="dense")
    gains = layer.dense_ms >= min_gain * times.get(fastest, 0.0)
    return get(fastest).name if gains else "dense"


def _mismatch(modules: dict[str, nn.Module], layer: LayerChoice) -> str:
    conv = modules.get(layer.name)
    if conv is None:
        return "the model has no such layer"
    if not isinstance(conv, nn.Conv2d):
        return f"is a {type(conv).__name__}, not a Conv2d"
    if layer.method != "dense" and type(conv) not in (nn.Conv2d, SparseConv2d):
        return f"is a {type(conv).__name__}, which only its own forward can run"
    for key, planned in (
        ("weight", layer.weight_shape),
        ("stride", layer.stride),
        ("padding", layer.padding),
        ("dilation", layer.dilation),
        ("groups", layer.groups),
    ):
        actual = tuple(conv.weight.shape) if key == "weight" else getattr(conv, key)
        if actual != planned:
            return f"{key} is {actual}, the plan has {planned}"
    return ""


def _warn(mismatches: list[str], differences: list[str]) -> None:
    if mismatches:
        message = f"the plan does not fit these layers, which stay dense: {'; '.join(mismatches)}"
        warnings.warn(message, PlanWarning, stacklevel=3)
    if differences:
        message = (
            f"the plan was measured elsewhere ({'; '.join(differences)}): results are right, "
            "times may differ; tune again for this machine"
        )
        warnings.warn(message, PlanWarning, stacklevel=3)
