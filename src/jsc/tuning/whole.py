"""The model as a whole, with and without a plan: its outputs and its times.

A plan is timed only if its outputs are within the bound, and kept only if it is not slower.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from jsc._share import share
from jsc.tuning import timing
from jsc.tuning.applying import apply
from jsc.tuning.capture import Sample, can_be_channels_last, run, set_random_state, tensors
from jsc.tuning.plan.plan import LayerChoice, Plan
from jsc.tuning.timing import MIN_ROUNDS, Deadline, Times, interleaved

PLAIN = "tuned"
TORCH = "torch, channels-last"
FAILURES = (RuntimeError, ValueError, TypeError, AttributeError, MemoryError)


@dataclass
class Outcome:
    """The fastest plan within the bound, and the times of a race; no plan and no times where none
    is within."""

    plan: Plan | None
    error: float  # of that plan, or else of the plain one
    times: dict[str, Times]
    name: str = PLAIN

    @property
    def holds(self) -> bool:
        """Right, and not slower than the model as it was given."""
        return self.plan is not None and self._fast.gain_over(self.times["dense"]) >= 1

    @property
    def _fast(self) -> Times:
        return self.times[self.name]

    def measured(self, plan: Plan) -> Plan:
        """`plan`, this one's or one that changes nothing, with the times."""
        dense = self.times["dense"]
        fast, error = (self._fast, self.error) if plan is self.plan else (dense, 0.0)
        return replace(
            plan,
            dense_ms=dense.median,
            tuned_ms=fast.median,
            max_error=error,
            spread=dense.spread,
            channels_last_ms=self.times[TORCH].median if TORCH in self.times else 0.0,
        )


@dataclass
class Whole:
    """A private copy of a model, with its sample and what its first run gave."""

    model: nn.Module
    sample: Sample
    expected: list[Tensor]  # the outputs
    seconds: float  # how long that took
    seed: Tensor  # the random state before it
    max_error: float
    repeats: int
    _last: tuple[nn.Module, Sample] | None = None

    def race(self, plans: Mapping[str, Plan], deadline: Deadline, share: float = 1.0) -> Outcome:
        """Time the model with each plan and without, in turn; the fastest plan."""
        candidates = {"dense": partial(run, self.model, self.sample)}
        errors = {}
        for name, plan in plans.items():
            tuned = apply(self.model, plan)
            errors[name] = self._error(tuned, self.sample)
            if errors[name] <= self.max_error:
                candidates[name] = partial(run, tuned, self.sample)
        right = [name for name in plans if name in candidates]
        if plans and not right:
            return Outcome(None, errors[PLAIN], {})
        # Torch alone is timed too, if there is time for it and as much for the plans.
        if deadline.left >= 2 * (1 + MIN_ROUNDS) * self.seconds:
            last = self._channels_last()
            if last is not None:
                candidates[TORCH] = partial(run, *last)
        times = interleaved(candidates, self.repeats, share * deadline.left)
        gains = {name: times[name].gain_over(times["dense"]) for name in right}
        best = max(gains, key=gains.__getitem__) if gains else ""
        return Outcome(plans.get(best), errors.get(best, 0.0), times, best)

    def _channels_last(self) -> tuple[nn.Module, Sample] | None:
        """Torch alone in the other memory format, if that gives the same outputs."""
        if self._last is None:
            try:
                last = torch_channels_last(self.model, self.sample)
            except FAILURES:
                last = None
            if last is None or not self._error(*last) <= self.max_error:
                return None
            self._last = last
        return self._last

    def _error(self, model: nn.Module, sample: Sample) -> float:
        set_random_state(self.seed)
        try:
            return relative_error(list(tensors(run(model, sample))), self.expected)
        except FAILURES:
            return math.inf


def verify(
    whole: Whole,
    choices: list[LayerChoice],
    min_gain: float,
    deadline: Deadline,
) -> Plan:
    """The plan with these choices, less the layers that have to be given back for its answer to be
    within the bound and its time not longer than the model's own.

    One layer at a time, if there is time for that with all of them, and otherwise half of them;
    where even one more comparison would end after `deadline`, half of them once, and then all.
    """
    plan = Plan(tuple(choices), 0.0, 0.0, 0.0, min_gain)
    known: Outcome | None = None
    tried = False  # the one attempt that may end after the deadline
    while plan.chosen:
        start = timing.clock()
        # Half of the time that is left, so that another attempt has its share.
        found = whole.race({PLAIN: plan}, deadline, 1 / 2)
        if found.plan is not None and found.holds:
            return found.measured(found.plan)
        known = found if found.times else known
        cost, left = timing.clock() - start, deadline.left
        late = left < cost
        halve = left < cost * len(plan.chosen)
        plan = _less(plan, found, len(plan.chosen) if late and tried else 0 if halve else 1)
        tried = late
    return (known or whole.race({}, deadline)).measured(plan)


def _less(plan: Plan, found: Outcome, count: int) -> Plan:
    """The plan without those `count` layers (0: half of them) that gain least, or err most."""
    wrong = found.plan is None
    order = sorted(plan.chosen, key=lambda x: -x.max_error if wrong else x.gain)
    names = {layer.name for layer in order[: count or -(-len(order) // 2)]}
    layers = (
        _give_back(x, found.error if wrong else None) if x.name in names else x for x in plan.layers
    )
    return replace(plan, layers=tuple(layers))


def _give_back(layer: LayerChoice, error: float | None) -> LayerChoice:
    reason = f"dense: {layer.method} gains {layer.gain:.2f}x alone, nothing in the whole model"
    if error is not None:
        reason = f"dense: the whole model is {error:.0e} off with {layer.method} here and elsewhere"
    return replace(layer, method="dense", reason=reason, max_error=0.0)


def relative_error(results: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference of the outputs, over the largest of them; of whole numbers, the share
    that differs. Infinite where sizes or types differ, or one is finite and the other is not."""
    if len(results) != len(expected):
        return math.inf
    return max(map(_error_of_one, results, expected), default=0.0)


def _error_of_one(result: Tensor, right: Tensor) -> float:
    if result.shape != right.shape or result.dtype != right.dtype:
        return math.inf
    if not right.numel():
        return 0.0
    if not (right.is_floating_point() or right.is_complex()):
        return float((result != right).double().mean())
    finite = right.isfinite()
    if not torch.equal(finite, result.isfinite()):
        return math.inf
    if not bool(finite.any()):
        return 0.0
    difference = float((result - right)[finite].abs().max())
    scale = float(right[finite].abs().max())
    return difference / scale if scale else difference


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
