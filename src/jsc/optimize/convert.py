"""Turn single convolutions into `SparseConv2d` and back, in place.

In place, because an object that is converted is converted for everybody who holds it: modules that
are shared stay shared, and lists of layers kept beside the module tree keep pointing at live ones.
"""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

from jsc.nn import SparseConv2d
from jsc.optimize.fuse import unfuse

M = TypeVar("M", bound=nn.Module)


def to_sparse(conv: nn.Conv2d, method: str) -> None:
    """Make `conv` a `SparseConv2d` that runs `method`: same object, parameters and hooks."""
    if isinstance(conv, SparseConv2d):
        conv.method = method
        return
    for name, value in SparseConv2d.from_dense(conv, method=method).__dict__.items():
        conv.__dict__.setdefault(name, value)
    conv.__class__ = SparseConv2d


def to_dense(conv: SparseConv2d) -> None:
    """Make `conv` a plain `nn.Conv2d` again, without what `to_sparse` added."""
    for name in set(conv.__dict__) - set(conv.to_dense().__dict__):
        del conv.__dict__[name]
    conv.__class__ = nn.Conv2d  # type: ignore[assignment]


def share(model: M) -> M:
    """A copy of the module tree whose parameters and buffers are the model's own tensors."""
    memo: dict[int, object] = {id(tensor): tensor for tensor in model.parameters()}
    memo |= {id(tensor): tensor for tensor in model.buffers()}
    return copy.deepcopy(model, memo)


def restore(model: M, *, inplace: bool = False) -> M:
    """Back to `nn.Conv2d` everywhere: the inverse of `jsc.apply`.

    The parameters are the model's own in any case; `inplace=False` builds a new module tree.
    """
    model = model if inplace else share(model)
    unfuse(model)
    for module in model.modules():
        if isinstance(module, SparseConv2d):
            to_dense(module)
    return model
