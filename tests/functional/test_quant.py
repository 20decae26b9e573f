"""What each quantiser is: limits, continuity and slopes of "soft", the distribution of "sample",
the gradient of each way to hold its sharpness."""

import math

import pytest
import scipy.stats
import torch
from samples import drawn_levels, gradients, photo

import jsc
from jsc.functional import jpeg, soft_quantize

F64 = torch.float64
# of the kernels' switches between regimes, see jpeg/softquant.h and softquant_entry.h
SWITCHES = (0.2, 0.4, 1.5, 2.75, 4.0, 5.5, 10.0, 20.0, 40.0)


def cell(n=4096, q=1.0, centre=0.0):
    """Midpoints of n equal parts of the cell around `centre`, in units of z."""
    return q * (centre + (torch.arange(n, dtype=F64) + 0.5) / n - 0.5)


def slope(z, q=1.0, **options):
    z = z.clone().requires_grad_()
    return torch.autograd.grad(soft_quantize(z, q, **options).sum(), z)[0]


@pytest.mark.parametrize("kappa", [0.3, 0.5, 0.7, 1.0, 2.0])
def test_soft_limit_is_the_identity(isa, kappa):
    z = cell(q=1.7, centre=3)
    distance = (soft_quantize(z, 1.7, kappa=kappa) - z).abs().max().item() / 1.7
    # the first term of the dual series; the second is less than its square
    expected = 2 * math.pi / kappa * math.exp(-(math.pi**2) / kappa)
    assert distance == pytest.approx(expected, rel=0.02, abs=2e-15)


@pytest.mark.parametrize("kappa", [0.0, 1e-30, 1e-3, 0.1])
def test_hardly_any_hardness_is_the_identity_and_not_hard(isa, kappa):
    z = torch.linspace(-900, 900, 4001, dtype=F64)
    torch.testing.assert_close(soft_quantize(z, 7.0, kappa=kappa), z, rtol=1e-14, atol=0)
    torch.testing.assert_close(slope(z, 7.0, kappa=kappa), torch.ones_like(z))


@pytest.mark.parametrize("kappa", [8.0, 30.0, 300.0, 1e4])
def test_hard_limit(isa, kappa):
    u = cell(centre=-5)
    distance = (soft_quantize(u, 1.0, kappa=kappa) - u.round()).abs()
    # the two nearest levels share it by the distance from the edge between them; a third has less
    edge = 0.5 - (u - u.round()).abs()
    atol = 2 * math.exp(-kappa) + 1e-11
    torch.testing.assert_close(distance, torch.sigmoid(-2 * kappa * edge), rtol=0, atol=atol)


@pytest.mark.parametrize("kappa", [0.05, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 30.0, 300.0])
def test_continuous_and_of_mean_slope_one(isa, kappa):
    steepest = max(1.5, kappa / 2) + 1
    for gap in (1e-3, 1e-6, 1e-9):  # at edges, at centres and between
        u = torch.tensor([-1.5, -0.5, 0.0, 0.5, 2.5, 101.5, 0.25], dtype=F64)
        below, above = (soft_quantize(u + side, 1.0, kappa=kappa) for side in (-gap / 2, gap / 2))
        assert ((above - below) >= -1e-13).all()
        assert ((above - below) <= steepest * gap + 1e-12).all()
    slopes = slope(cell(), kappa=kappa)
    assert slopes.mean().item() == pytest.approx(1, abs=1e-8)
    jump = slope(torch.tensor([0.5 - 1e-9, 0.5 + 1e-9], dtype=F64), kappa=kappa)
    assert jump[0].item() == pytest.approx(jump[1].item(), rel=1e-5)
    least, most = slopes.min().item(), slopes.max().item()
    if kappa <= 2:
        ripple = 4 * math.pi**2 / kappa * math.exp(-(math.pi**2) / kappa)
        assert (1 - least, most - 1) == pytest.approx((ripple, ripple), rel=0.03, abs=1e-12)
    if kappa >= 8:
        assert most == pytest.approx(kappa / 2, rel=5e-3)
        assert least == pytest.approx(4 * kappa * math.exp(-kappa), rel=5e-3, abs=1e-15)


@pytest.mark.parametrize("kappa", SWITCHES)
def test_no_jump_where_the_kernel_changes_its_series(isa, dtype, kappa):
    u = cell(512, centre=2).to(dtype)
    eps = torch.finfo(dtype).eps
    (a, da), (b, db) = (
        (soft_quantize(u, 1.0, kappa=k), slope(u, kappa=k))
        for k in (kappa * (1 - 4 * eps), kappa * (1 + 4 * eps))
    )
    torch.testing.assert_close(a, b, rtol=0, atol=40 * eps * max(1, kappa))
    torch.testing.assert_close(da, db, rtol=0, atol=2e3 * eps * max(1, kappa) ** 2)


