"""Turn single convolutions into `SparseConv2d` and back, in place.

In place, because an object that is converted is converted for everybody who holds it: modules that
are shared stay shared, and lists of layers kept beside the module tree keep pointing at live ones.
"""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from jsc._share import share
from jsc.nn import SparseConv2d
from jsc.nn.sparse_conv import dense_class
from jsc.typing import MethodName

M = TypeVar("M", bound=nn.Module)


def to_sparse(conv: nn.Conv2d, method: MethodName) -> None:
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
    conv.__class__ = dense_class(conv)  # type: ignore[assignment]


def is_converted(module: nn.Module) -> bool:
    """A `SparseConv2d` that `to_dense` can turn back: torch may have parametrized it meanwhile.
    A class that somebody derived from it has a forward of its own."""
    kind = type(module)
    parametrized = nn.utils.parametrize.is_parametrized(module)
    return kind is SparseConv2d or (parametrized and kind.__bases__ == (SparseConv2d,))


def restore(model: M, *, inplace: bool = False) -> M:
    """Back to `nn.Conv2d` everywhere: the inverse of `jsc.apply`.

    The parameters are the model's own in any case; `inplace=False` builds a new module tree. Layers
    that were parametrized or pruned since then stay so. Your own subclasses of `SparseConv2d` stay
    what they are.

    Raises
    ------
    TypeError  if `model` is no nn.Module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    model = model if inplace else share(model)
    for module in list(model.modules()):
        if is_converted(module):
            assert isinstance(module, SparseConv2d)
            to_dense(module)
    return model
