"""torch.compile(model, backend="jsc"): the same programs for each graph that Dynamo captures.

Dynamo gives a graph and, at each call, all of its inputs, parameters among them. A graph is
compiled at its first call without gradients, its parameters as constants; when one of them has
changed, by its stamp (`jsc.ops.packs`), they are packed again; if a method does not take the new
ones (which are not finite), the graph is compiled anew. A call that records gradients or has
autocast on, and a graph that cannot be compiled, run as they are.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from jsc import _precision
from jsc._lock import Lock
from jsc.network.arguments import checked_budget
from jsc.network.calls import kept
from jsc.network.compiled import CompiledNetwork, one_graph
from jsc.network.errors import CompileError
from jsc.ops.packs import Stamp, stamp


class _Bound(nn.Module):
    """A graph whose fixed inputs are parameters of its own, and whose numbers are settled."""

    def __init__(self, graph: nn.Module, inputs: Sequence[Any], fixed: Sequence[int]):
        super().__init__()
        self.graph = graph
        self.fixed = {i: f"p{i}" for i in fixed}
        for i, name in self.fixed.items():
            self.register_buffer(name, inputs[i].detach())
        self.numbers = {i: x for i, x in enumerate(inputs) if not isinstance(x, Tensor)}
        self.count = len(inputs)

    def forward(self, *given: Tensor) -> Any:
        rest = iter(given)
        inputs = [
            getattr(self, self.fixed[i])
            if i in self.fixed
            else self.numbers[i]
            if i in self.numbers
            else next(rest)
            for i in range(self.count)
        ]
        return self.graph(*inputs)


class _Compiled(NamedTuple):
    net: CompiledNetwork
    bound: _Bound
    stamps: list[Stamp | None]  # of the fixed inputs that it has


Compile = Callable[[nn.Module, Any, dict[str, str] | None], CompiledNetwork]


class Graph:
    """What Dynamo calls in place of a graph."""

    def __init__(self, graph: torch.fx.GraphModule, inputs: Sequence[Any], compile: Compile):
        self.graph = graph
        self.compile = compile  # of a model, a sample and a plan
        self.fixed = [i for i, x in enumerate(inputs) if _is_fixed(x)]
        self.lock = Lock()  # one thread compiles or packs; it waits for no call
        # By the numbers among the inputs: sizes that Dynamo leaves free. None: it runs in torch.
        self.compiled: OrderedDict[tuple[Any, ...], _Compiled | None] = OrderedDict()
        self.plan: dict[str, str] | None = None
        self.native = not _shares_memory(graph)
        if not self.native:
            _warn("its results share memory with its inputs or with each other")

    def __call__(self, *inputs: Any) -> Any:
        tensors = [x for x in inputs if isinstance(x, Tensor)]
        recorded = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        if not self.native or recorded or torch.is_autocast_enabled("cpu"):
            return self.graph(*inputs)
        found = self._current(inputs)
        if found is None:
            return self.graph(*inputs)
        fixed = found.bound.fixed
        given = [x for i, x in enumerate(inputs) if isinstance(x, Tensor) and i not in fixed]
        with torch.no_grad():
            return found.net(*given)

    def _current(self, inputs: Sequence[Any]) -> _Compiled | None:
        """The network for these numbers, with the parameters as they are now."""
        numbers = tuple(x for x in inputs if not isinstance(x, Tensor))
        stamps = [stamp(inputs[i]) for i in self.fixed]
        with self.lock:
            found = kept(self.compiled, numbers, lambda: self._compile(inputs, stamps))
            if found is not None and (None in stamps or stamps != found.stamps):
                for i, name in found.bound.fixed.items():
                    setattr(found.bound, name, inputs[i].detach())
                try:
                    found.net.refresh(found.bound)
                    found = found._replace(stamps=stamps)
                except ValueError:  # a method that was chosen does not take these weights
                    found = self._compile(inputs, stamps)
                self.compiled[numbers] = found
            return found

    def _compile(self, inputs: Sequence[Any], stamps: list[Stamp | None]) -> _Compiled | None:
        bound = _Bound(self.graph, inputs, self.fixed)
        given = tuple(
            x for i, x in enumerate(inputs) if isinstance(x, Tensor) and i not in bound.fixed
        )
        try:
            net = self.compile(bound, given, self.plan)
        except (CompileError, TypeError) as error:
            _warn(str(error))
            return None
        self.plan = net.plan  # other sizes have the same convolutions
        return _Compiled(net, bound, stamps)


def _warn(reason: str) -> None:
    warnings.warn(
        f"torch.compile, backend jsc: a graph runs in torch: {reason}", RuntimeWarning, stacklevel=2
    )


def _shares_memory(graph: torch.fx.GraphModule) -> bool:
    """Is a result a view of an input or of another result? Dynamo counts on that being so, and a
    compiled network gives copies."""

    def memories(nodes: Iterable[torch.fx.Node]) -> list[int]:
        values = [node.meta.get("example_value") for node in nodes]
        return [v.untyped_storage()._cdata for v in values if isinstance(v, Tensor)]

    inputs = memories(node for node in graph.graph.nodes if node.op == "placeholder")
    results = memories(graph.graph.output_node().all_input_nodes)
    return len(set(results)) < len(results) or not set(results).isdisjoint(inputs)


def backend(
    graph: torch.fx.GraphModule, inputs: list[Any], *, options: dict[str, Any] | None = None
) -> Callable[..., Any]:
    """The backend "jsc" of torch.compile, whose `options` may be `budget` (10 seconds for each
    graph) and `precision`, as `jsc.compile` has them."""
    seconds, precision = _checked(options or {})

    def compile(model: nn.Module, sample: Any, plan: dict[str, str] | None) -> CompiledNetwork:
        exactness = _precision.resolved(precision)
        return one_graph(model, sample, exactness, seconds, plan, progress=False)

    return torch._dynamo.disable(Graph(graph, inputs, compile).__call__)


def _checked(options: dict[str, Any]) -> tuple[float, Any]:
    """The budget and the precision of the options."""
    unknown = options.keys() - {"budget", "precision"}
    if unknown:
        raise ValueError(
            "torch.compile, backend jsc: options may be budget (in seconds, for each graph) and "
            f"precision; got {', '.join(sorted(map(str, unknown)))}"
        )
    precision = options.get("precision")
    _precision.resolved(precision)  # refuses what is none
    return checked_budget(options.get("budget", 10.0)), precision


def _is_fixed(x: Any) -> bool:
    """Parameters and buffers, as Dynamo marks them."""
    static = getattr(x, "_dynamo_static_input_type", None) is not None
    return isinstance(x, nn.Parameter) or (isinstance(x, Tensor) and static)
