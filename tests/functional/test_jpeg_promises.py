"""What docs/reliability.md promises of the JPEG layer: P5 values, P6 gradients, P7 real JPEG files,
P10 finite numbers. Some examples by default, all of them with `-m slow`."""

from __future__ import annotations

import io

import numpy as np
import pytest
import scipy.fft
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import photo

import jsc
from jsc.functional import jpeg

F32, F64 = torch.float32, torch.float64
MATRIX = np.array(
    [[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]]
)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def by_scipy(x, tables, kappa):
    """The layer in numpy and `scipy.fft.dctn`, levels enumerated; images of whole blocks."""
    n, _, h, w = x.shape
    planes = np.einsum("ij,njhw->nihw", MATRIX, x * 255.0 - 128)
    blocks = planes.reshape(n, 3, h // 8, 8, w // 8, 8).swapaxes(3, 4)
    z = scipy.fft.dctn(blocks, axes=(-2, -1), norm="ortho")
    q = tables[[0, 1, 1]][:, None, None]
    k = np.round(z / q)[..., None] + np.arange(-12, 13)
    logits = -kappa * ((z / q)[..., None] - k) ** 2
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    y = q * (weights * k).sum(-1) / weights.sum(-1)
    planes = scipy.fft.idctn(y, axes=(-2, -1), norm="ortho").swapaxes(3, 4).reshape(n, 3, h, w)
    return (np.einsum("ij,njhw->nihw", np.linalg.inv(MATRIX), planes) + 128) / 255


def check_p5(isa_level, seed, h, w, kappa, quality):
    x = photo(2, 8 * h, 8 * w, dtype=F64, seed=seed)
    tables = jsc.jpeg.quality_tables(quality, F64)
    y = jpeg(x.float(), tables.float(), kappa=kappa).double().numpy() * 255
    expected = by_scipy(x.numpy(), tables.numpy(), kappa) * 255
    assert np.abs(y - expected).max() <= 2e-3


P5 = {
    "seed": st.integers(0, 2**20), "h": st.integers(1, 5), "w": st.integers(1, 5),
    "kappa": st.floats(0.6, 8), "quality": st.integers(1, 100),
}  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(**P5)
def test_p5_float32_is_scipy_in_float64(isa, **example):
    """To 2e-3 grey levels; up to kappa = 8, from which on the slope of the quantiser itself turns
    float32's rounding of a coefficient into more."""
    check_p5(isa, **example)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(**P5)
def test_p5_deep(**example):
    check_p5(None, **example)


@pytest.mark.parametrize("quality", [1, 50, 100])
@pytest.mark.parametrize("dtype", [F32, F64])
def test_p5_without_quantisation_the_image_comes_back(isa, dtype, quality):
    x = photo(2, 37, 50, dtype=dtype)
    fine = torch.full((2, 8, 8), 1e-5, dtype=dtype)
    for tables, options in (
        (fine, {"kappa": 1e4}), (fine, {"quantizer": "hard"}),
        (jsc.jpeg.quality_tables(quality, dtype), {"kappa": 0.0}),
    ):  # fmt: skip
        assert (jpeg(x, tables, **options) - x).abs().max() * 255 <= 1e-3


def check_p6(seed):
    r = np.random.default_rng(seed)
    shape = (int(r.integers(1, 3)), int(r.choice([1, 3])), *map(int, r.integers(1, 20, 2)))
    x = torch.rand(shape, generator=generator(seed), dtype=F64, requires_grad=True)
    tables = torch.rand(2, 8, 8, generator=generator(seed + 1), dtype=F64) * 20 + 20
    alpha = (float(r.uniform(0.2, 9)) / tables**2).requires_grad_()
    arguments = (x, tables.requires_grad_(), alpha)
    f = lambda x, t, a: jpeg(x, t, alpha=a)  # noqa: E731
    assert torch.autograd.gradcheck(f, arguments, fast_mode=True)  # rtol 1e-3, atol 1e-5
    assert torch.autograd.gradgradcheck(f, arguments, fast_mode=True, atol=1e-4)
    g = torch.randn(shape, generator=generator(seed + 2), dtype=F64)
    exact = torch.autograd.grad(f(*arguments), arguments, g)
    single = [t.detach().float().requires_grad_() for t in arguments]
    for a, b in zip(torch.autograd.grad(f(*single), single, g.float()), exact, strict=True):
        assert (a.double() - b).norm() <= 1e-4 * b.norm() + 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_p6_gradients(seed):
    check_p6(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4, 104))
def test_p6_deep(seed):
    check_p6(seed)


