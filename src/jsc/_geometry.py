"""The geometry of a 2-D convolution: sizes, strides, paddings, and what follows from them."""

from __future__ import annotations

from typing import NamedTuple


class ConvGeometry(NamedTuple):  # made on every call: a frozen dataclass takes ten times as long
    """Input (N, C, H, W), weight (K, C / groups, Kh, Kw), output (N, K, Oh, Ow).

    Names follow the formats' paper: S stride, P padding, D dilation, h vertical, w horizontal.
    """

    N: int
    C: int
    H: int
    W: int
    K: int
    Kh: int
    Kw: int
    Sh: int = 1
    Sw: int = 1
    Ph: int = 0
    Pw: int = 0
    Dh: int = 1
    Dw: int = 1
    groups: int = 1

    @property
    def Oh(self) -> int:
        return (self.H + 2 * self.Ph - self.Dh * (self.Kh - 1) - 1) // self.Sh + 1

    @property
    def Ow(self) -> int:
        return (self.W + 2 * self.Pw - self.Dw * (self.Kw - 1) - 1) // self.Sw + 1

    @property
    def macs(self) -> int:
        """Multiply-adds of the dense convolution."""
        return self.N * self.K * self.Oh * self.Ow * (self.C // self.groups) * self.Kh * self.Kw

    def sizes(self) -> dict[str, int]:
        """All sizes but `groups` by name, as the fields of a kernel are called."""
        sizes = dict(zip(self._fields, self, strict=True))
        del sizes["groups"]
        return sizes | {"Oh": self.Oh, "Ow": self.Ow}

    def per_group(self) -> ConvGeometry:
        """The geometry of one group, itself without groups."""
        g = self.groups
        return ConvGeometry(
            self.N, self.C // g, self.H, self.W, self.K // g, self.Kh, self.Kw,
            self.Sh, self.Sw, self.Ph, self.Pw, self.Dh, self.Dw,
        )  # fmt: skip
