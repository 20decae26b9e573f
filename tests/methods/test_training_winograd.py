"""Training by Winograd's transforms: where the rule takes them, and that each pass is torch's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from training_ways import LAST, integers, take

import jsc
from jsc import _config
from jsc import methods as ops
from jsc.ops import training


def test_the_rule_takes_winograd_where_maps_are_dense(monkeypatch):
    monkeypatch.setattr(_config, "_isa", 1)
    x, w = torch.empty(64, 64, 8, 8), torch.empty(64, 64, 3, 3)
    g = ops.geometry(x, w, (1, 1), (1, 1), (1, 1), 1)
    both, kind = (True, True), torch.float32
    assert training._choose(1.0, 1.0, g, kind, both, lambda: True) == ("winograd", "winograd")
    assert training._choose(1.0, 0.05, g, kind, both, lambda: True) == ("sweep", "output")
    assert not training.stays_dense(0.9, g, kind)
    for change in ({"Sh": 2, "Sw": 2}, {"Kh": 5}, {"Ph": 3}, {"C": 8}, {"N": 1, "H": 2, "W": 2}):
        assert "winograd" not in training._choose(1.0, 1.0, g._replace(**change), kind, both, bool)
    monkeypatch.setattr(_config, "_isa", 0)  # four lanes gain nothing over torch's AVX2
    assert training._choose(1.0, 1.0, g, kind, both, lambda: True) == ("dense", "dense")


@pytest.mark.parametrize("bias", [True, False])
def test_winograd_in_every_pass(monkeypatch, bias):
    taken = take(monkeypatch, ("winograd", "winograd"), forward="winograd")
    layer = nn.Conv2d(12, 20, 3, padding=1, bias=bias).to(memory_format=LAST)
    layer.weight.data.copy_(torch.randint(-3, 4, layer.weight.shape))
    mine, theirs = integers(3, 12, 9, 7).requires_grad_(), integers(3, 12, 9, 7).requires_grad_()
    theirs.data.copy_(mine.data)
    grad = integers(3, 20, 9, 7)
    fast = jsc.nn.SparseConv2d.from_dense(copy.deepcopy(layer), method="winograd")
    out, expected = fast(mine), layer(theirs)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)
    out.backward(grad)
    expected.backward(grad)
    assert taken == [("winograd", "winograd")]
    assert torch.equal(mine.grad, theirs.grad)
    for a, b in zip(fast.parameters(), layer.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_what_is_not_finite_goes_the_dense_way_behind_winograd(monkeypatch):
    take(monkeypatch, ("winograd", "winograd"), forward="winograd")
    layer = nn.Conv2d(8, 8, 3, padding=1).to(memory_format=LAST)
    x = integers(2, 8, 6, 5)
    x[0, 1, 2, 3] = float("inf")
    grads = []
    for model in (layer, jsc.nn.SparseConv2d.from_dense(layer)):
        layer.zero_grad()
        model(x).sum().backward()
        grads.append(layer.weight.grad.clone())
    torch.testing.assert_close(*grads, equal_nan=True)
