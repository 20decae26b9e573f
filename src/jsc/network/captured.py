"""A network as functional ATen operators, and its sizes for inputs that it has not seen."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from jsc.network import guards, results

aten = torch.ops.aten
# What a graph may do with sizes; any other operator on them keeps the size fixed.
ON_SIZES = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "sym_size": aten.sym_size.int,
}


@dataclass(frozen=True)
class Placeholder:
    """An argument of a graph.

    kind   "input": a tensor that the caller gives, in order; "value": another argument of the
           caller's, which is part of the network; "state": the entry `name` of the state; "made":
           one that the forward made, which another size may make otherwise
    """

    kind: str
    name: str = ""
    value: Any = None


@dataclass
class Captured:
    """A graph of functional ATen operators.

    placeholders  what its arguments are, in order
    sizes         the shape of each input; a name in place of a number is a free size
    free          the least and the greatest number that each free size may be
    guards        conditions on the free sizes under which the graph holds
    sized         do the nodes' meta["val"] have the sizes of `sizes`?
    """

    graph: fx.Graph
    placeholders: list[Placeholder]
    sizes: list[tuple[int | str, ...]]
    free: dict[str, tuple[float, float]]
    guards: tuple[str, ...]
    out_spec: pytree.TreeSpec
    state: dict[str, Tensor]
    sized: bool

    def fits(self, tensors: Sequence[Tensor]) -> bool:
        """Does the graph hold for inputs of these shapes?"""
        found: dict[str, int] = {}
        for sizes, x in zip(self.sizes, tensors, strict=True):
            if len(sizes) != x.dim():
                return False
            for size, n in zip(sizes, x.shape, strict=True):
                expected = size if isinstance(size, int) else found.setdefault(size, n)
                if n != expected:
                    return False
        within = all(self.free[name][0] <= n <= self.free[name][1] for name, n in found.items())
        return within and guards.hold(self.guards, found)

    def describe(self) -> str:
        """The sizes in words, such as (2 or more, 3, 224, 224)."""
        equal = [guard for guard in self.guards if "==" in guard]  # the others ask for no tiny maps

        def size(n: int | str) -> str:
            if isinstance(n, int):
                return str(n)
            return (f"{n}: " if equal else "") + f"{self.free[n][0]:.0f} or more"

        shapes = ", ".join(f"({', '.join(map(size, shape))})" for shape in self.sizes)
        return f"{shapes} with {' and '.join(equal)}" if equal else shapes

    def at(self, tensors: Sequence[Tensor]) -> Captured:
        """The graph for inputs of these shapes: each node's meta["val"] is a tensor without numbers
        that has the shape of its result, or a size."""
        if self.sized:
            return self
        graph = fx.Graph()
        graph.output(graph.graph_copy(self.graph, {}))
        walk = _Sizes(fx.GraphModule({}, graph))
        with torch.no_grad():
            try:
                walk.run(*self._arguments(tensors, _on_meta))
            except Exception:  # operators that mix devices, or have no rule for meta tensors
                with FakeTensorMode(allow_non_fake_inputs=True) as mode:
                    made = partial(mode.from_tensor, static_shapes=True)
                    walk.run(*self._arguments(tensors, made))
        sizes: list[tuple[int | str, ...]] = [tuple(x.shape) for x in tensors]
        return replace(self, graph=graph, sizes=sizes, free={}, guards=(), sized=True)

    def _arguments(self, tensors: Sequence[Tensor], made: Callable[[Tensor], Tensor]) -> list[Any]:
        """Those of the graph; `made` gives a tensor without numbers in place of each tensor."""
        given = iter(tensors)
        values: list[Any] = []
        for placeholder in self.placeholders:
            if placeholder.kind == "value":
                values.append(placeholder.value)
            elif placeholder.kind == "input":
                values.append(made(next(given).detach()))
            else:
                values.append(made(self.state[placeholder.name].detach()))
        return values


def _on_meta(x: Tensor) -> Tensor:
    """A tenth of the time of torch's fake tensors, which know devices as well."""
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")


class _Sizes(fx.Interpreter):
    """Runs a graph on tensors without numbers and notes what each node gives."""

    def __init__(self, module: fx.GraphModule):
        super().__init__(module)
        # as_strided, the one operator that reads steps in memory, needs those that torch gives.
        self.by_rule = all(n.target is not aten.as_strided.default for n in module.graph.nodes)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        known = results.result(target, args, kwargs) if self.by_rule else None
        return super().call_function(target, args, kwargs) if known is None else known

    def run_node(self, n: fx.Node) -> Any:
        n.meta["val"] = result = super().run_node(n)
        return result


def free_sizes(
    program: ExportedProgram, sizes: Sequence[tuple[int | str, ...]]
) -> dict[str, tuple[float, float]] | None:
    """The free sizes of an exported graph with their ranges, none if all are fixed; None if the
    graph does with a size what we cannot repeat for another one."""
    names = {n for shape in sizes for n in shape if isinstance(n, str)}
    ranges = {str(symbol): r for symbol, r in program.range_constraints.items()}
    if names != ranges.keys():  # another size depends on the numbers in a tensor
        return None
    if names and not guards.understood(guards.of(program), names):
        return None
    allowed = set(ON_SIZES.values())
    for node in program.graph.nodes:
        value = node.meta.get("val")
        computes = node.op == "call_function" and not isinstance(value, (Tensor, tuple, list))
        if names and computes and node.target not in allowed:
            return None
    return {name: (float(ranges[name].lower), float(ranges[name].upper)) for name in names}
