"""The JPEG layer under torch's transforms: operators' checks, compile, export, func, vmap,
autocast, other devices."""

import io
import shutil

import pytest
import torch
from samples import IMAGENET, photo
from torch.library import opcheck

import jsc
from jsc.functional import dct, jpeg, quant
from jsc.ops import _library
from jsc.reference import jpeg as reference

COMPILER = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
JVP = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")


SAMPLES = [
    (3, 2, 16, 24, torch.float32, False),
    (1, 1, 5, 9, torch.float64, True),
    (3, 0, 8, 8, torch.float32, True),
]


@pytest.mark.parametrize(("channels", "n", "h", "w", "dtype_", "transposed"), SAMPLES)
def test_operators(channels, n, h, w, dtype_, transposed):
    x = torch.rand(n, channels, h, w, dtype=dtype_)
    x = x.transpose(2, 3).contiguous().transpose(2, 3) if transposed else x
    tables = 1 if channels == 1 else 2
    q, kappa = torch.rand(tables, 8, 8, dtype=dtype_) + 1, torch.rand(tables, 8, 8, dtype=dtype_)
    scales = ([0.5] * channels, [0.2] * channels, 1.0, 0.5)
    chroma = (2, 2) if channels == 3 else (1, 1)
    layer = (x, q[None], kappa[None])
    for seed, mode in ((None, 0), (torch.tensor([5]), 3)):
        options = (seed, mode, 0, 0, *chroma, False, *scales)
        opcheck(torch.ops.jsc.jpeg.default, (*layer, *options))
        for wanted in (1, 2, 3):
            opcheck(torch.ops.jsc.jpeg_backward.default, (x, *layer, *options, wanted))
    z = torch.rand(n, channels, 5, 64, dtype=dtype_)
    q, kappa = (
        q[:1].reshape(1, 64).expand(channels, 64),
        kappa[:1].reshape(1, 64).expand(channels, 64),
    )
    opcheck(torch.ops.jsc.soft_quantize.default, (z, q, kappa, 0, 5, 0))
    opcheck(torch.ops.jsc.soft_quantize_backward.default, (z, z, q, kappa, 0, 0, 127))
    if h % 8 == 0:
        opcheck(torch.ops.jsc.block_dct.default, (x,))
        opcheck(
            torch.ops.jsc.block_idct.default, (torch.rand(n, channels, 2, 1, 8, 8, dtype=dtype_),)
        )


def value_and_gradients(f, layer, x):
    torch.manual_seed(0)  # draws
    y = f(x)
    return y, *torch.autograd.grad(y.square().sum(), (x, *layer.parameters()), allow_unused=True)


def check_compiled(layer_options, **how):
    torch._dynamo.reset()
    layer = jsc.nn.JPEG.from_quality(50, kappa=2.0, train_alpha=True, **IMAGENET, **layer_options)
    compiled = torch.compile(layer, fullgraph=True, **how)
    for size in ((24, 20), (32, 24), (17, 33)) if how.get("dynamic") else ((24, 20),):
        x = photo(2, *size).requires_grad_()
        found, expected = (value_and_gradients(f, layer, x) for f in (compiled, layer))
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


EVERY_PATH = [
    {}, {"subsampling": "4:2:0"}, {"quantizer": "ste"}, {"quantizer": "sample"}, {"rounds": 2},
    {"padding": "zero"},
]  # fmt: skip


@COMPILER
@pytest.mark.parametrize("options", EVERY_PATH)
def test_compile(options):
    check_compiled(options, backend="aot_eager")


@COMPILER
def test_compile_for_any_size():
    check_compiled({}, backend="aot_eager", dynamic=True)


COMPILER_FOUND = pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs g++")


@COMPILER
@COMPILER_FOUND
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_compile_with_inductor():
    check_compiled({})


@pytest.mark.slow
@COMPILER
@COMPILER_FOUND
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("options", EVERY_PATH)
def test_compile_every_path_with_inductor(options):
    # draws as without a compiler
    check_compiled(options, options={"fallback_random": True})


@pytest.mark.slow
@COMPILER
@COMPILER_FOUND
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_compile_for_any_size_with_inductor():
    check_compiled({}, dynamic=True)


