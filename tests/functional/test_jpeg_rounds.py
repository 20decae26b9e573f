"""Several rounds of the quantiser: tables (K, 2, 8, 8)."""

import pytest
import torch
from samples import gradients, photo

import jsc
from jsc.functional import block_dct, block_idct, jpeg, soft_quantize
from jsc.nn import JPEG
from jsc.reference import jpeg as reference

F64 = torch.float64


def steps(*shape, dtype=F64):
    return 3 + 20 * torch.rand(*shape, 8, 8, dtype=dtype)


@pytest.mark.parametrize("size", [(24, 32), (13, 18)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("quantizer", "dtype"),  # float32 may fall on the other side of an edge, where hard ones jump
    [("soft", torch.float32), ("soft", F64), ("hard", F64), ("ste", F64)],
)
def test_reference(isa, dtype, size, channels, quantizer):
    x = photo(2, *size, dtype=F64)[:, :channels]
    tables, kappa = steps(3, 2), 6 * torch.rand(3, 2, 8, 8, dtype=F64)
    g = torch.randn_like(x)
    expected, wanted = gradients(
        lambda *a: reference.jpeg(
            *a, quantizer=quantizer, mean=[0.0] * channels, std=[1.0] * channels
        ),
        x,
        tables,
        kappa,
        g=g,
    )
    y, found = gradients(
        lambda x, t, k: jpeg(x, t, kappa=k, quantizer=quantizer),
        *(t.to(dtype) for t in (x, tables, kappa)),
        g=g,
    )
    tolerance = 1e-10 if dtype == F64 else 1e-3
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=tolerance)
    for a, b in zip(found, wanted, strict=True):
        atol = tolerance * max(1, b.abs().max().item())
        torch.testing.assert_close(a.double(), b, rtol=0, atol=atol)


def test_one_dct_around_all_rounds():
    x, tables = photo(2, 16, 24, dtype=F64)[:, :1] * 255, steps(4, 1)
    z = block_dct(x - 128)
    for q in tables[:, 0]:
        z = soft_quantize(z, q, 0.01)
    torch.testing.assert_close(jpeg(x, tables, alpha=0.01, peak=255.0), block_idct(z) + 128)


@pytest.mark.parametrize("options", [{}, {"subsampling": "4:2:0"}, {"padding": "zero"}])
def test_the_same_hard_round_again_changes_nothing(dtype, options):
    x = photo(2, 21, 34, dtype=dtype)
    one = JPEG.from_quality(40, quantizer="hard", **options)
    many = JPEG.from_quality(40, quantizer="hard", rounds=5, **options)
    one, many = one.to(dtype), many.to(dtype)
    torch.testing.assert_close(many(x), one(x), rtol=0, atol=1e-5)
    assert (one(x) - x).abs().max() > 0.01


def test_a_list_of_one_round_is_the_fused_layer(dtype):
    x, tables, alpha = photo(2, 21, 34, dtype=dtype), steps(1, 2, dtype=dtype), 0.02
    alphas = torch.full((1, 1, 1, 1), alpha, dtype=dtype)
    y = jpeg(x, tables.requires_grad_(), alpha=alphas)
    assert y.grad_fn.name().startswith("Jpeg")
    assert torch.equal(y, jpeg(x, tables[0], alpha=alpha))
    assert torch.equal(y, JPEG(tables.detach(), alpha=alphas)(x))


@pytest.mark.parametrize("options", [{}, {"subsampling": "4:2:0"}, {"window": 5, "levels": 127}])
def test_gradcheck(options):
    x = torch.rand((1, 3, 11, 8), dtype=F64, requires_grad=True)
    tables = (20 + 20 * torch.rand(3, 2, 8, 8, dtype=F64)).requires_grad_()
    each = torch.tensor([1.0, 2.0, 0.6], dtype=F64).view(3, 1, 1, 1).requires_grad_()
    f = lambda x, t, k: jpeg(x, t, kappa=k, **options)  # noqa: E731
    assert torch.autograd.gradcheck(f, (x, tables, each), fast_mode=True, atol=1e-4)


