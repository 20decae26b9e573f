"""Toy networks with random weights, for benchmarks and tests without a data folder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2015, figure 2), batch-norm after each."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def small_resnet(width: int = 16, blocks: int = 1, classes: int = 10) -> nn.Module:
    """Three stages of `blocks` residual blocks, `width` to 4 `width` channels; any even input."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)]
    layers.append(nn.ReLU())
    inputs = width
    for stage in range(3):
        outputs = width << stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            layers.append(ResidualBlock(inputs, outputs, stride))
            inputs = outputs
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)]
    return _initialise(nn.Sequential(*layers))


def small_vgg(width: int = 16, classes: int = 10) -> nn.Module:
    """Pairs of 3x3 convolutions between max pools (Simonyan & Zisserman 2014), three stages."""
    layers: list[nn.Module] = []
    inputs = 3
    for stage in range(3):
        outputs = width << stage
        for _ in range(2):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)]
    return _initialise(nn.Sequential(*layers))


def _initialise(model: nn.Module) -> nn.Module:
    """He initialisation: the spread survives every layer, and about half of each ReLU is zero."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model.eval().requires_grad_(False)


def image(count: int = 1, size: int = 32) -> Tensor:
    """Smooth random images in [-1, 1]: noise at an eighth of the size, enlarged."""
    coarse = 2 * torch.rand(count, 3, size // 8, size // 8) - 1
    return F.interpolate(coarse, scale_factor=8, mode="bilinear")
