"""Arithmetic and activations of a network program, against torch."""

import math

import pytest
import torch
import torch.nn.functional as F
from network_maps import CHANNELS, act, close, image

from jsc.network.emit import NOWHERE

OPERATIONS = {
    "identity": lambda x, b: x + 0 * b, "add": torch.add, "sub": torch.sub, "mul": torch.mul,
    "div": torch.div, "max": torch.maximum, "min": torch.minimum,
}  # fmt: skip
OPERANDS = ("none", "map", "pixel", "channel", "vector", "scalar")


def elementwise_fields(maps, x, op, operand, b, around=5, **more):
    N, C, H, W = x.shape
    out, _ = maps.place((N, H, W, C), around=around)
    other, vector, scalar = NOWHERE, 0, 0.0
    if operand in ("map", "pixel", "channel"):
        other = maps.put(b, around=around)
    elif operand == "vector":
        vector = maps.constant(b.flatten())
    elif operand == "scalar":
        scalar = b.item()
    return {
        "x": maps.put(x, around=around), "other": other, "out": out,
        "op": [*OPERATIONS, "affine"].index(op), "operand": OPERANDS.index(operand),
        "scale": vector, "shift": 0, "scalar": scalar, "act": act(), **more,
    }  # fmt: skip


def operand_of(kind, x):
    N, C, H, W = x.shape
    shapes = {
        "map": (N, C, H, W), "pixel": (N, C, 1, 1), "channel": (N, 1, H, W), "vector": (1, C, 1, 1),
        "scalar": (1, 1, 1, 1),
    }  # fmt: skip
    return torch.randn(shapes[kind])


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
}


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
