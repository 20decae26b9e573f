"""Normalisations of a network program, against torch in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from network_maps import CHANNELS, close, image


def normalise_fields(maps, x, kind, around=5, **more):
    N, C, H, W = x.shape
    out, _ = maps.place((N, H, W, C), around=around)
    return {
        "x": maps.put(x, around=around), "out": out,
        "kind": ("lrn", "softmax", "layer").index(kind), "size": 0, "alpha": 0.0, "beta": 0.0,
        "k": 0.0, "eps": 0.0, "weight": 0, "shift": 0, **more,
    }  # fmt: skip


@pytest.mark.parametrize("special", [False, True], ids=["finite", "special"])
@pytest.mark.parametrize("beta", [0.75, 0.5, 1.3])
@pytest.mark.parametrize("size", [1, 2, 5, 8, 150])
def test_local_response_norm(maps, size, beta, special):
    for channels in CHANNELS:
        x = 3 * image(channels, (5, 7), special)
        fields = normalise_fields(maps, x, "lrn", size=size, alpha=0.7, beta=beta, k=1.5)
        exact = F.local_response_norm(x.double(), size, 0.7, beta, 1.5)
        close(maps.run("normalise", fields), exact)


def test_local_response_norm_of_huge_and_tiny_numbers(maps):
    x = torch.randn(2, 24, 3, 5) * torch.tensor([1e-15, 1e-3, 1.0, 1e3, 1e15]).view(1, 1, 1, 5)
    for k in (1.0, 1e-20):
        fields = normalise_fields(maps, x, "lrn", size=5, alpha=1e-2, beta=0.6, k=k)
        exact = F.local_response_norm(x.double(), 5, 1e-2, 0.6, k)
        ours = maps.run("normalise", fields)
        assert ((ours - exact).abs() <= 2e-5 * exact.abs()).all()


def test_local_response_norm_of_zero_divided_by_zero(maps):
    x = torch.zeros(1, 9, 1, 2)
    fields = normalise_fields(maps, x, "lrn", size=5, alpha=1.0, beta=0.6, k=0.0)
    assert maps.run("normalise", fields).isnan().all()


@pytest.mark.parametrize("special", [False, True], ids=["finite", "special"])
@pytest.mark.parametrize("scale", [1.0, 60.0])
def test_softmax(maps, scale, special):
    for channels in CHANNELS:
        x = scale * image(channels, (5, 7), special)
        fields = normalise_fields(maps, x, "softmax")
        close(maps.run("normalise", fields), F.softmax(x.double(), 1), 1e-6)


def test_softmax_gives_a_masked_channel_nothing(maps):
    x = image(19, (3, 4))
    x[:, 5:18] = -math.inf
    out = maps.run("normalise", normalise_fields(maps, x, "softmax"))
    assert (out[:, 5:18] == 0).all()
    close(out, F.softmax(x.double(), 1))


@pytest.mark.parametrize("special", [False, True], ids=["finite", "special"])
@pytest.mark.parametrize("affine", [False, True])
def test_layer_norm(maps, affine, special):
    for channels in CHANNELS:
        x = image(channels, (5, 7), special) + 30
        weight, shift = (torch.randn(channels), torch.randn(channels)) if affine else (None, None)
        fields = normalise_fields(
            maps, x, "layer", eps=1e-3, weight=maps.constant(weight), shift=maps.constant(shift)
        )
        exact = F.layer_norm(
            x.double().permute(0, 2, 3, 1),
            (channels,),
            *(t if t is None else t.double() for t in (weight, shift)),
            1e-3,
        )
        close(maps.run("normalise", fields), exact.permute(0, 3, 1, 2), 1e-5)


@pytest.mark.parametrize("kind", ["softmax", "layer"])
def test_normalisation_in_place(maps, kind):
    x = image(70)
    fields = normalise_fields(maps, x, kind, eps=1e-5)
    apart = maps.run("normalise", fields)
    assert torch.equal(maps.run("normalise", {**fields, "out": fields["x"]}), apart)
