"""Networks compiled in no time, and comparison with torch."""

from __future__ import annotations

import torch
from random_networks import randomise
from torch import nn

import jsc

X = (2, 3, 16, 16)


def small():
    return randomise(
        nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(24 * 64, 7),
        )
    )  # fmt: skip


def operations(net):
    return next(iter(net._programs.values())).graph.operations


def compiled(model, x, **options):
    """Methods by the rule, and no check on the sample."""
    return jsc.compile(model, x, **{"budget": 0.0, "check": False, **options})


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-6)
