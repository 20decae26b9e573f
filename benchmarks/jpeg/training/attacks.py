"""FGSM and PGD in the maximum norm, through the JPEG layer or past it.

References: Goodfellow et al., ICLR 2015 (FGSM); Madry et al., ICLR 2018 (PGD); Athalye et al.,
ICML 2018 (BPDA, masked gradients).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Identity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor, y: Tensor) -> Tensor:
        return y.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class Bypass(nn.Module):
    """`layer` forward, the identity backward: backward pass differentiable approximation."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = self.layer(x)
        return _Identity.apply(x, y)


def gradient(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Scores, and the gradient of the summed cross-entropy in the image."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        scores = model(x)
        loss = F.cross_entropy(scores, y, reduction="sum")
        return scores.detach(), torch.autograd.grad(loss, x)[0]


def fgsm(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, epsilon: float) -> Tensor:
    """x + epsilon sign(gradient), in [0, 1]."""
    return (x + epsilon * gradient(model, x, y)[1].sign()).clamp(0, 1)


def pgd(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    epsilon: float,
    steps: int,
    generator: torch.Generator,
    *,
    stop: bool = True,
) -> Tensor:
    """Projected gradient ascent from a random start, step 2.5 epsilon / steps.

    With `stop` an image stays at its first misclassified iterate: nothing is lost by further steps,
    and few images take them all. For transfer to another model all steps are made.
    """
    noise = torch.rand(x.shape, generator=generator)  # one layout for all models
    found = (x + epsilon * (2 * noise - 1)).clamp(0, 1)
    alive = torch.arange(len(y))
    for _ in range(steps):
        if not len(alive):
            break
        scores, slope = gradient(model, found[alive], y[alive])
        if stop:
            right = scores.argmax(1) == y[alive]
            alive, slope = alive[right], slope[right]
        moved = found[alive] + 2.5 * epsilon / steps * slope.sign()
        near = torch.minimum(torch.maximum(moved, x[alive] - epsilon), x[alive] + epsilon)
        found[alive] = near.clamp(0, 1)
    return found
