"""The layer at every setting against the reference, on every instruction set, with one and two
threads."""

import ctypes
import mmap

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import gradients, same_bits

import jsc
from jsc.functional import jpeg
from jsc.functional.options import JpegOptions
from jsc.ops._torch_jpeg import layer
from jsc.reference import jpeg as reference

SCALES = {3: {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}, 1: {"mean": [0.5], "std": [0.2]}}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(0, 3), channels=st.sampled_from([1, 3]),
    h=st.integers(1, 33), w=st.integers(1, 40),
    quantizer=st.sampled_from(["soft", "hard", "ste"]), window=st.sampled_from([None, 5]),
    levels=st.sampled_from([None, 4]), rounds=st.integers(1, 3),
    subsampling=st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    padding=st.sampled_from(["replicate", "zero"]), seed=st.integers(0, 99),
)  # fmt: skip
def test_value_and_gradients(
    isa, num_threads, dtype, n, channels, h, w, quantizer, window, levels, rounds, subsampling,
    padding, seed,
):  # fmt: skip
    # In double precision and compared as such: a hard layer in float32 rounds ties either way.
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((n, channels, h, w), generator=generator, dtype=torch.float64)
    tables = torch.rand((rounds, 2, 8, 8), generator=generator, dtype=torch.float64) * 30 + 2
    kappa = torch.rand((rounds, 2, 8, 8), generator=generator, dtype=torch.float64) * 8
    g = torch.randn((n, channels, h, w), generator=generator, dtype=torch.float64)
    options = {"quantizer": quantizer, "window": window, "levels": levels, **SCALES[channels]}
    options |= {"subsampling": subsampling, "padding": padding, "chroma_offset": 0.5}
    if dtype == torch.float32:
        if quantizer != "soft" or window:
            return  # values jump there
        x, tables, kappa, g = (t.float() for t in (x, tables, kappa, g))
    y, found = gradients(lambda a, b, c: jpeg(a, b, kappa=c, **options), x, tables, kappa, g=g)
    expected, wanted = gradients(
        lambda a, b, c: reference.jpeg(a, b, c, **options),
        x.double(),
        tables.double(),
        kappa.double(),
        g=g,
    )
    rtol = 1e-10 if dtype == torch.float64 else 1e-4 * rounds
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=rtol / 5)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(
            a.double(), b, rtol=0, atol=rtol * (b.abs().max().item() if b.numel() else 0) + rtol
        )


SETTINGS = [
    {}, {"subsampling": "4:2:2"}, {"subsampling": "4:2:0"}, {"subsampling": "4:2:0", "rounds": 3},
    {"padding": "zero"}, {"rounds": 3},
]  # fmt: skip


@pytest.mark.parametrize("options", SETTINGS)
def test_same_bits_for_threads_instruction_sets_and_batches(num_threads, dtype, options):
    options = dict(options)
    shape = (options.pop("rounds", 1), 2, 8, 8)
    # Of more bands than one chunk of the gradient, and of fewer columns than whole blocks.
    x, g = torch.rand(5, 3, 150, 69, dtype=dtype), torch.randn(5, 3, 150, 69, dtype=dtype)
    tables, kappa = torch.rand(shape, dtype=dtype) * 20 + 1, torch.rand(shape, dtype=dtype) * 50

    def run():
        return gradients(lambda *a: jpeg(a[0], a[1], kappa=a[2], **options), x, tables, kappa, g=g)

    y, found = same_bits(run)
    settings = JpegOptions(**options).settings(3)
    if dtype == torch.float64:  # in float32 a sharp level may be the next one
        q, k = (t.view(-1, 2, 8, 8) for t in (tables, kappa))
        expected, wanted = gradients(lambda *a: layer(*a, None, settings), x, q, k, g=g)
        torch.testing.assert_close(y, expected, rtol=0, atol=1e-10)
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b.view_as(a), rtol=0, atol=1e-9 * b.abs().max().item())
    split = torch.cat([jpeg(part, tables, kappa=kappa, **options) for part in x.split([1, 4])])
    assert torch.equal(split, y)


