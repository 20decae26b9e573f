"""A private copy of a module tree over the tensors of the original."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def share(model: M, *, buffers: bool = True) -> M:
    """A copy of the module tree whose parameters are the model's own tensors, and its buffers too
    unless `buffers=False`: then they are copied, for a run that might write to them."""
    held: list[Tensor] = [*model.parameters(), *(model.buffers() if buffers else ())]
    for module in model.modules():
        # What a pruned layer computed at its last call: not even deepcopy can copy that. The dict
        # is copied first, at once, since a call in another thread may add to it.
        held += [t for t in list(vars(module).values()) if isinstance(t, Tensor) and not t.is_leaf]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in held})
