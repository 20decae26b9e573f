"""What a forward leaves behind beside its results: attributes that it writes.

A compiled network computes and keeps nothing, so all that would be lost in silence. Export cannot
tell: it puts attributes back that were there before. So a copy of the model really runs, twice, on
the sample. What the second run changes is written at each call, and is refused. What only the
first run changes is a cache, such as positions by the size of the image; it is accepted if the
second run gives the same results and if other numbers in the input leave the same in it.
"""

from __future__ import annotations

import copy
import random
import types
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from jsc._checks import shown
from jsc.network.accuracy import largest_number
from jsc.network.errors import CompileError

DEPTH = 6  # of containers within each other that are looked into
ENTRIES = 1000  # of each of them
MARKS = 100_000  # after these, no more containers are looked into
# What every module has of itself, hooks among it, and what transformers notes once.
OWN = frozenset(vars(nn.Module())) | {"_output_capturing_hooks_installed"}
PLAIN = (bool, int, float, complex, str, bytes, type(None), range, slice, np.generic, torch.device)
CODE = (type, types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.ModuleType)


class Mark(NamedTuple):
    """An attribute at one moment: the object, where another one of the same numbers counts as a
    change (it is held, so that its identity is not given away), and what tells a change within."""

    held: Any
    content: Any


NOTHING = Mark(None, "nothing")


def refuse_effects(frozen: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raises CompileError if a call of the model leaves more behind than its results."""
    with _left_alone():
        model = with_attributes_of_its_own(frozen)
        before = snapshot(model)
        results = _run(model, args, kwargs)
        after = snapshot(model)
        again = _run(model, args, kwargs)
        refuse(frozen, changed(after, snapshot(model)))
        kept = changed(before, after)
        if not _alike(results, again):
            cause = f" It sets {', '.join(kept[:3])}." if kept else ""
            raise CompileError(
                f"the forward of {type(frozen).__name__} gives other results when it is called "
                f"with the same input again.{cause} A compiled network keeps nothing from call to "
                "call; compile the part of the model that only computes"
            )
        if kept:
            other = with_attributes_of_its_own(frozen)
            _run(other, *pytree.tree_map_only(Tensor, _halved, (args, kwargs)))
            found = snapshot(other)
            refuse(frozen, [n for n in kept if not _equal(after[n], found.get(n, NOTHING))])


def refuse(model: nn.Module, names: list[str]) -> None:
    """Raises CompileError if there are names: those of attributes that the forward sets."""
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise CompileError(
            f"the forward of {type(model).__name__} sets {', '.join(names[:3])}{more}, which would "
            "be lost: a compiled network computes and keeps nothing. Let the forward return it, or "
            "compile the part of the model that only computes"
        )


def snapshot(model: nn.Module) -> dict[str, Mark]:
    """What the attributes of all modules are now, by their paths."""
    marks: dict[str, Mark] = {}
    modules = list(model.named_modules())
    seen = {id(module) for _, module in modules}
    for path, module in modules:
        if isinstance(module, fx.GraphModule):  # a graph sets nothing; its code is made lazily
            continue
        for name, value in vars(module).items():
            if name not in OWN:
                _note(marks, seen, f"{path}.{name}" if path else name, value, DEPTH)
        for name, buffer in module._buffers.items():
            _note(marks, seen, f"{path}.{name}" if path else name, buffer, DEPTH)
    return marks


def changed(before: dict[str, Mark], after: dict[str, Mark]) -> list[str]:
    """The attributes that differ."""

    def same(a: Mark, b: Mark) -> bool:
        return a.held is b.held and a.content == b.content

    names = sorted(before.keys() | after.keys())
    return [n for n in names if not same(before.get(n, NOTHING), after.get(n, NOTHING))]


def _note(marks: dict[str, Mark], seen: set[int], where: str, value: Any, depth: int) -> None:
    """Adds the mark of a value, and those of what it holds."""
    parts: list[tuple[str, Any]] = []
    if isinstance(value, PLAIN):
        marks[where] = Mark(None, (type(value), repr(value)))
    elif isinstance(value, Tensor):
        marks[where] = Mark(value, _memory(value))
    elif isinstance(value, np.ndarray):
        marks[where] = Mark(None, (value.shape, hash(value.tobytes())))
    elif isinstance(value, (set, frozenset)):
        marks[where] = Mark(None, (len(value), sorted(map(shown, islice(value, ENTRIES)))))
    elif isinstance(value, Mapping):
        marks[where] = Mark(None, (type(value), len(value)))
        parts = [(f"[{shown(k)}]", v) for k, v in islice(value.items(), ENTRIES)]
    elif isinstance(value, (list, tuple, deque)):
        marks[where] = Mark(None, (type(value), len(value)))
        parts = [(f"[{i}]", v) for i, v in enumerate(islice(value, ENTRIES))]
    else:
        marks[where] = Mark(value, None)
        if hasattr(value, "__dict__") and not isinstance(value, CODE):
            parts = [(f".{name}", v) for name, v in islice(vars(value).items(), ENTRIES)]
    if parts and depth and len(marks) < MARKS and id(value) not in seen:
        seen.add(id(value))
        for name, part in parts:
            _note(marks, seen, where + name, part, depth - 1)


def _memory(x: Tensor) -> Any:
    """Changes when the tensor is written to, or is given other memory."""
    version = None if x.is_inference() else x._version
    return version, x.untyped_storage()._cdata if x.layout is torch.strided else None


@contextmanager
def _left_alone() -> Iterator[None]:
    """Runs of a model that change neither random numbers nor warnings of the caller's."""
    python, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002
    # Within inference mode a tensor would count no versions.
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpys)  # noqa: NPY002


def with_attributes_of_its_own(model: nn.Module, buffers: bool = False) -> nn.Module:
    """A copy with the same parameters, and with `buffers` the same buffers: a run on it leaves no
    cache in the model."""
    shared = [*model.parameters(), *(model.buffers() if buffers else ())]
    return copy.deepcopy(model, {id(x): x for x in shared})


def _run(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The results for inputs of our own, with the same random numbers of torch's each time."""
    args, kwargs = pytree.tree_map_only(Tensor, torch.clone, (args, kwargs))
    with torch.random.fork_rng(devices=[]):
        return model(*args, **kwargs)


def _halved(x: Tensor) -> Tensor:
    return x / 2 if x.is_floating_point() else x


def _alike(results: Any, again: Any) -> bool:
    pairs = zip(pytree.tree_leaves(results), pytree.tree_leaves(again), strict=True)
    return all(_close(a, b) for a, b in pairs if isinstance(a, Tensor) and isinstance(b, Tensor))


def _close(a: Tensor, b: Tensor) -> bool:
    """Nearly the same numbers: sums in another order may differ in their last bits."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.is_floating_point():
        return torch.equal(a, b)
    return torch.allclose(a, b, rtol=1e-3, atol=1e-5 * max(1.0, largest_number(a)), equal_nan=True)


def _equal(a: Mark, b: Mark) -> bool:
    """Whether attributes of two copies of a model hold the same numbers."""
    if isinstance(a.held, Tensor) and isinstance(b.held, Tensor):
        return _close(a.held, b.held)
    return isinstance(a.held, Tensor) == isinstance(b.held, Tensor) and a.content == b.content
