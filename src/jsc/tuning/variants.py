"""Plans that only a run of the whole network can choose between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from jsc._share import share
from jsc.methods import FUSIBLE, is_channels_last
from jsc.tuning.capture import Sample, can_be_channels_last
from jsc.tuning.plan.plan import LayerChoice, Plan

PLAIN = "tuned"
# A layer is tried fused if its method alone reaches this share of the dense speed.
SHARES = (0.8, 0.4, 0.0)


def in_memory_formats(plan: Plan, sample: Sample) -> dict[str, Plan]:
    """The plan as it is, and with all maps channels-last where the sample has any that are not:
    that spares conversions between layers, and pooling in the other memory format."""
    found = {PLAIN: plan}
    if any(x.dim() == 4 and not is_channels_last(x) for x in sample.tensors):
        found["channels-last"] = replace(plan, memory_format="channels_last")
    return found


def torch_channels_last(model: nn.Module, sample: Sample) -> tuple[nn.Module, Sample] | None:
    """Model and sample as `.to(memory_format=torch.channels_last)` makes them, with tensors of
    their own; None where that changes nothing."""
    model, last = share(model), sample.channels_last()
    changed = any(a is not b for a, b in zip(sample.tensors, last.tensors, strict=True))
    for module in model.modules():
        for name, p in module._parameters.items():
            if p is not None and can_be_channels_last(p):
                turned = p.detach().contiguous(memory_format=torch.channels_last)
                module._parameters[name] = nn.Parameter(turned, requires_grad=p.requires_grad)
                changed = True
        for name, b in module._buffers.items():
            if b is not None and can_be_channels_last(b):
                module._buffers[name] = b.contiguous(memory_format=torch.channels_last)
    return (model, last) if changed else None


def with_more_fused(plan: Plan, errors: Mapping[str, Mapping[str, float]]) -> dict[str, Plan]:
    """The plan with methods that fuse in more layers. A method that is slower alone may be faster
    fused, and its time alone contains conversions that fusing makes unnecessary. `errors` are those
    of every method that was tried, by layer."""
    found: dict[str, Plan] = {}
    before = plan.layers
    for least in SHARES:
        layers = tuple(_fused_choice(layer, errors[layer.name], least) for layer in plan.layers)
        if layers != before:
            found[f"from {least}"] = replace(plan, layers=layers)
        before = layers
    return found


def _fused_choice(layer: LayerChoice, errors: Mapping[str, float], least: float) -> LayerChoice:
    times = {name: layer.times_ms[name] for name in FUSIBLE if layer.times_ms.get(name)}
    best = min(times, key=times.__getitem__) if times else ""
    alone = layer.dense_ms / times[best] if best else 0.0
    if layer.method != "dense" or not alone > least or layer.groups > 1:
        return layer
    reason = f"{best} {alone:.2f}x alone, more in the whole model"
    return replace(layer, method=best, reason=reason, max_error=errors.get(best, 0.0))