@pytest.mark.parametrize("quality", [5, 50, 95])
def test_p7_infinite_sharpness_is_rounding(isa, dtype, quality):
    x, tables = photo(2, 40, 56, dtype=dtype), jsc.jpeg.quality_tables(quality, dtype)
    hard = jpeg(x, tables, quantizer="hard")
    for options in ({"alpha": 1e12}, {"kappa": 1e12}):
        apart = (jpeg(x, tables, **options) - hard).abs() * 255
        assert apart.max() <= (1e-9 if dtype == F64 else 1e-3)


def beside_pillow(seed, quality):
    """Grey levels between the layer with hard rounding and a real file with its tables, on average;
    what `decoded` computes is the file itself."""
    image = pytest.importorskip("PIL.Image")
    layer = jsc.nn.JPEG.from_quality(quality, quantizer="hard").requires_grad_(False)
    spread = 0.7 + 0.6 * torch.rand(2, 8, 8, generator=generator(seed))  # tables of no encoder
    layer.tables.mul_(spread).round_().clamp_(1, 255)
    pixels = (photo(1, 72, 88, seed=seed)[0] * 255).round().to(torch.uint8)
    file = io.BytesIO()
    steps = layer.quant_tables()
    qtables = [table.flatten().tolist() for table in steps]
    image.fromarray(pixels.permute(1, 2, 0).numpy()).save(
        file, "JPEG", qtables=qtables, subsampling="4:4:4"
    )
    real = jsc.jpeg.load(file)
    assert torch.equal(jsc.jpeg.read_tables(file), steps)
    assert torch.equal(jsc.jpeg.decoded(pixels[None], steps)[0], real)
    found = layer(pixels[None] / 255).clamp(0, 1)[0] * 255
    return (found - real.float()).abs().mean().item()


@pytest.mark.parametrize("quality", [10, 30, 50, 75])
def test_p7_is_pillows_jpeg_with_the_same_tables(quality):
    """To 1 grey level. Above quality 75 libjpeg's own rounding of Y, Cb and Cr to 8 bits is as
    large as a step of the tables, and they are up to 1.6 apart; `decoded` is always the same."""
    assert np.mean([beside_pillow(seed, quality) for seed in range(3)]) <= 1


@pytest.mark.slow
@pytest.mark.parametrize(("quality", "most"), [(5, 1), (20, 1), (50, 1), (75, 1), (95, 1.7)])
def test_p7_deep(quality, most):
    assert np.mean([beside_pillow(seed, quality) for seed in range(100)]) <= most


def check_p10(seed, dtype, steps, alpha, quantizer, window, levels, subsampling, size, scale):
    x = torch.rand((1, 3, *size), generator=generator(seed), dtype=dtype) * scale - scale / 4
    tables = steps if isinstance(steps, int) else torch.full((2, 8, 8), steps, dtype=dtype)
    if isinstance(steps, int):
        tables = jsc.jpeg.quality_tables(steps, dtype)
    elif seed % 2:  # of all sizes side by side
        tables = 1e-5 * (steps / 1e-5) ** torch.rand(
            2, 8, 8, generator=generator(seed), dtype=dtype
        )
    arguments = (
        x.requires_grad_(),
        tables.requires_grad_(),
        torch.tensor(alpha, dtype=dtype).requires_grad_(),
    )
    y = jpeg(
        arguments[0], arguments[1], alpha=arguments[2], quantizer=quantizer, window=window,
        levels=levels, subsampling=subsampling,
    )  # fmt: skip
    assert y.isfinite().all()
    gradients = torch.autograd.grad(y.square().mean(), arguments, allow_unused=True)
    assert all(g is None or bool(g.isfinite().all()) for g in gradients)


P10 = {
    "seed": st.integers(0, 2**20), "dtype": st.sampled_from([F32, F64]),
    "steps": st.integers(1, 100) | st.floats(1e-5, 255) | st.sampled_from([1e-5, 255.0]),
    "alpha": st.floats(0, 1e6) | st.sampled_from([0.0, 5.0, 1e6, 1e-30]),
    "quantizer": st.sampled_from(["soft", "soft", "soft", "hard", "ste", "sample"]),
    "window": st.sampled_from([None, None, 5]), "levels": st.sampled_from([None, None, 127]),
    "subsampling": st.sampled_from(["4:4:4", "4:4:4", "4:2:0"]),
    "size": st.tuples(st.integers(1, 17), st.integers(1, 17)),
    "scale": st.sampled_from([1.0, 1.0, 0.0, 30.0]),
}  # fmt: skip


@settings(max_examples=300)
@given(**P10)
def test_p10_finite_in_finite_out(**example):
    check_p10(**example)


@pytest.mark.slow
@settings(max_examples=100_000, deadline=None)
@given(**P10)
def test_p10_deep(**example):
    check_p10(**example)