@pytest.mark.parametrize("padding", ["replicate", "zero"])
@pytest.mark.parametrize("subsampling", ["4:2:2", "4:2:0"])
def test_same_bits_at_every_width(dtype, subsampling, padding):
    """Whatever part of a row fills pairs of vectors; and right, also where most of a row does."""
    options = {"subsampling": subsampling, "padding": padding}
    tables, kappa = torch.rand(1, 2, 8, 8, dtype=dtype) * 20 + 9, torch.rand(1, 2, 8, 8) * 3
    kappa = kappa.to(dtype)
    for width in (15, 16, 31, 32, 33, 40, 47, 48, 56, 63, 64, 65, 80, 96, 101):
        x, g = torch.rand(1, 3, 19, width, dtype=dtype), torch.randn(1, 3, 19, width, dtype=dtype)
        f = lambda a, b, c: jpeg(a, b, kappa=c, **options)  # noqa: E731
        y, found = same_bits(lambda: gradients(f, x, tables, kappa, g=g))  # noqa: B023
        settings = JpegOptions(**options).settings(3)
        exact = [t.double() for t in (x, tables, kappa)]
        expected, wanted = gradients(lambda *a: layer(*a, None, settings), *exact, g=g.double())  # noqa: B023
        limit = 1e-10 if dtype == torch.float64 else 1e-5
        torch.testing.assert_close(y.double(), expected, rtol=0, atol=limit)
        for a, b in zip(found, wanted, strict=True):
            atol = 10 * limit * b.abs().max().item()
            torch.testing.assert_close(a.double(), b, rtol=0, atol=atol)


def strided(pixels):
    """The same pixels (N, C, H, W) as planes, as pixels (N, H, W, C), and within larger memory."""
    last = pixels.permute(0, 2, 3, 1).contiguous()
    wide = torch.stack([pixels, pixels], -1)[..., 0]
    more = torch.cat([last, last], -1)[..., : last.shape[-1]]
    rows = torch.cat([last, last], 2)[:, :, : last.shape[2]]
    return pixels, last, wide, last.permute(0, 3, 1, 2), more, rows


# Edges in most packs of blocks, and none in most.
@pytest.mark.parametrize("size", [(21, 45), (16, 136)])
@pytest.mark.parametrize("options", SETTINGS[:3])
@pytest.mark.parametrize("channels", [1, 3])
def test_8_bits(isa, num_threads, dtype, channels, options, size):
    """The same as pixels normalised beforehand, of any strides; tables learn from them."""
    pixels = torch.randint(0, 256, (3, channels, *size), dtype=torch.uint8)
    tables = torch.rand(2, 8, 8, dtype=dtype) * 20 + 4
    g = torch.randn(3, channels, *size, dtype=dtype)
    for peak in (1.0, 255.0):
        scale = {k: [peak * v for v in values] for k, values in SCALES[channels].items()}
        mean, std = (torch.tensor(scale[k], dtype=dtype).view(-1, 1, 1) for k in ("mean", "std"))
        x = (pixels.to(dtype) * (peak / 255) - mean) / std
        f = lambda x, t: jpeg(x, t, kappa=3.0, peak=peak, **scale, **options)  # noqa: B023, E731
        y, (_, expected) = gradients(f, x, tables, g=g)
        for held in strided(pixels):
            other, (found,) = gradients(lambda t, held=held: f(held, t), tables, g=g)  # noqa: B023
            assert other.shape == y.shape
            assert other.is_contiguous()
            torch.testing.assert_close(other, y, rtol=0, atol=1e-4 * peak)
            limit = 1e-4 * expected.abs().max().item()
            torch.testing.assert_close(found, expected, rtol=0, atol=limit)
        one = f(pixels[0].permute(1, 2, 0).contiguous(), tables)
        torch.testing.assert_close(one, y[0], rtol=0, atol=1e-4 * peak)


