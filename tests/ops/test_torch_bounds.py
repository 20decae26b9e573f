"""At the bounds between two formulas derivatives are those of the function, whatever torch's
`clamp` makes of its own bounds (its gradient there is 1 up to torch 2.13, and 0 from 2.14)."""

import math

import pytest
import torch
from samples import gradients

from jsc.functional import soft_quantize
from jsc.ops import _torch
from jsc.ops.quant import SoftQuantize
from jsc.reference import jpeg as reference

F64 = torch.float64
BOUNDS = [_torch.DUAL_BELOW, _torch.SOFTEST]


def beside(bound):
    return [math.nextafter(bound, 0), bound, math.nextafter(bound, math.inf)]


def enumerated(u, kappa):
    """The mean level by a plain sum, which has no bounds."""
    k = torch.arange(-60, 61, dtype=F64)
    weights = torch.softmax(-kappa.unsqueeze(-1) * (u.unsqueeze(-1) - k) ** 2, -1)
    return (weights * k).sum(-1)


def derivatives(f, u, kappa):
    """f, its two first and its three second derivatives."""
    u, kappa = u.clone().requires_grad_(), kappa.clone().requires_grad_()
    y = f(u, kappa)
    first = torch.autograd.grad(y.sum(), (u, kappa), create_graph=True)
    second = [torch.autograd.grad(d.sum(), (u, kappa), retain_graph=True) for d in first]
    return [t.detach() for t in (y, *first, *second[0], second[1][1])]


@pytest.mark.parametrize("bound", BOUNDS)
def test_plain_torch_has_no_gap_at_its_bounds(bound):
    u = torch.linspace(-1.7, 2.3, 41, dtype=F64)
    for value in beside(bound):
        kappa = torch.full_like(u, value)
        found, expected = (derivatives(f, u, kappa) for f in (_torch.lattice_mean, enumerated))
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
        if bound == _torch.DUAL_BELOW:
            assert found[2].abs().max() > 1e-2  # dm / dkappa is there to be lost


@pytest.mark.parametrize("bound", BOUNDS)
def test_second_derivatives_behind_the_kernel(isa, bound):
    u = torch.linspace(-1.7, 2.3, 41, dtype=F64)
    for value in beside(bound):
        found, expected = (
            derivatives(f, u, torch.full_like(u, value))
            for f in (lambda u, k: soft_quantize(u, 1.0, kappa=k), enumerated)
        )
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("other", [_torch, reference], ids=["torch", "reference"])
@pytest.mark.parametrize("quantizer", ["soft", "ste"])
def test_at_the_last_level_all_three_are_one(isa, quantizer, other):
    q, levels = 2.0, 3
    z = torch.tensor([-6.5, -6.0, -5.9, 0.3, 5.9, 6.0, 6.5], dtype=F64)
    tables, kappa = torch.full((7,), q, dtype=F64), torch.full((7,), 4.0, dtype=F64)
    options = {"soft": (0, 0, levels), "ste": (2, 0, levels)}[quantizer]

    def kernel(z, tables, kappa):
        z, tables, kappa = z.view(1, 1, 1, 7), tables.view(1, 7), kappa.view(1, 7)
        return SoftQuantize.apply(z, tables, kappa, options).view(7)

    def plain(z, tables, kappa):
        if quantizer == "ste":
            return other.ste_quantize(z, tables, levels)
        return other.soft_quantize(z, tables, kappa, None, levels)

    g = torch.randn(7, dtype=F64)
    (y, found), (expected, wanted) = (gradients(f, z, tables, kappa, g=g) for f in (kernel, plain))
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert found[0][1] != 0  # at the level itself the slope is that of inside
    assert found[0][0] == 0  # beyond it 0


@pytest.mark.parametrize("entries", [1, 5000])  # the kernel; torch, which takes larger tables
@pytest.mark.parametrize("options", [{}, {"levels": 3}, {"window": 5, "levels": 127}])
def test_nan_stays_nan(dtype, entries, options):
    z = torch.zeros(entries, dtype=dtype)
    z[0] = math.nan
    y = soft_quantize(z, torch.ones_like(z), kappa=4.0, **options)
    assert y[0].isnan()
    assert not y[1:].isnan().any()
