"""`jsc.functional.jpeg_rate`: against enumeration of all levels, its gradients, its limits."""

import math

import pytest
import torch
from torch.library import opcheck

import jsc
from jsc.functional import block_dct, jpeg_rate
from jsc.ops import rate as ops
from jsc.ops.quant import MODES
from jsc.reference import jpeg as reference
from jsc.reference import rate as oracle

COMPILER = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
SOFT = MODES["soft"]


def rows(dtype=torch.float64, count=200):
    """Three frequencies: narrow, wide, and wide about a level far from zero."""
    scale = torch.tensor([[3.0], [20.0], [300.0]], dtype=dtype)
    z = torch.randn(3, count, dtype=dtype) * scale
    z[2] += 900
    return z, torch.tensor([2.0, 7.0, 5.0], dtype=dtype)


def both(z, q, kappa, window=0, levels=0):
    """(value, dz, dq, dkappa) of the operator, and of the enumeration in float64."""
    found = []
    for function, dtype in ((ops.LevelEntropy.apply, z.dtype), (None, torch.float64)):
        inputs = [t.to(dtype).detach().clone().requires_grad_() for t in (z, q, kappa)]
        if function is None:
            h = oracle.level_entropy(*inputs, window or None, levels or None)
        else:
            h = function(*inputs, (SOFT, window, levels))
        found.append((h.detach(), *torch.autograd.grad(h.sum(), inputs)))
    return found


def off(found, expected):
    return ((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6)).item()


@pytest.mark.parametrize(("window", "levels"), [(0, 0), (0, 5), (0, 127), (5, 0), (5, 4), (5, 127)])
@pytest.mark.parametrize("kappa", [0.05, 0.3, 1.0, 2.0, 5.0, 30.0])
def test_is_the_enumeration(kappa, window, levels):
    z, q = rows()
    kappa = torch.full((3,), kappa, dtype=torch.float64)
    for found, expected in zip(*both(z, q, kappa, window, levels), strict=True):
        assert off(found, expected) < 1e-9


@pytest.mark.parametrize("kappa", [0.05, 0.3, 2.0, 5.0])
def test_float32(kappa):
    z, q = rows(torch.float32)
    for found, expected in zip(*both(z, q, torch.full((3,), kappa)), strict=True):
        assert found.dtype == torch.float32
        assert off(found.double(), expected) < 2e-4


@pytest.mark.parametrize("kappa", [0.001, 0.005, 0.02, 0.039])
def test_merged_levels(kappa):
    z, q = rows()
    kappa = torch.full((3,), kappa, dtype=torch.float64)
    (value, *gradients), (expected, *wanted) = both(z, q, kappa)
    assert (value - expected).abs().max() < 1e-5
    assert all(off(a, b) < 1e-3 for a, b in zip(gradients, wanted, strict=True))
    if kappa[0] < ops.SOFTEST_SATURATED:
        (value, *_), (expected, *_) = both(z, q, kappa, levels=127)
        assert (value - expected).abs().max() < 0.05


def test_different_hardness_side_by_side():
    z, q = rows()
    kappa = torch.tensor([0.02, 1.0, 400.0], dtype=torch.float64)
    (value, *_), (expected, *_) = both(z, q, kappa)
    assert (value - expected).abs().max() < 1e-5


@pytest.mark.parametrize("levels", [None, 1, 5])
def test_hard_is_the_entropy_of_the_levels(levels):
    z, q = rows()
    found = ops.LevelEntropy.apply(z, q, torch.ones_like(q), (MODES["hard"], 0, levels or 0))
    torch.testing.assert_close(found, oracle.hard_entropy(z, q, levels))
    inputs = z.clone().requires_grad_(), q.clone().requires_grad_(), torch.ones_like(q)
    (soft,) = torch.autograd.grad(ops.LevelEntropy.apply(*inputs, (SOFT, 0, 0)).sum(), inputs[1])
    for name, expected in (("hard", torch.zeros_like(soft)), ("ste", soft)):
        h = ops.LevelEntropy.apply(*inputs, (MODES[name], 0, 0))
        torch.testing.assert_close(torch.autograd.grad(h.sum(), inputs[1])[0], expected)
    sharp = ops.LevelEntropy.apply(z, q, torch.full_like(q, 1e7), (SOFT, 0, levels or 0))
    torch.testing.assert_close(sharp, found, rtol=0, atol=1e-3)


