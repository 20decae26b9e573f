"""Scratch memory of the kernels, kept from call to call.

A fresh allocation of some 100 kB costs page faults in every call, more than a small layer's work.
Buffers are aligned to 64 bytes (numpy's own are not: a vector that straddles two cache lines takes
two loads) and belong to one Python thread, so that concurrent calls do not meet.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

KEPT_BYTES = 32 * 1024 * 1024  # larger buffers are given back after the call


class _Buffers(threading.local):
    def __init__(self) -> None:
        self.bytes: dict[str, NDArray[np.uint8]] = {}


_buffers = _Buffers()


def scratch(name: str, dtype: Any, *shape: int) -> NDArray[Any]:
    """An array of undefined content, valid until this thread's next call with the same name."""
    dtype = np.dtype(dtype)
    size = dtype.itemsize
    for n in shape:
        size *= n
    held = _buffers.bytes.get(name)
    if held is None or held.size < size:
        held = torch.empty(size, dtype=torch.uint8).numpy()
        if size <= KEPT_BYTES:
            _buffers.bytes[name] = held
    return held[:size].view(dtype).reshape(shape)
