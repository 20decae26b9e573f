"""The block DCT and its inverse."""

from __future__ import annotations

import torch
from torch import Tensor

from jsc import _checks
from jsc.ops import _torch
from jsc.ops._library import recorded
from jsc.ops.dct import BlockDct, BlockIdct

KERNEL_DEVICES = ("cpu", "meta")


def kernel_runs(x: Tensor) -> bool:
    """Whether a kernel computes what is asked of `x`, and not plain torch."""
    return x.device.type in KERNEL_DEVICES and not recorded()


def block_dct(x: Tensor) -> Tensor:
    """Orthonormal 8x8 DCT-II of every block of an image [1, A.3.3].

        Z = D X D',   D[k, n] = c(k) / 2 cos((2 n + 1) k pi / 16),   c(0) = 1 / sqrt 2, else 1

    Parameters
    ----------
    x : Tensor, (N, C, H, W), any strides
        H and W multiples of 8; float32 or float64, or half precision, computed in float32.

    Returns
    -------
    Tensor, (N, C, H / 8, W / 8, 8, 8), natural order (vertical frequency first), contiguous, dtype
    of `x`.

    Raises
    ------
    TypeError   if `x` is no tensor of a supported dtype.
    ValueError  if `x` is not four-dimensional or does not divide into blocks.

    Notes
    -----
    Gradient: the inverse transform, every order. 8.5 operations a coefficient; same bits for any
    number of threads; a NaN stays in its block.

    References
    ----------
    [1] ITU-T Recommendation T.81, 1992.
    """
    _checks.require_tensor(x, "x")
    dtype = _checks.result_dtype(x)
    x = _checks.as_computed(x, "x")
    if x.ndim != 4 or x.shape[2] % 8 or x.shape[3] % 8:
        raise ValueError(
            f"x must be (N, C, H, W) with H and W multiples of 8, got {tuple(x.shape)}; "
            'pad it, for example with torch.nn.functional.pad(..., mode="replicate")'
        )
    if kernel_runs(x):
        return BlockDct.call(x).to(dtype)
    with torch.autocast(x.device.type, enabled=False):
        return _torch.block_dct(x).to(dtype)


def block_idct(z: Tensor) -> Tensor:
    """The inverse of :func:`block_dct`, which is also its gradient: X = D' Z D.

    Parameters
    ----------
    z : Tensor, (N, C, H / 8, W / 8, 8, 8), any strides; dtypes as for :func:`block_dct`

    Returns
    -------
    Tensor, (N, C, H, W), contiguous. Errors and notes as for :func:`block_dct`.
    """
    _checks.require_tensor(z, "z")
    dtype = _checks.result_dtype(z)
    z = _checks.as_computed(z, "z")
    if z.ndim != 6 or z.shape[4] != 8 or z.shape[5] != 8:
        raise ValueError(
            f"z must be (N, C, rows, columns, 8, 8) as block_dct returns it, got {tuple(z.shape)}"
        )
    if kernel_runs(z):
        return BlockIdct.call(z).to(dtype)
    with torch.autocast(z.device.type, enabled=False):
        return _torch.block_idct(z).to(dtype)
