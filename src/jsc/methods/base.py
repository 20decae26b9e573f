"""What a convolution method is: everything that the rest of the package knows about one.

A method is one object of a subclass of `Method`, in a file of its own, and one line in
`registry.py`. Nobody else has a list of methods or asks for one by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from jsc import _checks
from jsc._geometry import ConvGeometry
from jsc.typing import MethodName

Convolution = Callable[[Tensor], Tensor]


class Method(ABC):
    """One way to convolve. Every geometry that a method is given has one group, except for
    `stored_bytes`.

    Attributes
    ----------
    name
        What users call it.
    sparse
        It skips zeros of the input, so that its time falls with the density.
    trains
        The passes of training take kernels of ours where that pays (ops/training.py).
    slow_to_count
        `stored_bytes` encodes the map.
    """

    name: ClassVar[MethodName]
    sparse: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    slow_to_count: ClassVar[bool] = False

    def available(self) -> bool:
        """Whether this machine's processor can run it."""
        return True

    def unsupported(self, g: ConvGeometry) -> str | None:
        """Why it cannot convolve `g`, in words; None where it can."""
        return None

    def accepts(self, weight: Tensor) -> bool:
        """Whether it gives the right answer with these weights. With weights that are not finite,
        a method that skips zeros does not: 0 * inf and 0 * nan are no zeros."""
        return weight.dtype in _checks.KERNEL_DTYPES and bool(torch.isfinite(weight).all())

    @abstractmethod
    def pack(self, weight: Tensor, g: ConvGeometry) -> Tensor:
        """(K, C, Kh, Kw) as `prepare` wants it. It depends on `g` without N, H and W."""

    @abstractmethod
    def prepare(self, packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> Convolution:
        """All of the convolution but its input: (N, C, H, W) of any strides -> (N, K, Oh, Ow),
        contiguous in the memory format that is natural to the method. The input may record
        gradients and be negated lazily. It may be called by several threads at once, and holds the
        memory of `packed` and `bias`."""

    @abstractmethod
    def cost(self, g: ConvGeometry, density: float) -> float:
        """An estimate of its time, for trying the likely fastest method first: the number of
        multiply-adds that torch's dense convolution does meanwhile. `density` is the share of the
        input that is not zero. The constants are fitted to one thread of a Xeon with AVX-512
        (benchmarks/results/conv.md and paper.md): they rank methods, and never decide."""

    @abstractmethod
    def stored_bytes(self, input: Tensor, g: ConvGeometry) -> int:
        """Bytes of `input`, (N, C, H, W), in the form that the method convolves. They are counted,
        not read from the allocator; in a network that runs in torch the map itself also exists
        until the layer is done. ValueError where the form cannot hold the map."""


def map_bytes(input: Tensor) -> int:
    return input.element_size() * input.numel()


def padded_filters(g: ConvGeometry) -> float:
    """Multiply-adds with the filters that kernels add to fill vectors of 16, which skip nothing."""
    return g.macs * (-(-g.K // 16) * 16) / max(g.K, 1)
