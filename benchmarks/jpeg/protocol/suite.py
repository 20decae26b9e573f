"""Which attacks a network meets, and which images withstand each of them.

Images that the network gets wrong without an attack count as broken throughout.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import jsc
from benchmarks.common.kept import Runs, key
from benchmarks.inputs.image_tasks import Split, to_float
from benchmarks.jpeg.protocol.models import Classifier, Trained
from benchmarks.jpeg.protocol.statistics import QUANTISED, STANDARD, STRONGEST
from benchmarks.jpeg.training import attacks

PAPER = tuple(round(float(e), 4) for e in np.linspace(1, 4, 10))  # epsilons of the paper, of 255
FOUR = (1.0, 2.0, 3.0, 4.0)
STARTS = int(STRONGEST.split()[1])
BLOCK = 100  # images at a time, which are kept at a time
MULTIPLE = 20  # the compiled network sees batches of 20, 40, ...
Model = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Budget:
    """How many images, from the first of the test split on, and which epsilons.

    images : FGSM and PGD-5, the paper's attacks, and BPDA with one step
    heavy : PGD-50, its restarts, BPDA with 50 steps and transfer
    square : the black box, with `queries` calls of the network for each image
    """

    images: int
    heavy: int
    square: int
    heavy_epsilons: tuple[float, ...] = (1.0, 2.0)
    other_epsilons: tuple[float, ...] = (4.0,)  # of transfer and Square
    queries: int = 300


QUICK = Budget(10, 6, 4, (1.0,), (4.0,), 5)
BUDGETS = {
    "resnet20": Budget(1000, 200, 100),
    "resnet20-scratch": Budget(1000, 200, 100),
    "resnet56": Budget(200, 100, 50),
}


class Block(NamedTuple):
    """An attack on a block of test images: `count` of them from number `first` on."""

    attack: str
    epsilon: float
    first: int
    count: int


def plan(budget: Budget, arm: str) -> list[Block]:
    """Block by block, so that what is done early is a comparison on fewer images. BPDA is for arms
    whose layer quantises or saturates."""
    between = tuple(e for e in PAPER if e not in FOUR)
    quantizer = arm in QUANTISED
    found = [(attack, FOUR, budget.images) for attack in ("FGSM", "PGD-5")]
    found += [("FGSM, BPDA", FOUR, budget.images)] * quantizer
    found += [("PGD-50", budget.heavy_epsilons, budget.heavy)]
    found += [("PGD-50, BPDA", budget.heavy_epsilons, budget.heavy)] * quantizer
    found += [(STRONGEST, budget.heavy_epsilons, budget.heavy)]
    if arm != STANDARD:
        found.append(("PGD-10, transfer", budget.other_epsilons, budget.heavy))
    if square_attack():
        found.append(("Square", budget.other_epsilons, budget.square))
    found += [(attack, between, budget.images) for attack in ("FGSM", "PGD-5")]
    return [
        Block(attack, epsilon, first, min(BLOCK, images - first))
        for first in range(0, budget.images, BLOCK)
        for attack, epsilons, images in found if first < images
        for epsilon in epsilons
    ]  # fmt: skip


def square_attack() -> Any:
    """Square (Andriushchenko et al., ECCV 2020) in AutoAttack's own code, or None where that is not
    installed."""
    try:
        from pyautoattack.square import SquareAttack
    except ImportError:
        return None
    return SquareAttack


class Scores:
    """A model's scores from its compiled network: for all that needs no gradient."""

    def __init__(self, model: Classifier) -> None:
        self.model = model
        sample = model.normalised(torch.zeros(BLOCK, 3, 32, 32))
        self.network = jsc.compile(model.network, sample, budget=0.0, check=False, progress=False)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([self._of(part) for part in x.split(BLOCK)])

    def _of(self, x: Tensor) -> Tensor:
        more = -len(x) % MULTIPLE  # few batch sizes, since each is planned once
        filled = torch.cat([x, x[-1:].expand(more, -1, -1, -1)])
        return self.network(self.model.normalised(self.model.layer(filled)))[: len(x)].clone()


