"""Image sizes: the third one is exported with its sizes free, and later ones are only planned."""

from __future__ import annotations

import itertools

import pytest
import torch
from compiled_networks import close, compiled
from random_networks import randomise
from torch import nn
from torch.nn import functional as F

import jsc
from jsc.network import capture, guards


class Hourglass(nn.Module):
    """Halves and doubles: sizes that are no multiples of four have other shapes on the way."""

    def __init__(self, pads: bool = False):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(16, 4, 1)
        self.pads = pads

    def forward(self, x):
        x = self.first(x).relu()
        y = F.max_pool2d(self.second(F.max_pool2d(x, 2)), 2)
        y = F.interpolate(y, scale_factor=4.0)
        if y.shape[-2:] != x.shape[-2:] and self.pads:
            y = F.interpolate(y, size=x.shape[-2:], mode="bilinear")
        return self.last(torch.cat([x, y], 1))


def classifier():
    return randomise(
        nn.Sequential(
            nn.Conv2d(3, 8, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1),
            nn.BatchNorm2d(16), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
        )
    )  # fmt: skip


@pytest.fixture
def exports(monkeypatch):
    """Counts exports, those of one size and those that leave sizes free."""
    found = []
    real = capture._export
    monkeypatch.setattr(capture, "_export", lambda *a: found.append(len(a) > 3) or real(*a))
    return found


def agree(net, model, *sizes):
    for size in sizes:
        x = torch.randn(size)
        with torch.inference_mode():
            close(net(x), model(x))


def test_the_third_image_size_frees_those_that_follow(exports):
    model = classifier()
    net = compiled(model, torch.randn(1, 3, 64, 64))
    agree(net, model, (1, 3, 96, 64), (1, 3, 80, 80))
    assert exports == [False, False, True]
    agree(net, model, *((1, 3, h, w) for h, w in itertools.product((47, 64, 101), (50, 63, 128))))
    assert len(exports) == 3


def test_a_batch_and_image_sizes_together(exports):
    model = classifier()
    net = compiled(model, torch.randn(1, 3, 64, 64))
    agree(net, model, (1, 3, 96, 64), (2, 3, 80, 80))
    assert exports == [False, False, True]
    agree(net, model, (4, 3, 70, 51), (3, 3, 64, 64), (9, 3, 49, 49))
    assert len(exports) == 3


@pytest.mark.parametrize("pads", [False, True])
def test_a_size_for_which_the_model_takes_another_path(pads, exports):
    model = randomise(Hourglass(pads))
    net = compiled(model, torch.randn(1, 3, 16, 16))
    agree(net, model, (1, 3, 24, 16), (1, 3, 32, 40), (1, 3, 20, 36))
    assert len(exports) == 3
    if pads:
        agree(net, model, (1, 3, 19, 18), (1, 3, 33, 35), (1, 3, 18, 19))
        assert sum(exports) >= 2
        before = len(exports)
        agree(net, model, (1, 3, 37, 21), (1, 3, 48, 20))
        assert len(exports) == before
    else:
        with pytest.raises(jsc.CompileError, match=r"itself fails .* Sizes of tensors must match"):
            net(torch.randn(1, 3, 18, 16))


def test_a_model_for_one_size_after_the_other(exports):
    """A root of a size cannot be free."""

    class Squares(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            side = int(x.shape[-1] ** 0.5)
            return F.adaptive_avg_pool2d(self.conv(x), side)

    model = randomise(Squares())
    net = compiled(model, torch.randn(1, 3, 16, 16))
    sides = (20, 26, 37, 50, 65)
    agree(net, model, *((1, 3, side, side) for side in sides))
    fixed = exports.count(False)
    assert fixed + 1 >= len(sides)
    assert len(exports) <= len(sides) + 3  # what could not be free is not tried again and again


def test_sequences_of_any_length(exports):
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(50, 16)
            self.linear = nn.Linear(16, 8)

        def forward(self, ids, mask):
            return self.linear(self.words(ids) * mask.unsqueeze(-1)).mean(1)

    model = Words().eval().requires_grad_(False)
    net = jsc.compile(
        model, (torch.arange(12).view(2, 6), torch.ones(2, 6)), budget=0.0, check=False
    )
    for length in (7, 9, 11, 20, 3):
        ids, mask = torch.randint(0, 50, (2, length)), torch.rand(2, length)
        close(net(ids, mask), model(ids, mask))
    assert len(exports) == 3


def test_a_file_takes_any_size_that_its_conditions_allow(tmp_path):
    model = randomise(Hourglass())
    net = compiled(model, torch.randn(1, 3, 16, 16))
    agree(net, model, (1, 3, 24, 16), (1, 3, 32, 40))
    net.save(tmp_path / "net.jsc")
    loaded = jsc.load(tmp_path / "net.jsc")
    agree(loaded, model, (1, 3, 20, 28), (1, 3, 64, 36))
    with pytest.raises(jsc.CompileError, match=r"or more\) with .*==.*; got \(1, 3, 18, 16\)"):
        loaded(torch.randn(1, 3, 18, 16))


def test_conditions():
    good = ("2*(s1 // 16) == s1 // 8", "max(1, s0) >= 2 and not s0 % 2", "-3 + s0 > 1 or s1 != 4")
    assert guards.understood(good, ["s0", "s1"])
    assert guards.hold(good, {"s0": 8, "s1": 32})
    assert not guards.hold(good, {"s0": 8, "s1": 24})
    assert not guards.hold(good, {"s0": 7, "s1": 32})


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')", "s9 > 1", "s0.real > 1", "(lambda: s0)()", "s0 ** s0",
        "s0 << 9", "'a' * s0", "1.5 < s0", "[s0]", "max(s0, key=s0)", "s0 >", "s0 if s0 else 1",
        "max.__class__", "print(s0)", "(s0 := 3)", "f'{s0}'", "open(s0)", "s0()", "eval(s0)",
    ],
)  # fmt: skip
def test_what_is_no_condition(text):
    assert not guards.understood([text], ["s0"])
