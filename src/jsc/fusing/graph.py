"""The forward of a network as a list of steps, found with the proxies of `torch.fx`.

A trace is true for as long as everything is the same that Python looked at on the way: so modules
are only looked into where that is little (see `_open`), and `Graph.fits` says whether it still is.
"""

from __future__ import annotations

import functools
import inspect
import operator
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules import module as hooks

from jsc._share import share

# What every module has; the rest of its attributes are its own.
_INTERNAL = frozenset(vars(nn.Module()))
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_REQUIRED = inspect.Parameter.empty
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

    A private copy of the module tree is traced; nothing that anybody else can see is changed."""
    if not _open(model) or hooks._global_forward_hooks or hooks._global_forward_pre_hooks:
        return None
    try:
        root = share(model, buffers=False)
        with torch.no_grad():
            root.eval()
            tracer = _Tracer(root)
            before = [dict(vars(module)) for module in tracer.modules]
            versions = [buffer._version for buffer in tracer.buffers]
            tracer.record()
            for module, attributes in zip(tracer.modules, before, strict=True):
                now = vars(module)
                if now.keys() != attributes.keys() or any(now[k] is not attributes[k] for k in now):
                    return None  # a forward that writes is no function
            if versions != [buffer._version for buffer in tracer.buffers]:
                return None
    except Exception:  # whatever the network does with a proxy
        return None
    return _convert(tracer.graph, tracer.inlined(model))


class _Tracer(fx.proxy.GraphAppendingTracer):
    """Runs the forward of `root` with proxies and writes down what it does.

    `fx.Tracer` replaces `nn.Module.__call__` and `__getattr__` meanwhile, for every thread. Here
    `root` is a copy that nobody else has: its modules get a `forward` that records the call, or
    follows their own, and dicts of parameters that record who reads them.
    """

    def __init__(self, root: nn.Module) -> None:
        super().__init__(fx.Graph())
        self.root, self.modules, self.buffers = root, list(root.modules()), list(root.buffers())
        self.entered: set[str] = set()
        self._paths = {id(b): path for path, b in root.named_buffers()}
        self._paths |= {id(p): path for path, p in root.named_parameters()}
        for path, module in root.named_modules():
            call = self._step if self._is_leaf(module) else self._follow
            state = vars(module)
            state["_parameters"] = _Recorded(self, state["_parameters"])
            for name in _HOOKS:
                state[name] = type(state[name])()
            state["forward"] = functools.partial(call, path, module)
        del vars(root)["forward"]  # its class's is run, with placeholders

    @staticmethod
    def _is_leaf(m: nn.Module) -> bool:
        own = m.__module__.startswith(("torch.nn.", "jsc.nn.")) and not isinstance(m, nn.Sequential)
        return own or not _open(m) or "forward" in vars(m)

    def record(self) -> None:
        forward, inputs = type(self.root).forward, []
        for parameter in list(inspect.signature(forward).parameters.values())[1:]:
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                inputs.append(self.create_proxy("placeholder", parameter.name, (), {}))
            elif parameter.kind is not parameter.KEYWORD_ONLY or parameter.default is _REQUIRED:
                raise fx.proxy.TraceError(f"a forward with {parameter} has no fixed inputs")
        output = forward(self.root, *inputs)
        self.create_node("output", "output", (self.create_arg(output),), {})

    def create_arg(self, a: Any) -> Any:
        return self.read(a).node if isinstance(a, Tensor) else super().create_arg(a)

    def read(self, tensor: Tensor) -> fx.Proxy:
        if id(tensor) not in self._paths:
            raise fx.proxy.TraceError("a tensor that the forward made would become a constant")
        return self.create_proxy("get_attr", self._paths[id(tensor)], (), {})

    def _step(self, path: str, module: nn.Module, *args: Any, **kwargs: Any) -> fx.Proxy:
        return self.create_proxy("call_module", path, args, kwargs)

    def _follow(self, path: str, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        self.entered.add(path)
        return type(module).forward(module, *args, **kwargs)

    def inlined(self, model: nn.Module) -> dict[str, Look]:
        """Every module whose forward was followed, and the lists that it may have walked along."""
        lists = (nn.ModuleList, nn.ModuleDict)
        paths = {name for name, module in model.named_modules() if isinstance(module, lists)}
        return {path: Look.at(model.get_submodule(path)) for path in {"", *self.entered, *paths}}


class _Recorded(dict[str, Any]):
    """The parameters of a traced module: to read one is a step."""

    def __init__(self, tracer: _Tracer, parameters: dict[str, Any]) -> None:
        super().__init__(parameters)
        self._tracer = tracer

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        return None if value is None else self._tracer.read(value)


def _own(module: nn.Module) -> dict[str, Any]:
    """Attributes that are not `nn.Module`'s; those of a `GraphModule` are its forward's text."""
    if isinstance(module, fx.GraphModule):
        return {}
    return {
        key: value
        for key, value in list(vars(module).items())
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