@pytest.mark.parametrize("kappa", [0.3, 1.5, 6.0, 60.0])
def test_closed_form_gradients(isa, kappa):
    q = 2.5
    z = cell(64, q, centre=4)
    k = torch.arange(-200, 209, dtype=F64)
    u = (z / q).unsqueeze(-1)
    p = torch.softmax(-kappa * (u - k) ** 2, -1)
    mean = (p * k).sum(-1)
    variance = (p * (k - mean.unsqueeze(-1)) ** 2).sum(-1)
    square = (k - u) ** 2
    covariance = (p * (k - mean.unsqueeze(-1)) * square).sum(-1)
    tables, hardness = torch.full_like(z, q), torch.full_like(z, kappa)
    ones = torch.ones_like(z)
    y, (dz, dq, dkappa) = gradients(
        lambda *a: soft_quantize(a[0], a[1], kappa=a[2]), z, tables, hardness, g=ones
    )
    tolerance = {"rtol": 0, "atol": 1e-11 * max(1, kappa)}
    torch.testing.assert_close(y, q * mean, **tolerance)
    torch.testing.assert_close(dz, 2 * kappa * variance, **tolerance)
    torch.testing.assert_close(dq, mean - 2 * kappa * u[:, 0] * variance, **tolerance)
    torch.testing.assert_close(dkappa, -q * covariance, **tolerance)
    _, (_, dq, dalpha) = gradients(soft_quantize, z, tables, hardness / q**2, g=ones)
    torch.testing.assert_close(dalpha, -(q**3) * covariance, rtol=0, atol=1e-10 * max(1, kappa))
    held = mean - 2 * kappa * u[:, 0] * variance - 2 * kappa * covariance
    torch.testing.assert_close(dq, held, **tolerance)


@pytest.mark.parametrize("u", [0.0, 0.3, -2.45, 40.49])
@pytest.mark.parametrize(
    ("kappa", "options"),
    [
        (1e-3, {}), (0.1, {}), (0.7, {}), (2.5, {}), (20.0, {}),
        (0.1, {"window": 5}), (0.7, {"window": 3, "levels": 2}), (0.7, {"levels": 3}),
    ],
)  # fmt: skip
def test_draws_follow_their_distribution(isa, u, kappa, options):
    n, q = 64 * 940, 2.5
    window, levels = options.get("window"), options.get("levels")
    drawn = drawn_levels(u, q, kappa, n, **options)
    k = drawn.round()
    torch.testing.assert_close(k, drawn, rtol=0, atol=1e-10)
    z, drawn = torch.full((n,), u * q, dtype=F64), k * q

    spread = math.ceil(8 / math.sqrt(2 * kappa)) + 2
    first, last = round(u) - spread, round(u) + spread
    if window:
        first = round(u) - window // 2
        if levels:
            first = min(max(first, -levels), levels + 1 - window)
        last = first + window - 1
    support = torch.arange(first, last + 1, dtype=F64)
    p = torch.softmax(-kappa * (u - support) ** 2, 0)
    if levels:  # what is drawn beyond is clamped
        support = support.clamp(-levels, levels)
    values = support.unique()
    p = torch.stack([p[support == v].sum() for v in values])
    seen = torch.stack([(k == v).sum() for v in values]).double()
    assert seen.sum() == n  # nothing outside the support
    common = n * p >= 5
    counts = torch.cat([seen[common], seen[~common].sum(0, keepdim=True)])
    expected = torch.cat([n * p[common], n * p[~common].sum(0, keepdim=True)])
    used = expected > 1e-3
    assert counts[~used].sum() == 0
    test = scipy.stats.chisquare(counts[used], expected[used] * (n / expected[used].sum()))
    assert used.sum() == 1 or test.pvalue > 1e-3
    if not levels:
        mean = soft_quantize(z[:1], q, kappa=kappa, **options).item()
        assert drawn.mean().item() == pytest.approx(
            mean, abs=5 * drawn.std().item() / n**0.5 + 2e-3
        )


def test_mean_image_of_many_draws_is_the_soft_image():
    x, tables = photo(1, 16, 24, dtype=F64), jsc.jpeg.quality_tables(30, F64)
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack(
        [jpeg(x, tables, kappa=1.0, quantizer="sample", generator=generator) for _ in range(600)]
    )
    error = (draws.mean(0) - jpeg(x, tables, kappa=1.0)).abs() / (draws.std(0) / 600**0.5)
    assert error.max() < 5
    assert error.square().mean().item() == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("options", [{}, {"window": 5, "levels": 127}])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_gradient_of_a_draw_is_that_of_the_mean(options, subsampling):
    inputs = (
        photo(2, 20, 24, dtype=F64),
        jsc.jpeg.quality_tables(40, F64),
        torch.tensor(1.5).double(),
    )
    g = torch.randn(inputs[0].shape, dtype=F64)
    found, expected = (
        gradients(
            lambda x, t, k, name=name: jpeg(
                x, t, kappa=k, quantizer=name, subsampling=subsampling, **options
            ),
            *inputs,
            g=g,
        )[1]
        for name in ("sample", "soft")
    )
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
        assert b.abs().max() > 0


@pytest.mark.parametrize("name", ["alpha", "kappa"])
@pytest.mark.parametrize("each", [False, True])
def test_logarithms_get_the_gradient_of_what_they_stand_for(name, each):
    x = photo(2, 16, 24, dtype=F64)
    value = torch.tensor(2.0 if name == "kappa" else 0.01, dtype=F64)
    if each:
        value = value * (0.5 + torch.rand(2, 8, 8, dtype=F64))
    layer = jsc.nn.JPEG(jsc.jpeg.quality_tables(40, F64), **{name: value}, train_alpha=True)
    _, (_, expected) = gradients(
        lambda t, v: jpeg(x, t, **{name: v}), layer.tables, value, g=torch.ones_like(x)
    )
    layer(x).sum().backward()
    log = getattr(layer, f"log_{name}")
    assert log.shape == value.shape
    torch.testing.assert_close(log.grad, expected * value, rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", ["alpha", "kappa"])
def test_fixed_sharpness_is_no_parameter(name):
    layer = jsc.nn.JPEG(**{name: 2.0})
    assert [n for n, _ in layer.named_parameters()] == ["tables"]
    assert [n for n, _ in layer.named_buffers()] == [name]
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    layer(photo()).sum().backward()
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())
