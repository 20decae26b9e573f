"""Precision of float32 products, in torch's own words: "ieee", "tf32", "bf16".

| word | significant bits of an operand | bfloat16 numbers that sum up to it | products of these |
|------|--------------------------------|------------------------------------|-------------------|
| ieee | 24                             | 3                                  | 6                 |
| tf32 | 11 (two bfloat16 have 16)      | 2                                  | 3                 |
| bf16 | 8                              | 1                                  | 1                 |

Sums are float32 at each of them. A lower precision is a permission: where nothing is faster with
it, kernels stay at 24 bits. The switch is torch's `torch.backends.mkldnn.conv.fp32_precision` for
convolutions and `torch.backends.mkldnn.matmul.fp32_precision` for linear layers, whose "none" (not
set anywhere) is "ieee".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from jsc import _checks

PIECES: dict[str, int] = {"ieee": 3, "tf32": 2, "bf16": 1}
PRODUCTS = {"ieee": 6, "tf32": 3, "bf16": 1}
_FRACTION_BITS = {"ieee": 23, "tf32": 10, "bf16": 7}


class Precision(NamedTuple):
    """Of the convolutions and of the linear layers of a network."""

    conv: str = "ieee"
    linear: str = "ieee"

    def of(self, linear: bool) -> str:
        """Of a linear layer, or of a convolution."""
        return self.linear if linear else self.conv

    def __str__(self) -> str:
        if self.conv == self.linear:
            return self.conv
        return f"{self.conv} (linear layers: {self.linear})"


def of_convolutions() -> str:
    """What torch's switch says of convolutions."""
    return _said(torch.backends.mkldnn.conv)  # type: ignore[attr-defined]


def of_linear_layers() -> str:
    return _said(torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]


def _said(switch: Any) -> str:
    word: str = switch.fp32_precision
    return word if word in PIECES else "ieee"


def checked(precision: object) -> str:
    """`precision` if it is one of the words; ValueError otherwise."""
    if not isinstance(precision, str) or precision not in PIECES:
        raise ValueError(
            f"precision must be None (torch's own switch), {', '.join(map(repr, PIECES))}; "
            f"got {_checks.shown(precision)}"
        )
    return precision


def resolved(precision: object) -> Precision:
    """`precision` for all layers; None: what torch's switches say now."""
    if precision is None:
        return Precision(of_convolutions(), of_linear_layers())
    return Precision(checked(precision), checked(precision))


def rounded(t: Tensor, precision: str) -> Tensor:
    """float32 numbers, each rounded to the nearest that has the precision's bits, ties to even.
    NaN and inf stay; what is too large becomes inf."""
    cut = 23 - _FRACTION_BITS[precision]
    if not cut or t.dtype != torch.float32:
        return t
    bits = t.contiguous().view(torch.int32)
    last = (bits >> cut) & 1
    up = (bits + last + (1 << cut - 1) - 1) & -(1 << cut)
    return torch.where(t.isfinite(), up.view(torch.float32), t)
