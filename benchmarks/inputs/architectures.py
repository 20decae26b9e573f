"""Small networks with batch normalisation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Residual(nn.Module):
    """Basic block of He et al., CVPR 2016, with a 1x1 shortcut where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs, stride)
        self.second = _convolution(outputs, outputs)
        self.shortcut = nn.Identity() if stride == 1 else _convolution(inputs, outputs, stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


def _convolution(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


def _head(channels: int, classes: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)


def resnet(classes: int) -> nn.Sequential:
    """Four stages of one residual block, 24, 48, 96 and 128 channels, each half the size; the first
    convolution has stride 2."""
    blocks = [Residual(24, 24, 1), Residual(24, 48, 2), Residual(48, 96, 2), Residual(96, 128, 2)]
    return nn.Sequential(_convolution(3, 24, 2), nn.ReLU(), *blocks, *_head(128, classes))


def vgg(classes: int) -> nn.Sequential:
    """3x3 convolutions of 32; 64, 64; 128, 128; 128, 128 channels, maximum pooling between; the
    first one has stride 2."""
    layers: list[nn.Module] = [_convolution(3, 32, 2), nn.ReLU()]
    inputs = 32
    for outputs in (64, 128, 128):
        for channels in (inputs, outputs):
            layers += [_convolution(channels, outputs), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
        inputs = outputs
    return nn.Sequential(*layers[:-1], *_head(inputs, classes))


def resnet18(classes: int) -> nn.Sequential:
    """The ResNet-18 of CIFAR experiments (a first 3x3 convolution of stride 1, four stages of two
    residual blocks), a quarter as wide: 16, 32, 64 and 128 channels."""
    blocks: list[nn.Module] = []
    inputs = 16
    for outputs in (16, 32, 64, 128):
        blocks += [Residual(inputs, outputs, outputs // inputs), Residual(outputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(_convolution(3, 16), nn.ReLU(), *blocks, *_head(128, classes))


ARCHITECTURES = {"resnet": resnet, "vgg": vgg, "resnet18": resnet18}