def test_known_values():
    z = torch.tensor([[0.0, 1, 2, 3], [0.0, 0, 0, 0]])
    found = ops.LevelEntropy.apply(z, torch.ones(2), torch.ones(2), (MODES["hard"], 0, 0))
    assert found.tolist() == [2.0, 0.0]
    wide = torch.zeros(1, 1)  # one block: the entropy of P itself, nearly that of a Gaussian
    found = ops.LevelEntropy.apply(wide, torch.ones(1), torch.full((1,), 0.1), (SOFT, 0, 0))
    gaussian = 0.5 * math.log2(2 * math.pi * math.e / 0.2)
    assert found.item() == pytest.approx(gaussian, abs=1e-4)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("size", [(24, 32), (13, 21)])
def test_is_its_definition(subsampling, size):
    x = torch.rand(2, 3, *size, dtype=torch.float64)
    tables = torch.rand(2, 8, 8, dtype=torch.float64) * 20 + 10
    v, u = {"4:4:4": (1, 1), "4:2:2": (1, 2), "4:2:0": (2, 2)}[subsampling]
    y, cb, cr = reference.rgb_to_ycc(*(x * 255).unbind(1))
    planes = torch.stack([y - 128, cb, cr], 1)
    bits = 0
    for c in range(3):
        a, b = (v, u) if c else (1, 1)
        more = (0, -size[1] % (8 * b), 0, -size[0] % (8 * a))
        plane = torch.nn.functional.pad(planes[:, c : c + 1], more, mode="replicate")
        z = block_dct(torch.nn.functional.avg_pool2d(plane, (a, b)))
        z = z.reshape(-1, 64).T
        q = tables[min(c, 1)].flatten()
        bits += z.shape[1] * oracle.level_entropy(z, q, torch.full_like(q, 2.0)).sum()
    found = jpeg_rate(x, tables, kappa=2.0, subsampling=subsampling)
    torch.testing.assert_close(found, bits / (2 * size[0] * size[1]))
    normalised = jpeg_rate(
        (x * 255 - 100) / 50, tables, kappa=2.0, subsampling=subsampling,
        mean=100.0, std=(50.0, 50.0, 50.0), peak=255.0,
    )  # fmt: skip
    torch.testing.assert_close(normalised, found)


@pytest.mark.parametrize("shape", [(1, 3, 16, 17), (2, 1, 9, 8)])
@pytest.mark.parametrize("name", ["kappa", "alpha"])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_gradcheck(shape, name, subsampling):
    x = torch.rand(shape, dtype=torch.float64, requires_grad=True)
    tables = (torch.rand(2, 8, 8, dtype=torch.float64) * 20 + 20).requires_grad_()
    sharpness = torch.tensor(1.5 if name == "kappa" else 0.002, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x, t, s: jpeg_rate(x, t, **{name: s}, subsampling=subsampling),
        (x, tables, sharpness.requires_grad_()),
        fast_mode=True, atol=1e-5,
    )  # fmt: skip


def test_same_bits_for_any_number_of_threads(dtype):
    x = torch.rand(2, 3, 64, 96, dtype=dtype)
    found = []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        tables = jsc.jpeg.quality_tables(50, dtype).requires_grad_()
        rate = jpeg_rate(x, tables, kappa=2.0)
        rate.backward()
        found.append((rate.detach(), tables.grad))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_layers_rate_follows_its_options():
    x = torch.rand(2, 3, 20, 28)
    layer = jsc.nn.JPEG.from_quality(30, kappa=2.0, train_alpha=True, subsampling="4:2:0")
    layer.rate(x).backward()
    assert layer.tables.grad.lt(0).float().mean() > 0.9  # larger steps cost fewer bits
    assert layer.log_kappa.grad is not None
    assert jsc.nn.JPEG.from_quality(80, kappa=2.0).rate(x) > layer.rate(x)
    assert jsc.nn.JPEG.from_quality(80).rate(x[:, :1]) < jsc.nn.JPEG.from_quality(80).rate(x)
    assert jsc.nn.JPEG.preset("jpeg-dl").rate(255 * x).isfinite()


