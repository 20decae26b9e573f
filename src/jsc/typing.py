"""The options that are one of a fixed set of words, as types for annotations.

A test compares each with the list that the option is checked against.
"""

from __future__ import annotations

from typing import Literal

MethodName = Literal["dense", "im2col", "mec", "cpo", "cps", "cpc", "winograd", "amx"]
"""`method` of a convolution (:func:`jsc.functional.conv2d`)."""

PrecisionName = Literal["ieee", "tf32", "bf16"]
"""`precision` of :func:`jsc.compile`: torch's names."""

NamedPadding = Literal["valid", "same"]
"""`padding` of a convolution, where it is no number."""

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
"""`padding_mode` of :class:`jsc.nn.SparseConv2d`: torch's."""

Quantizer = Literal["soft", "hard", "ste", "sample"]
"""`quantizer` of the JPEG layer (:func:`jsc.functional.jpeg`)."""

Subsampling = Literal["4:4:4", "4:2:2", "4:2:0"]
"""`subsampling` of Cb and Cr."""

ImagePadding = Literal["replicate", "zero"]
"""`padding` of the JPEG layer: what fills the last blocks of an image."""

Preset = Literal["jpeg-dl"]
"""`name` of :meth:`jsc.nn.JPEG.preset`."""

OnMismatch = Literal["error", "warn", "dense"]
"""`on_mismatch` of :func:`jsc.apply`."""

Processes = Literal["share", "parts", "alone"]
"""`processes` of :func:`jsc.jpeg.sensitivity`: who computes what under `torch.distributed`."""
