"""`jsc.functional.jpeg`: limits, real JPEG, gradients, awkward inputs, errors."""

import io

import pytest
import torch
from samples import gradients, photo

import jsc
from jsc.functional import block_dct, block_idct, jpeg


def psnr(a, b):
    return -10 * torch.log10(((a.clamp(0, 1) - b.clamp(0, 1)) ** 2).mean()).item()


@pytest.mark.parametrize("size", [(64, 96), (1, 1), (7, 9), (17, 64)])
def test_soft_limit_is_the_identity(dtype, size):
    x = photo(2, *size, dtype=dtype)
    tables = jsc.jpeg.quality_tables(50, dtype)
    y = jpeg(x, tables, kappa=0.01)
    assert (y - x).abs().max().item() * 255 < (1e-3 if dtype == torch.float32 else 1e-10)
    normal = jpeg(x * 3 - 1, tables, kappa=0.01, mean=1 / 3, std=1 / 3)
    assert (normal - (x * 3 - 1)).abs().max().item() < 1e-4


def test_hard_limit():
    x, tables = photo(dtype=torch.float64), jsc.jpeg.quality_tables(30, torch.float64)
    torch.testing.assert_close(
        jpeg(x, tables, kappa=1e7), jpeg(x, tables, quantizer="hard"), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize(("subsampling", "number"), [("4:4:4", 0), ("4:2:2", 1), ("4:2:0", 2)])
@pytest.mark.parametrize("quality", [20, 50, 90])
@pytest.mark.parametrize("size", [(64, 96), (53, 37)])
def test_close_to_libjpeg(quality, subsampling, number, size):
    image = pytest.importorskip("PIL.Image")
    x = (photo(1, *size) * 255).round() / 255
    pixels = (x[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    file = io.BytesIO()
    image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=number)
    file.seek(0)
    decoded = (
        torch.tensor(list(image.open(file).convert("RGB").tobytes()))
        .view(*size, 3)
        .permute(2, 0, 1)[None]
        / 255
    )
    y = jpeg(x, jsc.jpeg.quality_tables(quality), quantizer="hard", subsampling=subsampling)
    # what separates them is libjpeg's rounding of pixels and YCbCr to 8 bits
    assert psnr(y, decoded) > (41 if subsampling == "4:4:4" else 37)
    assert psnr(y, decoded) > psnr(x, decoded) + 3 or quality == 90


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (2, 3, 9, 17), (2, 1, 8, 12), (1, 3, 1, 1)])
@pytest.mark.parametrize("kappa", [0.3, 2.0, 9.0])
def test_gradcheck(shape, kappa):
    x = torch.rand(shape, dtype=torch.float64, requires_grad=True)
    tables = (torch.rand(2, 8, 8, dtype=torch.float64) * 20 + 20).requires_grad_()
    k = torch.tensor(kappa, dtype=torch.float64, requires_grad=True)
    alpha = (kappa / tables.detach() ** 2).requires_grad_()
    options = {"fast_mode": True, "atol": 1e-4}
    assert torch.autograd.gradcheck(lambda x, t, k: jpeg(x, t, kappa=k), (x, tables, k), **options)
    assert torch.autograd.gradcheck(
        lambda x, t, a: jpeg(x, t, alpha=a), (x, tables, alpha), **options
    )
    if kappa == 2.0:
        twice = torch.autograd.gradgradcheck
        assert twice(lambda x, t, k: jpeg(x, t, kappa=k), (x, tables, k), **options)


@pytest.mark.parametrize(
    "options", [{"subsampling": "4:2:0"}, {"subsampling": "4:2:2"}, {"padding": "zero"}]
)
def test_gradcheck_at_other_settings(options):
    x = torch.rand((1, 3, 13, 18), dtype=torch.float64, requires_grad=True)
    tables = (torch.rand(2, 8, 8, dtype=torch.float64) * 20 + 20).requires_grad_()
    f = lambda x, t: jpeg(x, t, kappa=1.5, **options)  # noqa: E731
    assert torch.autograd.gradcheck(f, (x, tables), fast_mode=True, atol=1e-4)
    assert torch.autograd.gradgradcheck(f, (x, tables), fast_mode=True, atol=1e-4)


