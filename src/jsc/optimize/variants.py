"""Plans that only a run of the whole network can choose between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn

from jsc.nn.sparse_conv import FUSIBLE
from jsc.ops.conv import is_channels_last
from jsc.optimize.apply import apply
from jsc.optimize.capture import run, tensors
from jsc.optimize.plan import LayerChoice, Plan
from jsc.optimize.timing import Times, interleaved

PLAIN = "tuned"
GAIN = 1.02  # over the plain plan, for another one to be taken
SHARES = (0.8, 0.4, 0.0)  # of the dense speed alone: from there on layers are tried fused


@dataclass
class Winner:
    plan: Plan
    model: nn.Module
    fast: Times
    dense: Times


def race(
    model: nn.Module, sample: Any, plans: Mapping[str, Plan], rounds: int, seconds: float
) -> Winner:
    """The fastest plan, the plain one unless another gains something, and its times."""
    models = {name: apply(model, plan) for name, plan in plans.items()}
    rivals = {"dense": partial(run, model, sample)}
    rivals |= {name: partial(run, tuned, sample) for name, tuned in models.items()}
    times = interleaved(rivals, rounds, seconds)
    gains = {name: times[name].gain_over(times["dense"]) for name in plans}
    gains[PLAIN] *= GAIN
    best = max(gains, key=gains.__getitem__)
    return Winner(plans[best], models[best], times[best], times["dense"])


def formats(plan: Plan, sample: Any) -> dict[str, Plan]:
    """The plan as it is, and with all maps channels-last, where the sample has any that are not: it
    spares conversions between layers, and pooling of the other format."""
    found = {PLAIN: plan}
    if any(x.dim() == 4 and not is_channels_last(x) for x in tensors(sample)):
        found["channels-last"] = replace(plan, memory_format="channels_last")
    return found


def bolder(plan: Plan, errors: Mapping[str, Mapping[str, float]]) -> dict[str, Plan]:
    """The plan with methods that fuse in more layers: what they lose alone they may gain fused, and
    their times alone hold conversions that fall away. `errors` are theirs, by layer and method."""
    found: dict[str, Plan] = {}
    before = plan.layers
    for share in SHARES:
        layers = tuple(_take(layer, errors[layer.name], share) for layer in plan.layers)
        if layers != before:
            found[f"from {share}"] = replace(plan, layers=layers)
        before = layers
    return found


def _take(layer: LayerChoice, errors: Mapping[str, float], share: float) -> LayerChoice:
    times = {name: layer.times_ms[name] for name in FUSIBLE if layer.times_ms.get(name)}
    best = min(times, key=times.__getitem__) if times else ""
    alone = layer.dense_ms / times[best] if best else 0.0
    if layer.method != "dense" or not alone > share or layer.groups > 1:
        return layer
    reason = f"{best} {alone:.2f}x alone, more in the whole model"
    return replace(layer, method=best, reason=reason, max_error=errors.get(best, 0.0))
