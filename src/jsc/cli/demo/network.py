"""The demo's network: six 3 x 3 convolutions with batch-norm and ReLU in three stages."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Stages = tuple[
    tuple[int, int], ...
]  # (channels, convolutions) of each; the next has half the sides

STAGES: Stages = ((32, 1), (64, 2), (128, 3))
QUICK_STAGES: Stages = ((8, 1), (16, 2))


class SmallNet(nn.Module):
    """(N, 3, H, W) in [0, 1] -> (N, classes) scores."""

    def __init__(self, classes: int, stages: Stages = STAGES) -> None:
        super().__init__()
        self.stages = nn.Sequential()
        width = 3
        for channels, count in stages:
            stage = nn.Sequential()
            for i in range(1, count + 1):
                conv = nn.Conv2d(width, channels, 3, padding=1, bias=False)
                stage.add_module(f"conv{i}", conv)
                stage.add_module(f"norm{i}", nn.BatchNorm2d(channels))
                stage.add_module(f"relu{i}", nn.ReLU())
                width = channels
            stage.add_module("pool", nn.MaxPool2d(2))
            self.stages.append(stage)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.stages(x).mean((2, 3)))


def make_network(classes: int, seed: int, stages: Stages = STAGES) -> SmallNet:
    """The same initial weights for the same seed, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SmallNet(classes, stages)
