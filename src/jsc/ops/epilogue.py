"""What the store of a convolution may do besides: batch-norm, residual, ReLU, masks."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


class Norm(NamedTuple):
    """A batch-norm in evaluation; every tensor (K,) of the convolution's dtype."""

    mean: Tensor
    variance: Tensor
    weight: Tensor | None
    bias: Tensor | None
    eps: float


class Epilogue(NamedTuple):
    """What the store of the output does besides: relu(batch_norm(out) + residual), with the bits of
    torch's own operators one after the other (in float32; see _kernels/cpc/store.h)."""

    norm: Norm | None = None  # read at every call
    relu: bool = False
    masks: bool = False  # of the result, for the convolution that reads it


PLAIN = Epilogue()


def addresses(norm: Norm | None) -> tuple[list[Tensor | None], dict[str, Any]]:
    """Tensors to be held, and what kernels take of them: addresses, 0 where there is nothing."""
    parts = norm[:4] if norm else (None,) * 4
    held = [None if x is None else x.detach().resolve_neg().contiguous() for x in parts]
    names = ("mean", "variance", "norm_weight", "norm_bias")
    fields: dict[str, Any] = {
        name: 0 if x is None else x.data_ptr() for name, x in zip(names, held, strict=True)
    }
    return held, fields | {"eps": norm.eps if norm else 0.0}