def test_padding(dtype):
    # 21 columns are 24 with three repeated; with zeros there the first two blocks of a row are the
    # same
    x, tables = torch.rand(2, 3, 24, 21, dtype=dtype), torch.rand(2, 8, 8, dtype=dtype) * 20 + 1
    y = jpeg(x, tables, kappa=3.0)
    padded = torch.nn.functional.pad(x, (0, 3, 0, 0), mode="replicate")
    torch.testing.assert_close(jpeg(padded, tables, kappa=3.0)[..., :21], y, rtol=0, atol=1e-6)
    zeros = jpeg(x, tables, kappa=3.0, padding="zero")
    torch.testing.assert_close(zeros[..., :16], y[..., :16], rtol=0, atol=1e-5)
    assert (zeros - y).abs().max() > 1e-3


@pytest.mark.parametrize("needs", [(True, False), (False, True), (True, True)])
def test_only_wanted_gradients(needs):
    x, tables = torch.rand(2, 3, 16, 24), torch.rand(2, 8, 8) * 9 + 1
    y = jpeg(x.clone().requires_grad_(), tables.clone().requires_grad_())
    everything = torch.autograd.grad(y, _leaves(y), torch.ones_like(y))
    x.requires_grad_(needs[0]), tables.requires_grad_(needs[1])
    jpeg(x, tables).backward(torch.ones_like(y))
    for tensor, wanted, expected in zip((x, tables), needs, everything, strict=True):
        assert (tensor.grad is not None) == wanted
        if wanted:
            assert torch.equal(tensor.grad, expected)


def _leaves(y):
    found, stack = {}, [y.grad_fn]
    while stack:
        node = stack.pop()
        if hasattr(node, "variable"):
            found[node.variable.ndim] = node.variable
        stack += [n for n, _ in node.next_functions if n is not None]
    return found[4], found[3]


def test_sampling_follows_its_generator():
    x, tables = photo(), torch.full((2, 8, 8), 20.0, requires_grad=True)

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return jpeg(x, tables, kappa=2.0, quantizer="sample", generator=generator)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    z = block_dct(128 * torch.ones(1, 1, 8, 8) - 128 + 3.0)
    assert torch.equal(block_idct(z).round(), torch.full((1, 1, 8, 8), 3.0))
    (drawn,) = torch.autograd.grad(draw(1).sum(), tables)
    (soft,) = torch.autograd.grad(jpeg(x, tables, kappa=2.0).sum(), tables)
    torch.testing.assert_close(
        drawn, soft, rtol=1e-3, atol=1e-4
    )  # the derivative is that of the mean


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_empty_batch(subsampling):
    x, tables = (
        torch.zeros(0, 3, 16, 16, requires_grad=True),
        torch.ones(2, 8, 8, requires_grad=True),
    )
    y = jpeg(x, tables, subsampling=subsampling)
    assert y.shape == x.shape
    y.sum().backward()
    assert tables.grad.eq(0).all()


@pytest.mark.parametrize("options", [{}, {"subsampling": "4:2:0"}, {"padding": "zero"}])
@pytest.mark.parametrize(
    "restride",
    [
        lambda t: t.contiguous(memory_format=torch.channels_last),
        lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
        lambda t: torch.stack([t, t], -1)[..., 0],
    ],
)
def test_strides_do_not_count(options, restride):
    inputs, g = (photo(2, 21, 30), torch.rand(2, 8, 8) * 20 + 3), torch.randn(2, 3, 21, 30)
    # gentle, so that a last bit of a coefficient is no more than that of a gradient
    f = lambda x, t: jpeg(x, t, kappa=3.0, **options)  # noqa: E731
    y, expected = gradients(f, *inputs, g=g)
    strided = restride(inputs[0]), inputs[1].transpose(1, 2).contiguous().transpose(1, 2)
    other, found = gradients(f, *strided, g=restride(g))
    assert torch.equal(other, y)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("options", [{}, {"subsampling": "4:2:0"}, {"quantizer": "sample"}])
