"""Networks for the benchmark of one optimisation step: trained ones, or trained here."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import jsc
from benchmarks.inputs import image_tasks, networks
from benchmarks.inputs.architectures import Residual

VGG = (64, 64, 0, 128, 128, 0, 256, 256, 0, 512)  # filters of 3x3 convolutions; 0: 2x2 pooling
RESNET18 = (64, 128, 256, 512)
DEPTHS = {"resnet20": 3, "resnet56": 9}  # residual blocks to a stage
JPEG = "+jpeg"  # behind the JPEG layer
NAMES = (*DEPTHS, "vgg", "vgg_bn", "resnet18", f"vgg_bn{JPEG}", f"resnet18{JPEG}")
SETS = {32: "cifar10", 64: "tinyimagenet20"}  # by the side of the images
CLASSES = 20  # of the larger set


def vgg(normalized: bool, widths: tuple[int, ...] = VGG) -> nn.Sequential:
    """After Simonyan and Zisserman, ICLR 2015, for 32x32 images; He's initialisation."""
    layers: list[nn.Module] = []
    inputs = 3
    for width in widths:
        if not width:
            layers.append(nn.MaxPool2d(2))
            continue
        layers.append(nn.Conv2d(inputs, width, 3, padding=1, bias=not normalized))
        layers += [nn.BatchNorm2d(width)] if normalized else []
        layers.append(nn.ReLU())
        inputs = width
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10))


def resnet(blocks: int) -> nn.Sequential:
    """The CIFAR network of He et al., CVPR 2016, with 1x1 shortcuts where the shape changes."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)]
    layers.append(nn.ReLU())
    inputs = 16
    for outputs in (16, 32, 64):
        for i in range(blocks):
            layers.append(Residual(inputs, outputs, 2 if i == 0 and outputs > 16 else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def resnet18(widths: tuple[int, ...] = RESNET18) -> nn.Sequential:
    """The ImageNet network of He et al., CVPR 2016: 64x64 images leave maps of 16x16 to 2x2."""
    inputs = widths[0]
    layers: list[nn.Module] = [nn.Conv2d(3, inputs, 7, 2, 3, bias=False), nn.BatchNorm2d(inputs)]
    layers += [nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    for outputs in widths:
        layers += [Residual(inputs, outputs, 2 if outputs > inputs else 1)]
        layers += [Residual(outputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, CLASSES))


class Images(NamedTuple):
    """(count, 3, side, side) in [0, 1], labels, and the mean and deviation of each channel."""

    x: Tensor
    y: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]


def images(name: str, data: Path | None, count: int) -> Images:
    """Real images for this network, or smooth random ones in which a class is a pattern of
    colours."""
    side = 64 if name.startswith("resnet18") else 32
    generator = torch.Generator().manual_seed(0)
    if data is None:
        labels = torch.randint(10, (count,), generator=generator)
        patterns = torch.randn((10, 3, 4, 4), generator=generator)[labels]
        noise = torch.randn((count, 3, 16, 16), generator=generator)
        size = {"size": (side, side), "mode": "bilinear", "align_corners": False}
        x = F.interpolate(patterns, **size) + 0.5 * F.interpolate(noise, **size)  # type: ignore[arg-type]
        return Images((0.25 * x + 0.5).clamp(0, 1), labels, (0.5,) * 3, (0.25,) * 3)
    task = image_tasks.load(SETS[side], data, side=side)
    chosen = torch.randperm(len(task.train.y), generator=generator)[:count]
    pixels = image_tasks.to_float(task.train.x[chosen])
    return Images(pixels, task.train.y[chosen], task.mean, task.std)


def examples(name: str, data: Path | None, count: int) -> tuple[Tensor, Tensor]:
    """What the network takes, normalised images, and labels."""
    found = images(name, data, count)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (found.mean, found.std))
    return (found.x - mean) / std, found.y


def built(name: str, data: Path | None) -> nn.Sequential:
    plain = name.removesuffix(JPEG)
    if plain in DEPTHS:
        net = resnet(DEPTHS[plain])
    else:
        net = resnet18() if plain == "resnet18" else vgg(plain == "vgg_bn")
    if plain == name:
        return net
    found = images(name, data, 1)
    return nn.Sequential(jsc.nn.JPEG.from_quality(50, mean=found.mean, std=found.std), *net)


def prepared(name: str, data: Path | None, steps: int, batch: int) -> nn.Module:
    """The network in training mode, channels-last.

    Its weights are the trained ones where `data` has them, and otherwise those after `steps` steps
    on a few thousand images.
    """
    if data is not None and name in DEPTHS:
        model = networks.load(data, f"{name}_cifar10").model
        return model.requires_grad_(True).train().to(memory_format=torch.channels_last)
    torch.manual_seed(0)
    model = built(name, data).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=max(2, steps))
    x, y = examples(name, data, 4000 if steps >= 100 else 4 * batch)
    for i in range(steps):
        index = torch.randint(len(y), (batch,))
        loss = F.cross_entropy(
            model(x[index].contiguous(memory_format=torch.channels_last)), y[index]
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if i + 1 < steps:
            schedule.step()
    return model


def sparse(model: nn.Module) -> nn.Module:
    """A copy of `model` whose convolutions are `jsc.nn.SparseConv2d`."""
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for key, child in list(parent.named_children()):
            if type(child) is nn.Conv2d:
                setattr(parent, key, jsc.nn.SparseConv2d.from_dense(child, method="cpc"))
    return model


def step(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], Tensor]:
    """One optimisation step as a call that returns the loss.

    It is SGD with momentum and weight decay at rate 0, so that every call finds the same weights.
    Gradients stay until the next call.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9, weight_decay=5e-4)

    def run() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return run


class Seen(nn.Module):
    """What a convolution had in one step: the input, and the gradient of its output."""

    def __init__(self, name: str, layer: nn.Conv2d) -> None:
        super().__init__()
        self.name, self.layer = name, layer
        self.x = self.grad = torch.empty(0)
        self.gated = self.differentiable = False  # images need no gradient


def seen(model: nn.Module, x: Tensor, y: Tensor) -> Iterator[Seen]:
    """Every convolution with the maps of one step."""
    found = [Seen(name, m) for name, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    hooks = [one.layer.register_forward_hook(_keep(one)) for one in found]
    F.cross_entropy(model(x), y).backward()
    for hook in hooks:
        hook.remove()
    model.zero_grad()
    yield from found


def _keep(one: Seen) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
    last = torch.channels_last

    def hook(module: nn.Module, arguments: tuple[Tensor], output: Tensor) -> None:
        x = arguments[0]
        node = x.grad_fn
        one.gated = node is not None and node.name().startswith(("Relu", "MaxPool2D"))
        one.differentiable = x.requires_grad
        one.x = x.detach().clone(memory_format=last)
        output.register_hook(lambda g: setattr(one, "grad", g.clone(memory_format=last)))

    return hook
