"""Group normalisation of a network program, against torch in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from network_maps import act, close, image

from jsc.network.blocking import norm_floats, pixels_of_a_task
from jsc.network.graph import Value

CASES = [  # channels, groups
    (1, 1), (3, 1), (8, 4), (19, 19), (24, 3), (70, 7), (133, 1), (128, 32),
]  # fmt: skip
ACTIVATIONS = {
    "none": ((), lambda x: x),
    "clamp": ((0.0, math.inf), F.relu),
    "mish": ((), F.mish),
}


def group_norm(maps, x, groups, weight=None, shift=None, around=5, eps=1e-3, kind="none", **more):
    N, C, H, W = x.shape
    value = Value((N, H, W, C))
    workspace = maps.put(torch.full((1, norm_floats(value, groups), 1, 1), math.nan), around=0)
    out, _ = maps.place((N, H, W, C), around=around)
    fields = {
        "x": maps.put(x, around=around), "out": out, "groups": groups,
        "pixels": pixels_of_a_task(value), "workspace": workspace["offset"], "eps": eps,
        "weight": maps.constant(weight), "shift": maps.constant(shift),
        "act": act(kind, *ACTIVATIONS[kind][0]), **more,
    }  # fmt: skip
    return maps.run("group_norm", fields, maps.view(workspace))


def exactly(x, groups, weight, shift, eps=1e-3):
    double = (None if t is None else t.double() for t in (weight, shift))
    return F.group_norm(x.double(), groups, *double, eps)


@pytest.mark.parametrize("around", [0, 5], ids=["dense", "slice"])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("special", [False, True], ids=["finite", "special"])
def test_group_norm(maps, special, affine, around):
    for channels, groups in CASES:
        x = image(channels, (5, 7), special) + 3
        if special:
            x[1, 0, 2, 2] = 1e30  # its square is beyond float32
        weight, shift = (torch.randn(channels), torch.randn(channels)) if affine else (None, None)
        ours = group_norm(maps, x, groups, weight, shift, around)
        close(ours, exactly(x, groups, weight, shift), 2e-6)


@pytest.mark.parametrize("pixels", [1, 3, 7, 10, 63, 64, 1365])
def test_pixels_are_cut_anywhere(maps, pixels):
    for around in (0, 5):
        x = image(24, (9, 7))
        value = Value((2, 9, 7, 24))
        weight, shift = torch.randn(24), torch.randn(24)
        tasks = -(-63 // pixels)
        floats = 2 * (tasks * 3 * 4 + 3 * 24)
        assert pixels != pixels_of_a_task(value) or floats == norm_floats(value, 3)
        room = maps.put(torch.full((1, floats, 1, 1), math.nan), around=0)
        out, _ = maps.place((2, 9, 7, 24), around=around)
        fields = {
            "x": maps.put(x, around=around), "out": out, "groups": 3, "pixels": pixels,
            "workspace": room["offset"], "eps": 1e-3, "weight": maps.constant(weight),
            "shift": maps.constant(shift), "act": act(),
        }  # fmt: skip
        ours = maps.run("group_norm", fields, maps.view(room))
        close(ours, exactly(x, 3, weight, shift))


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activation_as_it_is_stored(maps, kind):
    x = image(24)
    ours = group_norm(maps, x, 4, kind=kind)
    close(ours, ACTIVATIONS[kind][1](exactly(x, 4, None, None)))


def test_a_mean_far_from_zero_and_no_variance(maps):
    """As exact as the numbers allow, where torch loses digits."""
    weight = torch.randn(24)
    for mean in (30.0, 3000.0):
        x = image(24) + mean
        ours, exact = group_norm(maps, x, 4, weight), exactly(x, 4, weight, None)
        close(ours, exact, 1e-6)
    x = torch.full((2, 24, 4, 5), 1000.1)
    assert group_norm(maps, x, 4).abs().max() < 1e-2
