"""What a program was made for, and whether it still is so."""

from __future__ import annotations

import operator
from itertools import chain
from typing import Any

from torch import Tensor, nn

from jsc import _config
from jsc.fusing.chains import Chain
from jsc.fusing.graph import Graph
from jsc.nn import SparseConv2d
from jsc.ops.packs import stamp


class Guard:
    """Everything that a program depends on, besides its inputs: checked before every call."""

    def __init__(self, model: nn.Module, graph: Graph, fused: tuple[Chain, ...]) -> None:
        called = {s.target for s in graph.steps if s.kind == "module"}
        paths = [*graph.inlined, *called, *_parents(called)]
        self._modules = list(dict.fromkeys(model.get_submodule(path) for path in paths))
        sparse = [m for m in self._modules if isinstance(m, SparseConv2d)]
        # Of a convolution not all: its prepared calls come and go.
        self._others = [m for m in self._modules if m not in set(sparse)]
        self._sparse = sparse
        names = ("training", "_method", "stride", "padding", "dilation", "groups", "padding_mode")
        self._settings = operator.attrgetter(*names)
        inner = ("_modules", "_forward_hooks", "_forward_pre_hooks")
        self._dicts = [vars(m)[name] for m in self._modules for name in inner]
        inside = {name for c in fused for name in c.steps}
        parts = [s.target for s in graph.steps if s.kind == "module" and s.name in inside]
        owners = list(dict.fromkeys(model.get_submodule(path) for path in parts))
        self._owned = [vars(m)[name] for m in owners for name in ("_parameters", "_buffers")]
        self._ids = list(map(id, chain.from_iterable(map(dict.values, self._owned))))
        found = chain.from_iterable(map(dict.values, self._owned))
        self._tensors = [x for x in found if x is not None]
        self._state = self._now()
        self._copies = [dict(held) for held in self._dicts]
        self._attributes = [dict(vars(m)) for m in self._others]

    def _now(self) -> tuple[Any, ...]:
        return (
            _config.isa(),
            list(map(type, self._modules)),
            [type(m).forward for m in self._modules],
            list(map(self._settings, self._sparse)),
            ["forward" in vars(m) for m in self._sparse],
            list(map(operator.attrgetter("_version"), self._tensors)),
            list(map(Tensor.data_ptr, self._tensors)),
            [stamp(p) for m in self._sparse for p in m.parameters()],
        )

    def holds(self) -> bool:
        try:
            return (
                list(map(id, chain.from_iterable(map(dict.values, self._owned)))) == self._ids
                and self._dicts == self._copies
                and list(map(vars, self._others)) == self._attributes
                and self._now() == self._state
            )
        except (RuntimeError, ValueError, TypeError):  # attributes that cannot be compared
            return False


def _parents(paths: set[str]) -> set[str]:
    found = set()
    for path in paths:
        while "." in path:
            path = path.rpartition(".")[0]
            found.add(path)
    return found
