"""A network that is no single graph to torch.export, compiled in the parts that Dynamo finds.

    if x.mean() > 0:        torch.export takes one path for all numbers, so it refuses this
        x = self.a(x)       Dynamo runs the line in Python, and has a graph before and behind it

Each part is compiled as a graph of the backend "jsc" is. The model is a frozen copy, as it is for
one graph, so nothing is packed again but by `refresh`.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from os import PathLike
from typing import Any, NoReturn

import torch
from torch import nn
from torch.utils import _pytree as pytree

from jsc._precision import Precision
from jsc.network.arguments import arguments_of, kind_of
from jsc.network.backend import Graph
from jsc.network.capture import frozen_copy
from jsc.network.compiled import CompiledNetwork, compiling, one_graph
from jsc.network.errors import CompileError
from jsc.network.report import Summary
from jsc.network.structure import refuse_other

INSTEAD = (
    "jsc.tune and jsc.apply make the convolutions faster one by one, without capturing anything"
)


class Parts:
    """The parts that Dynamo has found so far, and how they are compiled. Dynamo keeps them for as
    long as the model lives, so they hold no reference to it."""

    def __init__(self, precision: Precision, budget: float, progress: bool):
        self.precision = precision
        self.budget = budget  # seconds that are left for all of them
        self.progress = progress
        self.graphs: list[Graph] = []

    def add(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        """The backend of torch.compile."""
        part = Graph(graph, inputs, self._compiled)
        self.graphs.append(part)
        return torch._dynamo.disable(part.__call__)

    def _compiled(
        self, model: nn.Module, sample: Any, plan: dict[str, str] | None
    ) -> CompiledNetwork:
        start = time.perf_counter()
        net = one_graph(model, sample, self.precision, self.budget, plan, self.progress)
        self.budget = max(0.0, self.budget - (time.perf_counter() - start))
        return net

    def native(self) -> list[CompiledNetwork]:
        """Those that do not run in torch."""
        return [c.net for graph in self.graphs for c in graph.compiled.values() if c is not None]


class NetworkInParts(CompiledNetwork):
    """A frozen network of several graphs, between which Python runs.

    Attributes
    ----------
    reason : why the model is no single graph.
    """

    def __init__(
        self,
        name: str,
        structure: pytree.TreeSpec,
        kinds: list[str],
        model: nn.Module,
        parts: Parts,
        reason: str,
    ):
        super().__init__(name, structure, kinds, model, parts.precision)
        self.reason = reason
        self._parts = parts
        # In a tuple, so that its parameters are not those of this module.
        self._run = (torch.compile(model, backend=parts.add),)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self._arguments.leaves(args, kwargs)  # refuses what the network was not compiled for
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            return self._run[0](*args, **kwargs)

    def refresh(self, model: nn.Module) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"refresh: model must be an nn.Module; got {type(model).__name__}")
        refuse_other(model, self._persistent, self._classes)
        (own,) = self._frozen
        assert own is not None
        given = model.state_dict()
        for name, tensor in own.state_dict().items():  # else some would be copied before it raises
            if name not in given or given[name].shape != tensor.shape:
                found = f"of shape {tuple(given[name].shape)}" if name in given else "missing"
                raise ValueError(
                    f"refresh: {name} must be of shape {tuple(tensor.shape)}, and is {found}"
                )
        own.load_state_dict(given)  # each part sees at its next call that it is new

    @property
    def plan(self) -> dict[str, str]:
        """None of its own: the parts do not know the names of weights."""
        return {}

    def methods(self) -> dict[str, int]:
        return dict(sum((Counter(net.methods()) for net in self._parts.native()), Counter()))

    def memory(self) -> tuple[int, int]:
        used, together = zip(*(net.memory() for net in self._parts.native()), strict=True)
        return sum(used), sum(together)

    def save(self, path: str | PathLike[str]) -> None:
        self._refuse("save")

    def profile(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse("profile")

    def retune(self, *args: Any, **kwargs: Any) -> None:
        self._refuse("retune")

    def _refuse(self, what: str) -> NoReturn:
        raise TypeError(
            f"{what}: {self._name} is compiled in parts, between which its Python runs, and {what} "
            f"takes one graph. {self.reason}"
        )

    def _summary(self) -> Summary:
        graphs, nets = self._parts.graphs, self._parts.native()
        in_torch = sum(not any(graph.compiled.values()) for graph in graphs)
        head = [
            f"CompiledNetwork({self._name}) in {len(graphs)} parts"
            f"{f', {in_torch} of them in torch' if in_torch else ''}, with Python between them",
            *([str(self.accuracy)] if self.accuracy is not None else []),
        ]
        for number, net in enumerate(nets, 1):
            head += [f"part {number}:", *(f"  {line}" for line in str(net).splitlines()[1:])]
        return Summary(head, [], 0.0, [self.reason])


def in_parts(
    model: nn.Module,
    sample: Any,
    precision: Precision,
    budget: float,
    progress: bool,
    reason: str,
) -> NetworkInParts:
    """The network in parts, called once; arguments are those of `jsc.compile`. Raises CompileError,
    with the reason, if Dynamo finds no part that can be compiled."""
    args, kwargs = arguments_of(sample)
    leaves, structure = pytree.tree_flatten((args, kwargs))
    with compiling:
        frozen = frozen_copy(model)
    kinds = [kind_of(leaf) for leaf in leaves]
    parts = Parts(precision, budget, progress)
    net = NetworkInParts(type(model).__name__, structure, kinds, frozen, parts, reason)
    try:
        net(*args, **kwargs)
    except Exception as error:
        text = str(error).strip().split("\n")[0]
        raise CompileError(
            f"{reason}; and torch.compile, which takes a model in parts, fails: "
            f"{type(error).__name__}: {text}. {INSTEAD}"
        ) from error
    if not parts.native():
        raise CompileError(f"{reason}; and of its parts none can be compiled. {INSTEAD}")
    return net


def warn_of_parts(net: CompiledNetwork) -> None:
    assert isinstance(net, NetworkInParts)
    warnings.warn(
        f"jsc.compile: {net._name} is compiled in {len(net._parts.graphs)} parts, between which "
        f"its Python runs: {net.reason}",
        RuntimeWarning,
        stacklevel=3,
    )
