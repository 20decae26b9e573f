"""Tensors as the buffers that kernels take."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def require(tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype, name: str) -> None:
    """Kernels read by sizes that were found beforehand: whatever else comes is stopped here, also
    where a caller mixes up two calls."""
    if tensor.shape != shape or tensor.dtype != dtype:
        raise ValueError(
            f"{name} must be {shape} of {dtype} to go with the other arguments, and for this "
            f"instruction set, got {tuple(tensor.shape)} of {tensor.dtype}"
        )


def as_pixels(tensor: Tensor) -> Tensor:
    """(N, C, H, W), detached, as a kernel reads it by its address: channels-last, and with the
    numbers in memory (torch negates some results by a mark only)."""
    return tensor.detach().resolve_neg().contiguous(memory_format=torch.channels_last)


def buffer(tensor: Tensor, *shape: int) -> np.ndarray:
    """The memory of a contiguous copy of `tensor` (of itself if it is contiguous), in `shape` if
    given.

    Detached: operators of an exported program are called with parameters that require gradients.
    """
    tensor = tensor.detach().resolve_neg().contiguous()
    return (tensor.view(shape) if shape else tensor).numpy()
