"""Models that torch.export does not take as one graph: compiled in parts."""

from __future__ import annotations

import gc
import threading
import warnings
import weakref

import pytest
import torch
from compiled_networks import X, close, compiled, small
from random_networks import randomise
from torch import nn

import jsc
from jsc.network.parts import NetworkInParts


class Branching(nn.Module):
    """Which half runs depends on the numbers of the image."""

    def __init__(self):
        super().__init__()
        self.before = nn.Conv2d(3, 16, 3, padding=1)
        self.dark = nn.Conv2d(16, 8, 3)
        self.bright = nn.Conv2d(16, 8, 3, dilation=2, padding=1)

    def forward(self, x):
        y = self.before(x).relu()
        return self.bright(y) if x.mean() > 0.5 else self.dark(y)


class Selecting(nn.Module):
    """The size of the result depends on the numbers."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        y = self.conv(x)
        return y, y[y > 0]


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()


def in_parts(model, x, **options):
    with pytest.warns(RuntimeWarning, match="is compiled in .* parts"):
        return compiled(model, x, **options)


def test_every_branch_and_the_reason():
    model = randomise(Branching())
    dark, bright = torch.rand(X) * 0.9, torch.rand(X) + 1
    net = in_parts(model, dark, check=True)
    assert isinstance(net, NetworkInParts)
    assert net.accuracy is not None
    for x in (dark, bright, dark, bright[:1], dark):
        close(net(x), model(x))
    text = str(net)
    assert "if x.mean() > 0.5" in text
    assert f"{__file__}:" in text
    assert "conv 3x3 3->16" in text
    assert sum(net.methods().values()) >= 3
    used, together = net.memory()
    assert 0 < used <= together


def test_results_of_a_size_that_depends_on_numbers():
    model = randomise(Selecting())
    x = torch.randn(X)
    net = in_parts(model, x, check=True)
    for given in (x, torch.randn(X)):
        for a, b in zip(net(given), model(given), strict=True):
            close(a, b)


def test_new_weights():
    model, x = randomise(Branching()), torch.rand(X) * 0.9
    net = in_parts(model, x)
    other = randomise(Branching())
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(-0.5)
    net.refresh(other)
    close(net(x), other(x))
    with pytest.raises(ValueError, match="built otherwise"):
        net.refresh(randomise(Selecting()))
    wider = randomise(Branching())
    wider.bright = randomise(nn.Conv2d(16, 9, 3))
    with pytest.raises(ValueError, match=r"bright\.weight must be of shape \(8, 16, 3, 3\)"):
        net.refresh(wider)
    close(net(x), other(x))


def test_the_model_may_change():
    model, x = randomise(Branching()), torch.rand(X) * 0.9
    net = in_parts(model, x)
    before = net(x)
    with torch.no_grad():
        model.before.weight.zero_()
    assert torch.equal(net(x), before)


def test_what_takes_one_graph_is_refused(tmp_path):
    net = in_parts(randomise(Branching()), torch.rand(X))
    assert net.plan == {}
    for call in (
        lambda: net.save(tmp_path / "net.jsc"),
        lambda: net.profile(torch.rand(X)),
        lambda: net.retune(torch.rand(X)),
    ):
        with pytest.raises(TypeError, match=r"compiled in parts.*x\.mean"):
            call()
    with pytest.raises(jsc.CompileError, match="frozen"):
        net.train()
    for wrong in (torch.rand(X).double(), torch.rand(X)[0]):
        with pytest.raises(TypeError, match="was compiled for"):
            net(wrong)


def test_effects_are_refused_as_ever():
    model = randomise(Branching())
    model.before.register_forward_hook(lambda *args: None)
    with pytest.raises(jsc.CompileError, match="has hooks"):
        compiled(model, torch.rand(X))


def test_nothing_to_compile():
    class Cutting(nn.Module):
        def forward(self, x):
            row = x.view(-1)
            return row if int(x.sum()) % 2 else row[:3]  # views of the input, in each part

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(jsc.CompileError, match=r"none can be compiled.*jsc\.tune"):
            compiled(Cutting(), torch.zeros(X))


def test_a_model_that_fails_by_itself_says_so():
    with pytest.raises(jsc.CompileError, match="Sequential itself fails for inputs like these"):
        compiled(small(), torch.randn(2, 3, 20, 20))


def test_it_has_no_parameters_and_goes_when_nobody_wants_it():
    net = in_parts(randomise(Branching()), torch.rand(X))
    assert not list(net.parameters())
    assert not net.state_dict()
    model = weakref.ref(net._frozen[0])
    del net
    gc.collect()
    assert model() is None


def test_calls_from_several_threads():
    model = randomise(Branching())
    xs = [torch.rand(X) * 0.9, torch.rand(X) + 1]
    net = in_parts(model, xs[0])
    wanted = [model(x) for x in xs]
    net(xs[1])
    wrong = []

    def call(i):
        for _ in range(20):
            if not torch.allclose(net(xs[i]), wanted[i], rtol=1e-4, atol=1e-5):
                wrong.append(i)

    threads = [threading.Thread(target=call, args=(i % 2,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
