"""Levels drawn: the same as plain torch draws, and as their distribution has them."""

import math

import pytest
import torch
from samples import drawn_levels, gradients

from jsc.functional.options import JpegOptions
from jsc.ops._threefry import threefry
from jsc.ops._torch_jpeg import layer
from jsc.ops.jpeg import Jpeg
from jsc.reference import jpeg as reference


def drawn(x, tables, kappa, seed, **options):
    """Value and gradients of the kernel and of plain torch, for the same seed."""
    settings = JpegOptions(quantizer="sample", **options).settings(x.shape[1])
    g = torch.rand_like(x)
    for f in (Jpeg.call, layer):
        yield gradients(
            lambda *a, f=f: f(*a, torch.tensor([seed]), settings), x, tables, kappa, g=g
        )


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize(("channels", "rounds"), [(3, 1), (3, 3), (1, 2)])
@pytest.mark.parametrize("seed", [0, 1, 2**62 + 2**31 + 5])
def test_draws_are_those_of_plain_torch(
    isa, num_threads, dtype, subsampling, channels, rounds, seed
):
    x = torch.rand(3, channels, 45, 70, dtype=dtype)
    shape = (rounds, min(channels, 2), 8, 8)
    tables = torch.rand(shape, dtype=dtype) * 20 + 4
    # Of every way to draw but windows, in runs of several entries as tables have them.
    kappa = 10 ** torch.linspace(-1.5, 3.5, 64, dtype=dtype).view(8, 8).expand(shape)
    (y, found), (expected, wanted) = drawn(x, tables, kappa, seed, subsampling=subsampling)
    # A number that falls on the bound of two levels may draw either of them in float32.
    apart = (y - expected).abs() > 1e-4
    assert apart.double().mean() <= (0 if dtype == torch.float64 else 0.01)
    if not apart.any():
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-3 * (1 + b.abs().max().item()))
    again, _ = next(drawn(x, tables, kappa, seed + 1, subsampling=subsampling))
    assert not torch.equal(again, y)


@pytest.mark.parametrize("options", [{"window": 5}, {"window": 5, "levels": 6}, {"levels": 6}])
def test_draws_of_windows_and_limits_are_those_of_plain_torch(isa, num_threads, options):
    x = torch.rand(2, 3, 21, 34, dtype=torch.float64)
    tables = torch.rand((1, 2, 8, 8), dtype=torch.float64) * 20 + 4
    kappa = 10 ** torch.linspace(-1.5, 3.5, 64, dtype=torch.float64).view(8, 8).expand(1, 2, 8, 8)
    (y, _), (expected, _) = drawn(x, tables, kappa, 7, **options)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-6)


def test_numbers_are_threefrys():
    """The first vectors of kat_vectors of Random123 1.14 for threefry4x32, 20 rounds."""
    for word, key, expected in (
        (0, 0, (0x9C6CA96A, 0xE17EAE66, 0xFC10ECD4, 0x5256A7D8)),
        (0xFFFFFFFF, 0xFFFFFFFF, (0x2A881696, 0x57012287, 0xF6C7446E, 0xA16A6732)),
    ):
        words, keys = ([torch.tensor(v)] * 4 for v in (word, key))
        assert tuple(int(w) for w in threefry(words, keys)) == expected


@pytest.mark.parametrize("kappa", [1e-4, 0.05, 0.3, 2.0, 30.0, 90.0])
@pytest.mark.parametrize("window", [0, 5])
def test_sampling_has_the_right_mean_and_spread(isa, kappa, window):
    n = 64 * 3200
    q, k = (
        torch.full((1, 1), 2.5, dtype=torch.float64),
        torch.full((1, 1), kappa, dtype=torch.float64),
    )
    levels = drawn_levels(0.3, 2.5, kappa, n, window=window or None)
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-9)
    u = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    mean = (
        reference.soft_quantize(u, q[0], k[0], window or None)
        if window
        else reference.lattice_mean(u, k[0])
    )
    if window:
        candidates = torch.arange(-2.0, 3.0, dtype=torch.float64)
        p = torch.softmax(-kappa * (0.3 - candidates) ** 2, 0)
        mean, variance = (
            (p * candidates).sum(),
            (p * candidates**2).sum() - (p * candidates).sum() ** 2,
        )
    else:
        (slope,) = torch.autograd.grad(mean, u)
        variance = slope / (2 * kappa)
    assert abs((levels.mean() - mean).item()) < 5 * math.sqrt(variance.item() / n) + 1e-4
    assert levels.var().item() == pytest.approx(variance.item(), rel=0.05, abs=1e-4)


@pytest.mark.parametrize("kappa", [1e-9, 1e-8, 1e-7, 1e-4, 2.0])
def test_no_draw_is_far_out(isa, dtype, kappa):
    """Numbers in steps of 2^-23 have no 0, at which an inversion draws the very last level."""
    spread = max((2 * max(kappa, 1e-8)) ** -0.5, 1.0)
    levels = drawn_levels(0.3, 1.0, kappa, 64 * 6400, dtype=dtype)
    assert levels.abs().max() < 6.0 * spread
    assert levels.double().mean().abs() < 0.3 + 0.01 * spread
