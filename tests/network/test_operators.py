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


def rows(*layers, last=True):
    """Of (N, 3, L) tensors."""
    end = [nn.Conv1d(8, 5, 1)] if last else []
    return lambda: nn.Sequential(nn.Conv1d(3, 8, 5, padding=2), *layers, *end)


class Rows(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.conv, self.linear, self.function = nn.Conv1d(3, 8, 3), nn.Linear(8, 8), function

    def forward(self, x):
        return self.function(self, self.conv(x))


def of_rows(function):
    return lambda: Rows(function)


SEQUENCES = {
    "conv1d": rows(nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 8, 3, 2, bias=False)),
    "conv1d same": rows(nn.Conv1d(8, 8, 4, padding="same", dilation=2), nn.GELU()),
    "conv1d in groups": rows(
        nn.Conv1d(8, 16, 3, groups=4), nn.GLU(1), nn.Conv1d(8, 8, 3, groups=8)
    ),
    "conv1d reflected": lambda: nn.Sequential(
        *(nn.Conv1d(3, 3, 3, padding=1, padding_mode=mode) for mode in MODES),
        nn.ZeroPad1d((2, 1)), nn.ReplicationPad1d((0, 3)),
    ),
    "pools of rows": rows(
        nn.MaxPool1d(3, 2, 1), nn.AvgPool1d(2, ceil_mode=True), nn.AdaptiveAvgPool1d(3)
    ),
    "norms of rows": rows(nn.GroupNorm(2, 8), nn.PReLU(8), nn.InstanceNorm1d(8)),
    "means of rows": of_rows(
        lambda self, y: (y.mean(2), y.mean(1, True), y.amax(-1, True), y.sum(2))
    ),
    "head of rows": rows(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 4), last=False),
    "rows as a vector": rows(nn.Dropout(), nn.Flatten(), nn.Linear(8 * 17, 4), last=False),
    "rows and tokens": of_rows(
        lambda self, y: (self.linear(y.transpose(1, 2)).softmax(2).transpose(2, 1) * y).mean(2)
    ),
    "parts of rows": of_rows(
        lambda self, y: torch.cat([y[:, :3, 1:], y[..., :-1].chunk(2, 1)[1]], 1).softmax(1)
    ),
    "rows as images": of_rows(lambda self, y: F.avg_pool2d(y.unsqueeze(2), (1, 3)).squeeze(2)),
    "rows with numbers of channels": of_rows(lambda self, y: y * torch.arange(8.0)[:, None].to(y)),
}  # fmt: skip
MODELS = {**ELEMENTWISE, **PADDING, **NORMS, **SEQUENCES}


def torch_targets(net):
    graph = next(iter(net._programs.values())).graph
    return [str(o.target) for o in graph.operations if isinstance(o, TorchCall)]


@pytest.mark.parametrize("name", MODELS)
def test_native_exact_with_the_same_bits_and_from_a_file(name, isa, threads, tmp_path):
    model = randomise(MODELS[name]())
    x = torch.randn(2, 3, 17) if name in SEQUENCES else torch.randn(2, 3, 11, 13)
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
    [
        lambda y: F.softplus(y, beta=2),
        lambda y: F.celu(y, 0.5),
        lambda y: (y * y + 1) ** 1.7,
        lambda y: F.pad(y, (1, 2, 0, 1, 3, 1), mode="reflect"),
    ],
    ids=["softplus", "celu", "power", "channels"],
)
def test_what_torch_keeps(function):
    model = randomise(Of(function))
    x = torch.randn(2, 3, 8, 7)
    net = compiled(model, x)
    assert len(torch_targets(net)) == 1
    torch.testing.assert_close(net(x), model(x))


def test_rows_that_torch_makes_and_reads():
    """Before and after operators without a native form, tokens among them."""

    def forward(self, y):
        y = F.conv1d(y.cumsum(2), self.linear.weight[..., None]).relu()
        tokens = self.linear(y.transpose(1, 2)).flip(1)
        again = F.conv1d(tokens, torch.ones(2, tokens.shape[1], 3))
        return again, y.cumsum(1), y.flip(2).transpose(1, 2), F.pad(y.cumsum(1), (1, 0))

    model = randomise(Rows(forward))
    x = torch.randn(2, 3, 17)
    net = compiled(model, x)
    assert set(torch_targets(net)) == {"aten.cumsum.default", "aten.flip.default"}
    for n in (2, 1, 3):
        x = torch.randn(n, 3, 17)
        for ours, theirs in zip(net(x), model(x), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
            assert ours.stride() == theirs.contiguous().stride()
