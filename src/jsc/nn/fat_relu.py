"""A ReLU with a threshold above zero: more zeros for the convolution behind it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jsc import _checks


class FATReLU(nn.Module):
    """Forced-activation-threshold ReLU: what is not above the threshold becomes zero.

        y = x  where x > T, else 0        dy/dx = 1 where x > T, else 0

    With T = 0 it is the ReLU, bit for bit, and its gradient. Between 0 and T it forgets small
    activations; above T it changes nothing, so that it is no soft threshold: y jumps at T. NaN
    stays NaN.

    Parameters
    ----------
    threshold : float, T >= 0
        A number, not a parameter: the gradient with respect to T would be zero almost everywhere.
        :func:`jsc.sparsify` chooses it. Where x is float64 it is compared as it is, otherwise T is
        rounded to float32. It is in the `state_dict` (``_extra_state``, a float64 tensor without
        dimensions), and a compiled network has the one of the moment of compiling.
    inplace : bool
        Write the result over the input.

    Shapes: any; floating dtypes.

    Raises
    ------
    TypeError, ValueError  if the threshold is no number, negative, infinite or NaN.

    Source: M. Kurtz et al., Inducing and Exploiting Activation Sparsity for Fast Neural Network
    Inference, ICML 2020 (there x >= T, which differs for x = T alone).

    Examples
    --------
    >>> jsc.nn.FATReLU(0.5)(torch.tensor([-1.0, 0.25, 0.5, 2.0]))
    tensor([0., 0., 0., 2.])
    """

    def __init__(self, threshold: float = 0.0, inplace: bool = False) -> None:
        super().__init__()
        self.threshold = threshold
        self.inplace = bool(inplace)

    @property
    def threshold(self) -> float:
        return self._threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        found = _checks.number(value, "threshold")
        if found < 0:
            raise ValueError(f"threshold must be 0 or more, got {found}: negative x are zeros")
        self._threshold = found

    def forward(self, input: Tensor) -> Tensor:  # named as that of nn.ReLU
        if self._threshold == 0:
            return F.relu(input, self.inplace)
        return F.threshold(input, self._threshold, 0.0, self.inplace)

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self._threshold, dtype=torch.float64, device="cpu")

    def set_extra_state(self, state: Any) -> None:
        self.threshold = float(state)

    def extra_repr(self) -> str:
        return f"threshold={self._threshold:.4g}{', inplace=True' if self.inplace else ''}"