def folded(model: Classifier) -> Classifier:
    """The same function with every batch normalisation folded into the convolution before it."""
    made = copy.deepcopy(model).eval()
    network = made.network
    modules = dict(network.named_modules())
    for node in network.graph.nodes:
        norm = modules.get(node.target) if node.op == "call_module" else None
        if isinstance(norm, nn.BatchNorm2d):
            conv = node.args[0].target
            network.set_submodule(conv, fuse_conv_bn_eval(modules[conv], norm))
            network.set_submodule(node.target, nn.Identity())
    return made.requires_grad_(False)


class Victim:
    """One trained network under attack."""

    def __init__(self, trained: Trained, test: Split, seed: int, queries: int) -> None:
        self.trained, self.seed, self.queries = trained, seed, queries
        self.x, self.y = to_float(test.x).contiguous(), test.y
        self.model = folded(trained.model)
        self._signs: dict[tuple[str, int], Tensor] = {}

    @cached_property
    def scores(self) -> Scores:
        return Scores(self.trained.model)

    def right(self, x: Tensor, y: Tensor) -> Tensor:
        return self.scores(x).argmax(1) == y

    def way(self, name: str) -> Model:
        """The function that an attack differentiates."""
        if not name.endswith("BPDA"):
            return self.model
        layer = attacks.Bypass(self.model.layer)
        return lambda x: self.model.classify(layer(x))

    def held(self, block: Block, source: Victim, before: Tensor | None = None) -> Tensor:
        """Which images of the block withstand; transferred images come from `source`. `before`: of
        the attack with several starts, those that withstood the first."""
        images = slice(block.first, block.first + block.count)
        x, y = self.x[images], self.y[images]
        held = self.right(x, y) if before is None else before
        x, y = x[held], y[held]
        starts = range(STARTS if block.attack == STRONGEST else 1)
        for start in starts if before is None else starts[1:]:
            if not len(y):
                break
            standing = self.right(self._made(block, x, y, source, start), y)
            held[held.clone()] = standing
            x, y = x[standing], y[standing]
        return held

    def _made(self, block: Block, x: Tensor, y: Tensor, source: Victim, start: int) -> Tensor:
        kind, size = block.attack.partition(",")[0], block.epsilon / 255
        if kind == "Square":
            black_box = square_attack()(
                self.scores, n_queries=self.queries, eps=size, seed=self.seed, device="cpu"
            )
            return black_box.perturb(x, y)
        if kind == "FGSM":
            return (x + size * self._sign(block, x, y)).clamp(0, 1)
        transfer = block.attack.endswith("transfer")
        model = source.model if transfer else self.way(block.attack)
        generator = torch.Generator().manual_seed(10**6 * start + 1000 * self.seed + block.first)
        steps = int(kind.partition("-")[2])
        return attacks.pgd(model, x, y, size, steps, generator, stop=not transfer)

    def _sign(self, block: Block, x: Tensor, y: Tensor) -> Tensor:
        """Of the gradient at the images themselves, the same at each epsilon."""
        place = (block.attack, block.first)
        if place not in self._signs:
            self._signs[place] = attacks.gradient(self.way(block.attack), x, y)[1].sign()
        return self._signs[place]


def attack(
    runs: Runs, victim: Victim, source: Victim, block: Block, wanted: Callable[[], bool]
) -> str | None:
    """ "0110...", a 1 for each image of the block that withstood. It is kept; what is not there yet
    is made while that is `wanted`, and otherwise None."""
    config = {
        "weights": key(victim.trained.config), **block._asdict(),
        "queries": victim.queries if block.attack == "Square" else 0,
    }  # fmt: skip
    record = runs.get(config)
    if record is None and wanted():
        one = runs.get(config | {"attack": "PGD-50"}) if block.attack == STRONGEST else None
        before = None if one is None else torch.tensor([c == "1" for c in one["held"]])
        held = victim.held(block, source, before)
        record = runs.add(config, None, {"held": "".join("01"[v] for v in held.tolist())})
    return None if record is None else str(record["held"])
