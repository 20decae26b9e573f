"""The plain torch path of production (`jsc.ops._torch`) against the oracle, value and gradient."""

import pytest
import torch
from samples import gradients

from jsc.functional.options import JpegOptions
from jsc.ops import _torch
from jsc.ops._torch_jpeg import layer
from jsc.reference import jpeg as reference
from jsc.reference import rate as oracle

F64 = torch.float64
KAPPAS = (0.0, 0.006, 0.049, 0.3, 1.99, 2.0, 7.0, 60.0)
WINDOWS = [(None, None), (None, 4), (5, None), (5, 4), (3, 1)]


def same(production, by_definition, *inputs, atol=1e-9):
    g = torch.randn(torch.broadcast_shapes(*(t.shape for t in inputs)), dtype=F64)
    (y, found), (expected, wanted) = (
        gradients(f, *inputs, g=g) for f in (production, by_definition)
    )
    torch.testing.assert_close(y, expected, rtol=0, atol=atol)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=atol * max(1, b.abs().max().item()))


def coefficients():
    return (torch.rand(50, 64, dtype=F64) - 0.5) * 40, torch.rand(64, dtype=F64) * 3 + 0.2


@pytest.mark.parametrize("kappa", KAPPAS)
@pytest.mark.parametrize(("window", "levels"), WINDOWS)
def test_soft(kappa, window, levels):
    same(
        lambda *a: _torch.soft_quantize(*a, window, levels),
        lambda *a: reference.soft_quantize(*a, window, levels),
        *coefficients(),
        torch.full((64,), kappa, dtype=F64),
    )


@pytest.mark.parametrize("name", ["hard_quantize", "ste_quantize"])
@pytest.mark.parametrize("levels", [None, 3])
def test_hard_and_straight_through(name, levels):
    z, q = coefficients()
    z[0] = q * torch.arange(64).remainder(9).sub(4).add(0.5)  # ties go to even
    z[1] = 3 * q  # the last level itself
    production, by_definition = getattr(_torch, name), getattr(reference, name)
    same(lambda *a: production(*a, levels), lambda *a: by_definition(*a, levels), z, q)


def test_block_dct():
    x = torch.randn(2, 3, 16, 24, dtype=F64)
    torch.testing.assert_close(_torch.block_dct(x), reference.block_dct(x))
    z = torch.randn(2, 3, 2, 3, 8, 8, dtype=F64)
    torch.testing.assert_close(_torch.block_idct(z), reference.block_idct(z))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quantizer", ["soft", "hard", "ste"])
@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("padding", ["replicate", "zero"])
def test_the_whole_layer(channels, quantizer, rounds, subsampling, padding):
    x = torch.rand(2, channels, 13, 18, dtype=F64)
    shape = (rounds, min(channels, 2), 8, 8)
    q, kappa = torch.rand(shape, dtype=F64) * 20 + 3, torch.rand(shape, dtype=F64) * 6
    g = torch.randn_like(x)
    options = {
        "quantizer": quantizer, "mean": [0.4, 0.5, 0.6][:channels], "levels": 9,
        "std": [0.2, 0.25, 0.3][:channels], "peak": 2.0, "chroma_offset": 0.5,
        "subsampling": subsampling, "padding": padding,
    }  # fmt: skip
    settings = JpegOptions(**options).settings(channels)
    (y, found), (expected, wanted) = (
        gradients(f, x, q, kappa, g=g)
        for f in (
            lambda *a: layer(*a, None, settings),
            lambda *a: reference.jpeg(*a, **options),
        )
    )
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-10)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9 * max(1, b.abs().max().item()))


@pytest.mark.parametrize(("window", "levels"), [(None, None), (None, 3), (5, None), (5, 3)])
@pytest.mark.parametrize("kappa", [0.02, 0.17, 0.8, 6.0])
def test_draws_have_the_distribution_of_the_oracle(kappa, window, levels):
    """With evenly spread noise every level is drawn as often as its probability says, give or take
    the draws at both of its ends (and at those of each residue, where a soft lattice is split)."""
    n = 20_000
    noise = (torch.arange(n, dtype=F64) + 0.5) / n
    q, reach = 0.7, 70
    for u in (0.0, 0.3, -2.5, 2.9):
        z, step, sharp = (torch.full((), v, dtype=F64) for v in (u * q, q, kappa))
        k = _torch.sample_levels(z, step, sharp, noise, window, levels)
        assert torch.equal(k, k.round())
        p = oracle.conditional(z, step, sharp, reach, window, levels)
        last = (len(p) - 1) // 2
        seen = torch.bincount((k + last).long(), minlength=len(p)).double() / n
        torch.testing.assert_close(seen, p, rtol=0, atol=4 / n)
