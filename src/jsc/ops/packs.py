"""Packed weights, kept from call to call, and how it is known that they are still right.

A pack belongs to the weight tensor it was made from and goes with it. It is used again only while
the weight's `stamp` is what it was: address, version, shape, strides, dtype and a fingerprint of
its numbers. So it does not matter who changed the weight: torch counts a version for most changes,
and where it does not (fused optimizers, `weight.data`, numpy and DLPack views, other processes)
another address or another fingerprint tells. The fingerprint of a tensor that has a gradient is
that of all its elements, since an optimizer changes only those whose gradient is not zero; others
are sampled. What no stamp shows is a change of single elements of a tensor without gradient that
torch did not count; :meth:`jsc.nn.SparseConv2d.repack` is for whoever makes one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from jsc._kernels.fingerprint import fingerprint

KEPT = 4  # packs of one weight: of other methods, strides, instruction sets

Stamp = tuple[Any, ...]
# Of one weight: {what for: (stamp, the weight's memory, its pack)}. While the memory is held, its
# address cannot be given to another weight.
_Packs = dict[Any, tuple[Stamp, Tensor, Tensor | None]]

_held: Any = WeakTensorKeyDictionary()
_lock = threading.Lock()


def stamp(tensor: Tensor) -> Stamp | None:
    """All that changes when the tensor does, or None where that cannot be told: a tensor made in
    inference mode has no version, one with gaps no words that lie one after the other."""
    if tensor.is_inference() or not _dense(tensor):
        return None
    address = tensor.data_ptr()
    return (
        address, tensor._version, tensor.shape, tensor.stride(), tensor.dtype, tensor.is_neg(),
        fingerprint(address, tensor.nbytes, _trained(tensor)),
    )  # fmt: skip


def _trained(tensor: Tensor) -> bool:
    """Whether an optimizer may change some elements of it at any moment, the others not."""
    return tensor.is_leaf and tensor.grad is not None


def _dense(tensor: Tensor) -> bool:
    return tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last)


def forget(weight: Tensor) -> None:
    """Drop what was packed of `weight`."""
    with _lock:
        _held.pop(weight, None)


def packed(weight: Tensor, what_for: Any, pack: Callable[[], Tensor | None]) -> Tensor | None:
    """`pack()`, or what it gave in an earlier call if the weight is what it was then."""
    now = stamp(weight)  # before packing: whoever writes meanwhile leaves another one
    if now is None:
        return pack()
    with _lock:
        found = _held.get(weight, {}).get(what_for)
    if found is not None and found[0] == now:
        result: Tensor | None = found[2]
        return result
    made = pack()
    with _lock:
        packs: _Packs = _held.setdefault(weight, {})
        packs.pop(what_for, None)
        while len(packs) >= KEPT:
            del packs[next(iter(packs))]
        packs[what_for] = now, weight.detach(), made
    return made
