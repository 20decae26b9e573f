"""Convolutions in training whose passes run by chosen kernels."""

from __future__ import annotations

import torch

from jsc.ops import training

LAST = torch.channels_last


def take(monkeypatch, way, forward="dense"):
    """Every layer, small ones too, runs each pass by `way`; `behind_relu` is asked for "gated"."""
    taken = []

    def choose(dx, dg, g, dtype, wanted, behind_relu):
        chosen = way
        if way[0] == "gated" and not behind_relu():
            chosen = "dense", "input"
        taken.append(chosen)
        return (chosen[0] if wanted[0] else "dense"), (chosen[1] if wanted[1] else "dense")

    monkeypatch.setattr(training, "SMALL", 0)
    monkeypatch.setattr(training, "_choose", choose)
    monkeypatch.setattr(training, "stays_dense", lambda *a: False)
    for name in ("sweep", "winograd"):
        cost = 0.0 if forward == name else 2.0
        monkeypatch.setattr(training, f"_{name}_cost", lambda *a, cost=cost: cost)
    return taken


def integers(*shape):
    return torch.randint(-3, 4, shape).float().contiguous(memory_format=LAST)
