"""The soft quantiser against its definition (a sum over many levels) and against torch's
autograd."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import gradients, same_bits

from jsc.functional import soft_quantize
from jsc.functional.quant import fold
from jsc.ops.quant import SoftQuantize
from jsc.reference import jpeg as reference

# On both sides of each of the kernels' switches between regimes, see jpeg/softquant.h.
KAPPAS = (
    0.0, 0.19, 0.21, 0.41, 1.0, 1.49, 1.51, 2.74, 2.76, 3.99, 4.01, 5.49, 5.51, 9.9, 10.1, 19.9,
    20.1, 39.9, 40.1, 350.0,
)  # fmt: skip
# In float32, u = z/q has an error of |u| 6e-8, which the slope (kappa / 2 at most) magnifies.
TOLERANCE = {torch.float32: 3e-6, torch.float64: 2e-13}


def by_definition(z, q, kappa, count=60):
    """Sum over `count` levels on either side, float64."""
    z, q, kappa = (t.double() for t in torch.broadcast_tensors(z, q, kappa))
    u = z / q
    k = torch.round(u.detach()).unsqueeze(-1) + torch.arange(-count, count + 1, dtype=torch.float64)
    return q * (torch.softmax(-kappa.unsqueeze(-1) * (u.unsqueeze(-1) - k) ** 2, -1) * k).sum(-1)


@pytest.mark.parametrize("kappa", KAPPAS[1:])
def test_reference_is_the_definition(kappa):
    z = torch.linspace(-9.3, 9.3, 401, dtype=torch.float64)
    q, k = torch.tensor(1.7, dtype=torch.float64), torch.tensor(kappa, dtype=torch.float64)
    count = max(60, math.ceil(6 / math.sqrt(kappa)))
    torch.testing.assert_close(
        reference.soft_quantize(z, q, k), by_definition(z, q, k, count), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("kappa", KAPPAS)
@pytest.mark.parametrize(
    "options",
    [{}, {"levels": 7}, {"window": 5}, {"window": 5, "levels": 7}, {"window": 3, "levels": 4}],
)
def test_value_and_gradients(isa, dtype, kappa, options):
    z = (torch.rand(37, 64, dtype=dtype) - 0.5) * 40
    q, g = torch.rand(64, dtype=dtype) * 3 + 0.2, torch.randn(37, 64, dtype=dtype)
    if "window" in options:  # a windowed sum jumps at cell edges, where rounding decides
        u = z / q
        z = torch.where((u - u.floor() - 0.5).abs() < 1e-3, u + 0.01, u) * q
    k = torch.full((64,), kappa, dtype=dtype)
    y, found = gradients(lambda *a: soft_quantize(a[0], a[1], kappa=a[2], **options), z, q, k, g=g)
    window, levels = options.get("window"), options.get("levels")
    expected, wanted = gradients(
        lambda *a: reference.soft_quantize(*a, window, levels),
        z.double(),
        q.double(),
        k.double(),
        g=g,
    )
    tolerance = TOLERANCE[dtype] * max(1, kappa)
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=40 * tolerance)
    for name, a, b in zip("zqk", found, wanted, strict=True):
        scale = b.abs().max().clamp(min=1).item() * (100 if dtype == torch.float64 else 30)
        torch.testing.assert_close(
            a.double(),
            b,
            rtol=0,
            atol=scale * tolerance * max(1, kappa),
            msg=lambda m, name=name: f"{name}: {m}",
        )


@pytest.mark.parametrize("mode", ["hard", "ste"])
@pytest.mark.parametrize("levels", [None, 3])
def test_hard_and_straight_through(isa, dtype, mode, levels):
    z, q = (torch.rand(1, 1, 30, 64, dtype=dtype) - 0.5) * 20, torch.rand(1, 64, dtype=dtype) + 0.5
    z[0, 0, 0, :] = q[0] * 1.5  # ties go to even
    g = torch.randn_like(z)
    number = {"hard": 1, "ste": 2}[mode]
    y, found = gradients(
        lambda a, b: SoftQuantize.apply(a, b, b.detach(), (number, 0, levels or 0)), z, q, g=g
    )
    quantize = reference.hard_quantize if mode == "hard" else reference.ste_quantize
    expected, wanted = gradients(lambda a, b: quantize(a, b, levels), z, q, g=g)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    leading=st.integers(0, 3), groups=st.integers(1, 3), rows=st.integers(0, 70),
    period=st.sampled_from([1, 3, 8, 11, 64]), window=st.sampled_from([None, 5]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_every_layout(isa, num_threads, dtype, leading, groups, rows, period, window, seed):
    generator = torch.Generator().manual_seed(seed)
    z = (torch.rand((leading, groups, rows, period), generator=generator, dtype=dtype) - 0.5) * 30
    q = torch.rand((groups, 1, period), generator=generator, dtype=dtype) * 2 + 0.3
    kappa = torch.rand((groups, 1, period), generator=generator, dtype=dtype) * 6
    y, found = gradients(
        lambda *a: soft_quantize(a[0], a[1], kappa=a[2], window=window),
        z,
        q,
        kappa,
        g=torch.ones_like(z),
    )
    expected, wanted = gradients(
        lambda *a: reference.soft_quantize(*a, window), z, q, kappa, g=torch.ones_like(z)
    )
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-3 * max(1, leading * rows) ** 0.5)


@pytest.mark.parametrize(
    ("shape", "table", "folded"),
    [
        ((2, 3, 4, 5, 8, 8), (3, 1, 1, 8, 8), (2, 3, 20, 64)),
        ((7,), (), (1, 1, 7, 1)),
        ((4, 64), (64,), (1, 1, 4, 64)),
        ((4, 64), (4, 64), (1, 1, 1, 256)),
        ((4, 1, 64), (1, 1, 64), (1, 1, 4, 64)),
        ((2, 3, 4, 5), (2, 1, 4, 1), None),
    ],
)
def test_fold(shape, table, folded):
    assert fold(shape, table) == folded


def test_tables_that_do_not_fold():
    z = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    q = (torch.rand(2, 1, 2, 1, dtype=torch.float64) + 0.5).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z, q: soft_quantize(z, q, kappa=3.0), (z, q), fast_mode=True
    )


@pytest.mark.parametrize("kappa", [0.05, 0.7, 3.0, 12.0])
@pytest.mark.parametrize("options", [{}, {"levels": 3}, {"window": 5, "levels": 3}])
def test_gradcheck(kappa, options):
    z = (torch.rand(3, 2, 4, dtype=torch.float64) - 0.5) * 6
    q = (torch.rand(2, 4, dtype=torch.float64) + 0.5).requires_grad_()
    k = torch.full((2, 4), kappa, dtype=torch.float64, requires_grad=True)
    # away from cell edges and the saturation corner, where a windowed sum jumps
    u = (z / q).detach()
    z = (torch.where((u - u.floor() - 0.5).abs() < 0.02, u + 0.05, u) * q.detach()).requires_grad_()
    check = torch.autograd.gradcheck
    assert check(lambda z, q, k: soft_quantize(z, q, kappa=k, **options), (z, q, k))
    assert check(lambda z, q, k: soft_quantize(z, q, k, **options), (z, q, k))
    assert torch.autograd.gradgradcheck(
        lambda z, q, k: soft_quantize(z, q, kappa=k, **options),
        (z, q, k),
        fast_mode=True,
        atol=1e-4,
    )


def test_limits(isa, dtype):
    z = torch.linspace(-50, 50, 999, dtype=dtype)
    eps = torch.finfo(dtype).eps
    soft, hard = (soft_quantize(z, 3.0, kappa=k) for k in (0.05, 1e4))
    torch.testing.assert_close(soft, z, rtol=4 * eps, atol=0)  # the identity
    away = ((z / 3 - torch.floor(z / 3)) - 0.5).abs() > 0.01
    torch.testing.assert_close(hard[away], 3 * torch.round(z / 3)[away], rtol=4 * eps, atol=1e-12)
    assert soft_quantize(z.new_zeros(20), 3.0, kappa=50.0).eq(0).all()
    v = z.clone().requires_grad_()
    (slope,) = torch.autograd.grad(soft_quantize(v, 3.0, kappa=2.0).sum(), v)
    assert slope.min() >= 0.85
    assert slope.max() <= 1.15
    assert abs(slope.mean().item() - 1) < 0.01  # mean slope of a cell is 1 for every kappa


@pytest.mark.parametrize("kappa", [0.1, 2.0, 9.0, 1e3])
def test_saturation(isa, dtype, kappa):
    z = torch.tensor([-1e6, -130.0, 0.0, 130.0, 1e6], dtype=dtype, requires_grad=True)
    q = torch.ones((), dtype=dtype, requires_grad=True)
    y = soft_quantize(z, q, kappa=kappa, levels=127)
    torch.testing.assert_close(y.detach(), z.detach().clamp(-127, 127), rtol=0, atol=1e-4)
    dz, dq = torch.autograd.grad(y, (z, q), torch.tensor([1, 1, 0, 0, 0], dtype=dtype))
    assert dz.eq(0).all()
    assert dq.item() == -254


@pytest.mark.parametrize("kappa", [0.1, 2.0, 5.0, 9.0, 15.0, 1e3])
@pytest.mark.parametrize("options", [{}, {"levels": 127}, {"window": 5, "levels": 127}])
def test_what_is_not_a_number_stays_where_it_is(isa, dtype, kappa, options):
    z = torch.randn(40, 64, dtype=dtype)
    z[3, 5], z[7, 1], z[20, 60] = math.nan, math.inf, -math.inf
    y = soft_quantize(z, 0.5, kappa=kappa, **options)
    assert y[3, 5].isnan()
    good = z.isfinite()
    assert y[good].isfinite().all()
    torch.testing.assert_close(
        y[good],
        soft_quantize(z.nan_to_num(0, 0, 0), 0.5, kappa=kappa, **options)[good],
        rtol=0,
        atol=0,
    )
    assert (
        soft_quantize(z, torch.full((64,), math.nan, dtype=dtype), kappa=kappa, **options)
        .isnan()
        .all()
    )


def test_huge_quotients_are_the_identity(isa, dtype):
    z = torch.tensor([1e9, -3e12, 4e20, 2.0**23 + 1], dtype=dtype)
    for kappa in (0.5, 2.0, 5.0, 30.0, 500.0):
        torch.testing.assert_close(soft_quantize(z, 1.0, kappa=kappa), z, rtol=1e-6, atol=0)


@pytest.mark.parametrize("options", [{}, {"window": 5}], ids=str)
@pytest.mark.parametrize("kappa", [1.0, 2.0, 5.0, 10.0, 20.0, 35.0, 100.0])
def test_quotients_too_large_for_a_fraction(isa, dtype, kappa, options):
    """From 2^22 on (float64: 2^51) what a formula takes for the fraction is a rounding error."""
    first = 2.0**22 if dtype == torch.float32 else 2.0**51
    z = torch.logspace(0, 5, 999, 2, dtype=torch.float64).mul(first).to(dtype)
    z = torch.cat([z, -z]).requires_grad_()
    q = torch.tensor(1.0, dtype=dtype, requires_grad=True)
    y = soft_quantize(z, q, kappa=kappa, **options)
    torch.testing.assert_close(y, z, rtol=4 * torch.finfo(dtype).eps, atol=0)
    slope, dq = torch.autograd.grad(y.sum(), (z, q))
    assert (slope.abs() <= kappa + 2).all()
    assert dq.isfinite()


@pytest.mark.parametrize("options", [{}, {"levels": 6}, {"window": 5, "levels": 6}])
@pytest.mark.parametrize("kappa", [15.0, 25.0, 60.0, 500.0, 1e6])
def test_a_number_does_not_see_its_neighbours(isa, dtype, kappa, options):
    """Kernels skip what no lane of a vector needs: the answer must not tell."""
    edges = torch.tensor(
        [0.5, 0.5 - 3 / kappa, 0.5 - 10 / kappa, 0.5 - 19.99 / (2 * kappa), 0.3, 0]
    )
    u = (torch.arange(-8, 9).unsqueeze(1) + torch.cat([edges, -edges])).flatten().to(dtype)

    def answers(z):
        y, (slope,) = gradients(
            lambda z: soft_quantize(z, 1.0, kappa=kappa, **options), z, g=torch.ones_like(z)
        )
        return torch.stack([y, slope])

    alone = [answers(v.repeat(16))[:, 0] for v in u]
    assert torch.equal(answers(u), torch.stack(alone, 1))


@pytest.mark.parametrize("kappa", [1.0, 3.0, 8.0, 10.5, 20.5, 41.0, 1e4, 1e9, 1e15])
def test_levels_and_edges_are_fixed_points(isa, dtype, kappa):
    k = torch.arange(-20, 20, dtype=dtype)
    u = torch.stack([k, k + 0.5]).requires_grad_()
    y = soft_quantize(u, 1.0, kappa=kappa)
    assert torch.equal(y[0], k)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(y[1], k + 0.5, rtol=0, atol=20 * eps if kappa < 40 else 0)
    if kappa < 10:  # the slopes below are those of the two or three nearest levels
        return
    (slope,) = torch.autograd.grad(y.sum(), u)
    share = 2 * math.exp(-kappa) / (1 + 2 * math.exp(-kappa))
    torch.testing.assert_close(
        slope[0], torch.full_like(k, 2 * kappa * share), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(slope[1], torch.full_like(k, kappa / 2), rtol=1e-5, atol=0)


def test_same_bits_for_threads_and_instruction_sets(num_threads, dtype):
    z, q = torch.randn(3, 2, 500, 64, dtype=dtype) * 5, torch.rand(2, 1, 64, dtype=dtype) + 0.1
    kappa, g = torch.rand(2, 1, 64, dtype=dtype) * 8, torch.randn(3, 2, 500, 64, dtype=dtype)

    def run():
        return gradients(lambda *a: soft_quantize(a[0], a[1], kappa=a[2]), z, q, kappa, g=g)

    same_bits(run)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of alpha"),
        ({"alpha": 1.0, "kappa": 1.0}, "exactly one of alpha"),
        ({"alpha": -1.0}, "not negative"),
        ({"kappa": 1.0, "window": 4}, "odd int"),
        ({"kappa": 1.0, "levels": 0}, "levels must be"),
        ({"kappa": 1.0, "window": 5, "levels": 1}, "does not fit"),
        ({"kappa": torch.ones(3)}, "broadcast"),
        ({"kappa": "1"}, "number or a tensor"),
        ({"kappa": torch.ones(8, dtype=torch.float64)}, "dtype"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        soft_quantize(torch.zeros(4, 8), 1.0, **arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z": torch.rand(5, 64)}, "z must be .outer, groups, rows, period."),
        ({"z": torch.rand(2, 3, 5, 64).half()}, "of float32 or float64"),
        ({"z": torch.rand(2, 64, 100, 64)}, r"q must be \(64, 64\)"),
        ({"q": torch.ones(1, 1)}, r"q must be \(3, 64\)"),
        ({"q": torch.ones(3, 64, dtype=torch.float64)}, "q must be .* of torch.float32"),
        ({"kappa": torch.ones(64, 3)}, r"kappa must be \(3, 64\)"),
        ({"mode": 3}, "mode must be from 0 to 2"),
        ({"window": 25}, "window must be 0 or odd"),
        ({"levels": 1, "window": 5}, "levels must be 0"),
    ],
)
def test_operators_refuse_what_their_kernel_cannot_read(change, message):
    table = torch.ones(3, 64)
    given = {"z": torch.rand(2, 3, 5, 64), "q": table, "kappa": table, "mode": 0}
    given |= {"window": 0, "levels": 0, **change}
    with pytest.raises(ValueError, match=message):
        torch.ops.jsc.soft_quantize(*given.values())
    with pytest.raises(ValueError, match=message):
        torch.ops.jsc.soft_quantize_backward(given["z"], *given.values())


@pytest.mark.parametrize("g", [torch.rand(1), torch.rand(2, 3, 5, 64, dtype=torch.float64)])
def test_a_gradient_that_is_unlike_the_coefficients_is_refused(g):
    z, table = torch.rand(2, 3, 5, 64), torch.ones(3, 64)
    with pytest.raises(ValueError, match="the gradient must be"):
        torch.ops.jsc.soft_quantize_backward(g, z, table, table, 0, 0, 0)
