"""torch.compile with the backend jsc: whole graphs, parts of one, live parameters, free sizes."""

import warnings

import pytest
import torch
from random_networks import RandomNetwork, randomise
from torch import nn

from jsc.network import calls
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
    real = module.one_graph
    monkeypatch.setattr(module, "one_graph", lambda *a, **k: made.append(real(*a, **k)) or made[-1])
    model, x = randomise(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())), torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        close(torch.compile(model, backend=backend)(x), model(x))
    assert [sum(net.methods().values()) for net in made] == [1]
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


def test_changes_that_torch_does_not_count():
    model = nn.Conv2d(3, 8, 3).eval()
    compiled, x = torch.compile(model, backend=backend), torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        close(compiled(x), model(x))
        model.weight.data.mul_(2)
        close(compiled(x), model(x))
    model(x).square().sum().backward()
    torch.optim.AdamW(model.parameters(), lr=0.1, fused=True).step()
    with torch.no_grad():
        close(compiled(x), model(x))


def test_a_parameter_without_a_version():
    with torch.inference_mode():
        model = nn.Conv2d(3, 8, 3).eval().requires_grad_(False)
    compiled, x = torch.compile(model, backend=backend), torch.randn(2, 3, 9, 9)
    with torch.inference_mode():
        close(compiled(x), model(x))
        model.weight.mul_(2)
        close(compiled(x), model(x))


def test_results_that_are_views_of_inputs():
    def f(x):
        y = x[:, :1]
        torch._dynamo.graph_break()
        y.zero_()
        return x

    with torch.no_grad(), pytest.warns(RuntimeWarning, match="share memory"):
        y = torch.compile(f, backend=backend)(torch.ones(2, 3, 4, 4))
    assert y[:, 0].eq(0).all()


def test_inputs_that_share_memory():
    model, x = nn.Conv2d(3, 8, 3).eval(), torch.randn(2, 6, 9, 9)
    f = torch.compile(lambda a, b: model(a) - model(b), backend=backend)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")  # none says that the graph runs in torch
        close(f(x[:, :3], x[:, 3:]), model(x[:, :3]) - model(x[:, 3:]))


def test_autocast():
    model, x = nn.Conv2d(3, 8, 3).eval(), torch.randn(2, 3, 9, 9)
    compiled = torch.compile(model, backend=backend)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert compiled(x).dtype == torch.bfloat16


def test_sizes_without_number_keep_few_programs(monkeypatch):
    import jsc.network.backend as module

    monkeypatch.setattr(calls, "PROGRAMS", 2)
    nets = []
    real = module.one_graph
    monkeypatch.setattr(
        module, "one_graph", lambda *a, **k: nets.append((real(*a, **k), a[4])) or nets[-1][0]
    )
    graphs = []
    monkeypatch.setattr(
        module, "Graph", lambda *a, real=module.Graph: graphs.append(real(*a)) or graphs[-1]
    )
    model = nn.Conv2d(3, 8, 3).eval()
    compiled = torch.compile(model, backend=backend, dynamic=True)
    with torch.no_grad():
        for size in (9, 10, 11, 12):
            x = torch.randn(2, 3, size, size)
            close(compiled(x), model(x))
    assert max(len(graph.compiled) for graph in graphs) <= 2
    assert all(plan is not None for _, plan in nets[2:])


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_become_infinite(number):
    """A method that would lose them is not kept: at "bf16" linear layers are held in bfloat16."""
    model = randomise(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4)))
    options = {"precision": "bf16", "budget": 0.5}
    compiled, x = torch.compile(model, backend=backend, options=options), torch.rand(2, 3, 3, 3)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")  # none says that the graph runs in torch
        before = compiled(x)
        kept = model[3].weight[0, 0].item()
        model[3].weight[0, 0] = number
        torch.testing.assert_close(compiled(x), model(x), rtol=0.02, atol=0.02, equal_nan=True)
        model[3].weight[0, 0] = kept
        torch.testing.assert_close(compiled(x), before, rtol=0.02, atol=0.02)


def test_options(monkeypatch):
    import jsc.network.backend as module

    made, real = [], module.one_graph
    monkeypatch.setattr(module, "one_graph", lambda *a, **k: made.append(a) or real(*a, **k))
    model, x = nn.Conv2d(3, 8, 3).eval(), torch.randn(2, 3, 9, 9)
    options = {"budget": 1, "precision": "bf16"}
    with torch.no_grad():
        found = torch.compile(model, backend=backend, options=options)(x)
        torch.testing.assert_close(found, model(x), rtol=0.05, atol=0.05)
    assert [a[2:4] for a in made] == [(("bf16", "bf16"), 1)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_autotune": True}, "options may be budget .* and precision; got max_autotune"),
        ({"budget": -1}, "budget must be at least 0"),
        ({"precision": "fp8"}, "precision"),
    ],
)
def test_wrong_options(options, message):
    compiled = torch.compile(nn.ReLU(), backend=backend, options=options)
    with torch.no_grad(), pytest.raises(Exception, match=message):
        compiled(torch.ones(2, 3))
