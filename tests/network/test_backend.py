"""torch.compile with the backend jsc: whole graphs, parts of one, live parameters, free sizes."""

import pytest
import torch
from random_networks import RandomNetwork, randomise
from torch import nn

from jsc.network.backend import backend


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-6)


def test_a_whole_graph():
    model = randomise(RandomNetwork(3))
    compiled = torch.compile(model, backend=backend, dynamic=False)
    with torch.no_grad():
        for size in ((2, 3, 13, 11), (1, 3, 9, 9)):
            x = torch.randn(size)
            for _ in range(2):
                close(compiled(x), model(x))


def test_a_graph_is_compiled_and_a_refused_one_is_said(monkeypatch):
    import jsc.network.backend as module

    made = []
    real = module.compile
    monkeypatch.setattr(module, "compile", lambda *a, **k: made.append(real(*a, **k)) or made[-1])
    model, x = randomise(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())), torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        close(torch.compile(model, backend=backend)(x), model(x))
    assert [net.methods() for net in made] == [{"direct": 1}]
    torch._dynamo.reset()
    half = nn.Conv2d(3, 8, 3).double()
    with torch.no_grad(), pytest.warns(RuntimeWarning, match="a graph runs in torch: compile is"):
        torch.compile(half, backend=backend)(x.double())


def test_parts_between_graph_breaks():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

        def forward(self, x):
            y = self.a(x).relu()
            if y.sum() > 1e9:  # a break: it needs the numbers
                return y
            return self.b(y)

    model = randomise(Broken())
    compiled = torch.compile(model, backend=backend)
    x = torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        close(compiled(x), model(x))


def test_parameters_stay_live():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
    compiled = torch.compile(model, backend=backend)
    x = torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        close(compiled(x), model(x))
        model[0].weight.mul_(-2)
        model[1].running_mean.add_(1)
        close(compiled(x), model(x))
    compiled(x).sum().backward()
    assert model[0].weight.grad is not None


def test_free_sizes():
    model = randomise(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2)))
    compiled = torch.compile(model, backend=backend, dynamic=True)
    with torch.no_grad():
        for size in (12, 14, 17):
            x = torch.randn(2, 3, size, size)
            close(compiled(x), model(x))
