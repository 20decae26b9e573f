"""The soft quantiser of JPEG-DL in its exact form."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jsc import _checks
from jsc.functional.dct import kernel_runs
from jsc.functional.options import check_window
from jsc.ops import _torch
from jsc.ops._library import recorded
from jsc.ops.quant import MODES, Floor, SoftQuantize

SMALLEST_STEP = 1e-5
HARDEST = 1e18  # a larger kappa acts as this one
# The kernels spend about 0.1 us on every table entry before they start.
MOST_ENTRIES = 4096


def soft_quantize(
    z: Tensor,
    q: Tensor | float,
    alpha: Tensor | float | None = None,
    *,
    kappa: Tensor | float | None = None,
    window: int | None = None,
    levels: int | None = None,
) -> Tensor:
    """Soft quantisation: the mean of the levels k q under a Gibbs distribution around z [1].

        Q(z) = q sum_k k P(k),   P(k) ~ exp(-alpha (z - k q)^2) = exp(-kappa (z / q - k)^2)

    kappa = alpha q^2 alone gives the shape: below 1 the identity to within 3.3e-4 q, above 10
    almost rounding. Over all integers k (`window=None`) the sum is exact, by the nearest levels
    where kappa >= 4 and by Jacobi's transform of the sum where it is smaller; no level is
    enumerated.

    Parameters
    ----------
    z : Tensor, any shape and strides; float32 or float64, or half precision, computed in float32
        Coefficients.
    q : Tensor or float, > 0, broadcastable to `z`
        Quantisation steps, unit of `z`. Entries below 1e-5 act as 1e-5, and still receive gradients
        that would raise them.
    alpha, kappa : Tensor or float, >= 0, broadcastable to `z`; exactly one of them
        Sharpness per squared unit of `z`, or hardness: kappa ties alpha to q by alpha = kappa /
        q^2, and the gradient of q is then that at constant kappa.
    window : int, odd, from 3 to 23, optional
        Sum over the `window` levels nearest to z only. 5 is the operator of the authors' code,
        which jumps at cell edges and is not the identity where kappa < 1.
    levels : int, at least 1 and (window - 1) / 2, optional
        Saturation: `|k| <= levels`. Without a window z is clamped to the range, so that saturated
        values give +-levels q with slope 0; with one its index is clamped, as the authors do
        with 127.

    Returns
    -------
    Tensor, shape and dtype of `z`, contiguous.

    Raises
    ------
    TypeError   if an argument is of the wrong type or dtype.
    ValueError  if not exactly one of alpha and kappa is given, if shapes do not broadcast to that
                of z, or a number is out of range.

    Notes
    -----
    Gradient: z, q, alpha or kappa, in closed form; with E, Var and Cov under P and e = z / q - k:

        dQ/dz = 2 kappa Var(k)       dQ/dq = E k - 2 kappa (z / q) Var(k)   at constant kappa
        dQ/dkappa = -q Cov(k, e^2)   dQ/dalpha = q^2 dQ/dkappa

    Second and higher derivatives are computed in plain torch, slowly. Only z is kept.
    Accuracy against the infinite sum: 2e-9 q in float32 beside rounding, 1e-16 q in float64.
    Fast where q and alpha vary over some trailing and some leading axes, such as (C, 1, 1, 8, 8)
    against (N, C, H / 8, W / 8, 8, 8), with at most 4096 entries; otherwise plain torch.
    Table gradients are summed in a fixed order: same bits for any number of threads.

    References
    ----------
    [1] A. H. Salamah, K. Zheng, Y. Liu, E.-H. Yang, "JPEG Inspired Deep Learning", ICLR 2025,
        arXiv:2410.07081.

    Examples
    --------
    >>> z = torch.tensor([0.4, 0.5, 0.6])
    >>> jsc.functional.soft_quantize(z, 1.0, kappa=50.0)
    tensor([4.5398e-05, 5.0000e-01, 9.9995e-01])
    """
    _checks.require_tensor(z, "z")
    dtype = _checks.result_dtype(z)
    z = _checks.as_computed(z, "z")
    window, levels = check_window(window, levels)
    step = positive(as_operand(q, "q", z))
    require_broadcast(step, "q", z.shape, "z")
    hardness = hardness_of(step, alpha, kappa, z, z.shape)
    step, hardness = torch.broadcast_tensors(step, hardness)
    return quantize(z, step, hardness, "soft", window, levels).to(dtype)


def quantize(
    z: Tensor,
    q: Tensor,
    kappa: Tensor,
    mode: str,
    window: int | None,
    levels: int | None,
) -> Tensor:
    """Checked arguments (q and kappa of one shape) -> operator or _torch."""
    folded = fold(tuple(z.shape), tuple(q.shape)) if kernel_runs(z) else None
    if folded is not None and q.numel() <= MOST_ENTRIES:
        groups, period = folded[1], folded[3]
        y = SoftQuantize.call(
            z.reshape(folded),
            q.reshape(groups, period),
            kappa.reshape(groups, period),
            (MODES[mode], window or 0, levels or 0),
        )
        return y.reshape(z.shape)
    if mode == "soft":
        return _torch.soft_quantize(z, q, kappa, window, levels)
    return (_torch.hard_quantize if mode == "hard" else _torch.ste_quantize)(z, q, levels)


def fold(shape: tuple[int, ...], table: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """The (outer, groups, rows, period) in which a table's axes are the groups and the period of
    z's, or None if its axes alternate more often."""
    table = (1,) * (len(shape) - len(table)) + table
    sizes = [1, 1, 1, 1]
    part = 3
    for size, own in zip(reversed(shape), reversed(table), strict=True):
        varies = own != 1  # and not own == size: sizes may be symbolic
        if size != 1 and varies != (part % 2 == 1):
            part -= 1
            if part < 0:
                return None
        sizes[part] *= size
    return sizes[0], sizes[1], sizes[2], sizes[3]


