"""torch.compile(model, backend="jsc"): the same programs for each graph that Dynamo captures.

Dynamo gives a graph and, at each call, all of its inputs, parameters among them. A graph is
compiled at its first call without gradients, its parameters as constants; when one of them has
changed, by version or address, they are packed again. A call that records gradients, and a graph
that cannot be compiled, run as they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jsc.network.compiled import CompiledNetwork, compile
from jsc.network.errors import CompileError


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


class _Graph:
    """What Dynamo calls in place of a graph."""

    def __init__(self, graph: nn.Module, inputs: Sequence[Any]):
        self.graph = graph
        self.fixed = [i for i, x in enumerate(inputs) if _is_fixed(x)]
        # By the numbers among the inputs: sizes that Dynamo leaves free.
        self.compiled: dict[tuple[Any, ...], tuple[CompiledNetwork, _Bound] | None] = {}
        self.stamps: dict[tuple[Any, ...], list[tuple[int, int]]] = {}

    def __call__(self, *inputs: Any) -> Any:
        tensors = [x for x in inputs if isinstance(x, Tensor)]
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            return self.graph(*inputs)
        numbers = tuple(x for x in inputs if not isinstance(x, Tensor))
        if numbers not in self.compiled:
            self.compiled[numbers] = self._compile(inputs)
            self.stamps[numbers] = self._stamps(inputs)
        found = self.compiled[numbers]
        if found is None:
            return self.graph(*inputs)
        net, bound = found
        stamps = self._stamps(inputs)
        if stamps != self.stamps[numbers]:
            for i, name in bound.fixed.items():
                setattr(bound, name, inputs[i].detach())
            net.refresh(bound)
            self.stamps[numbers] = stamps
        given = [x for i, x in enumerate(inputs) if isinstance(x, Tensor) and i not in bound.fixed]
        with torch.no_grad():
            return net(*given)

    def _stamps(self, inputs: Sequence[Any]) -> list[tuple[int, int]]:
        return [(inputs[i]._version, inputs[i].data_ptr()) for i in self.fixed]

    def _compile(self, inputs: Sequence[Any]) -> tuple[CompiledNetwork, _Bound] | None:
        bound = _Bound(self.graph, inputs, self.fixed)
        given = tuple(
            x for i, x in enumerate(inputs) if isinstance(x, Tensor) and i not in bound.fixed
        )
        try:
            return compile(bound, given, budget=10.0, check=False, progress=False), bound
        except (CompileError, TypeError) as error:
            warnings.warn(
                f"torch.compile, backend jsc: a graph runs in torch: {error}",
                RuntimeWarning,
                stacklevel=2,
            )
            return None


def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
    """The backend "jsc" of torch.compile."""
    return torch._dynamo.disable(_Graph(graph, inputs).__call__)


def _is_fixed(x: Any) -> bool:
    """Parameters and buffers, as Dynamo marks them."""
    static = getattr(x, "_dynamo_static_input_type", None) is not None
    return isinstance(x, nn.Parameter) or (isinstance(x, Tensor) and static)
