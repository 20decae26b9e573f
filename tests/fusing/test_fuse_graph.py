"""What a graph allows to be fused, and in which memory format its maps go."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from fused_networks import Wide, X, pair, program, run
from torch import nn

import jsc
from benchmarks.inputs import toy_networks
from jsc._share import share
from jsc.fusing.chains import Network, chains
from jsc.fusing.fuse import FusedForward, fuse, same
from jsc.fusing.graph import trace
from jsc.tuning.convert import to_sparse


class Chain(nn.Module):
    """conv -> `between` -> conv, where `between` may do anything."""

    def __init__(self, between):
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 24, 3), nn.Conv2d(24, 24, 3, padding=1)
        self.between = between

    def forward(self, x):
        return self.between(self, self.first(x))


def conv_after(change):
    def between(self, y):
        y = y.relu()
        z = change(y)
        return self.second(y), z

    return between


def late_residual(self, y):
    kept = y.relu()
    z = self.second(kept)
    z = z + kept
    kept.mul_(2)
    return z.relu(), kept


BETWEEN = {
    "in place": conv_after(lambda y: y.mul_(-1).relu_()),
    "in place on a view": conv_after(lambda y: y[:, :5].zero_()),
    "in place on a reshaped one": conv_after(lambda y: y.flatten(2).neg_()),
    "assigned": conv_after(lambda y: y.__setitem__((0, slice(1, 4)), 7.0)),
    "in-place dropout": conv_after(lambda y: F.dropout(y, 0.5, False, True)),
    "clone": conv_after(lambda y: y.clone().fill_(1)),
    "out": conv_after(lambda y: torch.neg(y, out=y)),
    "residual changed between": late_residual,
    "two readers": lambda self, y: (self.second(y.relu()), y),
    "read twice": lambda self, y: self.second(y.relu() + y),
    "added to itself": lambda self, y: self.second((y + y).relu()),
    "broadcast": lambda self, y: self.second((y + y.mean((2, 3), keepdim=True)).relu()),
    "alpha": lambda self, y: torch.relu(torch.add(self.second(y), y, alpha=2)),
    "residual first": lambda self, y: (y.relu() + self.second(y.relu())).relu(),
    "in place into the residual": lambda self, y: y.relu().add_(self.second(y)).relu_(),
    "in place into the sum": lambda self, y: self.second(y).add_(y).relu_(),
    "number": lambda self, y: self.second(y + 1) + 1,
    "size": lambda self, y: self.second(y.relu()).view(y.shape[0], -1),
    "pre-activation in the output": lambda self, y: (y, y.relu()),
}


@pytest.mark.parametrize("between", BETWEEN)
@torch.no_grad()
def test_order_of_reads_and_writes(isa, between):
    model, fused = pair(Chain(BETWEEN[between]))
    x = torch.randn(2, 8, 9, 7)
    assert same(run(fused, x), run(model, x))
    vars(fused)["forward"]._entries.clear()
    with torch.no_grad():
        assert same(fused(x), model(x))


def test_no_graph_no_harm():
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.calls, self.seen = nn.Conv2d(3, 8, 3), 0, []

        def forward(self, x):
            return self.conv(x).relu() if x.sum() > 0 else -self.conv(x)

    class Counting(Branch):
        def __init__(self):
            super().__init__()
            del self.seen

        def forward(self, x):
            self.calls += 1
            return self.conv(x).relu()

    class Remembering(Branch):
        def forward(self, x):
            self.seen.append(x)
            return self.conv(x).relu()

    class Random(Counting):
        def forward(self, x):
            return self.conv(x).relu() + torch.rand(8, 1, 1)

    x = torch.rand(1, 3, 8, 8)
    for kind in (Branch, Counting, Remembering, Random):
        _, fused = pair(kind())
        assert "forward" not in vars(fused)
        assert same(run(fused, -x), run(fused, -x)) == (kind is not Random)
    _, counting = pair(Counting())
    run(counting, x)
    assert counting.calls == 2


def test_an_untrue_trace_is_not_believed():
    state = {"sign": 1}

    class Outside(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x):
            y = self.conv(x).relu()
            return y if state["sign"] > 0 else -y

    model, fused = pair(Outside())
    state["sign"] = -1
    x = torch.randn(1, 3, 8, 8)
    assert same(run(fused, x), run(model, x))
    assert program(fused) is None


def test_channels_last_is_inside_only():
    model, fused = pair(toy_networks.small_vgg(16), channels_last=True)
    x = torch.randn(X)
    torch.testing.assert_close(run(fused, x), run(model, x))
    assert program(fused) is not None
    seen = []
    fused[3].register_forward_hook(lambda *args: seen.append(args[1][0].is_contiguous()))
    torch.testing.assert_close(run(fused, x), run(model, x))
    assert not seen[0]
    maps = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    assert run(pair(maps, channels_last=True)[1], x).is_contiguous()
    viewing = Chain(lambda self, y: self.second(y).view(2, -1))
    model, fused = pair(viewing, channels_last=True)
    x = torch.randn(2, 8, 9, 7)
    assert same(run(fused, x), run(model, x))


def test_channels_last_after_a_layer_that_forgets_it():
    """Every convolution gets its map in the format, the JPEG layer's result is contiguous."""
    net = nn.Sequential(jsc.nn.JPEG(), toy_networks.small_vgg(16), nn.Unflatten(1, (5, 2, 1)))
    model, fused = pair(net, channels_last=True, skip=("1.0", "1.2"))
    model.requires_grad_(False)
    x = torch.rand(X)
    torch.testing.assert_close(run(fused, x), run(model, x))
    assert program(fused) is not None
    seen = []
    forward = nn.MaxPool2d.forward
    fused[1][4].forward = lambda x: seen.append(x.is_contiguous()) or forward(fused[1][4], x)
    vars(fused)["forward"]._entries.clear()
    for _ in range(2):
        torch.testing.assert_close(run(fused, x), run(model, x))
    assert not seen[-1]


def test_chains_of_a_graph():
    model = Wide().eval()
    for name in ("a", "b", "join"):
        to_sparse(model.get_submodule(name), "cpc")
    network = Network(trace(model), model)
    form = ((1, 70, 4, 4), torch.float32)
    shapes = dict.fromkeys((step.name for step in network.graph.steps), form)
    norms = {s.name for s in network.graph.steps if "norm" in s.name}
    found = {c.conv: c for c in chains(network, shapes, norms)}
    assert found["a"].relu
    assert not found["a"].norm
    assert found["b"].norm == "b_norm"
    assert (found["join"].norm, found["join"].residual) == ("norm", "project")
    assert found["join"].relu
    assert isinstance(vars(share_fused(model))["forward"], FusedForward)


def share_fused(model):
    fused = share(model)
    fuse(fused, False)
    return fused