@pytest.mark.parametrize("channels", [1, 3])
def test_8_bits_are_numbers(isa, channels):
    """Exactly those that floats of the same values are."""
    pixels = torch.randint(0, 256, (3, channels, 40, 136), dtype=torch.uint8)
    tables, g = torch.rand(2, 8, 8) * 20 + 4, torch.randn(3, channels, 40, 136)
    f = lambda x, t: jpeg(x, t, kappa=3.0, peak=255.0)  # noqa: E731
    y, (_, expected) = gradients(f, pixels.float(), tables, g=g)
    for held in strided(pixels):
        other, (found,) = gradients(lambda t, held=held: f(held, t), tables, g=g)
        assert torch.equal(other, y)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("last", [False, True])
def test_8_bits_are_read_to_their_end(isa, last):
    """And no further: behind them is memory that may not be touched."""
    pixels = torch.randint(0, 256, (2, 3, 16, 128), dtype=torch.uint8)
    pixels = pixels.permute(0, 2, 3, 1).contiguous() if last else pixels
    tables = torch.rand(2, 8, 8) * 20 + 4
    assert torch.equal(jpeg(before_a_guard(pixels), tables), jpeg(pixels, tables))


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 3, 24, 16), (4, 3, 16, 16)])
def test_a_gradient_of_another_shape_is_refused(shape):
    x, q = torch.rand(2, 3, 16, 16), torch.rand(1, 2, 8, 8) + 1
    options = (0, 0, 0, 1, 1, False, [0.5] * 3, [0.2] * 3, 1.0, 0.0, 3)
    with pytest.raises(ValueError, match=r"the gradient must be \(2, 3, 16, 16\)"):
        torch.ops.jsc.jpeg_backward(torch.rand(shape), x, q, q, None, *options)


OPERATOR = {
    "x": torch.rand(2, 3, 16, 24), "q": torch.full((1, 2, 8, 8), 16.0),
    "kappa": torch.full((1, 2, 8, 8), 3.0), "seed": None, "mode": 0, "window": 0, "levels": 0,
    "v": 1, "u": 1, "zero": False, "mean": [0.5] * 3, "std": [0.2] * 3, "peak": 1.0, "offset": 0.0,
}  # fmt: skip
GREY = {
    "x": torch.rand(2, 1, 16, 24), "q": torch.ones(1, 1, 8, 8), "kappa": torch.ones(1, 1, 8, 8),
    "mean": [0.5], "std": [0.2],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.rand(2, 2, 16, 24)}, r"x must be \(N, 3, H, W\)"),
        ({"x": torch.rand(3, 16, 24)}, r"x must be \(N, 3, H, W\)"),
        ({"x": torch.rand(2, 3, 16, 24, dtype=torch.float64)}, "x must be uint8 or torch.float32"),
        ({"q": torch.ones(1, 1, 8, 8)}, r"q must be \(rounds, 2, 8, 8\)"),
        ({"q": torch.ones(0, 2, 8, 8)}, r"q must be \(rounds, 2, 8, 8\)"),
        ({"q": torch.ones(2, 8, 8)}, r"q must be \(rounds, 2, 8, 8\)"),
        ({"q": torch.ones(1, 2, 8, 8).half()}, "of float32 or float64"),
        ({"kappa": torch.ones(1, 1, 8, 8)}, r"kappa must be \(1, 2, 8, 8\)"),
        ({"kappa": torch.ones(1, 2, 8, 8, dtype=torch.float64)}, "kappa must be .* torch.float32"),
        ({"q": torch.ones(2, 2, 8, 8)}, r"kappa must be \(2, 2, 8, 8\)"),
        ({"v": 64, "u": 64}, "v and u must be one of"),
        ({"v": 2}, "v and u must be one of"),
        ({"u": 0}, "v and u must be one of"),
        ({"mode": 4}, "mode must be from 0 to 3"),
        ({"mode": -1}, "mode must be from 0 to 3"),
        ({"window": 4}, "window must be 0 or odd"),
        ({"window": 25}, "window must be 0 or odd"),
        ({"window": -5}, "window must be 0 or odd"),
        ({"levels": -1}, "levels must be 0"),
        ({"levels": 1, "window": 5}, "levels must be 0"),
        ({"mode": 3}, "seed must be a tensor of one number"),
        ({"mode": 3, "seed": torch.tensor([1, 2])}, "seed must be a tensor of one number"),
        ({"mean": [0.5]}, "each of 3 channels must have a mean and a std"),
        ({"std": [0.2] * 4}, "each of 3 channels must have a mean and a std"),
        ({**GREY, "q": torch.ones(1, 2, 8, 8)}, r"q must be \(rounds, 1, 8, 8\)"),
        ({**GREY, "v": 2, "u": 2}, "v and u must be one of"),
        ({**GREY, "std": [0.2] * 3}, "each of 1 channels must have a mean and a std"),
    ],
)
def test_operators_refuse_what_their_kernel_cannot_read(change, message):
    """Whoever calls them by themselves gets an error in words, and no memory of others."""
    options = {**OPERATOR, **change}
    with pytest.raises(ValueError, match=message):
        torch.ops.jsc.jpeg(*options.values())
    g = torch.rand(options["x"].shape)
    with pytest.raises(ValueError, match=message):
        torch.ops.jsc.jpeg_backward(g, *options.values(), 3)


