"""Small networks, and plans for them written by hand: every layer is chosen, none is timed."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

import jsc


class Net(nn.Module):
    """Convolutions, batch-norms, a residual and a head."""

    def __init__(self, channels=12, classes=5):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.a, self.b = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.a_norm, self.b_norm = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.down = nn.Conv2d(channels, 2 * channels, 1, stride=2)
        self.head = nn.Linear(2 * channels, classes)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        y = torch.relu(self.a_norm(self.a(x)))
        x = torch.relu(self.b_norm(self.b(y)) + x)
        return self.head(torch.relu(self.down(x)).mean((2, 3)))


def trained(model):
    """Statistics as of a trained network."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
                module.weight.normal_(1, 0.2)
                module.bias.normal_(0, 0.2)
    return model.eval()


def plan_by_hand(model, x, methods):
    """A plan with these methods in turn, the first layer's first; "dense" leaves one as it is."""
    plan = jsc.tune(model, x, methods=[], repeats=1, budget_s=0.01, progress=False)
    layers = []
    for i, layer in enumerate(plan.layers):
        method = methods[i % len(methods)]
        times = {"dense": 2.0, method: 1.0}  # so short a budget measures nothing
        layers.append(dataclasses.replace(layer, method=method, times_ms=times))
    return dataclasses.replace(plan, layers=tuple(layers))


def applied(model, x, methods, **options):
    """The network with these methods in turn."""
    return jsc.apply(model, plan_by_hand(model, x, methods), **options)
