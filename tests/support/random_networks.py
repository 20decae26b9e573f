"""Small random networks: branches, siblings, concatenations, residuals, modules used twice, pools
of every kind."""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F
from torch import nn


class RandomNetwork(nn.Module):
    """`steps` layers, each over maps made before it; which ones is drawn from `seed`."""

    def __init__(self, seed: int, steps: int = 8, channels: int = 3):
        super().__init__()
        self.random = random.Random(seed)
        self.layers = nn.ModuleList()
        self.plan: list[tuple] = []
        widths = [channels]
        for _ in range(steps):
            self._add(widths)
        self.head = nn.Linear(widths[-1], 5)

    def _add(self, widths: list[int]) -> None:
        kind = self.random.choice(
            ["conv"] * 4
            + ["residual", "concat", "pool", "act", "norm", "gate", "again", "siblings"]
        )
        source = self.random.randrange(max(0, len(widths) - 2), len(widths))
        width = widths[source]
        if kind == "again" and not any(p[0] == "again" for p in self.plan):
            conv = nn.Conv2d(width, width, 3, padding=1)
            self.layers.append(conv)
            self.plan.append(("again", source, len(self.layers) - 1))
            widths.append(width)
            return
        if kind in ("conv", "again"):
            kind = "conv"
            out = self.random.choice([4, 7, 8, 16, 19, 24])
            groups = self.random.choice([1, 1, 1, width])
            out = width if groups > 1 else out
            kernel = self.random.choice([1, 3, 3, 5, (1, 3)])
            conv = nn.Conv2d(
                width, out, kernel, stride=self.random.choice([1, 1, 1, 2]), padding=_same(kernel),
                dilation=1, groups=groups, bias=self.random.random() < 0.5,
            )  # fmt: skip
            layers = [conv]
            if self.random.random() < 0.6:
                layers.append(nn.BatchNorm2d(out))
            if self.random.random() < 0.8:
                layers.append(self.random.choice(ACTIVATIONS)())
            self.layers.append(nn.Sequential(*layers))
            widths.append(out)
        elif kind == "residual":
            self.layers.append(nn.Conv2d(width, width, 3, padding=1))
            widths.append(width)
        elif kind == "concat":
            self.layers.append(
                nn.ModuleList([nn.Conv2d(width, 8, 1), nn.Conv2d(width, 5, 3, padding=1)])
            )
            widths.append(13 + width)
        elif kind == "siblings":
            self.layers.append(Siblings(self.random, width))
            widths.append(self.layers[-1].width)
        elif kind == "pool":
            self.layers.append(self.random.choice(POOLS)())
            widths.append(width)
        elif kind == "act":
            self.layers.append(self.random.choice(ACTIVATIONS)())
            widths.append(width)
        elif kind == "norm":
            groups = self.random.choice([g for g in range(1, width + 1) if width % g == 0])
            norm = self.random.choice([nn.BatchNorm2d, lambda C: nn.GroupNorm(groups, C)])
            self.layers.append(norm(width))
            widths.append(width)
        else:
            self.layers.append(nn.Conv2d(width, width, 1))
            widths.append(width)
        self.plan.append((kind, source, len(self.layers) - 1))

    def forward(self, x):
        values = [x]
        for kind, source, index in self.plan:
            value, layer = values[source], self.layers[index]
            if kind == "residual":
                value = F.relu(layer(value) + value)
            elif kind == "concat":
                value = torch.cat([F.relu(layer[0](value)), value, layer[1](value)], 1)
            elif kind == "gate":
                value = value * torch.sigmoid(layer(value.mean((2, 3), keepdim=True)))
            elif kind == "again":
                value = layer(F.relu(layer(value)))
            else:
                value = layer(value)
            values.append(value)
        return self.head(values[-1].mean((2, 3))), values[len(values) // 2]


class Siblings(nn.Module):
    """Convolutions of one map that differ in their filters alone, as in an Inception block: some
    are concatenated as they are, others behind a pool."""

    def __init__(self, drawn: random.Random, channels: int):
        super().__init__()
        filters = drawn.choice([(8, 3, 17), (16, 5), (4, 4, 2, 6), (24, 8, 16)])
        kernel, self.width = drawn.choice([1, 1, 3]), sum(filters)
        self.pooled = [drawn.random() < 0.6 for _ in filters]
        self.branches = nn.ModuleList()
        for n in filters:
            conv = nn.Conv2d(channels, n, kernel, padding=_same(kernel), bias=drawn.random() < 0.5)
            norm = nn.BatchNorm2d(n) if drawn.random() < 0.5 else nn.Identity()
            self.branches.append(nn.Sequential(conv, norm, nn.ReLU()))

    def forward(self, x):
        parts = []
        for branch, pooled in zip(self.branches, self.pooled, strict=True):
            y = branch(x)
            parts.append(F.max_pool2d(y, 3, 1, 1) if pooled else y)
        return torch.cat(parts, 1)


def _same(kernel):
    return kernel // 2 if isinstance(kernel, int) else tuple(k // 2 for k in kernel)


ACTIVATIONS = [
    nn.ReLU, lambda: nn.ReLU(inplace=True), nn.ReLU6, nn.SiLU, nn.Hardswish, nn.GELU, nn.Sigmoid,
    nn.LeakyReLU, nn.ELU, nn.Tanh, nn.Hardsigmoid, nn.Mish, nn.Softplus, nn.PReLU, nn.SELU,
]  # fmt: skip
POOLS = [
    lambda: nn.MaxPool2d(2, ceil_mode=True), lambda: nn.MaxPool2d(3, 2, padding=1),
    lambda: nn.MaxPool2d(3, 1, padding=1), lambda: nn.AvgPool2d(2, ceil_mode=True),
    lambda: nn.AvgPool2d(3, 2, padding=1), lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    lambda: nn.AdaptiveAvgPool2d(3), lambda: nn.AdaptiveMaxPool2d((2, 3)),
    lambda: nn.LocalResponseNorm(5),
    lambda: nn.Upsample(scale_factor=2), lambda: nn.Upsample(size=(7, 9), mode="bilinear"),
    lambda: nn.Softmax(1), lambda: nn.ZeroPad2d((1, 0, 2, 1)), lambda: nn.ChannelShuffle(1),
    lambda: nn.ReflectionPad2d(1), lambda: nn.ReplicationPad2d((1, 0, 2, 1)),
    lambda: nn.CircularPad2d((0, 1, 1, 0)),
]  # fmt: skip


def randomise(model: nn.Module) -> nn.Module:
    """Statistics and scales as of a trained network."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
        if isinstance(module, nn.PReLU):
            module.weight.data.uniform_(-0.5, 1.5)
        if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)) and module.weight is not None:
            module.weight.data.normal_(1, 0.2)
            module.bias.data.normal_(0, 0.2)
    return model.eval().requires_grad_(False)


def errors(ours, model: nn.Module, x: torch.Tensor) -> tuple[float, float]:
    """Largest errors of `ours` and of torch's float32 against float64, over the largest output."""
    import copy

    from torch.utils import _pytree as pytree

    exact = copy.deepcopy(model).double()(x.double())
    plain = model(x)
    worst = (0.0, 0.0)
    for o, p, e in zip(*(pytree.tree_leaves(t) for t in (ours, plain, exact)), strict=True):
        assert (o.shape, o.dtype, o.stride()) == (p.shape, p.dtype, p.stride())
        scale = max(e.abs().max().item(), 1e-3)
        pair = tuple((t.double() - e).abs().max().item() / scale for t in (o, p))
        worst = max(worst, pair)
    return worst
