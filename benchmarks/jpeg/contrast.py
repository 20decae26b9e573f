"""`jsc.nn.LocalContrast` against the same in torch's operators: a section of the page of `jpeg`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

import jsc
from benchmarks.common import report
from benchmarks.common.harness import Ratio, check, interleave, num_threads
from benchmarks.jpeg.training.variants import blurred

TOLERANCE = 1e-5  # of the largest value or gradient
JSC, TORCH, LAST = "jsc", "torch NCHW", "torch channels-last"


class InTorch(nn.Module):
    """Padding, and depthwise convolutions with one row and one column of weights."""

    def forward(self, x: Tensor) -> Tensor:
        centred = x - blurred(x)
        return 0.5 + 0.2 * centred / (blurred(centred.square()).sqrt() + 0.05)


def gradient(layer: nn.Module, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    y = layer(x)
    return y, torch.autograd.grad(y, x, grad)[0]


def rows(options: argparse.Namespace, x: Tensor) -> list[dict[str, Any]]:
    """Times for `x`, (N, 3, H, W) in [0, 1], in one process and in turn."""
    x = x.detach()
    grad = torch.randn_like(x)
    last = [t.contiguous(memory_format=torch.channels_last) for t in (x, grad)]
    layers = {
        JSC: (jsc.nn.LocalContrast(), x, grad),
        TORCH: (InTorch(), x, grad),
        LAST: (InTorch(), *last),
    }
    exact = gradient(InTorch(), x.double(), grad.double())
    for name, arguments in layers.items():
        for what, ours, wanted in zip(("", ", dx"), gradient(*arguments), exact, strict=True):
            check(name + what, ours, wanted, TOLERANCE)

    def forward(name: str) -> Callable[[], Any]:
        layer, images, _ = layers[name]
        return torch.no_grad()(lambda: layer(images))

    def both(name: str) -> Callable[[], Any]:
        return lambda: gradient(*layers[name])

    found = []
    passes = {"forward": forward, "forward+backward": both}
    for threads, what in report.progress(product(options.threads, passes), "local contrast"):
        with num_threads(threads):
            times = interleave({name: passes[what](name) for name in layers}, options.rounds)
        best = min((times[TORCH], times[LAST]), key=lambda timing: timing.median)
        ratio = Ratio.of(best, times[JSC])
        found.append({
            "pass": what, "threads": threads,
            **{f"{name}, ms": 1e3 * timing.median / len(x) for name, timing in times.items()},
            "faster torch over jsc": f"{ratio.value:.1f} ({ratio.low:.1f}–{ratio.high:.1f})",
        })  # fmt: skip
    return found
