"""Which steps of a graph run in the store of a convolution, and what may be handed on.

    conv -> [batch-norm] -> [+ residual] -> [ReLU]

where nothing else reads what lies between. The rules err on the safe side: an unknown function may
write to any tensor it can reach.
"""

from __future__ import annotations

import builtins
import math
import operator
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from jsc.fusing.graph import Graph, Step, Value, hooked, values
from jsc.methods import FUSIBLE
from jsc.nn import SparseConv2d

_ADDITIONS = (torch.add, operator.add, operator.iadd)
_RELUS = (torch.relu, torch.relu_, F.relu, F.relu_)
_WRITERS = tuple(
    getattr(operator, name)
    for name in (
        "iadd", "iand", "iconcat", "ifloordiv", "ilshift", "imatmul", "imod", "imul", "ior",
        "ipow", "irshift", "isub", "itruediv", "ixor", "setitem", "delitem",
    )
)  # fmt: skip
# Results that are new memory. Their readers cannot reach what the step has read.
_FRESH_MODULES = (
    nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.Linear, nn.LocalResponseNorm,
    nn.Softmax,
)  # fmt: skip
_FRESH_FUNCTIONS = (torch.add, operator.add, torch.cat, F.max_pool2d, F.avg_pool2d)
# The same numbers in any memory format, and a result in that format.
_MOVING_MODULES = (nn.ReLU, nn.ReLU6, nn.MaxPool2d, nn.Identity, nn.Dropout)
_MOVING_FUNCTIONS = (*_ADDITIONS, *_RELUS, torch.cat, F.pad, F.max_pool2d, operator.getitem)
_MOVING_METHODS = ("add", "add_", "relu", "relu_")


@dataclass(frozen=True)
class Chain:
    """Steps that become one: `result` is the name of the last."""

    conv: str  # path of the module
    input: str
    norm: str | None  # the batch-norm's step
    residual: str | None
    relu: bool
    result: str
    steps: tuple[str, ...]


class Network:
    """A graph with the modules it calls: who reads what, and what each step does to memory."""

    def __init__(self, graph: Graph, model: nn.Module) -> None:
        self.graph = graph
        self.position = {step.name: i for i, step in enumerate(graph.steps)}
        self.modules = {
            s.name: model.get_submodule(s.target) for s in graph.steps if s.kind == "module"
        }
        self.readers: dict[str, list[Step]] = defaultdict(list)
        for step in graph.steps:
            for name in values((step.args, step.kwargs)):
                self.readers[name].append(step)
        self.outputs = set(values(graph.output))
        self.writers = [i for i, s in enumerate(graph.steps) if self._writes(s)]

    def only_reader(self, name: str) -> Step | None:
        readers = self.readers[name]
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def _writes(self, step: Step) -> bool:
        """May change a tensor that somebody can still see, other than by its result."""
        if not self._in_place(step):
            return self._unknown(step)
        target = step.args[0] if step.args else None
        if self._unknown(step) or not isinstance(target, Value) or target.name not in self.position:
            return True
        source = self.graph.steps[self.position[target.name]]
        return not (self.fresh(source) and self.only_reader(target.name) is step)

    def _in_place(self, step: Step) -> bool:
        if step.kind == "module":
            return bool(getattr(self.modules[step.name], "inplace", False))
        if step.kind == "method":
            return step.target.endswith("_")
        if step.kind == "function":
            name = getattr(step.target, "__name__", "_")
            options = [*step.args, *step.kwargs.values()]
            return (
                step.target in _WRITERS
                or (name.endswith("_") and not name.endswith("__"))
                or "out" in step.kwargs
                # F.relu(x, True): in place
                or (getattr(F, name, None) is step.target and any(v is True for v in options))
            )
        return False

    def _unknown(self, step: Step) -> bool:
        if step.kind == "module":
            module = self.modules[step.name]
            own = type(module).__module__.startswith(("torch.nn.modules.", "jsc.nn."))
            return hooked(module) or "forward" in vars(module) or not own
        if step.kind == "function":
            name = getattr(step.target, "__name__", "")
            places = (torch, F, operator, math, builtins)
            return not any(getattr(place, name, None) is step.target for place in places)
        return step.kind == "method" and step.target.startswith("__")

    def fresh(self, step: Step) -> bool:
        if step.kind == "module":
            exact = type(self.modules[step.name])
            return not self._unknown(step) and exact in (*_FRESH_MODULES, SparseConv2d)
        return step.kind == "function" and step.target in _FRESH_FUNCTIONS

    def moves(self, step: Step) -> bool:
        """Takes maps in any memory format and gives the same numbers in that format."""
        if self._unknown(step):
            return False
        if step.kind == "module":
            module = self.modules[step.name]
            return type(module) in _MOVING_MODULES and not module.training
        if step.kind == "method":
            return step.target in _MOVING_METHODS
        return step.kind == "function" and step.target in _MOVING_FUNCTIONS


