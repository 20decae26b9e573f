"""The benchmark of one optimisation step: it runs, and refuses gradients that are not torch's."""

import json

import pytest
import torch
from torch import nn

import jsc
from benchmarks.common import harness
from benchmarks.networks import steps, train


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(steps, "DEPTHS", {"resnet20": 1})
    monkeypatch.setattr(steps, "VGG", (4, 0, 5))


def test_it_runs_and_keeps_every_number(tmp_path, small):
    train.main(["--quick", "--threads", "1", "--out", str(tmp_path)])
    kept = json.loads((tmp_path / "train.json").read_text())
    (row,) = kept["rows"]
    assert row["network"] == "resnet20"
    assert row["gradient error"] < train.GRADIENT_TOLERANCE
    taken = {r["pass"] for r in kept["layers"]["resnet20"]}
    assert taken == {"forward", "grad-input", "grad-weight", "both"}
    assert "d(g)" in (tmp_path / "train.md").read_text()


def test_wrong_gradients_are_not_timed(tmp_path, small, monkeypatch):
    class Wrong(jsc.nn.SparseConv2d):
        def forward(self, x):
            y = super().forward(x)
            return y + (y * 1.5 - (y * 1.5).detach())  # the right loss, 2.5 times the gradient

    def spoiled(model):
        model = right(model)
        for module in model.modules():
            if isinstance(module, jsc.nn.SparseConv2d):
                module.__class__ = Wrong
        return model

    right = steps.sparse
    monkeypatch.setattr(steps, "sparse", spoiled)
    with pytest.raises(harness.WrongResult, match="not timed"):
        train.main(["--quick", "--threads", "1", "--out", str(tmp_path)])


@pytest.mark.parametrize("normalized", [False, True])
def test_networks(normalized):
    model = steps.vgg(normalized, (4, 0, 5))
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 10)
    ours = steps.sparse(model)
    convolutions = [m for m in ours.modules() if isinstance(m, nn.Conv2d)]
    assert all(type(m) is jsc.nn.SparseConv2d for m in convolutions)
    assert not any(isinstance(m, jsc.nn.SparseConv2d) for m in model.modules())
    x, y = steps.examples("vgg", None, 6)
    assert x.shape == (6, 3, 32, 32)
    found = list(steps.seen(model, x, y))
    assert [one.gated for one in found] == [False, True]
    assert all(one.grad.shape == one.layer(one.x).shape for one in found)


def test_a_residual_network_behind_the_jpeg_layer(monkeypatch):
    monkeypatch.setattr(steps.resnet18, "__defaults__", ((4, 8),))
    name = f"resnet18{steps.JPEG}"
    model = steps.built(name, None)
    x, y = steps.examples(name, None, 6)
    assert x.shape == (6, 3, 64, 64)
    assert float((model[0](x).detach() - x).abs().mean()) < 0.1  # in deviations: it knows them
    losses = [steps.step(m.train(), x, y)() for m in (model, steps.sparse(model))]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)
