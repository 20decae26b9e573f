"""Hypothesis strategies shared by the tests."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from hypothesis import strategies as st

KERNELS = [
    (1, 1),
    (1, 3),
    (3, 1),
    (3, 3),
    (5, 5),
    (1, 7),
    (7, 1),
    (7, 7),
    (2, 2),
    (2, 4),
    (4, 3),
    (3, 6),
]


@dataclass(frozen=True)
class ConvCase:
    """A convolution problem; `tensors` makes its arguments from the seed."""

    N: int
    C: int
    H: int
    W: int
    K: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    density: float
    bias: bool
    channels_last: bool
    seed: int

    def tensors(
        self, dtype: torch.dtype, integer: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Input with `density` of non-zeros, weight, bias; small integers make every sum exact."""
        generator = torch.Generator().manual_seed(self.seed)

        def draw(*shape: int) -> torch.Tensor:
            if integer:
                return torch.randint(-4, 5, shape, generator=generator).to(dtype)
            return torch.randn(shape, generator=generator, dtype=dtype)

        x = draw(self.N, self.C * self.groups, self.H, self.W)
        x = x * (torch.rand(x.shape, generator=generator) < self.density)
        if self.C > 1:
            x[:, 1] = 0  # a channel without any non-zero
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        bias = draw(self.K * self.groups) if self.bias else None
        return x, draw(self.K * self.groups, self.C, *self.kernel), bias

    @property
    def arguments(self) -> dict[str, object]:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    def by_torch(self, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None) -> torch.Tensor:
        """torch's convolution of NCHW maps: with AVX-512, that of channels-last ones in torch 2.13
        crashes where stride, dilation and padding are wider than the map."""
        return F.conv2d(x.contiguous(), w, b, **self.arguments)  # type: ignore[arg-type]


@st.composite
def conv_cases(draw: st.DrawFn, dilation: int = 3, groups: int = 3) -> ConvCase:
    """Any small convolution whose output is not empty, with narrow maps and odd sizes."""
    kernel = draw(st.sampled_from(KERNELS))
    dilations = (draw(st.integers(1, dilation)), draw(st.integers(1, dilation)))
    padding = (draw(st.integers(0, 4)), draw(st.integers(0, 4)))
    need = [max(1, dilations[i] * (kernel[i] - 1) + 1 - 2 * padding[i]) for i in (0, 1)]
    return ConvCase(
        N=draw(st.integers(0, 3)),
        C=draw(st.sampled_from([1, 2, 3, 16, 63, 64, 65, 130])),
        H=need[0] + draw(st.integers(0, 9)),
        W=need[1] + draw(st.integers(0, 9)),
        K=draw(st.sampled_from([1, 2, 7, 16, 31, 48, 64, 70])),
        kernel=kernel,
        stride=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        padding=padding,
        dilation=dilations,
        groups=draw(st.sampled_from([1, 1, 1, groups])),
        density=draw(st.sampled_from([0.0, 0.05, 0.3, 0.6, 1.0])),
        bias=draw(st.booleans()),
        channels_last=draw(st.booleans()),
        seed=draw(st.integers(0, 2**20)),
    )