def test_operators_take_what_fits():
    for change in ({}, GREY, {"v": 2, "u": 2}, {"mode": 3, "seed": torch.tensor([7])}):
        options = {**OPERATOR, **change}
        y = torch.ops.jsc.jpeg(*options.values())
        dx, dq, _ = torch.ops.jsc.jpeg_backward(y, *options.values(), 3)
        assert (y.shape, dq.shape) == (dx.shape, options["q"].shape)
    with pytest.raises(ValueError, match="wanted must be from 0 to 3"):
        torch.ops.jsc.jpeg_backward(OPERATOR["x"], *OPERATOR.values(), 4)


def before_a_guard(x):
    """A copy of x that ends where a page begins that cannot be read."""
    page, size = mmap.PAGESIZE, x.numel()
    end = -(-size // page) * page
    memory = mmap.mmap(-1, end + page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(address + end), ctypes.c_size_t(page), 0) == 0
    held = torch.frombuffer(memory, dtype=torch.uint8, count=size, offset=end - size)
    return held.view(x.shape).copy_(x)


def test_second_derivatives_behind_8_bits():
    pixels = torch.randint(0, 256, (1, 3, 9, 10), dtype=torch.uint8)
    tables = (torch.rand(2, 2, 8, 8, dtype=torch.float64) * 20 + 20).requires_grad_()
    kappa = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    f = lambda t, k: jpeg(pixels, t, kappa=k, subsampling="4:2:0")  # noqa: E731
    assert torch.autograd.gradgradcheck(f, (tables, kappa), fast_mode=True, atol=1e-4)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: jsc.jpeg.decoded(x, jsc.jpeg.quality_tables(50, torch.int64)),
        lambda x: jsc.nn.RandomJPEG()(x),
    ],
    ids=["decoded", "RandomJPEG"],
)
def test_what_gives_8_bits_back_takes_channels_first_only(call):
    """Its result has the shape that came, so that channels are where it says."""
    pixels = torch.randint(0, 256, (2, 10, 12, 3), dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\)"):
        call(pixels)
    assert call(pixels.permute(0, 3, 1, 2)).shape == (2, 3, 10, 12)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_in_its_block(isa, dtype, value):
    x = torch.rand(2, 3, 24, 40, dtype=dtype)
    clean = jpeg(x, torch.full((2, 8, 8), 10.0, dtype=dtype))
    x[1, 2, 13, 20] = value
    y = jpeg(x, torch.full((2, 8, 8), 10.0, dtype=dtype))
    hit = torch.zeros_like(x, dtype=torch.bool)
    hit[1, :, 8:16, 16:24] = True
    assert torch.equal(y[~hit], clean[~hit])
    assert y[hit].isnan().any()


def test_any_strides(isa):
    x, tables = (
        torch.rand(2, 24, 20, 3).permute(0, 3, 1, 2),
        torch.rand(8, 8, 2).permute(2, 1, 0) * 9 + 1,
    )
    expected = jpeg(x.contiguous(), tables.contiguous())
    assert torch.equal(jpeg(x, tables), expected)
    assert torch.equal(jpeg(x.contiguous(memory_format=torch.channels_last), tables), expected)
    one = x[:1].expand(3, -1, -1, -1)
    assert torch.equal(jpeg(one, tables)[2], expected[0])