def chains(network: Network, shapes: dict[str, Any], norms: set[str]) -> list[Chain]:
    """Every convolution whose method has an epilogue, with the steps that follow it into there.

    `shapes` are the sizes and types of the values in one run; equal ones are added without
    broadcasting. `norms`: steps that are batch-norms which may be folded.
    """
    found, taken = [], set[str]()
    for step in network.graph.steps:
        if not _is_fusible(network, step) or len(step.args) != 1 or step.kwargs:
            continue
        members, norm, residual, relu = [step], None, None, False
        following = network.only_reader(step.name)
        if following and following.name in norms and _is_norm(network, following):
            norm = following.name
            members.append(following)
            following = network.only_reader(following.name)
        if following and following.name not in taken:
            other = _added(network, following, members[-1].name, shapes)
            if other is not None:
                residual = other
                members.append(following)
                following = network.only_reader(following.name)
        if following and _is_relu(network, following):
            relu = True
            members.append(following)
        first, last = (network.position[members[i].name] for i in (0, -1))
        own = {network.position[member.name] for member in members}
        if any(first < i < last and i not in own for i in network.writers):
            members, norm, residual, relu = [step], None, None, False
        taken.update(member.name for member in members)
        found.append(
            Chain(
                step.target, step.args[0].name, norm, residual, relu,
                members[-1].name, tuple(member.name for member in members),
            )
        )  # fmt: skip
    return found


def looks(step: Step) -> bool:
    """Reads the size of a tensor and nothing else."""
    if step.kind == "method":
        return step.target in ("size", "dim")
    return step.target is getattr and step.args[1] in ("shape", "ndim", "dtype", "device")


def _is_fusible(network: Network, step: Step) -> bool:
    module = network.modules.get(step.name)
    return (
        type(module) is SparseConv2d
        and module.method in FUSIBLE
        and not network._unknown(step)
        and bool(step.args)
        and isinstance(step.args[0], Value)
    )


def _is_norm(network: Network, step: Step) -> bool:
    module = network.modules.get(step.name)
    return (
        type(module) is nn.BatchNorm2d and not network._unknown(step) and not module.training
        and module.running_mean is not None and len(step.args) == 1 and not step.kwargs
    )  # fmt: skip


def _added(network: Network, step: Step, name: str, shapes: dict[str, Any]) -> str | None:
    """The other value of an addition of two equal maps, of which `name` is one."""
    adds = step.target in _ADDITIONS if step.kind == "function" else step.target in ("add", "add_")
    if not adds or step.kind == "module" or len(step.args) != 2 or step.kwargs:
        return None
    if not all(isinstance(argument, Value) for argument in step.args):
        return None
    a, b = (argument.name for argument in step.args)
    if a == b or shapes.get(a) is None or shapes.get(a) != shapes.get(b):
        return None
    if network._in_place(step) and a != name:
        return None
    return b if a == name else a


def _is_relu(network: Network, step: Step) -> bool:
    if step.kind == "module":
        return type(network.modules[step.name]) is nn.ReLU and not network._unknown(step)
    if step.kind == "method":
        return step.target in ("relu", "relu_") and len(step.args) == 1
    return step.kind == "function" and step.target in _RELUS and len(step.args) == 1
