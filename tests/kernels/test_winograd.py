"""Winograd's three passes against the definition in float64: the convolution, and its gradients."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F

import jsc
from jsc import _config
from jsc._geometry import ConvGeometry
from jsc._kernels.winograd import winograd as kernel
from jsc.network import packing
from jsc.ops import winograd
from jsc.ops._scratch import memory
from jsc.reference import winograd as reference

LAST = torch.channels_last
# Largest error over the largest element: tiles of 2 x 2 are as exact as sums in float32.
BOUND = {"ieee": 1e-6, "tf32": 5e-6}


@pytest.fixture(params=["ieee", "tf32"])
def precision(request):
    """Tiles of 2 x 2, and of 4 x 4."""
    switch = torch.backends.mkldnn.conv
    before, switch.fp32_precision = switch.fp32_precision, request.param
    yield request.param
    switch.fp32_precision = before


def drawn(seed):
    r = random.Random(seed)
    C, K = r.choice([1, 8, 16, 20, 33, 70]), r.choice([1, 8, 17, 40, 64, 130, 200])
    H, W, P = r.randint(1, 13), r.randint(1, 13), (r.randint(0, 2), r.randint(0, 2))
    H, W = max(H, 3 - 2 * P[0]), max(W, 3 - 2 * P[1])
    return ConvGeometry(r.choice([1, 2, 5]), C, H, W, K, 3, 3, 1, 1, *P)


def maps(g, integers=False):
    torch.manual_seed(g.C + 1000 * g.K)
    shapes = (g.N, g.C, g.H, g.W), (g.N, g.K, g.Oh, g.Ow), (g.K, g.C, 3, 3), (g.K,)
    make = (lambda s: torch.randint(-4, 5, s).float()) if integers else torch.randn
    return [make(shape) for shape in shapes]


def exact(x, grad, w, b, g):
    """Output and gradients of input and weight, in float64."""
    x, grad, w, b = (t.double() for t in (x, grad, w, b))
    padding = (g.Ph, g.Pw)
    back = torch.ops.aten.convolution_backward(
        grad, x, w, None, (1, 1), padding, (1, 1), False, (0, 0), 1, (True, True, False)
    )
    return F.conv2d(x, w, b, 1, padding), *back[:2]


def passes(x, grad, w, b, g):
    return (
        winograd.Convolution(winograd.pack(w, g, winograd.tile()), b, g)(x),
        winograd.input_gradient(grad, w, g),
        winograd.weight_gradient(x, grad, w, g),
    )


@pytest.mark.parametrize("seed", range(10))
def test_the_definition(isa, precision, num_threads, seed):
    g = drawn(seed)
    x, grad, w, b = maps(g)
    if seed % 2:
        x, w = x.contiguous(memory_format=LAST), w.contiguous(memory_format=LAST)
    else:
        w = w.transpose(2, 3).contiguous().transpose(2, 3)  # strides of neither format
    for found, expected in zip(passes(x, grad, w, b, g), exact(x, grad, w, b, g), strict=True):
        error = (found.double() - expected).abs().max() / expected.abs().max()
        assert found.shape == expected.shape
        assert float(error) < BOUND[precision]
    assert winograd.weight_gradient(x, grad, w, g).stride() == w.stride()


@pytest.mark.parametrize("seed", range(4))
def test_integers_are_exact_in_tiles_of_two(isa, seed):
    g = drawn(seed + 100)
    all_maps = maps(g, integers=True)
    for found, expected in zip(passes(*all_maps, g), exact(*all_maps, g), strict=True):
        assert torch.equal(found.double(), expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 3e38])
def test_numbers_that_are_not_finite_are_torchs(isa, precision, bad):
    g = ConvGeometry(2, 20, 9, 8, 24, 3, 3, 1, 1, 1, 1)
    x, grad, w, b = maps(g)
    x[1, 3, 4, 5] = grad[0, 5, 8, 0] = bad
    y, gx, gw = passes(x, grad, w, b, g)
    theirs = torch.ops.aten.convolution_backward(
        grad, x, w, None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, (True, True, False)
    )
    same = {"equal_nan": True, "rtol": 1e-5, "atol": 1e-4}
    torch.testing.assert_close(y, F.conv2d(x, w, b, padding=1), **same)
    torch.testing.assert_close(gx, theirs[0], **same)
    assert gw is None  # left to torch
    w[0, 0, 1, 1] = bad
    torch.testing.assert_close(
        winograd.input_gradient(torch.ones_like(grad), w, g),
        F.conv_transpose2d(torch.ones_like(grad), w, padding=1), **same,
    )  # fmt: skip


def test_the_bits_do_not_depend_on_threads_or_on_the_split_of_a_batch(isa, precision):
    g = ConvGeometry(6, 24, 17, 15, 40, 3, 3, 1, 1, 1, 1)
    x, grad, w, b = maps(g)
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(passes(x, grad, w, b, g))
    torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], other, strict=True))
    half = g._replace(N=3)
    for rows in (slice(0, 3), slice(3, 6)):
        y, gx, _ = passes(x[rows], grad[rows], w, b, half)
        assert torch.equal(y, found[0][0][rows])
        assert torch.equal(gx, found[0][1][rows])


@pytest.mark.parametrize("change", [{"N": 0}, {"K": 0}, {"C": 0}], ids=lambda change: str(*change))
def test_nothing_to_do(precision, change):
    g = ConvGeometry(2, 8, 9, 8, 16, 3, 3, 1, 1, 1, 1)._replace(**change)
    x, grad, w, b = maps(g)
    y, gx, gw = passes(x, grad, w, b, g)
    assert torch.equal(y, b.view(1, -1, 1, 1).expand(y.shape))
    assert not gx.any()
    assert gx.shape == x.shape
    assert gw is None  # left to torch


@pytest.mark.parametrize("sizes", [(9, 60, 60), (9, 48, 48), (33, 32, 32), (5, 47, 31)], ids=str)
def test_many_tiles_are_added_up_in_ranges(sizes):
    N, H, W = sizes
    g = ConvGeometry(N, 8, H, W, 8, 3, 3, 1, 1, 1, 1)
    x, grad, w, b = maps(g, integers=True)
    memory(1 << 24).bytes[:] = 0x7F  # what earlier calls left: 3.4e38 everywhere
    assert torch.equal(winograd.weight_gradient(x, grad, w, g).double(), exact(x, grad, w, b, g)[2])


def test_every_range_has_tiles_and_few_bytes():
    for seed in range(200):
        r = random.Random(seed)
        C, K, H = r.choice([8, 64, 512]), r.choice([8, 64, 512]), r.choice([2, 7, 14, 28, 56])
        g = ConvGeometry(r.randint(1, 70), C, H, H, K, 3, 3, 1, 1, 1, 1)
        for m in (2, 4):
            cut = winograd.cut(g, m, 2)
            steps = -(-g.N * (-(-H // m)) ** 2 // cut["tiles"])
            each = -(-steps // cut["ranges"])
            assert (cut["ranges"] - 1) * each < steps <= cut["ranges"] * each
            assert cut["ranges"] * 4 * (m + 2) ** 2 * C * K <= 80 << 20 or cut["ranges"] == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_default_dtype_changes_nothing(dtype):
    g = ConvGeometry(2, 8, 9, 8, 16, 3, 3, 1, 1, 1, 1)
    all_maps = maps(g)
    expected = passes(*all_maps, g)
    torch.set_default_dtype(dtype)
    try:
        found = passes(*all_maps, g)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(map(torch.equal, found, expected))


def test_other_shapes_and_dtypes_are_refused_in_words():
    g = ConvGeometry(2, 8, 9, 8, 16, 3, 3, 1, 1, 1, 1)
    x, grad, w, _ = maps(g)
    with pytest.raises(ValueError, match="input must be"):
        winograd.weight_gradient(x[:1], grad, w, g)
    with pytest.raises(ValueError, match="grad must be"):
        winograd.weight_gradient(x, grad.double(), w, g)
    with pytest.raises(ValueError, match="weight must be"):
        winograd.input_gradient(grad, w[:, :3], g)
    with pytest.raises(ValueError, match="input must be"):
        winograd.input_gradient(grad[..., 1:], w, g)
    with pytest.raises(ValueError, match="weight must be"):
        winograd.pack(w.double(), g)
    with pytest.raises(ValueError, match="No value specified for struct attribute"):
        kernel.Gradient({"N": 1}, _config.isa())


@pytest.mark.parametrize(
    "change", [{"Kh": 5}, {"Kw": 1}, {"Sw": 2}, {"Dh": 2}], ids=lambda change: str(*change)
)
def test_what_it_cannot_do_is_said(change):
    g = ConvGeometry(2, 8, 9, 8, 16, 3, 3, 1, 1, 1, 1)
    assert winograd.unsupported(g) is None
    assert "3 x 3" in winograd.unsupported(g._replace(**change))


def test_a_layer_runs_it_and_float64_is_dense():
    layer = torch.nn.Conv2d(20, 24, 3, padding=1)
    fast = jsc.nn.SparseConv2d.from_dense(layer, method="winograd")
    x = torch.randn(2, 20, 10, 10)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), layer(x), atol=1e-5, rtol=1e-5)
        assert not torch.equal(fast(x), layer(x))  # it did run
        assert torch.equal(fast.double()(x.double()), layer.double()(x.double()))


def test_weights_packed_for_another_layer_are_refused():
    g = ConvGeometry(2, 8, 9, 8, 16, 3, 3, 1, 1, 1, 1)
    wide = g._replace(C=16)
    packed = winograd.pack(torch.ones(16, 16, 3, 3), wide)
    with pytest.raises(ValueError, match="packed weight must be"):
        winograd.Convolution(packed, None, g)
    with pytest.raises(ValueError, match="packed weight must be"):
        winograd.Convolution(packed, None, g._replace(C=32, K=8))
    with _config.use_isa("base"), pytest.raises(ValueError, match="packed weight must be"):
        winograd.Convolution(winograd.pack(torch.ones(16, 32, 3, 3), g._replace(C=32)), None, wide)
    spread = packed[:1, :1, :1, :1].expand(packed.shape)  # one number everywhere, in four bytes
    assert winograd.Convolution(spread, None, wide)(torch.ones(2, 16, 9, 8)).isfinite().all()
    with pytest.raises(ValueError, match="bias must be"):
        winograd.Convolution(packed, torch.ones(3), wide)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("tile", [(2, 2), (2, 4), (4, 4)])
@pytest.mark.parametrize("seed", range(4))
def test_weights_are_transformed_in_double_precision(isa, num_threads, tile, dtype, seed):
    """U = Gv w Gh', rounded once, and the weights themselves, in the kernels' order."""
    r, lanes = random.Random(seed), winograd.LANES[_config.isa()]
    K, C, vectors = r.randint(1, 150), r.randint(1, 40), r.randint(1, 4)
    made = torch.randn(C, K, 3, 3, dtype=torch.float64).to(dtype)
    weight = made.transpose(0, 1) if seed % 2 else made.transpose(0, 1).contiguous()
    G = [reference.matrices(m)[1] for m in tile]
    transformed = torch.einsum("ia,kcab,jb->ijck", G[0], weight.double(), G[1]).flatten(0, 1)
    missing = -K % lanes
    blocks = F.pad(transformed, (0, missing)).split(vectors * lanes, 2)
    vector = F.pad(weight.double(), (0, 0, 0, 0, 0, 0, 0, missing)).unflatten(0, (-1, lanes))
    packed = packing.winograd(weight, tile, lanes, vectors)
    expected = [block.reshape(-1) for block in blocks]
    expected += [vector.permute(0, 3, 4, 2, 1).reshape(-1).float().double()]
    torch.testing.assert_close(packed.double(), torch.cat(expected), rtol=6e-8, atol=1e-15)
    plain = packed.view(-1)[packing.winograd_plain(packed, tile) // 4 :]
    assert torch.equal(plain.double(), expected[-1])
