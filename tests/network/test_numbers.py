"""Numbers at the ends of the range of float32, through each way to do a convolution."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import jsc
from jsc import _config

LEAST = 2.0**-149  # float32's smallest number: denormal ones are multiples of it
LAYERS = {
    "direct": nn.Conv2d(24, 40, 3, padding=1),
    "cpc": nn.Conv2d(24, 40, 3, padding=1),
    "winograd2x2": nn.Conv2d(24, 40, 3, padding=1),
    "winograd2x4": nn.Conv2d(24, 40, 3, padding=1),
    "winograd4x4": nn.Conv2d(24, 40, 3, padding=1),
    "amx": nn.Conv2d(24, 40, 3, padding=1),
    "grouped": nn.Conv2d(32, 48, 3, padding=1, groups=2),
    "depthwise": nn.Conv2d(24, 24, 3, padding=1, groups=24),
    "pointwise": nn.Conv2d(24, 40, 1),
    "stride": nn.Conv2d(24, 40, 3, stride=2),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("scale", [1e-41, 1e-30, 1e36], ids=str)
def test_convolutions_of_any_size_of_numbers(isa, name, scale):
    """Nothing is flushed to zero, and nothing overflows that need not."""
    if name == "amx" and not _config.amx():
        pytest.skip("this CPU has no AMX tiles")
    torch.manual_seed(0)
    layer = LAYERS[name].eval().requires_grad_(False)
    nn.init.normal_(layer.weight, std=0.1)
    layer.bias.zero_()
    x = torch.randn(1, layer.in_channels, 9, 11).relu() * scale
    method = {"pointwise": "direct", "stride": "direct"}.get(name, name)
    net = jsc.compile(layer, x, plan={"weight": method}, budget=0.0, check=False)
    assert net.methods() == {method: 1}
    y, exact = net(x), nn.functional.conv2d(
        x.double(), layer.weight.double(), None, layer.stride, layer.padding, 1, layer.groups
    )  # fmt: skip
    # A sum of denormal numbers is rounded to a multiple of the least one, by half of it at most.
    error = (y.double() - exact).abs().max()
    assert error <= 4e-6 * exact.abs().max() + 300 * LEAST
    assert y.abs().max() > 0


@pytest.mark.parametrize("scale", [1e-41, 1e-30, 1e36], ids=str)
def test_linear_layers_of_any_size_of_numbers(isa, scale):
    torch.manual_seed(0)
    layer = nn.Linear(70, 33, bias=False).eval().requires_grad_(False)
    x = torch.randn(3, 70) * scale
    net = jsc.compile(layer, x, budget=0.0, check=False)
    exact = x.double() @ layer.weight.double().T
    error = (net(x).double() - exact).abs().max()
    assert error <= 2e-6 * exact.abs().max() + 100 * LEAST


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_goes_through_linear_layers_as_in_torch(isa, number):
    layer = nn.Linear(70, 33).eval().requires_grad_(False)
    x = torch.randn(3, 70)
    x[1, 5] = number
    net = jsc.compile(layer, torch.randn(3, 70), budget=0.0, check=False)
    torch.testing.assert_close(net(x), layer(x), rtol=1e-5, atol=1e-5, equal_nan=True)
