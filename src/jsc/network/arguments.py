"""The arguments that a network was compiled for, and which others it refuses.

Native code reads the memory of the tensors that it is given. So whatever has none of its own, or
lays it out in another way, is refused here, in words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._C import _TorchDispatchModeKey as Mode
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from jsc import _checks
from jsc.ops._library import forward_mode

MODES = (Mode.FAKE, Mode.PROXY, Mode.FUNCTIONAL)  # in which a new tensor has no memory


class Arguments:
    """Structure and kinds of a network's arguments, as the sample had them."""

    def __init__(self, name: str, structure: pytree.TreeSpec, kinds: list[str]):
        self.name = name
        self.structure = structure
        self.kinds = kinds
        self._args, self._kwargs = pytree.tree_unflatten(kinds, structure)

    def leaves(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """The tensors and plain arguments of a call. TypeError where they are others than those of
        the sample, but for sizes; RuntimeError where a gradient would be lost."""
        leaves, structure = pytree.tree_flatten((args, _in_order(kwargs, tuple(self._kwargs))))
        if structure != self.structure:
            expected, given = _counted(self._args, self._kwargs), _counted(args, kwargs)
            if expected == given:
                expected, given = f"arguments {self.structure}", str(structure)
            raise TypeError(f"{self.name} was compiled for {expected}; got {given}")
        self.check(leaves)
        return leaves

    def check(self, leaves: list[Any]) -> None:
        refuse_transforms(self.name)
        for leaf, expected in zip(leaves, self.kinds, strict=True):
            given = kind_of(leaf)
            if given != expected:
                raise TypeError(f"{self.name} was compiled for {expected}; got {given}")
        refuse_gradients(tensors_of(leaves))


def kind_of(leaf: Any) -> str:
    """What an argument is, but for sizes."""
    if isinstance(leaf, np.ndarray):
        return "a numpy array; torch.from_numpy makes a tensor"
    if not isinstance(leaf, Tensor):
        return repr(leaf)
    special = _special(leaf)
    if special is not None:
        return f"a {special}"
    where = "" if leaf.device.type == "cpu" else f" on {leaf.device}"
    return f"a {leaf.dim()}-dimensional {leaf.dtype} tensor{where}"


def _special(x: Tensor) -> str | None:
    """Why the memory of a tensor cannot be read as numbers that lie in steps; None if it can."""
    if torch.compiler.is_dynamo_compiling():  # it follows no such questions, and native code runs
        return None  # outside of its graphs
    if isinstance(x, FakeTensor):
        return "FakeTensor, which has no numbers"
    if torch._C._functorch.is_functorch_wrapped_tensor(x):
        return "tensor of a torch.func transform; call the network outside of it"
    if x.is_nested:
        return "nested tensor; torch.stack or .to_padded_tensor makes an ordinary one"
    if x.layout != torch.strided:
        return f"tensor of layout {x.layout}; .to_dense() makes an ordinary one"
    if is_traceable_wrapper_subclass(x) or torch._is_functional_tensor(x):
        return f"{type(x).__name__}, which wraps other tensors"
    if x.is_cpu and x.numel() and not x.data_ptr():
        return "tensor without memory (freed, or zeros that torch does not store)"
    return None


def refuse_transforms(name: str) -> None:
    """Raises RuntimeError where a new tensor would have no memory, or where torch would write down
    a network's results as constants."""
    what = None
    if torch.compiler.is_dynamo_compiling():
        return
    if any(torch._C._get_dispatch_mode(mode) is not None for mode in MODES):
        what = "a mode that traces operators (FakeTensorMode, make_fx, torch.export)"
    elif torch._C._are_functorch_transforms_active():
        what = "a transform of torch.func (vmap, grad, jvp, functionalize)"
    elif torch._C._get_tracing_state() is not None:
        what = "torch.jit.trace"
    if what is not None:
        raise RuntimeError(
            f"{name}: native code cannot run within {what}; call the compiled network outside of "
            "it, or use the model itself there"
        )


def refuse_gradients(tensors: list[Tensor]) -> None:
    backward = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    if backward or (forward_mode() and any(map(_has_tangent, tensors))):
        raise RuntimeError(
            "a compiled network computes no gradients, and an input requires one; call it under "
            "torch.no_grad() or on x.detach(), or use the model itself (jsc.tune keeps it "
            "trainable)"
        )


def _has_tangent(x: Tensor) -> bool:
    return forward_ad.unpack_dual(x).tangent is not None


def _counted(args: Sequence[Any], kwargs: dict[str, Any]) -> str:
    """Arguments in words, such as "1 positional argument and mask=..."."""
    words = [f"{len(args)} positional argument{'s' if len(args) != 1 else ''}"] if args else []
    words += [f"{name}=..." for name in kwargs]
    return " and ".join(words) or "no arguments"


def _in_order(arguments: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Keyword arguments in the order of `names`, which pytree's structures have and Python's calls
    have not."""
    if len(arguments) < 2:
        return arguments
    return {name: arguments[name] for name in names if name in arguments} | arguments


def tensors_of(leaves: list[Any]) -> list[Tensor]:
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def arguments_of(sample: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a sample, which has ordinary tensors."""
    if isinstance(sample, dict):
        args, kwargs = (), dict(sample)
    else:
        args, kwargs = tuple(sample) if isinstance(sample, (tuple, list)) else (sample,), {}
    tensors = tensors_of(pytree.tree_leaves((args, kwargs)))
    if not tensors:
        raise TypeError(
            "compile: sample must be a tensor, a tuple of arguments or a dict of keyword arguments "
            f"with a tensor among them; got {type(sample).__name__}"
        )
    for special in map(_special, tensors):
        if special is not None:
            raise TypeError(f"compile: sample must have ordinary tensors; got a {special}")
    return args, kwargs


def checked_budget(budget: Any) -> float:
    """Seconds, of which there may be no end."""
    if isinstance(budget, float) and budget == math.inf:
        return budget
    seconds = _checks.number(budget, "compile: budget", "a number of seconds")
    if seconds < 0:
        raise ValueError(
            f"compile: budget must be at least 0, which times nothing; got {_checks.shown(budget)}"
        )
    return seconds
