"""Operators on the model's state alone: their results are constants too.

Standardised weights, reparametrised ones, tables of positions, grids of anchors: computed once, and
again by `refresh`, not at every call.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from jsc.network.constants import Constant, State
from jsc.network.lowering.entries import Lowering, Parameter


@dataclass(frozen=True)
class Result:
    """What an operator makes of constants: `Parameter` arguments, and Python values."""

    key: Hashable
    compute: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    def evaluate(self, state: State, known: dict[Hashable, Any]) -> Any:
        """`known` has the results of this evaluation by key: each is computed once."""
        if self.key not in known:
            for before in self._unknown(known):
                args = [_number(a, state, known) for a in before.arguments]
                options = {k: _number(v, state, known) for k, v in before.options.items()}
                known[before.key] = before.compute(*args, **options)
        return known[self.key]

    def _unknown(self, known: dict[Hashable, Any]) -> list[Result]:
        """This result and those that it needs, in an order in which they can be computed."""
        order: dict[Hashable, Result] = {}
        stack: list[tuple[Result, bool]] = [(self, False)]
        while stack:
            result, ready = stack.pop()
            if ready:
                order.setdefault(result.key, result)
            elif result.key not in order and result.key not in known:
                stack.append((result, True))
                stack += [(r, False) for r in _results(result.arguments)]
                stack += [(r, False) for r in _results(tuple(result.options.values()))]
        return list(order.values())


def fold(low: Lowering, node: fx.Node) -> Any:
    """The node's value as one or several parameters, or None where it is no constant."""
    target: Any = node.target
    if not isinstance(target, torch._ops.OpOverload) or target._schema.is_mutable:
        return None
    if torch.Tag.nondeterministic_seeded in target.tags:
        return None
    args = tuple(low.lookup(a) for a in node.args)
    options = {k: low.lookup(v) for k, v in node.kwargs.items()}
    if not all(_constant(v) for v in (*args, *options.values())):
        return None
    meta = node.meta.get("val")
    made = list(meta) if isinstance(meta, (list, tuple)) else [meta]
    if not all(isinstance(m, Tensor) for m in made):
        return None
    what = (str(target), _key(args), [(k, _key(v)) for k, v in sorted(options.items())])
    # A digest: the keys of arguments would grow twofold with each step that uses one twice.
    key = ("folded", hashlib.sha256(repr(what).encode()).hexdigest())
    result = Result(key, target, args, options)
    if not isinstance(meta, (list, tuple)):
        return _parameter(result, meta, node.name)
    parts = [Result((key, i), operator.getitem, (result, i), {}) for i in range(len(made))]
    return tuple(_parameter(p, m, node.name) for p, m in zip(parts, made, strict=True))


def _parameter(result: Result, meta: Any, name: str) -> Parameter:
    constant = Constant(result.key, lambda state: result.evaluate(state, {}))
    return Parameter(constant, meta, name, result)


def _constant(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_constant(v) for v in value)
    plain = (bool, int, float, complex, str, type(None), torch.dtype, torch.device, torch.layout)
    return isinstance(value, (Parameter, torch.memory_format, *plain))


def _key(value: Any) -> Any:
    if isinstance(value, Parameter):
        return ("constant", value.constant.key)
    if isinstance(value, (list, tuple)):
        return tuple(_key(v) for v in value)
    return (type(value).__name__, value)


def _number(value: Any, state: State, known: dict[Hashable, Any]) -> Any:
    if isinstance(value, Result):
        return known[value.key]
    if isinstance(value, Parameter):
        if isinstance(value.made, Result):
            return known[value.made.key]
        return value.constant.recipe(state)
    if isinstance(value, (list, tuple)):
        return type(value)(_number(v, state, known) for v in value)
    return value


def _results(values: tuple[Any, ...] | list[Any]) -> list[Result]:
    found: list[Result] = []
    for value in values:
        if isinstance(value, Result):
            found.append(value)
        elif isinstance(value, Parameter) and isinstance(value.made, Result):
            found.append(value.made)
        elif isinstance(value, (list, tuple)):
            found += _results(value)
    return found
