"""Scratch memory of the kernels, kept from call to call.

A fresh allocation of some 100 kB costs page faults in every call, more than a small layer's work.
Buffers are aligned to 64 bytes (numpy's own are not: a vector that straddles two cache lines takes
two loads) and belong to one Python thread, so that concurrent calls do not meet.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

LINE = 64
KEPT_BYTES = 32 * 1024 * 1024  # larger buffers are given back after the call


class _Buffers(threading.local):
    def __init__(self) -> None:
        self.bytes: dict[str, NDArray[np.uint8]] = {}


_buffers = _Buffers()


def _bytes(name: str, size: int) -> NDArray[np.uint8]:
    held = _buffers.bytes.get(name)
    if held is None or held.size < size:
        if size >= 2**62:  # beyond what torch takes as a number
            raise MemoryError(
                f"cannot allocate {size} bytes of scratch; take a smaller map or batch"
            )
        held = torch.empty(size, dtype=torch.uint8).numpy()
        if size <= KEPT_BYTES:
            _buffers.bytes[name] = held
    return held


def scratch(name: str, dtype: Any, *shape: int) -> NDArray[Any]:
    """An array of undefined content, valid until this thread's next call with the same name."""
    dtype = np.dtype(dtype)
    size = dtype.itemsize
    for n in shape:
        size *= n
    return _bytes(name, size)[:size].view(dtype).reshape(shape)


class Arena:
    """Arrays {name: (dtype, shape)} side by side in one scratch buffer, of undefined content, valid
    until this thread's next call for a buffer of that name. The views are made once a thread."""

    def __init__(self, name: str, arrays: dict[str, tuple[Any, tuple[int, ...]]]) -> None:
        self._name, self._views, self._size = name, threading.local(), 0
        self._places: dict[str, tuple[int, int, np.dtype[Any], tuple[int, ...]]] = {}
        for key, (kind, shape) in arrays.items():
            dtype = np.dtype(kind)
            size = dtype.itemsize * math.prod(shape)
            self._places[key] = self._size, self._size + size, dtype, shape
            self._size += -(-size // LINE) * LINE

    def __call__(self) -> dict[str, NDArray[Any]]:
        buffer = _bytes(self._name, self._size)
        if self._size > KEPT_BYTES:
            return self._carve(buffer)
        if getattr(self._views, "buffer", None) is not buffer:
            self._views.buffer, self._views.arrays = buffer, self._carve(buffer)
        arrays: dict[str, NDArray[Any]] = self._views.arrays
        return arrays

    def _carve(self, buffer: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        return {
            key: buffer[first:end].view(dtype).reshape(shape)
            for key, (first, end, dtype, shape) in self._places.items()
        }
