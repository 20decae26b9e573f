"""How far a compiled network's outputs are from float64's, beside torch's own error.

Torch's own is float32's. At a lower precision it is that of float32 with the operands of every
convolution and linear layer rounded to the precision's bits: what a CPU with such products gives.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from jsc._precision import Precision, rounded

ALLOWED = 2.0  # times torch's own error
SMALLEST = 1e-6  # of the largest output: below this, errors are not compared


@dataclass(frozen=True)
class Accuracy:
    """Largest errors against float64 over the largest output: the network's and torch's float32."""

    error: float
    torch_error: float

    def __str__(self) -> str:
        return (
            f"largest error {self.error:.1e} of the largest output (torch: {self.torch_error:.1e})"
        )


class Rounding(TorchDispatchMode):
    """Rounds the operands of convolutions and matrix products to a precision."""

    def __init__(self, precision: Precision):
        super().__init__()
        aten = torch.ops.aten
        linear = precision.linear
        self.operands = {
            aten.convolution.default: ((0, 1), precision.conv),
            torch.ops.jsc.conv2d.default: ((0, 1), precision.conv),
            aten.addmm.default: ((1, 2), linear),
            aten.mm.default: ((0, 1), linear),
        }

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        which, precision = self.operands.get(func, ((), "ieee"))
        args = [rounded(a, precision) if i in which else a for i, a in enumerate(args)]
        return func(*args, **(kwargs or {}))


def measure(
    model: nn.Module,
    outputs: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    precision: Precision,
) -> Accuracy | None:
    """The accuracy of `outputs`, or None where the model does not run in float64."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exact = copy.deepcopy(model).double()(*_double(args), **_double(kwargs))
        except (RuntimeError, TypeError):
            return None
    with Rounding(precision) if precision != Precision() else contextlib.nullcontext():
        plain = model(*args, **kwargs)
    worst = Accuracy(0.0, 0.0)
    leaves = [pytree.tree_leaves(o) for o in (outputs, plain, exact)]
    for ours, theirs, truth in zip(*leaves, strict=True):
        if not isinstance(truth, Tensor) or not truth.is_floating_point() or truth.numel() == 0:
            continue
        if not ours.shape == theirs.shape == truth.shape:  # it depends on numbers
            continue
        largest = largest_number(truth)
        if largest == 0.0:
            continue
        errors = [largest_error(o, truth) / largest for o in (ours, theirs)]
        if errors[0] > worst.error:
            worst = Accuracy(errors[0], errors[1])
    if worst.error > max(ALLOWED * worst.torch_error, SMALLEST):
        warnings.warn(f"jsc.compile: {worst}", RuntimeWarning, stacklevel=3)
    return worst


def largest_number(truth: Tensor) -> float:
    """Of the finite ones; 0 where there is none."""
    finite = truth[truth.isfinite()]
    return finite.abs().max().item() if finite.numel() else 0.0


def largest_error(y: Tensor, truth: Tensor) -> float:
    """Where `truth` is finite; NaN in place of a number is an infinite error."""
    off = (y.double() - truth.double())[truth.isfinite()].abs().nan_to_num(float("inf"))
    return off.max().item() if off.numel() else 0.0


def _double(tree: Any) -> Any:
    def convert(leaf: Any) -> Any:
        return leaf.double() if isinstance(leaf, Tensor) and leaf.dtype == torch.float32 else leaf

    return pytree.tree_map(convert, tree)
