"""Methods that are chosen again: of a network from a file, with new weights, while it is called."""

from __future__ import annotations

from threading import Thread

import pytest
import torch
from compiled_networks import X, close, compiled, small

import jsc
from jsc.network import tune as timing

EVERYTHING = 1e9  # any other method then counts as faster than the rule's


@pytest.fixture
def others_win(monkeypatch):
    monkeypatch.setattr(timing, "GAIN", EVERYTHING)
    monkeypatch.setattr(timing, "SPARSE_GAIN", EVERYTHING)


def test_methods_are_chosen_again(isa, others_win):
    model, x = small(), torch.randn(X)
    net = compiled(model, x)
    before = net.methods()
    assert net.plan == {}
    net.retune(x, budget=5.0, progress=False)
    assert net.plan
    assert net.methods() != before
    close(net(x), model(x))
    close(net(x[:1]), model(x[:1]))  # a size that is planned anew


def test_a_loaded_network_keeps_the_weights_that_it_was_given(tmp_path, others_win):
    model, x = small(), torch.randn(X)
    net = compiled(model, x)
    net.save(tmp_path / "net.jsc")
    loaded = jsc.load(tmp_path / "net.jsc")
    other = small()
    loaded.refresh(other)
    loaded.retune(x, budget=5.0, progress=False)
    assert loaded.plan
    close(loaded(x), other(x))
    loaded.refresh(model)
    close(loaded(x), model(x))
    loaded.save(tmp_path / "again.jsc")
    assert jsc.load(tmp_path / "again.jsc").plan == loaded.plan


def test_calls_go_on_meanwhile(others_win):
    model, x = small(), torch.randn(X)
    net = compiled(model, x)
    expected, wrong, done = model(x), [], []

    def call():
        while not done:
            if not torch.allclose(net(x), expected, rtol=1e-4, atol=1e-5):
                wrong.append(1)

    threads = [Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        net.retune(x, budget=0.2, progress=False)
    done.append(1)
    for thread in threads:
        thread.join()
    assert not wrong


def test_bad_arguments_change_nothing():
    x = torch.randn(X)
    net = compiled(small(), x)
    with pytest.raises(ValueError, match="at least 0"):
        net.retune(x, budget=-1.0)
    with pytest.raises(TypeError, match="was compiled for"):
        net.retune(x.double())
    assert net.plan == {}
