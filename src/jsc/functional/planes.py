"""From an image to the DCT coefficients of its planes, and back: what surrounds the quantiser."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from jsc.functional.dct import block_dct
from jsc.functional.options import JpegOptions
from jsc.ops import _torch_jpeg


def coefficients(x: Tensor, options: JpegOptions) -> list[Tensor]:
    """The block DCT of Y, and of Cb and Cr, of (N, C, H, W): each (N, planes, rows, columns, 8, 8),
    in grey levels around 0; chroma is averaged."""
    settings = options.settings(x.shape[1])
    return [block_dct(plane) for plane in _torch_jpeg.split(x, settings)]


def join(found: Sequence[Tensor], size: Sequence[int], options: JpegOptions) -> Tensor:
    """From the planes Y (N, 1, ...), and Cb and Cr (N, 2, ...), to an image of `size` (H, W)."""
    return _torch_jpeg.join(found, size, options.settings(3 if len(found) == 2 else 1))