def as_operand(value: Tensor | float, name: str, like: Tensor) -> Tensor:
    """A number (checked to be finite and not negative) or tensor as a tensor that goes with
    `like`."""
    if isinstance(value, Tensor):
        _checks.require_tensor(value, name)
        value = _checks.as_computed(value, name)
        _checks.require_same_dtype(value, name, like, "the input")
        _checks.require_same_device(value, name, like, "the input")
        return value
    if not _checks.number(value, name, "a number or a tensor") >= 0:
        raise ValueError(f"{name} must be finite and not negative, got {_checks.shown(value)}")
    return like.new_full((), float(value))


def positive(q: Tensor) -> Tensor:
    """q, at least 1e-5, with a gradient that can always lift an entry off that floor."""
    # A Function cannot be written down. What is recorded is rarely trained.
    return q.clamp(min=SMALLEST_STEP) if recorded() else Floor.call(q, SMALLEST_STEP)


def hardness_of(
    q: Tensor,
    alpha: Tensor | float | None,
    kappa: Tensor | float | None,
    like: Tensor,
    shape: Sequence[int] | None = None,
) -> Tensor:
    """kappa, from whichever of alpha and kappa is given; it must broadcast to `shape`, or else to
    q's."""
    if (alpha is None) == (kappa is None):
        raise ValueError("give exactly one of alpha (sharpness) and kappa (hardness, alpha q^2)")
    name, value = ("alpha", alpha) if kappa is None else ("kappa", kappa)
    value = as_operand(value, name, like)  # type: ignore[arg-type]
    require_broadcast(
        value, name, q.shape if shape is None else shape, "tables" if shape is None else "z"
    )
    kappa = value * q * q if kappa is None else value
    return kappa.clamp(0.0, HARDEST)  # beyond, rounding is hard, and products would overflow


def require_broadcast(value: Tensor, name: str, shape: Sequence[int], of: str) -> None:
    own = (1,) * (len(shape) - value.ndim) + tuple(value.shape)
    if len(own) != len(shape) or any(a not in (1, b) for a, b in zip(own, shape, strict=True)):
        raise ValueError(
            f"{name} must broadcast to the shape of {of}, {tuple(shape)}; got {tuple(value.shape)}"
        )
