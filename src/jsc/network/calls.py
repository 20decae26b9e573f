"""Which program a call takes: by the sizes and layouts of its arguments."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from jsc import _config
from jsc.ops._library import untransformed

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
            isinstance(x, Tensor)
            and untransformed(x)
            and x.layout is torch.strided
            and not x.is_nested
            and x.shape == self.shape
            and x.stride() == self.stride
            and x.dtype is self.dtype
            and not x.requires_grad
            and x.data_ptr() != 0  # freed, or zeros that torch does not store
            and self.program.isa == _config.isa()
        )


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
