"""Well-known architectures with random weights: their shapes, not their accuracy, are what is
timed.

    build("resnet50")      -> module in eval mode, statistics as of a trained network
    NAMES                  the names, INPUT[name] the size of an image

Written from the papers' tables; blocks are plain nn.Modules, so that every peer sees ordinary
models. Activations of random weights are about half zeros after a ReLU, like those of trained
networks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Activation = Callable[[], nn.Module]


def conv_bn(
    cin: int, cout: int, kernel: int = 3, stride: int = 1, groups: int = 1,
    act: Activation | None = nn.ReLU,
) -> nn.Sequential:  # fmt: skip
    padding = kernel // 2
    layers: list[nn.Module] = [
        nn.Conv2d(cin, cout, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(cout),
    ]
    return nn.Sequential(*layers, *([act()] if act else []))


class Add(nn.Module):
    """act(body(x) + shortcut(x))"""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None, act: bool = True):
        super().__init__()
        self.body, self.shortcut = body, shortcut or nn.Identity()
        self.act = nn.ReLU() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.body(x) + self.shortcut(x))


class SqueezeExcite(nn.Module):
    """x times a gate for each channel: sigmoid of two 1x1 convolutions of its mean. (Hu et al.
    2018)"""

    def __init__(self, channels: int, inner: int, act: Activation = nn.ReLU):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.down, self.act = nn.Conv2d(channels, inner, 1), act()
        self.up = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(self.act(self.down(self.pool(x)))))


def head(channels: int, classes: int = 1000) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


def vgg16_bn() -> nn.Module:
    """Simonyan and Zisserman 2015, configuration D with batch-norm."""
    layers: list[nn.Module] = []
    cin = 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers.append(conv_bn(cin, width))
            cin = width
        layers.append(nn.MaxPool2d(2))
    classifier = [nn.Flatten(), nn.Linear(512 * 49, 4096), nn.ReLU(), nn.Dropout()]
    classifier += [nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 1000)]
    return nn.Sequential(*layers, *classifier)


def resnet50() -> nn.Module:
    """He et al. 2016, with the stride in the 3x3 convolution."""
    layers: list[nn.Module] = [conv_bn(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    cin = 64
    for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for i in range(count):
            s = stride if i == 0 else 1
            body = nn.Sequential(
                conv_bn(cin, width, 1), conv_bn(width, width, 3, s),
                conv_bn(width, 4 * width, 1, act=None),
            )  # fmt: skip
            shortcut = conv_bn(cin, 4 * width, 1, s, act=None) if i == 0 else None
            layers.append(Add(body, shortcut))
            cin = 4 * width
    return nn.Sequential(*layers, *head(cin))


class DenseBlock(nn.Module):
    def __init__(self, cin: int, count: int, growth: int):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(cin + i * growth), nn.ReLU(),
                nn.Conv2d(cin + i * growth, 4 * growth, 1, bias=False),
                nn.BatchNorm2d(4 * growth), nn.ReLU(),
                nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
            )
            for i in range(count)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)


def densenet121() -> nn.Module:
    """Huang et al. 2017, growth 32."""
    layers: list[nn.Module] = [conv_bn(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    cin = 64
    for i, count in enumerate((6, 12, 24, 16)):
        layers.append(DenseBlock(cin, count, 32))
        cin += 32 * count
        layers += [nn.BatchNorm2d(cin), nn.ReLU()]
        if i < 3:
            layers += [nn.Conv2d(cin, cin // 2, 1, bias=False), nn.AvgPool2d(2)]
            cin //= 2
    return nn.Sequential(*layers, *head(cin))


def inverted_residual(
    cin: int, cout: int, expand: int, stride: int, kernel: int, act: Activation, gate: bool
) -> nn.Module:
    inner = cin * expand
    body: list[nn.Module] = [conv_bn(cin, inner, 1, act=act)] if expand > 1 else []
    body.append(conv_bn(inner, inner, kernel, stride, inner, act=act))
    if gate:
        body.append(SqueezeExcite(inner, max(1, cin // 4), act))
    body.append(conv_bn(inner, cout, 1, act=None))
    whole = nn.Sequential(*body)
    return Add(whole, act=False) if stride == 1 and cin == cout else whole


def mobilenet_v2() -> nn.Module:
    """Sandler et al. 2018, width 1."""
    layers: list[nn.Module] = [conv_bn(3, 32, 3, 2, act=nn.ReLU6)]
    cin = 32
    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
    for expand, width, count, stride in (*table, (6, 160, 3, 2), (6, 320, 1, 1)):
        for i in range(count):
            s = stride if i == 0 else 1
            layers.append(inverted_residual(cin, width, expand, s, 3, nn.ReLU6, False))
            cin = width
    return nn.Sequential(*layers, conv_bn(cin, 1280, 1, act=nn.ReLU6), *head(1280))


def efficientnet_b0() -> nn.Module:
    """Tan and Le 2019."""
    layers: list[nn.Module] = [conv_bn(3, 32, 3, 2, act=nn.SiLU)]
    cin = 32
    table = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3))
    for expand, width, count, stride, kernel in (
        *table, (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
    ):  # fmt: skip
        for i in range(count):
            s = stride if i == 0 else 1
            layers.append(inverted_residual(cin, width, expand, s, kernel, nn.SiLU, True))
            cin = width
    return nn.Sequential(*layers, conv_bn(cin, 1280, 1, act=nn.SiLU), *head(1280))


def regnet_y_400mf() -> nn.Module:
    """Radosavovic et al. 2020: groups of 8 channels, squeeze and excitation."""
    layers: list[nn.Module] = [conv_bn(3, 32, 3, 2)]
    cin = 32
    for width, count in ((48, 1), (104, 3), (208, 6), (440, 6)):
        for i in range(count):
            s = 2 if i == 0 else 1
            body = nn.Sequential(
                conv_bn(cin, width, 1), conv_bn(width, width, 3, s, width // 8),
                SqueezeExcite(width, cin // 4), conv_bn(width, width, 1, act=None),
            )  # fmt: skip
            layers.append(Add(body, conv_bn(cin, width, 1, s, act=None) if i == 0 else None))
            cin = width
    return nn.Sequential(*layers, *head(cin))


class ShuffleUnit(nn.Module):
    """Half of the channels goes through; both halves are shuffled. (Ma et al. 2018)"""

    def __init__(self, cin: int, cout: int, stride: int):
        super().__init__()
        self.stride, half = stride, cout // 2
        inner = cin if stride > 1 else half
        self.left = nn.Sequential(
            conv_bn(cin, cin, 3, stride, cin, act=None), conv_bn(cin, half, 1)
        )
        self.right = nn.Sequential(
            conv_bn(inner, half, 1), conv_bn(half, half, 3, stride, half, act=None),
            conv_bn(half, half, 1),
        )  # fmt: skip
        if stride == 1:
            self.left = nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            kept, x = x.chunk(2, 1)
            x = torch.cat([kept, self.right(x)], 1)
        else:
            x = torch.cat([self.left(x), self.right(x)], 1)
        N, C, H, W = x.shape
        return x.view(N, 2, C // 2, H, W).transpose(1, 2).reshape(N, C, H, W)


def shufflenet_v2() -> nn.Module:
    """Ma et al. 2018, width 1."""
    layers: list[nn.Module] = [conv_bn(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1)]
    cin = 24
    for width, count in ((116, 4), (232, 8), (464, 4)):
        for i in range(count):
            layers.append(ShuffleUnit(cin, width, 2 if i == 0 else 1))
            cin = width
    return nn.Sequential(*layers, conv_bn(cin, 1024, 1), *head(1024))


class UNet(nn.Module):
    """Ronneberger et al. 2015 with batch-norm, padding and bilinear upsampling, quarter width."""

    def __init__(self, width: int = 16, classes: int = 2):
        super().__init__()
        widths = [width * 2**i for i in range(5)]
        before = [3, *widths[:-1]]
        self.down = nn.ModuleList(
            nn.Sequential(conv_bn(a, b), conv_bn(b, b)) for a, b in zip(before, widths, strict=True)
        )
        self.pool, self.up = nn.MaxPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear")
        self.join = nn.ModuleList(
            nn.Sequential(conv_bn(a + b, b), conv_bn(b, b))
            for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.last = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for i, block in enumerate(self.down):
            x = block(self.pool(x) if i else x)
            kept.append(x)
        for block, skip in zip(self.join, kept[-2::-1], strict=True):
            x = block(torch.cat([skip, self.up(x)], 1))
        return self.last(x)


BUILD: dict[str, Callable[[], nn.Module]] = {
    "vgg16_bn": vgg16_bn,
    "resnet50": resnet50,
    "densenet121": densenet121,
    "mobilenet_v2": mobilenet_v2,
    "efficientnet_b0": efficientnet_b0,
    "regnet_y_400mf": regnet_y_400mf,
    "shufflenet_v2": shufflenet_v2,
    "unet": UNet,
}
NAMES = tuple(BUILD)
INPUT: dict[str, tuple[int, int, int]] = {
    **dict.fromkeys(NAMES, (3, 224, 224)),
    "unet": (3, 320, 480),
}


def build(name: str, seed: int = 0) -> nn.Module:
    """The network with weights drawn so that activations keep their size, in eval mode."""
    generator: Any = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        model = BUILD[name]()
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.0)
                nn.init.normal_(module.bias, 0.0, 0.1)
                nn.init.normal_(module.running_mean, 0.0, 0.1)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
    finally:
        torch.random.set_rng_state(generator)
    return model.eval().requires_grad_(False)
