"""The forward of a network as a list of steps, found by `torch.fx`.

A trace is true for as long as everything is the same that Python looked at on the way: so modules
are only looked into where that is little (see `_open`), and `Graph.fits` says whether it still is.
"""

from __future__ import annotations

import operator
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from jsc.optimize.capture import evaluating

# What every module has; the rest of its attributes are its own.
_INTERNAL = frozenset(vars(nn.Module()))
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_PLAIN = (
    type(None), bool, int, float, complex, str, bytes, type, types.FunctionType,
    types.BuiltinFunctionType, torch.dtype, torch.device, torch.memory_format,
)  # fmt: skip


@dataclass(frozen=True)
class Value:
    """Stands for the result of the step of that name, or for an input."""

    name: str


@dataclass(frozen=True)
class Step:
    """One call: `kind` is "module" (target: its path), "function" (itself), "method" (its name) or
    "attribute" (its path)."""

    name: str
    kind: str
    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class Look:
    """What the forward of an inlined module may have looked at."""

    type: type
    forward: Any
    attributes: dict[str, Any]
    children: tuple[str, ...]

    @classmethod
    def at(cls, module: nn.Module) -> Look:
        children = tuple(module._modules)
        if isinstance(module, fx.GraphModule):  # each has a class of its own
            return cls(fx.GraphModule, module.code, {}, children)
        return cls(type(module), type(module).forward, _own(module), children)


@dataclass(frozen=True)
class Graph:
    inputs: tuple[str, ...]
    steps: tuple[Step, ...]
    output: Any  # Values in tuples, lists and dicts
    inlined: dict[str, Look]  # modules whose forward is part of the steps, by path

    def fits(self, model: nn.Module) -> bool:
        """Whether a trace of `model` in evaluation mode would give this graph."""
        for path, look in self.inlined.items():
            try:
                module = model.get_submodule(path)
            except AttributeError:
                return False
            if module.training or not _open(module) or Look.at(module) != look:
                return False
        return True


def hooked(module: nn.Module) -> bool:
    return any(vars(module).get(name) for name in _HOOKS)


def values(arguments: Any) -> Iterator[str]:
    """Names of the values in nested arguments."""
    if isinstance(arguments, Value):
        yield arguments.name
    elif isinstance(arguments, (tuple, list)):
        for item in arguments:
            yield from values(item)
    elif isinstance(arguments, dict):
        yield from values(tuple(arguments.values()))
    elif isinstance(arguments, slice):
        yield from values((arguments.start, arguments.stop, arguments.step))


def substitute(arguments: Any, find: Callable[[Any], Any]) -> Any:
    """Nested arguments with `find(leaf)` in place of every leaf."""
    if isinstance(arguments, tuple):
        return tuple(substitute(item, find) for item in arguments)
    if isinstance(arguments, list):
        return [substitute(item, find) for item in arguments]
    if isinstance(arguments, dict):
        return {key: substitute(item, find) for key, item in arguments.items()}
    if isinstance(arguments, slice):
        parts = (arguments.start, arguments.stop, arguments.step)
        return slice(*(substitute(item, find) for item in parts))
    return find(arguments)


def trace(model: nn.Module) -> Graph | None:
    """The graph of the model's forward in evaluation mode, or None where there is none to be had:
    control flow that depends on data, side effects, attributes that can change unseen.

    `torch.fx` replaces `nn.Module.__call__` while it traces: no other thread may run a module."""
    before = {module: dict(vars(module)) for module in model.modules()}
    if not _open(model):
        return None
    tracer = _Tracer()
    try:
        with evaluating(model):
            graph = _convert(tracer.trace(model), tracer.inlined(model))
    except Exception:  # whatever the network does with a proxy
        graph = None
    for module, attributes in before.items():
        now = vars(module)
        if now.keys() != attributes.keys() or any(now[k] is not attributes[k] for k in now):
            graph = None  # a forward that writes is no function
            now.clear()
            now.update(attributes)
    return graph


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = m.__module__.startswith(("torch.nn.", "jsc.nn."))
        return (own and not isinstance(m, nn.Sequential)) or hooked(m) or not _open(m)

    def inlined(self, model: nn.Module) -> dict[str, Look]:
        """Every module whose forward was followed, and the lists that it may have walked along."""
        lists = (nn.ModuleList, nn.ModuleDict)
        paths = {name for name, module in model.named_modules() if isinstance(module, lists)}
        return {path: Look.at(model.get_submodule(path)) for path in {"", *self.entered, *paths}}

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        self.entered: set[str] = set()
        return super().trace(root, concrete_args)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        path = self.path_of_module(m)
        if not self.is_leaf_module(m, path):
            self.entered.add(path)
        return super().call_module(m, forward, args, kwargs)


def _own(module: nn.Module) -> dict[str, Any]:
    """Attributes that are not `nn.Module`'s; those of a `GraphModule` are its forward's text."""
    if isinstance(module, fx.GraphModule):
        return {}
    return {
        key: value
        for key, value in vars(module).items()
        if key not in _INTERNAL and key != "forward"
    }


def _open(module: nn.Module) -> bool:
    """All that its forward can look at are numbers and names: no list that changes unseen."""
    return not hooked(module) and all(_plain(value) for value in _own(module).values())


def _plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_plain(item) for item in value)
    return isinstance(value, _PLAIN)


_KINDS = {
    "call_module": "module",
    "call_function": "function",
    "call_method": "method",
    "get_attr": "attribute",
}


def _convert(graph: fx.Graph, inlined: dict[str, Look]) -> Graph:
    def leaf(item: Any) -> Any:
        return Value(item.name) if isinstance(item, fx.Node) else item

    inputs, steps, output = [], [], None
    for node in graph.nodes:
        args, kwargs = substitute(node.args, leaf), substitute(dict(node.kwargs), leaf)
        if node.op == "placeholder":
            inputs.append(node.name)
        elif node.op == "output":
            output = args[0]
        else:
            steps.append(Step(node.name, _KINDS[node.op], node.target, args, kwargs))
    return Graph(tuple(inputs), tuple(steps), output, inlined)


def function_of(step: Step, model: nn.Module) -> Callable[..., Any]:
    """What a step calls with its arguments."""
    if step.kind == "module":
        return model.get_submodule(step.target)
    if step.kind == "method":
        return lambda x, *args, **kwargs: getattr(x, step.target)(*args, **kwargs)
    if step.kind == "attribute":
        get = operator.attrgetter(step.target)
        return lambda: get(model)
    function: Callable[..., Any] = step.target
    return function
