"""Local contrast as a module."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jsc.functional.contrast import local_contrast, settings_of
from jsc.functional.options import Scale

torch.fx.wrap("local_contrast")  # one node of a graph: its checks cannot ask a Proxy


class LocalContrast(nn.Module):
    """:func:`jsc.functional.local_contrast` in front of a network: images -> images.

    It has no parameters and nothing to train, and takes the place of :class:`JPEG` with the same
    `mean`, `std` and `peak`.

    Parameters
    ----------
    deviation, gain, epsilon, mean, std, peak
        As in :func:`jsc.functional.local_contrast`.

    Examples
    --------
    >>> layer = jsc.nn.LocalContrast(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    >>> layer(torch.randn(2, 3, 32, 48)).shape
    torch.Size([2, 3, 32, 48])
    """

    def __init__(
        self,
        deviation: float = 4.0,
        *,
        gain: float = 0.2,
        epsilon: float = 0.05,
        mean: Scale = None,
        std: Scale = None,
        peak: float = 1.0,
    ) -> None:
        super().__init__()
        channels = next((len(v) for v in (mean, std) if isinstance(v, Sequence)), 3)
        settings_of(channels, deviation, gain, epsilon, mean, std, peak)  # refuses what is wrong
        self.deviation, self.gain, self.epsilon = deviation, gain, epsilon
        # A list stays the caller's, who may change it.
        self.mean, self.std = (tuple(v) if isinstance(v, Sequence) else v for v in (mean, std))
        self.peak = peak

    def forward(self, x: Tensor) -> Tensor:
        return local_contrast(
            x, self.deviation, gain=self.gain, epsilon=self.epsilon,
            mean=self.mean, std=self.std, peak=self.peak,
        )  # fmt: skip

    def extra_repr(self) -> str:
        shown = f"deviation={self.deviation}, gain={self.gain}, epsilon={self.epsilon}"
        given = {"mean": self.mean, "std": self.std}
        shown += "".join(f", {name}={value}" for name, value in given.items() if value is not None)
        return f"{shown}, peak={self.peak}"
