"""A network's forward with its CPC convolutions fused, for inputs of one kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jsc import _config
from jsc.fusing.chains import Chain, Network, chains, looks
from jsc.fusing.graph import Graph, Value, function_of, substitute, values
from jsc.fusing.guard import Guard
from jsc.methods import FusedConvolution, is_channels_last
from jsc.nn import SparseConv2d
from jsc.ops.epilogue import Epilogue, Norm


@dataclass(frozen=True)
class Slot:
    index: int


class Form(NamedTuple):
    """Size, type and memory format of a tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    channels_last: bool

    @classmethod
    def of(cls, value: Any) -> Form | None:
        if not isinstance(value, Tensor):
            return None
        return cls(tuple(value.shape), value.dtype, is_channels_last(value))


class Trial:
    """A run of the graph step by step: the form of every value, and the result.

    Given the forms of an earlier run, every convolution gets its map channels-last, and the results
    go out in the formats they had.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: Graph,
        inputs: tuple[Tensor, ...],
        before: dict[str, Form | None] | None = None,
    ) -> None:
        held: dict[str, Any] = dict(zip(graph.inputs, inputs, strict=True))
        self.forms = {name: Form.of(x) for name, x in held.items()}
        self.moved: set[str] = set()  # steps whose map is turned
        last = {name: s.name for s in graph.steps for name in values((s.args, s.kwargs))}
        last |= dict.fromkeys(values(graph.output), "")

        def find(item: Any) -> Any:
            return held[item.name] if isinstance(item, Value) else item

        for step in graph.steps:
            function = function_of(step, model)
            args, kwargs = substitute(step.args, find), substitute(step.kwargs, find)
            if before is not None and _turns(function, args):
                self.moved.add(step.name)
                args = (args[0].contiguous(memory_format=torch.channels_last), *args[1:])
            held[step.name] = result = function(*args, **kwargs)
            self.forms[step.name] = Form.of(result)
            del result, args, kwargs
            for name in [name for name in held if last.get(name) == step.name]:
                del held[name]
        self.returned: set[str] = set()  # values that go out in another format than they have
        for name in set(values(graph.output)):
            form, wanted = self.forms[name], (before or self.forms)[name]
            if form and wanted and form.channels_last and not wanted.channels_last:
                self.returned.add(name)
                held[name] = held[name].contiguous()
        self.output = substitute(graph.output, find)


def _turns(function: Any, args: tuple[Any, ...]) -> bool:
    return (
        type(function) in (nn.Conv2d, SparseConv2d)
        and len(args) == 1
        and args[0].dim() == 4
        and not is_channels_last(args[0])
    )


class Program:
    """Calls of the steps one after the other; values lie in numbered slots, and each is let go
    after its last reader. Masks lie in slots of their own, beside the value they belong to.

    ValueError  if there is nothing to fuse.
    """

    def __init__(self, model: nn.Module, graph: Graph, trial: Trial) -> None:
        self._slots: dict[str, int] = {name: i for i, name in enumerate(graph.inputs)}
        forms = trial.forms
        network = Network(graph, model)
        norms = {
            name: folded(module)
            for name, module in network.modules.items()
            if type(module) is nn.BatchNorm2d
        }
        foldable = {name for name, norm in norms.items() if norm is not None}
        sizes = {name: form and form[:2] for name, form in forms.items()}
        units = {c.result: c for c in chains(network, sizes, foldable)}
        made = {name: _unit(model, c, forms, network, units, norms) for name, c in units.items()}
        units = {name: c for name, c in units.items() if made[name] is not None}
        if not units:
            raise ValueError("no convolution to fuse")
        absorbed = {name for c in units.values() for name in c.steps}
        kept = _formats(network, units, forms)
        calls: list[tuple[str, Any, Any, Any]] = []
        for step in graph.steps:
            if step.name in units:
                unit = units[step.name]
                reads = [Value(unit.input), *([Value(unit.residual)] if unit.residual else [])]
                calls.append((step.name, made[step.name], tuple(reads), kept[step.name]))
            elif step.name in absorbed:
                continue
            elif step.name in trial.moved:
                calls.append((step.name, _turning(function_of(step, model)), step.args, {}))
            else:
                calls.append((step.name, function_of(step, model), step.args, step.kwargs))
        self._calls = self._schedule(calls, graph)
        self._output = substitute(graph.output, self._slot)
        self._returned = [self._slots[name] for name in trial.returned]
        self._size = len(self._slots)
        self.fused = tuple(units.values())
        self.guard = Guard(model, graph, self.fused)

    def _slot(self, item: Any) -> Any:
        return Slot(self._slots[item.name]) if isinstance(item, Value) else item

    def _schedule(self, calls: list[Any], graph: Graph) -> list[Any]:
        last: dict[str, str] = {}
        for name, _, args, kwargs in calls:
            self._slots.setdefault(name, len(self._slots))
            last[name] = name
            for read in values((args, kwargs) if isinstance(kwargs, dict) else args):
                last[read] = name
        freed = defaultdict(list)
        for name, reader in last.items():
            if name not in set(values(graph.output)):
                freed[reader].append(self._slots[name])
        scheduled = []
        for name, function, args, kwargs in calls:
            fused = isinstance(function, FusedConvolution)
            simple = not fused and not kwargs and all(isinstance(a, Value) for a in args)
            if simple or fused:
                args = tuple(self._slots[a.name] for a in args)
            else:
                args, kwargs = substitute(args, self._slot), substitute(kwargs, self._slot)
            kind = 0 if fused else 1 if simple else 2
            scheduled.append((kind, function, args, kwargs, self._slots[name], tuple(freed[name])))
        return scheduled

    def __call__(self, *inputs: Tensor) -> Any:
        held: list[Any] = [*inputs, *[None] * (self._size - len(inputs))]
        masks: list[Tensor | None] = [None] * self._size

        def find(item: Any) -> Any:
            return held[item.index] if isinstance(item, Slot) else item

        for kind, function, args, extra, slot, freed in self._calls:
            if kind == 0:
                residual = held[args[1]] if len(args) > 1 else None
                out, masks[slot] = function.fused(held[args[0]], residual, masks[args[0]])
                held[slot] = out if extra else out.contiguous()
            elif kind == 1:
                held[slot] = function(*[held[i] for i in args])
            else:
                held[slot] = function(*substitute(args, find), **substitute(extra, find))
            for i in freed:
                held[i] = masks[i] = None
        for i in self._returned:
            held[i] = held[i].contiguous()
        return substitute(self._output, find)


def _turning(conv: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: conv(x.contiguous(memory_format=torch.channels_last))


def _unit(
    model: nn.Module,
    fused: Chain,
    forms: dict[str, Form | None],
    network: Network,
    units: dict[str, Chain],
    norms: dict[str, Norm | None],
) -> FusedConvolution | None:
    conv, form = model.get_submodule(fused.conv), forms[fused.input]
    assert isinstance(conv, SparseConv2d)
    if form is None:
        return None
    norm = norms[fused.norm] if fused.norm is not None else None
    readers = network.readers[fused.result]
    wanted = any(fused.result == c.input for c in units.values())
    inner = {name for c in units.values() for name in c.steps}
    closed = fused.result not in network.outputs and all(
        reader.name in inner or network.fresh(reader) or looks(reader) for reader in readers
    )
    epilogue = Epilogue(norm, fused.relu, wanted and closed)
    return conv.prepare_fused(form.shape, form.dtype, epilogue)


def _formats(
    network: Network, units: dict[str, Chain], forms: dict[str, Form | None]
) -> dict[str, bool]:
    """Whether the result of a chain stays channels-last: it did before, or none of its readers,
    near or far, gives other bits for it."""
    inner = {name: c for c in units.values() for name in c.steps}

    @cache
    def tolerant(name: str) -> bool:
        if name in network.outputs:
            return False
        for reader in network.readers[name]:
            unit = inner.get(reader.name)
            if looks(reader) or (unit is not None and name in (unit.input, unit.residual)):
                continue
            if not (network.moves(reader) and tolerant(reader.name)):
                return False
        return True

    kept = {}
    for name in units:
        form = forms[name]
        kept[name] = (form is not None and form.channels_last) or tolerant(name)
    return kept


def folded(norm: nn.BatchNorm2d) -> Norm | None:
    """A batch-norm that torch's kernel here evaluates as the CPC store does, by its answers to 64
    numbers a channel: one multiply-add, rounded once. None for any other."""
    mean, variance = norm.running_mean, norm.running_var
    parts = (mean, variance, norm.weight, norm.bias)
    if _config.isa() == 0 or mean is None or variance is None:
        return None
    if any(part is not None and part.dtype != torch.float32 for part in parts):
        return None
    noise = torch.randn(64, norm.num_features, generator=torch.Generator().manual_seed(0))
    probe = (mean + 2 * variance.sqrt() * noise).view(8, 8, -1).permute(2, 0, 1).unsqueeze(0)
    answer = F.batch_norm(probe, mean, variance, norm.weight, norm.bias, False, 0.0, norm.eps)
    # A product of two float32 is exact in float64; numpy's root is rounded right, torch's nearly.
    inverse = 1 / torch.from_numpy(np.sqrt((variance + norm.eps).numpy()))
    scale = inverse if norm.weight is None else inverse * norm.weight
    shift = -(mean.double() * scale.double())
    shift = (shift if norm.bias is None else shift + norm.bias).float()
    exact = probe.double() * scale.double().view(-1, 1, 1) + shift.double().view(-1, 1, 1)
    if not torch.equal(answer, exact.float()):
        return None
    return Norm(mean, variance, norm.weight, norm.bias, norm.eps)
