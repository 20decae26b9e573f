"""The JPEG modules: construction, state, training, presets."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import jsc
from jsc.nn import JPEG, BlockDCT, InverseBlockDCT, SoftQuantizer


def variants():
    yield JPEG()
    yield JPEG.from_quality(80, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    yield JPEG.from_quality(30, kappa=2.0, train_alpha=True)
    yield JPEG.from_quality(
        30, alpha=torch.rand(2, 8, 8) + 0.1, train_alpha=True, subsampling="4:2:0"
    )
    yield JPEG.preset("jpeg-dl", peak=1.0)
    yield JPEG.from_quality(30, rounds=3, alpha=torch.rand(3, 1, 1, 1) + 0.1, train_alpha=True)
    yield JPEG.from_quality(30, quantizer="ste", peak=1.0, levels=100)


@pytest.mark.parametrize("layer", list(variants()), ids=lambda layer: layer.extra_repr()[:40])
def test_copies_and_state(layer):
    x = torch.rand(2, 3, 20, 28)
    with torch.no_grad():
        layer.tables.mul_(1.5)
    y = layer(x)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    fresh = copy.deepcopy(layer)
    with torch.no_grad():
        for tensor in fresh.state_dict().values():
            tensor.fill_(1)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), fresh):
        assert torch.equal(other(x), y)
    assert "tables" in dict(layer.named_parameters())
    assert len(layer.state_dict()) == 2
    double = copy.deepcopy(layer).double()
    assert double(x.double()).dtype == torch.float64
    with torch.inference_mode():
        assert torch.equal(layer(x), y)
    assert layer.extra_repr() in repr(layer)


def test_grey():
    layer = JPEG.from_quality(50, mean=0.5, std=0.25)
    x = torch.rand(2, 1, 17, 9)
    y = layer(x)
    assert y.shape == x.shape
    y.sum().backward()
    assert layer.tables.grad[1].eq(0).all()


def test_training_lowers_the_loss_and_keeps_the_tables_usable():
    layer = JPEG.from_quality(10, kappa=1.5, train_alpha=True)
    x = torch.rand(4, 3, 16, 16)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.5)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (layer(x) - x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert layer(x).isfinite().all()


def test_steps_below_the_floor_recover():
    tables = torch.full((2, 8, 8), -0.5, requires_grad=True)
    y = jsc.functional.jpeg(torch.rand(1, 3, 8, 8), tables, alpha=1.0, levels=3)
    assert y.isfinite().all()
    up, down = torch.ones(2, 8, 8), -torch.ones(2, 8, 8)
    from jsc.functional.quant import positive

    q = positive(tables)
    assert torch.equal(q, torch.full((2, 8, 8), 1e-5))
    (lifted,) = torch.autograd.grad(q, tables, down, retain_graph=True)  # descent would raise q
    (lowered,) = torch.autograd.grad(q, tables, up)
    assert torch.equal(lifted, down)
    assert lowered.eq(0).all()


def test_kappa_ties_alpha_to_the_tables():
    x = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    tables = torch.rand(2, 8, 8, dtype=torch.float64) * 20 + 5
    tied = JPEG(tables, kappa=2.0)
    by_hand = tables.clone().requires_grad_()
    y = jsc.functional.jpeg(x, by_hand, alpha=2.0 / by_hand**2)
    torch.testing.assert_close(tied(x), y)
    (expected,) = torch.autograd.grad(y.square().sum(), by_hand)
    (found,) = torch.autograd.grad(tied(x).square().sum(), tied.tables)
    torch.testing.assert_close(found, expected)


def test_starts():
    layer = JPEG.from_quality(50)
    assert torch.equal(layer.quant_tables(), jsc.jpeg.quality_tables(50).long())
    s = torch.rand(3, 8, 8, dtype=torch.float64) + 0.01
    layer = JPEG.from_sensitivity(s, q_max=7.0)
    assert layer.tables[0].max().item() == pytest.approx(7.0)
    torch.testing.assert_close((layer.tables[0] * s[0]).std().item(), 0.0, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        layer.tables[1].double() * (s[1] + s[2]) / 2,
        layer.tables[0].double() * s[0],
        rtol=1e-5,
        atol=0,
    )
    assert torch.equal(JPEG.from_sensitivity(jsc.jpeg.to_zigzag(s), 7.0).tables, layer.tables)
    means = JPEG.from_mean_absolute(s)
    torch.testing.assert_close(
        means.tables[1].double(), (s[1] + s[2]) / 128**0.5, rtol=1e-5, atol=0
    )
    assert JPEG(torch.full((2, 8, 8), 300.7)).quant_tables().unique().tolist() == [255]
    assert JPEG(torch.full((2, 8, 8), 0.2)).quant_tables().unique().tolist() == [1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: JPEG(torch.ones(64)), r"\(2, 8, 8\)"),
        (lambda: JPEG(torch.zeros(2, 8, 8)), "positive"),
        (lambda: JPEG(alpha=-1.0), "negative"),
        (lambda: JPEG(alpha=torch.ones(3)), r"alpha must broadcast .* \(2, 8, 8\); got \(3,\)"),
        (lambda: JPEG(kappa=torch.ones(3, 1, 1, 1), rounds=2), "kappa must broadcast"),
        (lambda: JPEG(kappa=0.0, train_alpha=True), "positive if it is trained"),
        (lambda: JPEG(quantizer="none"), "quantizer"),
        (lambda: JPEG(mean=(0.1, float("nan"), 0.3)), "finite"),
        (lambda: JPEG(std=()), "must be a number or"),
        (lambda: JPEG.preset("jpeg"), "jpeg-dl"),
        (lambda: JPEG.from_quality(0), "1 to 100"),
        (lambda: JPEG.from_sensitivity(torch.ones(2, 8, 8)), "zig-zag"),
        (lambda: JPEG.from_sensitivity(torch.zeros(3, 8, 8)), "positive"),
        (lambda: JPEG.from_mean_absolute(-torch.ones(3, 8, 8)), "0 or more"),
        (lambda: SoftQuantizer(0.0), "positive"),
    ],
)
def test_errors(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_parts_make_the_whole():
    x = torch.rand(2, 1, 16, 24) * 255
    layer = JPEG.from_quality(50, kappa=3.0, peak=255.0)
    dct, inverse = BlockDCT(), InverseBlockDCT()
    quantizer = SoftQuantizer(layer.tables[0].detach(), kappa=3.0, train_alpha=True)
    y = inverse(quantizer(dct(x - 128))) + 128
    torch.testing.assert_close(y, layer(x), rtol=0, atol=1e-3)
    assert set(quantizer.state_dict()) == {"q", "log_kappa"}
    y.sum().backward()
    assert quantizer.log_kappa.grad is not None


def test_a_parametrized_hardness_is_trained():
    layer = JPEG(kappa=2.0, train_alpha=True)
    x = torch.rand(1, 3, 8, 8)
    expected = layer(x)
    nn.utils.parametrize.register_parametrization(layer, "log_kappa", nn.Identity())
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=0)
    assert "trained kappa" in repr(layer)


@pytest.mark.parametrize("channels", [1, 3])
def test_bytes_have_the_rate_and_the_decoded_image_of_their_floats(channels):
    layer = JPEG(mean=0.5, std=0.2)
    pixels = torch.randint(0, 256, (2, channels, 16, 24), dtype=torch.uint8)
    floats = (pixels / 255 - 0.5) / 0.2
    torch.testing.assert_close(layer.rate(pixels), layer.rate(floats))
    expected = layer.decoded(floats)
    for images in (pixels, pixels.movedim(1, 3)):
        torch.testing.assert_close(layer.decoded(images), expected)
    torch.testing.assert_close(layer.decoded(pixels[0]), expected[0])


def test_diverged_tables_are_not_rounded():
    layer = JPEG()
    with torch.no_grad():
        layer.tables[0, 3, 3] = float("nan")
    with pytest.raises(ValueError, match="diverged"):
        layer.quant_tables()


def test_half_precision_on_the_meta_device():
    x = torch.empty(1, 3, 8, 8, dtype=torch.half, device="meta")
    assert JPEG().to("meta")(x).dtype == torch.half
