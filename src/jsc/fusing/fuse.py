"""The fused forward of a network: set by `apply`, taken away by `restore`.

It is an attribute `forward` of the network object and no part of the module tree. Programs are made
at the first call with inputs of a kind, and believed only if they give that call's very bits.
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules import module as hooks

from jsc.fusing.graph import Graph, trace
from jsc.fusing.program import Program, Trial
from jsc.methods import FUSIBLE, is_channels_last
from jsc.nn import SparseConv2d
from jsc.ops._library import eager

KINDS = 16  # sizes of input that programs are kept for
PATIENCE = 1024  # calls after which a program that did not hold is made anew, at most
TRUST = 16  # calls that a program has to hold for to halve that number


@dataclass
class _Entry:
    """The program of one kind of input. After `patience` calls without one it is made (again);
    patience doubles, so that a network that changes all the time pays little for trying."""

    patience: int
    program: Program | None = None
    misses: int = 0
    hits: int = 0


class FusedForward:
    """`forward` of a network in evaluation mode without gradients: its program, or else its own
    forward, which everything but a plain call on the CPU takes.

    channels_last : what the plan found faster: the network gets its maps in this format.
    """

    def __init__(self, model: nn.Module, channels_last: bool = False) -> None:
        self._model, self.channels_last = model, channels_last
        self._graph: Graph | None = trace(model)
        self._traced, self._made = True, False
        self._entries: dict[Any, _Entry] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or not self._runs(args, kwargs):
            return type(self._model).forward(self._model, *args, **kwargs)
        return self._run(list(args))

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(type(self._model).forward.__get__(self._model))

    @property
    def __code__(self) -> Any:  # torch.export wants to know where it stands
        return type(self._model).forward.__code__

    def _runs(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        return not (
            torch.is_grad_enabled()
            or self._model.training
            or kwargs
            or not args
            or not all(isinstance(x, Tensor) and eager(x) for x in args)
            or torch._C._len_torch_function_stack()
            or torch.is_autocast_enabled("cpu")
            or hooks._global_forward_hooks
            or hooks._global_forward_pre_hooks
        )

    def _run(self, inputs: list[Tensor]) -> Any:
        if not self._traced:
            self._graph, self._traced = trace(self._model), True
        if self._graph is None or len(inputs) != len(self._graph.inputs):
            return self._own(inputs)
        kind = tuple((x.shape, x.dtype, is_channels_last(x), x.is_contiguous()) for x in inputs)
        entry = self._entries.get(kind)
        if entry is None:
            if len(self._entries) >= KINDS:
                self._entries.clear()
            # The first kind at once; others when they come again, as some sizes never do.
            entry = self._entries[kind] = _Entry(2 if self._made else 1)
        program = entry.program
        if program is not None and program.guard.holds():
            entry.hits += 1
            if entry.hits % TRUST == 0:
                entry.patience = max(1, entry.patience // 2)
            return program(*inputs)
        entry.misses += 1
        if entry.misses < entry.patience:
            return self._own(inputs)
        entry.misses, entry.patience = 0, min(2 * entry.patience, PATIENCE)
        self._made = True
        entry.program, out = self._make(inputs, self._graph)
        return out

    def _own(self, inputs: list[Tensor]) -> Any:
        own = type(self._model).forward
        if self.channels_last and not any(map(is_channels_last, inputs)):
            try:
                out = own(self._model, *[_as(x, torch.channels_last) for x in inputs])
                return _as(out, torch.contiguous_format)
            except RuntimeError:  # a forward that takes maps apart with `view`
                pass
        return own(self._model, *inputs)

    def _make(self, inputs: list[Tensor], graph: Graph) -> tuple[Program | None, Any]:
        """A program for such inputs, if it is a true one, and its answer or the network's own."""
        program = None
        if graph.fits(self._model):
            try:
                plain = turned = Trial(self._model, graph, _clones(inputs))
                if self.channels_last and not any(map(is_channels_last, inputs)):
                    turned = Trial(self._model, graph, _clones(inputs), plain.forms)
                program = Program(self._model, graph, turned)
                result = program(*_clones(inputs))
            except Exception:  # the network's own forward has the last word
                program = None
        if program is None:
            return None, self._own(inputs)
        out = type(self._model).forward(self._model, *inputs)
        if same(plain.output, out) and same(result, turned.output) and program.guard.holds():
            return program, result
        return None, out

    def __deepcopy__(self, memo: dict[int, Any]) -> FusedForward:
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        new.__dict__ = {**self.__dict__, "_made": False, "_entries": {}}
        new._model = copy.deepcopy(self._model, memo)
        return new

    def __getstate__(self) -> dict[str, Any]:
        fresh: dict[str, Any] = {"_graph": None, "_traced": False, "_made": False, "_entries": {}}
        return {**self.__dict__, **fresh}

    def __reduce__(self) -> Any:
        if isinstance(self._model, fx.GraphModule):  # pickled as text, before it is an object
            return type(None), ()
        return _blank, (), self.__getstate__()


def _clones(inputs: list[Tensor]) -> tuple[Tensor, ...]:
    return tuple(x.clone() for x in inputs)


def _blank() -> FusedForward:
    return FusedForward.__new__(FusedForward)


def _as(value: Any, memory_format: torch.memory_format) -> Any:
    """Maps in another format; anything but tensors, lists, tuples and dicts as it is."""
    if isinstance(value, Tensor):
        return value.contiguous(memory_format=memory_format) if value.dim() == 4 else value
    if type(value) in (tuple, list):
        return type(value)(_as(item, memory_format) for item in value)
    if type(value) is dict:
        return {key: _as(item, memory_format) for key, item in value.items()}
    return value


def same(a: Any, b: Any) -> bool:
    """Equal in every bit and in memory format; NaN equals NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        alike = a.shape == b.shape and a.dtype == b.dtype
        alike = alike and is_channels_last(a) == is_channels_last(b)
        return alike and (torch.equal(a, b) or bool(((a == b) | (a != a) & (b != b)).all()))
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(a == b)


def fuse(model: nn.Module, channels_last: bool) -> None:
    """Give the network its fused forward, where one can be had or the format is to be changed."""
    unfuse(model)
    fusible = any(type(m) is SparseConv2d and m.method in FUSIBLE for m in model.modules())
    if "forward" in vars(model) or not (fusible or channels_last):  # somebody's own forward
        return
    fused = FusedForward(model, channels_last)
    if fused._graph is not None or channels_last:
        vars(model)["forward"] = fused


def unfuse(model: nn.Module) -> None:
    """Take it away again, here and in every module below."""
    for module in model.modules():
        if isinstance(vars(module).get("forward"), FusedForward):
            del vars(module)["forward"]
