"""The block DCT."""

from __future__ import annotations

from torch import Tensor

from jsc.functional._image import require_float, to_float32_under_autocast
from jsc.ops.dct import BlockDct, BlockIdct
from jsc.reference import jpeg as reference
