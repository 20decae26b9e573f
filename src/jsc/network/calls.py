"""What a compiled network looks at in the arguments of a call."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from jsc import _config

if TYPE_CHECKING:
    from jsc.network.program import NetworkProgram

Key = tuple[Any, ...]
Made = TypeVar("Made")
PROGRAMS = 16  # of the sizes used last


def kept(programs: OrderedDict[Key, Made], key: Key, make: Callable[[], Made]) -> Made:
    """`programs[key]`, made where there is none; the oldest goes where there are too many. The
    caller holds a lock."""
    if key not in programs:
        programs[key] = make()
        while len(programs) > PROGRAMS:
            programs.popitem(last=False)
    programs.move_to_end(key)
    return programs[key]


class LastCall(NamedTuple):
    """The last call with one tensor: another of the same size and layout needs no search."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    program: NetworkProgram

    def fits(self, x: Any) -> bool:
        return (
            type(x) is Tensor
            and x.shape == self.shape
            and x.stride() == self.stride
            and x.dtype is self.dtype
            and not x.requires_grad
            and not x.is_neg()
            and x.device.type == "cpu"
            and self.program.isa == _config.isa()
        )


def kind_of(leaf: Any) -> str:
    if not isinstance(leaf, Tensor):
        return repr(leaf)
    where = "" if leaf.device.type == "cpu" else f" on {leaf.device}"
    return f"a {leaf.dim()}-dimensional {leaf.dtype} tensor{where}"


def in_order(arguments: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Keyword arguments in the order of `names`, which pytree's structures have and Python's calls
    have not."""
    if len(arguments) < 2:
        return arguments
    return {name: arguments[name] for name in names if name in arguments} | arguments


def tensors_of(leaves: list[Any]) -> list[Tensor]:
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def is_channels_last(x: Tensor) -> bool:
    return (
        x.dim() == 4
        and not x.is_contiguous()
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def key_of(leaves: list[Any], tensors: list[Tensor]) -> Key:
    """What a program depends on: instruction set, sizes and layouts, plain arguments, each in its
    place. `tensors` are those among the leaves."""
    own = iter(tensors)
    return (
        _config.isa(),
        *(_size_of(next(own)) if isinstance(leaf, Tensor) else leaf for leaf in leaves),
    )


def _size_of(t: Tensor) -> Key:
    return (t.shape, t.dtype, t.device.type, is_channels_last(t))


def refuse_gradients() -> None:
    raise RuntimeError(
        "a compiled network computes no gradients, and an input requires one; call it under "
        "torch.no_grad() or on x.detach(), or use the model itself (jsc.tune keeps it trainable)"
    )


def arguments_of(sample: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(sample, dict):
        args, kwargs = (), dict(sample)
    else:
        args, kwargs = tuple(sample) if isinstance(sample, (tuple, list)) else (sample,), {}
    if not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves((args, kwargs))):
        raise TypeError(
            "compile: sample must be a tensor, a tuple of arguments or a dict of keyword arguments "
            f"with a tensor among them; got {type(sample).__name__}"
        )
    return args, kwargs
