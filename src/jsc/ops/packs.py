"""Packed weights, kept from call to call, and how it is known that they are still right.

A pack is kept by the memory of the weight it was made from (its storage and address in it), and is
used again only while the weight's `stamp` is what it was: address, version, shape, strides, dtype
and a fingerprint of its numbers. So it does not matter who changed the weight: torch counts a
version for most changes, and where it does not (fused optimizers, `weight.data`, numpy and DLPack
views, other processes) another storage or another fingerprint tells. The fingerprint of a tensor
that has a gradient is that of all its elements, since an optimizer changes only those whose
gradient is not zero; others are sampled, from 2 kB on. So what no stamp shows is a change of a part
of a tensor without gradient (one filter, single elements) that torch did not count: then results
may stay those of the old weight. :meth:`jsc.nn.SparseConv2d.repack` is for whoever makes one.

The storage is held weakly, by torch's own means: a weak reference of Python to the parameter would
make `torch.utils.swap_tensors` refuse it. While it is held its identity is not given to another
storage. What was packed of a storage that is gone goes at the next packing, or at the next full
garbage collection.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from jsc._kernels.fingerprint import fingerprint
from jsc._lock import Lock

KEPT = 4  # packs of one weight: of other methods, strides, instruction sets

Stamp = tuple[Any, ...]


class _Packs:
    """The packs of one weight: {what for: (stamp, pack)}."""

    def __init__(self, weight: Tensor) -> None:
        self.storage = StorageWeakRef(weight.untyped_storage())
        self.made: dict[Any, tuple[Stamp, Tensor | None]] = {}


_held: dict[tuple[int, int], _Packs] = {}  # by storage and address
_lock = Lock()  # a garbage collection may come while its thread holds it


def stamp(tensor: Tensor) -> Stamp | None:
    """All that changes when the tensor does, or None where that cannot be told: a tensor made in
    inference mode has no version, one with gaps no words that lie one after the other."""
    if not tensor.is_contiguous() and not tensor.is_contiguous(memory_format=torch.channels_last):
        return None
    if tensor.is_inference():
        return None
    address = tensor.data_ptr()
    # An optimizer may change some elements of a tensor that has a gradient, and leave the others.
    trained = tensor.is_leaf and tensor.grad is not None
    return (
        address, tensor._version, tensor.shape, tensor.stride(), tensor.dtype, tensor.is_neg(),
        fingerprint(address, tensor.nbytes, trained),
    )  # fmt: skip


def _place(weight: Tensor) -> tuple[int, int]:
    return weight.untyped_storage()._cdata, weight.data_ptr()


def forget(weight: Tensor) -> None:
    """Drop what was packed of `weight`."""
    if weight.device.type == "cpu" and type(weight) in (Tensor, torch.nn.Parameter):
        with _lock:
            _held.pop(_place(weight), None)


def packed(weight: Tensor, what_for: Any, pack: Callable[[], Tensor | None]) -> Tensor | None:
    """`pack()`, or what it gave in an earlier call if the weight is what it was then."""
    now = stamp(weight)  # before packing: whoever writes meanwhile leaves another one
    if now is None:
        return pack()
    place = _place(weight)
    with _lock:
        held = _held.get(place)
        found = None if held is None else held.made.get(what_for)
    if found is not None and found[0] == now:
        return found[1]
    made = pack()
    with _lock:
        _drop_expired()
        held = _held.setdefault(place, _Packs(weight))
        held.made.pop(what_for, None)
        for oldest in list(held.made)[: max(0, len(held.made) - KEPT + 1)]:
            held.made.pop(oldest, None)
        held.made[what_for] = now, made
    return made


def _drop_expired() -> None:
    for place, held in list(_held.items()):
        if held.storage.expired():
            _held.pop(place, None)


def _collected(phase: str, info: dict[str, int]) -> None:
    if phase == "stop" and info["generation"] == 2 and _lock.acquire(timeout=0):
        try:
            _drop_expired()
        finally:
            _lock.release()


gc.callbacks.append(_collected)
