"""Networks to fuse, and runs of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from jsc._share import share
from jsc.fusing.fuse import fuse
from jsc.tuning.convert import to_sparse

X = (2, 3, 16, 16)


class Wide(nn.Module):
    """Branches, a projection, in-place operators and layouts between layers."""

    def __init__(self, inplace=False, bias=True):
        super().__init__()
        self.inplace = inplace
        self.stem = nn.Conv2d(3, 20, 3, padding=1)
        self.a = nn.Conv2d(20, 24, 1, bias=bias)
        self.b = nn.Conv2d(20, 40, 3, padding=1, bias=bias)
        self.b_norm = nn.BatchNorm2d(40)
        self.join = nn.Conv2d(64, 70, (1, 3), stride=2, padding=(0, 1), bias=bias)
        self.project = nn.Conv2d(64, 70, 1, stride=2)
        self.norm = nn.BatchNorm2d(70, affine=bias)
        self.relu = nn.ReLU(inplace=inplace)
        self.pool = nn.MaxPool2d(2)
        self.last = nn.Conv2d(70, 9, 2)

    def forward(self, x):
        x = self.pool(self.relu(self.stem(x)))
        x = torch.cat([self.relu(self.a(x)), F.relu(self.b_norm(self.b(x)), self.inplace)], 1)
        y = self.norm(self.join(x))
        if self.inplace:
            y += self.project(x)
        else:
            y = y + self.project(x)
        y = self.relu(y)
        return self.last(self.pool(y)), y.mean((2, 3))


def randomise(model):
    """Statistics as of a trained network."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            if module.weight is not None:
                module.weight.data.normal_(1, 0.2)
                module.bias.data.normal_(0, 0.2)
    return model


def pair(model, channels_last=False, skip=()):
    """The network with CPC everywhere, and the same with its fused forward."""
    model = randomise(model).eval()
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.groups == 1 and name not in skip:
            to_sparse(module, "cpc")
    fused = share(model)
    fuse(fused, channels_last)
    return model, fused


def program(model):
    entries = vars(model)["forward"]._entries
    return next(reversed(entries.values())).program if entries else None


def run(model, x):
    """Twice: the first call makes the program."""
    with torch.no_grad():
        model(x)
        return model(x)
