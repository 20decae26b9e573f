"""Operators with a native form, in networks of their own: nothing is left to torch, the results are
as exact as torch's, have the same bits for every number of threads, and come back from a file."""

import pytest
import torch
import torch.nn.functional as F
from compiled_networks import compiled
from random_networks import errors, randomise
from torch import nn

import jsc
from jsc.network.graph import TorchCall


class Of(nn.Module):
    """A convolution, then `function` of its output."""

    def __init__(self, function, channels=8, conv=None):
        super().__init__()
        self.conv = conv or nn.Conv2d(3, channels, 3, padding=1)
        self.function = function

    def forward(self, x):
        return self.function(self.conv(x))


def after(*layers, channels=8):
    return lambda: nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), *layers, nn.Conv2d(8, 5, 1))


def of(function):
    return lambda: Of(function)


MODES = ("reflect", "replicate", "circular")


def slopes(layer):
    layer.weight.data.uniform_(-0.5, 1.5)
    return layer


ELEMENTWISE = {
    "mish": after(nn.Mish()),
    "softplus": after(nn.Softplus()),
    "prelu": lambda: after(nn.PReLU())(),
    "prelu of channels": lambda: after(slopes(nn.PReLU(8)), nn.ReLU6())(),
    "prelu of a vector": of(lambda y: F.prelu(y.mean((2, 3)), torch.arange(8).to(y) - 3)),
    "selu": after(nn.SELU()),
    "celu": after(nn.CELU()),
    "glu": after(nn.GLU(1), channels=16),
    "softsign": after(nn.Softsign()),
    "tanhshrink": after(nn.Tanhshrink()),
    "exp and log": of(lambda y: (y.exp(), (y.abs() + 1).log(), torch.log(y.exp() + 1))),
    "roots": of(lambda y: ((y.abs() + 0.1).sqrt(), (y.abs() + 1).rsqrt(), (y * y + 1) ** 0.5)),
    "powers": of(lambda y: (y**3, (y.abs() + 1) ** -0.5, (y * y + 1) ** -1)),
    "numbers less maps": of(lambda y: (1 - y, 2 / (y.abs() + 1), -y)),
    "norm of a vector": of(lambda y: y / (y.square().sum(1, keepdim=True) + 1e-6).sqrt()),
    "abs of a flat map": of(lambda y: y.flatten(1).abs()),
}
PADDING = {
    "padding of convolutions": lambda: nn.Sequential(
        *(nn.Conv2d(3, 3, 3, padding=1, padding_mode=mode) for mode in MODES),
    ),
    "padding of one side": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReflectionPad2d((2, 0, 0, 1)), nn.ReLU(),
        nn.ReplicationPad2d((0, 3, 12, 1)), nn.Conv2d(8, 6, 3), nn.CircularPad2d((0, 1, 2, 0)),
    ),
    "padding of the image": lambda: nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(3, 8, 7)),
    "padding of a part": of(lambda y: F.pad(y[:, 1:6, 2:], (1, 1, 1, 2), mode="reflect")),
    "padding in a concatenation": of(
        lambda y: torch.cat([F.pad(y, (1, 2, 3, 4), mode=m) for m in MODES], 1).relu()
    ),
}  # fmt: skip
NORMS = {
    "group-norm": lambda: after(nn.GroupNorm(2, 8))(),
    "group-norm and ReLU": lambda: after(nn.GroupNorm(8, 8), nn.ReLU())(),
    "group-norm of one group": lambda: after(nn.GroupNorm(1, 8, affine=False), nn.Mish())(),
    "group-norm of a part": of(lambda y: F.group_norm(y[:, 2:, 1:, :5], 3) + y[:, 2:, 1:, :5]),
    "group-norm of a vector": of(lambda y: F.group_norm(y.mean((2, 3)), 4)),
    "instance-norm": lambda: after(nn.InstanceNorm2d(8, affine=True), nn.SiLU())(),
    "instance-norm by statistics": lambda: after(nn.InstanceNorm2d(8, track_running_stats=True))(),
}  # fmt: skip
MODELS = {**ELEMENTWISE, **PADDING, **NORMS}


def torch_targets(net):
    graph = next(iter(net._programs.values())).graph
    return [str(o.target) for o in graph.operations if isinstance(o, TorchCall)]


@pytest.mark.parametrize("name", MODELS)
def test_native_exact_with_the_same_bits_and_from_a_file(name, isa, threads, tmp_path):
    model = randomise(MODELS[name]())
    x = torch.randn(2, 3, 11, 13)
    net = compiled(model, x)
    assert not torch_targets(net)
    threads(1)
    ours = net(x)
    error, torch_error = errors(ours, model, x)
    assert error <= max(2 * torch_error, 1e-6)
    several = ours if isinstance(ours, tuple) else (ours,)
    net.save(tmp_path / "net.jsc")
    loaded = jsc.load(tmp_path / "net.jsc")
    for count in (2, 3):
        threads(count)
        for again in (net(x), loaded(x)):
            again = again if isinstance(again, tuple) else (again,)
            assert all(map(torch.equal, again, several))


def test_new_slopes_are_packed():
    model = randomise(after(nn.PReLU(8), nn.PReLU())())
    x = torch.randn(2, 3, 8, 7)
    net = compiled(model, x)
    with torch.no_grad():
        model[1].weight.uniform_(-1, 1)
        model[2].weight.fill_(-0.25)
    net.refresh(model)
    torch.testing.assert_close(net(x), model(x))


@pytest.mark.parametrize(
    "function",
    [lambda y: F.softplus(y, beta=2), lambda y: F.celu(y, 0.5), lambda y: (y * y + 1) ** 1.7],
    ids=["softplus", "celu", "power"],
)
def test_what_torch_keeps(function):
    model = randomise(Of(function))
    x = torch.randn(2, 3, 8, 7)
    net = compiled(model, x)
    assert len(torch_targets(net)) == 1
    torch.testing.assert_close(net(x), model(x))
