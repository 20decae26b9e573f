"""Arithmetic and activations of a network program, against torch."""

import math

import pytest
import torch
import torch.nn.functional as F
from network_maps import CHANNELS, SPECIAL, act, close, elementwise_fields, image, operand_of

from jsc.network.emit import OPERANDS

OPERATIONS = {
    "identity": lambda x, b: x + 0 * b, "add": torch.add, "sub": torch.sub, "mul": torch.mul,
    "div": torch.div, "max": torch.maximum, "min": torch.minimum,
    "prelu": lambda x, b: torch.where(x > 0, x, x * b),
}  # fmt: skip


@pytest.mark.parametrize("around", [0, 5], ids=["dense", "slice"])
@pytest.mark.parametrize("special", [False, True], ids=["finite", "special"])
@pytest.mark.parametrize("operand", OPERANDS[1:])
@pytest.mark.parametrize("op", [o for o in OPERATIONS if o != "identity"])
def test_elementwise(maps, op, operand, special, around):
    for channels in CHANNELS:
        x = image(channels, special=special)
        b = operand_of(operand, x)
        if special and operand == "map":
            b[1, 0, 0, 0] = math.nan
        fields = elementwise_fields(maps, x, op, operand, b, around)
        exact = OPERATIONS[op](x, b)  # one operation, rounded once
        ours = maps.run("elementwise", fields)
        torch.testing.assert_close(ours, exact, rtol=0, atol=0, equal_nan=True)


def test_affine(maps):
    for channels in CHANNELS:
        x, scale, shift = (
            image(channels, special=True),
            torch.randn(channels),
            torch.randn(channels),
        )
        fields = elementwise_fields(
            maps, x, "affine", "none", None, scale=maps.constant(scale), shift=maps.constant(shift),
            act=act("clamp", 0.0, math.inf),
        )  # fmt: skip
        exact = x.double() * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
        close(maps.run("elementwise", fields), exact.relu())


ACTIVATIONS = {
    "none": ((), lambda x: x),
    "clamp": ((-0.5, 1.25), lambda x: x.clamp(-0.5, 1.25)),
    "leaky": ((0.1,), lambda x: F.leaky_relu(x, 0.1)),
    "elu": ((1.5,), lambda x: F.elu(x, 1.5)),
    "sigmoid": ((), torch.sigmoid),
    "silu": ((), F.silu),
    "hard_sigmoid": ((), F.hardsigmoid),
    "hard_swish": ((), F.hardswish),
    "tanh": ((), torch.tanh),
    "gelu": ((), F.gelu),
    "gelu_tanh": ((), lambda x: F.gelu(x, approximate="tanh")),
    "threshold": ((0.75, -0.5), lambda x: F.threshold(x, 0.75, -0.5)),
    "softplus": ((), F.softplus),
    "mish": ((), F.mish),
}
FUNCTIONS = {
    "abs": torch.abs, "exp": torch.exp, "log": torch.log, "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt, "reciprocal": torch.reciprocal, "softplus": F.softplus, "mish": F.mish,
}  # fmt: skip
# Where functions end, change their form, or float32 does.
ENDS = [
    0.0, -0.0, 1.0, *SPECIAL, 88.5, 88.75, -87.5, -95.0, -103.9, -104.0, 1e-40, -1e-40, 3e38,
    1.2e-38, 20.0, 20.5, -20.0,
]  # fmt: skip


@pytest.mark.parametrize("around", [0, 5], ids=["dense", "slice"])
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations(maps, kind, around):
    numbers, function = ACTIVATIONS[kind]
    x = 4 * image(19)
    x[0, 2, 1, 1] = math.nan
    fields = elementwise_fields(maps, x, "identity", "none", None, around, act=act(kind, *numbers))
    close(maps.run("elementwise", fields), function(x.double()))
    b = operand_of("map", x)
    fields = elementwise_fields(maps, x, "add", "map", b, around, act=act(kind, *numbers))
    close(maps.run("elementwise", fields), function((x + b).double()))


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_functions_are_exact_for_each_number(maps, kind):
    """Within a few units in the last place, not of the largest alone; at their ends as torch's."""
    function = FUNCTIONS[kind]
    steps = torch.tensor([1e-6, 0.01, 1.0, 5.0, 30.0]).view(5, 1)
    x = (torch.randn(2, 19, 5, 9) * steps).clamp(-80, 80)
    x = x.abs() if kind in ("log", "sqrt", "rsqrt") else x
    x[0, :, 0, 0] = torch.tensor(ENDS)
    fields = elementwise_fields(maps, x, "identity", "none", None, act=act(kind))
    ours, exact = maps.run("elementwise", fields), function(x.double())
    theirs = function(x)[0, :, 0, 0]
    assert torch.equal(ours[0, :, 0, 0].isnan(), theirs.isnan())
    assert torch.equal(ours[0, :, 0, 0].isinf(), theirs.isinf())
    finite = exact.abs().float().isfinite() & (exact.abs() > 1e-36)
    error = (ours.double() - exact)[finite] / exact[finite]
    assert error.abs().max() <= 4e-7
    tiny = exact.abs() <= 1e-36
    assert (ours.double() - exact)[tiny].abs().sum() <= 1e-35


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_functions_in_place(maps, kind):
    x = image(19).abs()
    fields = elementwise_fields(maps, x, "identity", "none", None, act=act(kind))
    apart = maps.run("elementwise", fields)
    assert torch.equal(maps.run("elementwise", {**fields, "out": fields["x"]}), apart)
