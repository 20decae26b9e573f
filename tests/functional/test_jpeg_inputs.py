"""What the JPEG layer takes besides batches in float32: half precision, single images, layouts."""

import re

import pytest
import torch
from samples import IMAGENET, photo

import jsc
from jsc.functional import block_dct, block_idct, jpeg, jpeg_rate, soft_quantize

HALVES = pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
EVERY_PATH = pytest.mark.parametrize(
    "options",
    [{}, {"subsampling": "4:2:0"}, {"quantizer": "ste"}, {"quantizer": "hard"}, {"padding": "zero"},
     IMAGENET],
)  # fmt: skip


def steps(rounds=None):
    shape = (2, 8, 8) if rounds is None else (rounds, 2, 8, 8)
    return torch.rand(shape) * 20 + 5


@HALVES
@EVERY_PATH
@pytest.mark.parametrize("rounds", [None, 2])
def test_half_precision_is_float32_rounded_at_the_end(half, options, rounds):
    given = [photo(2, 13, 18).to(half), steps(rounds).to(half), torch.tensor(2.0).to(half)]
    given = [t.requires_grad_() for t in given]
    exact = [t.detach().float().requires_grad_() for t in given]
    y, expected = (jpeg(x, t, kappa=k, **options) for x, t, k in (given, exact))
    assert y.dtype == half
    assert torch.equal(y, expected.to(half))
    g = torch.randn(y.shape).to(half)
    found = torch.autograd.grad(y, given, g, allow_unused=True)
    for a, b in zip(
        found, torch.autograd.grad(expected, exact, g.float(), allow_unused=True), strict=True
    ):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == half
            assert torch.equal(a, b.to(half))


@HALVES
def test_half_images_and_float32_tables_go_together(half):
    x, tables = photo().to(half), steps().requires_grad_()
    y = jpeg(x, tables, kappa=2.0)
    assert torch.equal(y, jpeg(x.float(), tables, kappa=2.0).to(half))
    y.float().sum().backward()
    assert tables.grad.dtype == torch.float32
    assert jpeg(x.float(), tables.to(half)).dtype == torch.float32


@HALVES
def test_half_precision_of_the_parts(half):
    x = photo(2, 16, 24).to(half)
    z = block_dct(x)
    assert torch.equal(z, block_dct(x.float()).to(half))
    assert torch.equal(block_idct(z), block_idct(z.float()).to(half))
    q = torch.tensor(0.1).to(half)
    found = soft_quantize(z, q, kappa=2.0)
    assert torch.equal(found, soft_quantize(z.float(), q.float(), kappa=2.0).to(half))
    assert {t.dtype for t in (z, block_idct(z), found)} == {half}
    rate = jpeg_rate(x, steps().to(half), kappa=2.0)
    assert rate.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert {t.dtype for t in (block_dct(x), block_idct(z), soft_quantize(z, q, 1.0))} == {
            torch.float32
        }


@EVERY_PATH
@pytest.mark.parametrize("channels", [1, 3])
def test_one_image_is_a_batch_of_one(options, channels):
    options = options if channels == 3 or "mean" not in options else {"mean": 0.5, "std": 0.2}
    x, tables = photo(1, 13, 18)[:, :channels], steps()
    one = jpeg(x[0], tables, kappa=2.0, **options)
    assert one.shape == x.shape[1:]
    assert torch.equal(one, jpeg(x, tables, kappa=2.0, **options)[0])
    assert torch.equal(
        jpeg_rate(x[0], tables, kappa=2.0, **options), jpeg_rate(x, tables, kappa=2.0, **options)
    )


def test_gradient_of_one_image():
    x, tables = photo(1, 9, 17)[0].requires_grad_(), steps().requires_grad_()
    jpeg(x, tables, kappa=2.0).square().sum().backward()
    assert x.grad.shape == x.shape
    assert tables.grad.abs().max() > 0


LAYOUTS = {
    "contiguous": (lambda t: t, False),
    "channels-last": (lambda t: t.contiguous(memory_format=torch.channels_last), True),
    "crop of channels-last": (
        lambda t: t.contiguous(memory_format=torch.channels_last)[..., 2:-1],
        True,
    ),
    "rows and columns swapped": (lambda t: t.transpose(2, 3), False),
}


@EVERY_PATH
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("half", [torch.float32, torch.bfloat16], ids=str)
def test_memory_format_is_kept(options, layout, half):
    rearrange, last = LAYOUTS[layout]
    x = rearrange(photo(2, 13, 18)).to(half)
    x = x.requires_grad_()
    y = jpeg(x, steps(), kappa=2.0, **options)
    kept = torch.channels_last if last else torch.contiguous_format
    assert y.is_contiguous(memory_format=kept)
    assert y.dtype == half
    one = jpeg(x[0], steps(), **options)  # channels innermost, as Pillow has them
    assert (one.stride(0) == 1) == last
    y.sum().backward()
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("channels", [1, 3])
def test_where_both_formats_are_the_same(channels):
    for size in ((2, channels, 1, 1), (1, channels, 8, 8), (2, channels, 0, 8)):
        x = torch.rand(size).contiguous(memory_format=torch.channels_last)
        assert jpeg(x, steps()).shape == size


@pytest.mark.parametrize("shape", [(2, 16, 24, 4), (16, 24, 4), (2, 4, 16, 24), (2, 16, 24, 2)])
def test_other_channels_are_refused_by_the_shape_that_was_given(shape):
    words = re.escape(f"got {shape}") + ("; drop the alpha of RGBA" if 4 in shape else "$")
    with pytest.raises(ValueError, match=words):
        jpeg(torch.zeros(shape, dtype=torch.uint8), steps())


def negated(t):
    """The same numbers, of which torch has yet to change the sign."""
    found = torch.complex(torch.zeros_like(t), -t).conj().imag
    assert found.is_neg()
    return found


@pytest.mark.parametrize(
    "call",
    [
        lambda x: jpeg(x, steps(), kappa=2.0),
        lambda x: jpeg_rate(x, steps(), kappa=2.0),
        lambda x: jpeg_rate(x, negated(steps()), kappa=2.0, subsampling="4:2:0"),
        lambda x: jsc.jpeg.decoded(x, jsc.jpeg.quality_tables(50).long(), mean=0.1),
        lambda x: jsc.nn.RandomJPEG()(x),
        lambda x: jsc.jpeg.mean_absolute([x], progress=False),
    ],
    ids=["jpeg", "rate", "rate of tables", "decoded", "RandomJPEG", "mean_absolute"],
)
def test_negations_that_are_yet_to_be_done(call):
    x, results = photo(2, 13, 18), []
    for given in (x, negated(x)):
        torch.manual_seed(0)
        results.append(call(given))
    assert torch.equal(*results)


def test_second_derivatives_with_negations_that_are_yet_to_be_done():
    image, tables = photo(1, 9, 10), steps().requires_grad_()
    g, outer = torch.randn_like(image), torch.randn_like(image)
    found = []
    for make in (torch.clone, negated):
        x = make(image).requires_grad_()
        y = jpeg(x, tables, kappa=2.0, subsampling="4:2:0")
        (dx,) = torch.autograd.grad(y, x, make(g), create_graph=True)
        found.append(torch.autograd.grad(dx, (x, tables), make(outer)))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)
