"""The layers that are timed: shapes of trained networks, as data."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def conv(
    inputs: int, outputs: int, kernel: tuple[int, int], stride: int = 1, padding: str = "same"
) -> nn.Conv2d:
    """Random weights of unit gain; "same" padding is half the kernel."""
    half = (kernel[0] // 2, kernel[1] // 2) if padding == "same" else 0
    layer = nn.Conv2d(inputs, outputs, kernel, stride, half)
    nn.init.normal_(layer.weight, std=(inputs * kernel[0] * kernel[1]) ** -0.5)
    return layer.requires_grad_(False)


def activation(channels: int, size: int, density: float, count: int = 1) -> Tensor:
    """Uniform values in (0, 1), each kept with probability `density`, else zero: (N, C, S, S)."""
    shape = (count, channels, size, size)
    return (1 - torch.rand(shape)) * (torch.rand(shape) < density)


# group: (channels in, filters, height = width, kernel height, kernel width, stride)
LAYERS: dict[str, list[tuple[int, int, int, int, int, int]]] = {
    "3x3": [
        (64, 64, 56, 3, 3, 1),  # ResNet-18, four stages
        (128, 128, 28, 3, 3, 1),
        (256, 256, 14, 3, 3, 1),
        (512, 512, 14, 3, 3, 1),
        (256, 256, 56, 3, 3, 1),  # VGG-16
        (32, 32, 147, 3, 3, 1),  # Inception-v3
        (32, 64, 147, 3, 3, 1),
        (80, 192, 73, 3, 3, 1),
        (96, 96, 35, 3, 3, 1),
        (448, 384, 8, 3, 3, 1),
    ],
    "3x3 small": [(16, 16, 32, 3, 3, 1), (32, 32, 16, 3, 3, 1), (64, 64, 8, 3, 3, 1)],  # CIFAR
    "1x1": [
        (768, 192, 17, 1, 1, 1),
        (256, 64, 56, 1, 1, 1),
        (64, 256, 56, 1, 1, 1),
        (2048, 384, 8, 1, 1, 1),
    ],
    "long": [(160, 160, 17, 1, 7, 1), (192, 192, 17, 7, 1, 1), (48, 64, 35, 5, 5, 1)],
    "stride 2": [(64, 128, 56, 3, 3, 2), (128, 256, 28, 3, 3, 2), (64, 128, 56, 1, 1, 2)],
}
# Layers of dense maps, by what bounds them: (channels in, filters, height, width, kernel height and
# width, stride, groups).
DENSE: dict[str, list[tuple[int, ...]]] = {
    "first layers": [
        (3, 64, 224, 224, 7, 7, 2, 1),  # ResNet
        (3, 32, 224, 224, 3, 3, 2, 1),  # MobileNet
        (3, 64, 224, 224, 3, 3, 1, 1),  # VGG
        (3, 16, 32, 32, 3, 3, 1, 1),  # CIFAR
    ],
    "3x3": [
        (64, 64, 56, 56, 3, 3, 1, 1),  # ResNet, four stages
        (128, 128, 28, 28, 3, 3, 1, 1),
        (256, 256, 14, 14, 3, 3, 1, 1),
        (512, 512, 7, 7, 3, 3, 1, 1),
        (96, 96, 35, 35, 3, 3, 1, 1),  # Inception-v3
    ],
    "3x3 small maps": [
        (16, 16, 32, 32, 3, 3, 1, 1),  # CIFAR
        (32, 32, 16, 16, 3, 3, 1, 1),
        (64, 64, 8, 8, 3, 3, 1, 1),
    ],
    "3x3 stride 2": [
        (64, 128, 56, 56, 3, 3, 2, 1),
        (128, 256, 28, 28, 3, 3, 2, 1),
        (256, 512, 14, 14, 3, 3, 2, 1),
    ],
    "1x1": [
        (64, 256, 56, 56, 1, 1, 1, 1),  # ResNet-50
        (256, 64, 56, 56, 1, 1, 1, 1),
        (512, 128, 28, 28, 1, 1, 1, 1),
        (1024, 256, 14, 14, 1, 1, 1, 1),
        (512, 2048, 7, 7, 1, 1, 1, 1),
        (32, 192, 28, 28, 1, 1, 1, 1),  # MobileNetV2
        (960, 160, 7, 7, 1, 1, 1, 1),
        (256, 512, 56, 56, 1, 1, 2, 1),  # a shortcut
    ],
    "wide kernels": [
        (192, 192, 17, 17, 1, 7, 1, 1),  # Inception-v3
        (192, 192, 17, 17, 7, 1, 1, 1),
        (48, 64, 35, 35, 5, 5, 1, 1),
    ],
    "depthwise": [
        (32, 32, 112, 112, 3, 3, 1, 32),  # MobileNets
        (96, 96, 112, 112, 3, 3, 2, 96),
        (144, 144, 56, 56, 3, 3, 1, 144),
        (384, 384, 14, 14, 3, 3, 1, 384),
        (144, 144, 56, 56, 5, 5, 2, 144),  # EfficientNet
        (480, 480, 14, 14, 5, 5, 1, 480),
    ],
    "grouped": [
        (104, 104, 28, 28, 3, 3, 1, 13),  # RegNetY-400MF
        (440, 440, 7, 7, 3, 3, 1, 55),
        (128, 128, 56, 56, 3, 3, 1, 32),  # ResNeXt
    ],
    "large maps": [
        (64, 64, 320, 480, 3, 3, 1, 1),  # a U-Net on photographs
        (128, 128, 160, 240, 3, 3, 1, 1),
        (256, 256, 80, 120, 3, 3, 1, 1),
        (64, 64, 320, 480, 1, 1, 1, 1),
        (256, 256, 80, 120, 1, 1, 1, 1),
    ],
}
DENSITIES = (0.7, 0.5, 0.3, 0.2, 0.1)

# Inception-v3 layers with the densities the authors of CPO/CPS measured
# (HossamAmer12/SPMv-trials, run_all.py): id, channels, size, kernel, density. The number of filters
# is not given there: it is that of the Inception-v3 layer with this input.
PAPER: list[tuple[str, int, int, int, int, int, float]] = [
    ("1", 32, 32, 149, 3, 3, 0.59),
    ("2", 32, 64, 147, 3, 3, 0.46),
    ("3", 64, 80, 73, 1, 1, 0.77),
    ("4", 80, 192, 71, 3, 3, 0.48),
    ("5", 192, 64, 35, 1, 1, 0.74),
    ("7", 48, 64, 35, 5, 5, 0.48),
    ("52", 160, 160, 17, 1, 7, 0.14),
    ("53", 160, 192, 17, 7, 1, 0.17),
    ("54", 768, 192, 17, 1, 1, 0.24),
    ("89", 2048, 384, 8, 1, 1, 0.08),
    ("91", 384, 384, 8, 1, 3, 0.14),
    ("92", 384, 384, 8, 3, 1, 0.14),
    ("93", 2048, 192, 8, 1, 1, 0.24),
]


def name(layer: nn.Conv2d, size: int) -> str:
    """`3x3 64-128@56/2`: kernel, channels, input size, stride."""
    kernel = "x".join(str(k) for k in layer.kernel_size)
    channels = f"{layer.in_channels}-{layer.out_channels}"
    if layer.groups > 1:
        channels += f" g{layer.groups}"
    stride = f"/{layer.stride[0]}" if max(layer.stride) > 1 else ""
    return f"{kernel} {channels}@{size}{stride}"


def group(layer: nn.Conv2d) -> str:
    """The class a layer's geometric mean belongs to."""
    if layer.groups > 1:
        return "grouped"
    if layer.in_channels <= 4:
        return "image input"
    if max(layer.stride) > 1:
        return "stride 2"
    if layer.kernel_size == (1, 1):
        return "1x1"
    if layer.kernel_size == (3, 3):
        return "3x3 small" if layer.in_channels * layer.out_channels <= 64 * 64 else "3x3"
    return "long"
