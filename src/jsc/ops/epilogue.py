"""What the store of a convolution may do besides: batch-norm, residual, ReLU, masks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from torch import Tensor

from jsc._geometry import ConvGeometry
from jsc.ops._buffer import Pitches


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


def fields(
    packed: Tensor, g: ConvGeometry, epilogue: Epilogue, pitches: Pitches | None
) -> tuple[list[Tensor | None], dict[str, Any]]:
    """Tensors to be held, and the fields that every kernel with this epilogue takes: sizes,
    pitches, the address of the weights, and the epilogue itself."""
    held, norm = addresses(epilogue.norm)
    packed, pitch = packed.detach().contiguous(), pitches or Pitches(g.C, g.K, g.K)
    found = {**g.sizes(), **pitch._asdict(), **norm, "relu": epilogue.relu}
    return [packed, *held], found | {"weight": packed.data_ptr()}


class Prepared(ABC):
    """All of a convolution but its input, so that a call is an allocation and a kernel."""

    def __init__(self, g: ConvGeometry) -> None:
        self.g, self.expected, self.shape = g, (g.N, g.C, g.H, g.W), (g.N, g.K, g.Oh, g.Ow)

    def __call__(self, input: Tensor) -> Tensor:
        """`input` as the geometry says, of any strides; the output is channels-last."""
        return self.fused(input)[0]

    @abstractmethod
    def fused(
        self, input: Tensor, residual: Tensor | None = None, masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The same with the epilogue. The masks of the output come with it where they are wanted,
        valid until this thread's next call.

        residual : (N, K, Oh, Ow) of any strides
        masks    : (N, ceil(C / 64), H, W) uint64, those of `input`, which then need not be found
        """
