"""Scratch memory of the kernels: one arena for each Python thread, kept from call to call.

A fresh allocation of some 100 kB costs page faults in every call, more than a small layer's work.
All families share the arena of a thread, because a call that uses it has ended before the next one
begins; what a call needs at a time it books by key, and gets side by side. The arena is aligned to
64 bytes (numpy's own buffers are not: a vector that straddles two cache lines takes two loads).
"""

from __future__ import annotations

import math
import threading
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

LINE = 64
KEPT_BYTES = 32 * 1024 * 1024  # larger memory is given back after the call


class Memory(NamedTuple):
    address: int
    bytes: NDArray[np.uint8]  # the memory itself: it is valid while this is held


class _Arena(threading.local):
    memory: Memory | None = None


_arena = _Arena()


def memory(size: int) -> Memory:
    """At least `size` bytes of undefined content, until this thread's next call of a kernel."""
    held = _arena.memory
    if held is None or held.bytes.size < size:
        if size >= 2**62:  # beyond what torch takes as a number
            raise MemoryError(
                f"cannot allocate {size} bytes of scratch; take a smaller map or batch"
            )
        made = torch.empty(max(size, 1), dtype=torch.uint8, device="cpu")
        held = Memory(made.data_ptr(), made.numpy())
        if size <= KEPT_BYTES:
            _arena.memory = held
    return held


class Booking:
    """Arrays {key: (dtype, shape)} side by side in the arena, undefined content, valid until this
    thread's next call of a kernel. The views are made once a thread."""

    def __init__(self, arrays: dict[str, tuple[Any, tuple[int, ...]]]) -> None:
        self._views, self._size = threading.local(), 0
        self._places: dict[str, tuple[int, int, np.dtype[Any], tuple[int, ...]]] = {}
        for key, (kind, shape) in arrays.items():
            dtype = np.dtype(kind)
            size = dtype.itemsize * math.prod(shape)
            self._places[key] = self._size, self._size + size, dtype, shape
            self._size += -(-size // LINE) * LINE

    def __call__(self) -> dict[str, NDArray[Any]]:
        made = memory(self._size).bytes
        if self._size > KEPT_BYTES:
            return self._carve(made)
        if getattr(self._views, "made", None) is not made:
            self._views.made, self._views.arrays = made, self._carve(made)
        arrays: dict[str, NDArray[Any]] = self._views.arrays
        return arrays

    def _carve(self, made: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        return {
            key: made[first:end].view(dtype).reshape(shape)
            for key, (first, end, dtype, shape) in self._places.items()
        }