def test_training_lowers_the_rate():
    torch.manual_seed(1)
    x = torch.rand(2, 3, 32, 32)
    layer = jsc.nn.JPEG.from_quality(75, kappa=2.0)
    before = layer.rate(x).item()
    optimizer = torch.optim.Adam([layer.tables], lr=2.0)
    for _ in range(5):
        optimizer.zero_grad()
        (0.1 * layer.rate(x)).backward()
        optimizer.step()
    assert layer.rate(x).item() < 0.9 * before


@COMPILER
def test_torchs_transforms():
    x, tables = torch.rand(1, 3, 16, 16), torch.rand(2, 8, 8) * 20 + 5
    f = lambda t: jpeg_rate(x, t, kappa=2.0)  # noqa: E731
    leaf = tables.clone().requires_grad_()
    (expected,) = torch.autograd.grad(f(leaf), leaf, create_graph=True)
    torch.testing.assert_close(torch.func.grad(f)(tables), expected.detach())
    torch._dynamo.reset()
    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(tables), f(tables))
    with pytest.raises(NotImplementedError, match="first derivatives"):
        torch.autograd.grad(expected.sum(), leaf)
    z, q = rows(torch.float32)
    opcheck(torch.ops.jsc.level_entropy.default, (z, q, q, SOFT, 0, 0))
    opcheck(torch.ops.jsc.level_entropy_backward.default, (q, z, q, q, SOFT, 5, 127))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z": torch.rand(3)}, "z must be .frequencies, coefficients."),
        ({"q": torch.ones(1)}, r"q must be \(3,\)"),
        ({"kappa": torch.ones(3, 1)}, r"kappa must be \(3,\)"),
        ({"kappa": torch.ones(3, dtype=torch.float64)}, "kappa must be .* of torch.float32"),
        ({"mode": 3}, "mode must be from 0 to 2"),
        ({"window": 4}, "window must be 0 or odd"),
    ],
)
def test_operators_refuse_what_does_not_fit(change, message):
    given = {"z": torch.rand(3, 9), "q": torch.ones(3), "kappa": torch.ones(3), "mode": 0}
    given |= {"window": 0, "levels": 0, **change}
    with pytest.raises(ValueError, match=message):
        torch.ops.jsc.level_entropy(*given.values())
    with pytest.raises(ValueError, match=message):
        torch.ops.jsc.level_entropy_backward(torch.ones(3), *given.values())
    if "z" not in change:
        given |= {"q": torch.ones(3), "kappa": torch.ones(3), "mode": 0, "window": 0}
        with pytest.raises(ValueError, match=r"the gradient must be \(3,\)"):
            torch.ops.jsc.level_entropy_backward(torch.ones(1), *given.values())


def test_edges():
    tables = torch.full((2, 8, 8), 10.0, requires_grad=True)
    empty = jpeg_rate(torch.zeros(0, 3, 8, 8), tables)
    empty.backward()
    assert empty == 0
    assert tables.grad.eq(0).all()
    assert jpeg_rate(torch.full((1, 3, 8, 8), 0.5), tables, quantizer="hard") == 0
    x = torch.rand(1, 3, 8, 8)
    x[0, 0, 0, 0] = math.nan
    assert jpeg_rate(x, tables).isnan()
    huge = jpeg_rate(torch.full((1, 3, 8, 8), 1e6), tables, levels=127, kappa=2.0)
    assert huge.isfinite()
    assert jpeg_rate(torch.rand(1, 3, 8, 8), tables, kappa=0.0).isfinite()
    with pytest.raises(ValueError, match="raise the tables"):
        jpeg_rate(torch.rand(1, 3, 64, 64), torch.full((2, 8, 8), 1e-5), kappa=1.0)
    with pytest.raises(ValueError, match=r"\(2, 8, 8\)"):
        jpeg_rate(x, torch.ones(3, 8, 8))
    with pytest.raises(ValueError, match="std"):
        jpeg_rate(x, tables, std=0.0)