@COMPILER
@pytest.mark.filterwarnings("ignore:The given buffer is not writable")  # torch 2.10 when loading
@pytest.mark.parametrize("options", EVERY_PATH)
def test_export(options):
    layer = jsc.nn.JPEG.from_quality(50, kappa=2.0, **IMAGENET, **options)
    x = photo(2, 24, 20)
    file = io.BytesIO()
    torch.export.save(torch.export.export(layer, (x,)), file)
    file.seek(0)
    program = torch.export.load(file).module()
    torch.manual_seed(0)
    y = layer(x)
    torch.manual_seed(0)
    torch.testing.assert_close(program(x), y.detach(), rtol=0, atol=1e-5)


@COMPILER
def test_export_for_any_size():
    any_size = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    layer = jsc.nn.JPEG.from_quality(50, **IMAGENET)
    program = torch.export.export(layer, (photo(2, 24, 40),), dynamic_shapes=(any_size,)).module()
    for n, h, w in ((2, 24, 40), (5, 16, 24), (3, 17, 26)):
        torch.testing.assert_close(program(photo(n, h, w)), layer(photo(n, h, w)).detach())


def test_func_grad():
    x, tables = (
        photo(2, 16, 16, dtype=torch.float64),
        torch.full((2, 8, 8), 30.0, dtype=torch.float64),
    )
    loss = lambda x, t: jpeg(x, t, kappa=3.0).pow(2).sum()  # noqa: E731
    found = torch.func.grad(loss, argnums=(0, 1))(x, tables)
    x_, t_ = x.clone().requires_grad_(), tables.clone().requires_grad_()
    expected = torch.autograd.grad(loss(x_, t_), (x_, t_), create_graph=True)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    second = torch.func.grad(lambda t: torch.func.grad(loss, argnums=1)(x, t).pow(2).sum())(tables)
    torch.testing.assert_close(second, torch.autograd.grad(expected[1].pow(2).sum(), t_)[0])


