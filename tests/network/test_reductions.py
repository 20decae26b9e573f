"""Gates, global pools of every kind, layer-norm over channels that is written out, expansion."""

import pytest
import torch
from compiled_networks import close, compiled
from random_networks import randomise
from torch import nn

from jsc.network.graph import LayerNorm, TorchCall


class Of(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function
        self.conv, self.gate = nn.Conv2d(3, 16, 3), nn.Linear(16, 16)
        self.weight, self.bias = nn.Parameter(torch.rand(16) + 0.5), nn.Parameter(torch.rand(16))

    def forward(self, x):
        return self.function(self, self.conv(x))


def written_out(self, y):
    u = y.mean(1, keepdim=True)
    v = (y - u).pow(2).mean(1, keepdim=True)
    y = (y - u) / torch.sqrt(v + 1e-6)
    return self.weight[:, None, None] * y + self.bias[:, None, None]


def channel_gate(self, y):
    gate = self.gate(y.amax((2, 3)) - y.mean((-2, -1))).sigmoid()
    return y * gate.unsqueeze(2).unsqueeze(3).expand_as(y)


def two_expansions(self, y):
    return y.mean((2, 3), True).expand_as(y) + y.mean(1, True).expand_as(y)


def nearly(self, y):
    return (y - y.mean(1, True)) / (y.mean(1, True) ** 2 + 1).sqrt()


def response_norm(self, y):
    """Of ConvNeXt V2."""
    y = y.permute(0, 2, 3, 1)
    norm = torch.linalg.vector_norm(y, ord=2, dim=(1, 2), keepdim=True)
    norm = norm / (norm.mean(-1, keepdim=True) + 1e-6)
    return (self.weight * (y * norm) + self.bias + y).permute(0, 3, 1, 2)


NATIVE = {
    "layer-norm": written_out,
    "response norm": response_norm,
    "norms": lambda self, y: (y.norm(dim=(2, 3)), y / y.flatten(2).norm(dim=2)[:, :, None, None]),
    "gate": channel_gate,
    "sums": lambda self, y: (y.sum((2, 3)), y.sum((2, 3), keepdim=True) + y, y.sum(1, True)),
    "squares": lambda self, y: (y**2, -y, torch.square(y.amax((3, 2), keepdim=True))),
    "spatial gate": lambda self, y: y * y.mean(1, keepdim=True).sigmoid().expand_as(y),
    "half a shape": lambda self, y: (y.mean((2, 3)).unsqueeze(-1).tanh(), y.relu()),
}
PARTLY = {
    "two expansions": two_expansions,
    "expansion as a result": lambda self, y: y.mean((2, 3), True).expand_as(y),
    "mean over rows": lambda self, y: (y.mean(2), y.sum((1, 2, 3)), y.amax(1), y.mean(1)),
    "other norms": lambda self, y: (y.norm(p=1, dim=(2, 3)), y.norm(dim=2), y.norm(dim=1)),
    "other powers": lambda self, y: y.abs() ** 1.5,
    "nearly a layer-norm": nearly,
    "unbiased": lambda self, y: (y - y.mean(1, True)) / torch.sqrt(y.var(1, keepdim=True) + 1e-6),
}  # fmt: skip


@pytest.mark.parametrize("name", [*NATIVE, *PARTLY])
def test_the_numbers_are_torchs(name):
    model = randomise(Of((NATIVE | PARTLY)[name]))
    x = torch.randn(2, 3, 8, 7)
    net = compiled(model, x)
    operations = next(iter(net._programs.values())).graph.operations
    if name in NATIVE:
        assert not [str(o.target) for o in operations if isinstance(o, TorchCall)]
    assert any(isinstance(o, LayerNorm) for o in operations) == (name == "layer-norm")
    for given in (x, torch.randn(1, 3, 3, 5)):
        close(net(given), model(given))
