"""Order of reads and writes: aliasing that a tracer which believes in names gets wrong, outputs
that share a map, and values that depend on the size of the input."""

import pytest
import torch
import torch.nn.functional as F
from compiled_networks import close, compiled
from random_networks import randomise
from torch import nn


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


# Aliasing and order: what a tracer that believes in names gets wrong.
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
    "slices": lambda self, y: torch.cat([y[:, 12:], y[:, :12]], 1).relu(),
    "strided": lambda self, y: self.second(F.pad(y[:, ::1, ::2, 1::2], (0, 0, 0, 0, 0, 0))),
    "the same twice": lambda self, y: (y.relu(), y.relu()),
    "one tensor twice": lambda self, y: [y, y],
    "concatenated with itself": lambda self, y: torch.cat([y, y.relu(), y], 1),
}


@pytest.mark.parametrize("between", BETWEEN)
@torch.no_grad()
def test_order_of_reads_and_writes(between):
    model = randomise(Chain(BETWEEN[between]))
    x = torch.randn(2, 8, 9, 7)
    net = compiled(model, x)
    close(net(x), model(x))
    close(net(x), model(x))


class Shared(nn.Module):
    """One map as several outputs: itself, again, a part of it."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 6)

    def forward(self, x):
        y = self.fc(self.conv(x).mean((2, 3)))
        return y, y, y[:, 2:5], {"y": y}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_outputs_that_share_a_map(layout):
    model = randomise(Shared())
    x = torch.randn(2, 3, 9, 9).contiguous(memory_format=layout)
    close(compiled(model, x)(x), model(x))


def test_a_constant_that_depends_on_the_size_of_the_input():
    class Sized(nn.Module):
        def forward(self, x):
            return x.relu() * torch.tensor([float(x.shape[2])])

    model = Sized().eval()
    net = compiled(model, torch.randn(1, 3, 8, 8))
    for size in (8, 11, 5):
        x = torch.randn(1, 3, size, 8)
        close(net(x), model(x))


def test_arguments_that_no_native_form_has():
    class Odd(nn.Module):
        def forward(self, x):
            y = x.mean((2, 3), dtype=torch.float64).float()
            return y, x.mean(), x.softmax(1, dtype=torch.float64), x.mean((-1, -2), keepdim=True)

    x = torch.randn(2, 3, 6, 6)
    close(compiled(Odd().eval(), x)(x), Odd()(x))
