"""The hard quantizer swapped in after training: its accuracy, and how many bits it would need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import jsc
from benchmarks.inputs.image_tasks import Split, to_float
from benchmarks.jpeg.training import loop
from jsc.jpeg.sensitivity import coefficients


@contextmanager
def options(layer: jsc.nn.JPEG, **changed: Any) -> Iterator[None]:
    """`layer` with other options for a while."""
    before = layer.options
    layer.options = replace(before, **changed)
    try:
        yield
    finally:
        layer.options = before


@torch.no_grad()
def levels(layer: jsc.nn.JPEG, x: Tensor) -> Tensor:
    """round(z / q), clamped to the layer's levels: (N, 3, rows, columns, 8, 8)."""
    q = layer.tables.clamp_min(1e-5)[[0, 1, 1]][:, None, None]
    k = (coefficients(x) / q).round()
    limit = layer.options.levels
    return k if limit is None else k.clamp(-limit, limit)


def bits_per_pixel(k: Tensor) -> float:
    """Zero-order entropy of the levels of each channel and frequency, all images pooled.

    bpp = 1 / 64 sum_(c, m) H(c, m): what an ideal memoryless coder with known histograms spends.
    No prediction of DC and no runs of zeros, so that a JPEG file may be smaller.
    """
    total = 0.0
    for column in k.permute(1, 4, 5, 0, 2, 3).flatten(3).flatten(0, 2):
        counts = torch.unique(column, return_counts=True)[1].double()
        p = counts / counts.sum()
        total -= float((p * p.log2()).sum())
    return total / 64


def swapped(model: loop.Classifier, split: Split) -> dict[str, Any]:
    """Test accuracy with hard rounding, bits per pixel and share of saturated coefficients."""
    (layer,) = loop.jpeg_layers(model)
    with options(layer, quantizer="hard", window=None):
        hard = loop.accuracy(model, split)
    x = to_float(split.x)
    for module in model.layer:
        if module is not layer:
            x = module(x)  # what comes before the tables
    k = levels(layer, x)
    limit = layer.options.levels
    saturated = 0.0 if limit is None else float((k.abs() == limit).double().mean())
    return {"hard accuracy": hard, "bpp": bits_per_pixel(k), "saturated": saturated}