@pytest.mark.parametrize("shape", [(2, 3, 0, 8), (2, 3, 8, 0), (0, 1, 0, 0)])
def test_images_without_pixels(shape, options):
    x, tables = torch.zeros(shape, requires_grad=True), torch.ones(2, 8, 8, requires_grad=True)
    y = jpeg(x, tables, **options)
    assert y.shape == shape
    y.sum().backward()
    assert x.grad.shape == shape
    assert tables.grad.eq(0).all()


def test_inputs_are_left_alone():
    x, tables = photo(), torch.full((2, 8, 8), -1.0, requires_grad=True)
    before = x.clone(), tables.detach().clone(), tables._version
    jpeg(x, tables).sum().backward()
    assert torch.equal(x, before[0])
    assert torch.equal(tables.detach(), before[1])
    assert tables._version == before[2]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": [1, 2]}, TypeError, "torch.Tensor"),
        ({"x": torch.zeros(8, 8)}, ValueError, r"\(N, 3, H, W\)"),
        ({"x": torch.zeros(4, 8, 8)}, ValueError, "one image without N"),
        ({"x": torch.zeros(1, 1, 3, 8, 8)}, ValueError, r"\(N, 3, H, W\)"),
        ({"x": torch.zeros(1, 4, 8, 8)}, ValueError, r"\(N, 3, H, W\)"),
        ({"x": torch.zeros(1, 3, 8, 8, dtype=torch.int16)}, TypeError, "float32, float64 or uint8"),
        ({"x": torch.zeros(1, 4, 8, 5, dtype=torch.uint8)}, ValueError, r"\(N, 3, H, W\)"),
        ({"tables": torch.ones(3, 8, 8)}, ValueError, r"\(2, 8, 8\)"),
        ({"tables": torch.ones(1, 8, 8)}, ValueError, r"\(2, 8, 8\)"),
        ({"tables": torch.ones(2, 8, 8, dtype=torch.float64)}, TypeError, "dtype"),
        ({"alpha": torch.ones(3)}, ValueError, "alpha must broadcast"),
        ({"kappa": torch.ones(3)}, ValueError, "kappa must broadcast"),
        ({"quantizer": "round"}, ValueError, "soft, hard, ste, sample"),
        ({"subsampling": "4:1:1"}, ValueError, "4:4:4, 4:2:2, 4:2:0"),
        ({"padding": "reflect"}, ValueError, "replicate, zero"),
        ({"peak": 0}, ValueError, "255"),
        ({"mean": (0.5, 0.5)}, ValueError, "3 numbers"),
        ({"std": 0.0}, ValueError, "positive"),
        ({"std": (1.0, 1.0, float("nan"))}, ValueError, "finite"),
        ({"window": 6}, ValueError, "odd"),
        ({"chroma_offset": float("inf")}, ValueError, "finite"),
    ],
)
def test_errors(change, error, message):
    arguments = {"x": torch.zeros(1, 3, 8, 8), "tables": torch.ones(2, 8, 8), **change}
    with pytest.raises(error, match=message):
        jpeg(arguments.pop("x"), arguments.pop("tables"), **arguments)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 12), (1, 1, 7, 8)])
def test_block_dct_errors(shape):
    with pytest.raises(ValueError, match="multiples of 8"):
        block_dct(torch.zeros(shape))
    with pytest.raises(ValueError, match="8, 8"):
        block_idct(torch.zeros(shape))
