"""Tensors as the buffers that kernels take."""

from __future__ import annotations

import numpy as np
from torch import Tensor


def buffer(tensor: Tensor, *shape: int) -> np.ndarray:
    """The memory of a contiguous copy of `tensor` (of itself if it is contiguous), in `shape` if
    given.

    Detached: operators of an exported program are called with parameters that require gradients.
    """
    tensor = tensor.detach().contiguous()
    return (tensor.view(shape) if shape else tensor).numpy()