def test_hardness_may_differ_from_round_to_round():
    x, tables = photo(1, 16, 16, dtype=F64), steps(2)
    both = torch.stack([tables, tables])
    kappa = torch.tensor([0.01, 3.0], dtype=F64).view(2, 1, 1, 1)
    # the first round is the identity
    torch.testing.assert_close(jpeg(x, both, kappa=kappa), jpeg(x, tables, kappa=3.0))
    shared = torch.rand(2, 8, 8, dtype=F64)
    torch.testing.assert_close(
        jpeg(x, both, kappa=shared), jpeg(x, both, kappa=shared.expand(2, 2, 8, 8))
    )


def test_draws():
    x, tables = photo(1, 16, 24, dtype=F64), steps(3, 2).requires_grad_()

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return jpeg(x, tables, kappa=2.0, quantizer="sample", generator=generator)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    y = reference.rgb_to_ycc(*(draw(1) * 255).unbind(1))[0]
    z = block_dct(y.unsqueeze(1) - 128)
    levels = z[:, 0] / tables[-1, 0]  # the last round decides on which multiples they end
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-9)
    draw(1).sum().backward()
    assert (tables.grad.flatten(1).abs().max(1).values > 0).all()


def test_module():
    layer = JPEG.from_quality(50, rounds=3, kappa=2.0, train_alpha=True)
    assert layer.tables.shape == (3, 2, 8, 8)
    assert all(torch.equal(t, layer.tables[0]) for t in layer.tables)
    assert "rounds=3" in repr(layer)
    x = photo(4, 16, 16)
    layer(x).square().sum().backward()
    with torch.no_grad():
        layer.tables -= 10 * layer.tables.grad.sign()  # each round has tables of its own
    assert not torch.equal(layer.tables[0], layer.tables[1])
    fresh = JPEG(rounds=3, kappa=1.0, train_alpha=True)
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh(x), layer(x))
    with pytest.raises(RuntimeError, match="tables"):
        JPEG(kappa=1.0, train_alpha=True).load_state_dict(layer.state_dict())
    given = JPEG(layer.tables.detach())
    assert torch.equal(given.tables, layer.tables)
    last = layer.tables[-1].detach().round().clamp(1, 255).long()
    assert torch.equal(layer.quant_tables(), last)
    assert JPEG(rounds=1).tables.shape == (2, 8, 8)
    assert JPEG.from_sensitivity(torch.rand(3, 8, 8) + 1, rounds=2).tables.shape == (2, 2, 8, 8)
    assert JPEG.preset("jpeg-dl", rounds=5).tables.shape == (5, 2, 8, 8)


def test_empty_batch():
    layer = JPEG(rounds=2)
    y = layer(torch.zeros(0, 3, 16, 16))
    assert y.shape == (0, 3, 16, 16)
    y.sum().backward()
    assert layer.tables.grad.eq(0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jpeg(torch.zeros(1, 3, 8, 8), torch.ones(0, 2, 8, 8)), r"\(K, 2, 8, 8\)"),
        (lambda: jpeg(torch.zeros(1, 3, 8, 8), torch.ones(2, 3, 8, 8)), r"\(K, 2, 8, 8\)"),
        (lambda: jpeg(torch.zeros(1, 3, 8, 8), torch.ones(1, 1, 2, 8, 8)), r"\(K, 2, 8, 8\)"),
        (
            lambda: jpeg(torch.zeros(1, 3, 8, 8), torch.ones(3, 2, 8, 8), alpha=torch.ones(3)),
            "broadcast",
        ),
        (lambda: JPEG(torch.ones(0, 2, 8, 8)), r"\(K, 2, 8, 8\)"),
        (lambda: JPEG(torch.ones(3, 2, 8, 8), rounds=2), "3 rounds do not fit rounds=2"),
        (lambda: JPEG(rounds=0), "at least 1"),
        (lambda: JPEG(rounds=True), "at least 1"),
        (lambda: JPEG(rounds=2.0), "at least 1"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_starts_stay_what_they_were():
    """A tensor that starts several rounds is not shared between them, nor with its owner."""
    tables = jsc.jpeg.quality_tables(50)
    layer = JPEG(tables, rounds=2)
    with torch.no_grad():
        layer.tables[0] += 1
    assert torch.equal(layer.tables[1], tables)
    assert torch.equal(tables, jsc.jpeg.quality_tables(50))
