"""The parts of the JPEG layer as modules."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jsc.functional.dct import block_dct, block_idct
from jsc.functional.options import check_window
from jsc.functional.quant import soft_quantize
from jsc.nn._hardness import Hardness, as_tensor, holds

# One node of a graph, each: their checks cannot ask a Proxy.
torch.fx.wrap("soft_quantize")
torch.fx.wrap("block_dct")
torch.fx.wrap("block_idct")


class SoftQuantizer(Hardness):
    """:func:`jsc.functional.soft_quantize` with trainable steps: any shape -> the same shape.

    Parameters
    ----------
    q : float or Tensor
        Initial steps, broadcastable to the input; kept as the Parameter `q` and used as max(q,
        1e-5).
    alpha, kappa, train_alpha
        As in :class:`JPEG`.
    window, levels
        As in :func:`jsc.functional.soft_quantize`.
    """

    def __init__(
        self,
        q: Tensor | float = 1.0,
        *,
        alpha: Tensor | float = 5.0,
        kappa: Tensor | float | None = None,
        window: int | None = None,
        levels: int | None = None,
        train_alpha: bool = False,
    ) -> None:
        super().__init__()
        window, levels = check_window(window, levels)
        floating = isinstance(q, Tensor) and q.is_floating_point()
        dtype = q.dtype if floating else torch.get_default_dtype()  # type: ignore[union-attr]
        self.q = nn.Parameter(as_tensor(q, "q", dtype))
        if not holds((self.q > 0) & self.q.isfinite()):
            raise ValueError("q must be positive and finite")
        self._register_hardness(alpha, kappa, train_alpha, dtype)
        self.window, self.levels = window, levels

    def forward(self, z: Tensor) -> Tensor:
        return soft_quantize(z, self.q, **self._hardness(), window=self.window, levels=self.levels)

    def extra_repr(self) -> str:
        size = tuple(self.q.shape)
        return f"q={size}, {self.hardness_name}, window={self.window}, levels={self.levels}"


class BlockDCT(nn.Module):
    """:func:`jsc.functional.block_dct`: (N, C, H, W) -> (N, C, H / 8, W / 8, 8, 8)."""

    def forward(self, x: Tensor) -> Tensor:
        return block_dct(x)


class InverseBlockDCT(nn.Module):
    """:func:`jsc.functional.block_idct`: (N, C, H / 8, W / 8, 8, 8) -> (N, C, H, W)."""

    def forward(self, z: Tensor) -> Tensor:
        return block_idct(z)