def test_vjp():
    x, layer = photo(2, 16, 20), jsc.nn.JPEG.from_quality(50, kappa=2.0, train_alpha=True)
    names = dict(layer.named_parameters())
    y, pull = torch.func.vjp(lambda p, x: torch.func.functional_call(layer, p, (x,)), names, x)
    g = torch.randn_like(y)
    found, dx = pull(g)
    x.requires_grad_()
    expected = torch.autograd.grad(layer(x), (*names.values(), x), g)
    for a, b in zip((*found.values(), dx), expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("options", [{}, {"subsampling": "4:2:0"}, {"quantizer": "ste"}])
def test_vmap_is_a_loop(options):
    x = photo(4, 13, 18, dtype=torch.float64).unsqueeze(1)
    tables = torch.rand(4, 2, 8, 8, dtype=torch.float64) * 20 + 5
    f = lambda x, t: jpeg(x, t, kappa=2.0, **options)  # noqa: E731
    loss = lambda x, t: f(x, t).pow(2).sum()  # noqa: E731
    loop = torch.stack([f(*pair) for pair in zip(x, tables, strict=True)])
    last = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unsqueeze(1)
    for images in (x, last):
        torch.testing.assert_close(torch.vmap(f)(images, tables), loop)
    # tables' gradients of each image
    gradient = torch.func.grad(loss, argnums=1)
    found = torch.vmap(gradient, (0, None))(x, tables[0])
    torch.testing.assert_close(found, torch.stack([gradient(one, tables[0]) for one in x]))
    found = torch.vmap(gradient)(x, tables)
    loop = torch.stack([gradient(*pair) for pair in zip(x, tables, strict=True)])
    torch.testing.assert_close(found, loop)


def test_jacobian_and_hessian():
    x = photo(1, 8, 8, dtype=torch.float64)
    tables, kappa = jsc.jpeg.quality_tables(50, torch.float64), torch.tensor(2.0).double()
    corner = lambda t: jpeg(x, t, kappa=kappa)[0, :, :2, 0]  # noqa: E731
    expected = torch.autograd.functional.jacobian(corner, tables)
    torch.testing.assert_close(torch.func.jacrev(corner)(tables), expected)
    energy = lambda k: jpeg(x, tables, kappa=k).pow(2).sum()  # noqa: E731
    expected = torch.autograd.functional.hessian(energy, kappa)
    torch.testing.assert_close(torch.func.jacrev(torch.func.jacrev(energy))(kappa), expected)


@JVP
def test_forward_mode_says_no():
    x = photo(1, 8, 8)
    with pytest.raises(RuntimeError, match="forward"), torch.autograd.forward_ad.dual_level():
        jpeg(torch.autograd.forward_ad.make_dual(x, x), torch.ones(2, 8, 8))


def test_autocast_computes_in_float32():
    x, tables = photo(), torch.full((2, 8, 8), 10.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = jpeg(x.bfloat16(), tables)
    assert y.dtype == torch.float32
    assert torch.equal(y, jpeg(x.bfloat16().float(), tables))


def test_autocast_gives_gradients_of_the_dtype_of_the_leaf():
    layer, x = jsc.nn.JPEG.from_quality(50), photo().bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = torch.nn.functional.conv2d(layer(x), torch.ones(1, 3, 3, 3)).sum()
    loss.backward()
    assert x.grad.dtype == torch.bfloat16
    assert layer.tables.grad.dtype == torch.float32
    assert layer.tables.grad.isfinite().all()
    assert layer.tables.grad.abs().max() > 0


def test_autocast_leaves_second_derivatives_in_float32():
    x, tables = photo().requires_grad_(), torch.full((2, 8, 8), 30.0, requires_grad=True)

    def second():
        loss = jpeg(x, tables, kappa=3.0).square().sum()
        first = torch.autograd.grad(loss, (x, tables), create_graph=True)
        return torch.autograd.grad(sum(t.square().sum() for t in first), (x, tables))

    expected = second()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = second()
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("options", EVERY_PATH)
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_without_data(options, channels):
    layer = jsc.nn.JPEG.from_quality(50, kappa=2.0, train_alpha=True, **options).to("meta")
    x = torch.empty(2, channels, 21, 34, device="meta", requires_grad=True)
    y = layer(x)
    assert (y.shape, y.dtype, y.device) == (x.shape, x.dtype, x.device)
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert layer.tables.grad.shape == layer.tables.shape
    assert layer.log_kappa.grad.shape == ()


def test_other_devices_run_plain_torch(monkeypatch):
    """As if this were one: no operator of jsc may be called."""
    x, tables = photo(1, 21, 19), torch.full((2, 8, 8), 12.0)
    z = torch.randn(2, 3, 2, 2, 8, 8)
    calls = [
        lambda: jpeg(x, tables, kappa=3.0),
        lambda: jpeg(x, tables, kappa=3.0, padding="zero"),
        lambda: jpeg(x, tables, kappa=3.0, subsampling="4:2:0"),
        lambda: jpeg(x, tables, quantizer="hard"),
        lambda: jpeg(x, tables, quantizer="ste", levels=3),
        lambda: jpeg(x, torch.stack([tables, tables + 1]), kappa=3.0, window=5, levels=127),
        lambda: jpeg(x[:, :1], tables, kappa=3.0),
        lambda: dct.block_idct(dct.block_dct(x[..., :16, :16]) + 1),
        lambda: quant.soft_quantize(z, 0.3, kappa=2.0),
    ]
    expected = [call() for call in calls]
    monkeypatch.setattr(torch.ops, "jsc", None)
    monkeypatch.setattr(_library, "_IMPLEMENTATIONS", {})
    monkeypatch.setattr(dct, "KERNEL_DEVICES", ())
    for call, y in zip(calls, expected, strict=True):
        torch.testing.assert_close(call(), y, rtol=0, atol=2e-5)
    generator = torch.Generator().manual_seed(0)
    y = jpeg(x, tables.requires_grad_(), kappa=3.0, quantizer="sample", generator=generator)
    y.sum().backward()
    assert tables.grad.isfinite().all()
    only = torch.full((2, 8, 8), 3.0)
    torch.testing.assert_close(reference.jpeg(x, tables, only), expected[0], rtol=0, atol=1e-5)
