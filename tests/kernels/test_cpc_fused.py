"""The fused store of CPC: the bits of convolution, batch-norm, addition and ReLU one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import ConvCase, conv_cases

from jsc import _config
from jsc._geometry import ConvGeometry
from jsc.ops import cpc
from jsc.ops.epilogue import Epilogue, Norm

fixtures = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def bits(x: torch.Tensor) -> torch.Tensor:
    """The numbers as integers: -0.0 is not 0.0. Which NaN it is does not matter."""
    x = torch.where(x.isnan(), torch.full_like(x, torch.nan), x).contiguous()
    return x.view(torch.int32 if x.dtype == torch.float32 else torch.int64)


def masks_of(x: torch.Tensor) -> torch.Tensor:
    """By definition: bit b of set s is set where channel 64 s + b is not zero."""
    return cpc.encode(x)[1].view(torch.int64)


def problem(case: ConvCase, dtype: torch.dtype):
    """Input, packed weights, bias and geometry; a residual of the output's size."""
    x, w, b = case.tensors(dtype, integer=False)
    g = ConvGeometry(
        *x.shape, w.shape[0], *w.shape[2:], *case.stride, *case.padding, *case.dilation
    )
    residual = torch.randn(g.N, g.K, g.Oh, g.Ow, dtype=dtype).relu()
    return x, cpc.pack(w, g), b, g, residual


def batch_norm(x, norm):
    """torch's, where the kernel has its multiply-add."""
    if _config.isa():
        mean, variance, weight, bias, eps = norm
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)
    inverse = 1 / torch.from_numpy(np.sqrt((norm.variance + norm.eps).numpy()))  # torch's: 1 ulp
    scale = inverse if norm.weight is None else inverse * norm.weight
    shift = (0 if norm.bias is None else norm.bias) - norm.mean * scale
    return x * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)


def some_norm(K, dtype=torch.float32, weight=True, bias=True):
    return Norm(
        torch.randn(K, dtype=dtype), torch.rand(K, dtype=dtype) + 0.1,
        torch.randn(K, dtype=dtype) if weight else None,
        torch.randn(K, dtype=dtype) if bias else None, 1e-5,
    )  # fmt: skip


def one_by_one(x, packed, b, g, norm, residual, relu):
    y = cpc.Convolution(packed, b, g)(x)
    if norm is not None:
        y = batch_norm(y, norm)
    if residual is not None:
        y = y + residual
    return y.relu() if relu else y


@fixtures
@given(
    case=conv_cases(groups=1),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    adds=st.booleans(),
    relu=st.booleans(),
    handed=st.booleans(),
)
def test_fused_is_one_by_one(isa, num_threads, case, dtype, adds, relu, handed):
    x, packed, b, g, residual = problem(case, dtype)
    if g.N == 0:
        return
    fused = cpc.Convolution(packed, b, g, Epilogue(relu=relu, masks=True))
    given = cpc.encode(x)[1] if handed else None
    out, masks = fused.fused(x, residual if adds else None, given)
    expected = one_by_one(x, packed, b, g, None, residual if adds else None, relu)
    assert torch.equal(bits(out), bits(expected))
    assert torch.equal(masks.view(torch.int64), masks_of(expected))


@fixtures
@given(case=conv_cases(groups=1), weight=st.booleans(), bias=st.booleans())
def test_batch_norm_has_the_bits_of_torch(isa, case, weight, bias):
    x, packed, b, g, residual = problem(case, torch.float32)
    if g.N == 0:
        return
    norm = some_norm(g.K, weight=weight, bias=bias)
    fused = cpc.Convolution(packed, b, g, Epilogue(norm, True, True))
    for _ in range(2):
        out, masks = fused.fused(x, residual)
        expected = one_by_one(x, packed, b, g, norm, residual, True)
        assert torch.equal(bits(out), bits(expected))
        assert torch.equal(masks.view(torch.int64), masks_of(expected))
        norm.mean.add_(1)  # read at every call


@pytest.mark.parametrize("K", [1, 3, 4, 8, 15, 16, 17, 33, 63, 64, 65, 100, 128, 129, 200, 260])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (1, 7)])
def test_masks_of_every_number_of_filters(isa, dtype, K, kernel):
    """Blocks of 2 to 128 filters, whole and not, also where absent filters come out as NaN."""
    x = torch.randn(2, 70, 6, 5, dtype=dtype).relu()
    x[1, 3, 2, 2], x[0, 1, 0, 0] = torch.inf, torch.nan
    g = ConvGeometry(*x.shape, K, *kernel, 1, 1, kernel[0] // 2, kernel[1] // 2, 1, 1)
    packed = cpc.pack(torch.randn(K, 70, *kernel, dtype=dtype), g)
    fused = cpc.Convolution(packed, None, g, Epilogue(relu=True, masks=True))
    out, masks = fused.fused(x)
    expected = one_by_one(x, packed, None, g, None, None, True)
    assert torch.equal(bits(out), bits(expected))
    assert torch.equal(masks.view(torch.int64), masks_of(expected))


def test_special_numbers_as_torch(isa, dtype):
    """ReLU keeps NaN and -0.0; sums with infinities are what they are one by one."""
    special = torch.tensor([0.0, -0.0, 1.0, -1.0, torch.inf, -torch.inf, torch.nan], dtype=dtype)
    x = torch.zeros(1, 3, 7, 7, dtype=dtype)
    g = ConvGeometry(1, 3, 7, 7, 7, 1, 1, 1, 1, 0, 0, 1, 1)
    packed = cpc.pack(torch.ones(7, 3, 1, 1, dtype=dtype), g)
    residual = special.view(1, 1, 1, -1).expand(1, 7, 7, 7)
    odd = Norm(special, torch.rand(7, dtype=dtype), special.flip(0), special, 1e-5)
    for norm in (None, odd):
        fused = cpc.Convolution(packed, special, g, Epilogue(norm, True, True))
        for added in (None, residual):
            out, masks = fused.fused(x, added)
            expected = one_by_one(x, packed, special, g, norm, added, True)
            assert torch.equal(bits(out), bits(expected))
            assert torch.equal(masks.view(torch.int64), masks_of(expected))


@pytest.mark.parametrize("K", [24, 70])
def test_threads_and_bands_do_not_change_a_bit(isa, dtype, K, monkeypatch):
    monkeypatch.setattr("jsc._config.SERIAL_WORK", 0)
    x = torch.randn(3, 65, 11, 9, dtype=dtype).relu()
    g = ConvGeometry(*x.shape, K, 3, 3, 2, 1, 1, 1, 1, 1)
    packed, bias = cpc.pack(torch.randn(K, 65, 3, 3, dtype=dtype), g), torch.randn(K, dtype=dtype)
    residual = torch.randn(3, K, g.Oh, g.Ow, dtype=dtype)
    epilogue = Epilogue(some_norm(K, dtype), True, True)
    results = []
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        for tile in (1, 128 * 1024):
            monkeypatch.setattr(cpc, "TILE_BYTES", tile)
            results.append(cpc.Convolution(packed, bias, g, epilogue).fused(x, residual))
    torch.set_num_threads(before)
    for out, masks in results[1:]:
        assert torch.equal(bits(out), bits(results[0][0]))
        assert torch.equal(masks.view(torch.int64), results[0][1].view(torch.int64))


def test_layouts_of_the_residual(isa, dtype):
    x = torch.randn(2, 20, 6, 6, dtype=dtype).relu()
    g = ConvGeometry(*x.shape, 20, 3, 3, 1, 1, 1, 1, 1, 1)
    convolution = cpc.Convolution(cpc.pack(torch.randn(20, 20, 3, 3, dtype=dtype), g), None, g)
    residual = torch.randn(2, 20, 6, 6, dtype=dtype)
    expected = convolution(x) + residual
    last = residual.contiguous(memory_format=torch.channels_last)
    sliced = torch.stack([residual, residual], -1)[..., 1]
    for added in (residual, last, sliced):
        out, masks = convolution.fused(x, added)
        assert masks is None
        assert torch.equal(bits(out), bits(expected))
    row = residual[:1, :1].expand_as(residual)
    assert torch.equal(convolution.fused(x, row)[0], convolution(x) + row)


def test_masks_take_whole_words():
    """Bits past the last channel are zero whatever the memory held before."""
    x = torch.full((1, 5, 4, 4), 2.0)
    g = ConvGeometry(*x.shape, 5, 1, 1, 1, 1, 0, 0, 1, 1)
    packed = cpc.pack(torch.ones(5, 5, 1, 1), g)
    fused = cpc.Convolution(packed, None, g, Epilogue(masks=True))
    fused.fused(x)[1].view(torch.int64).fill_(-1)  # the memory of the next call's
    assert torch.equal(fused.fused(x)[1].view(torch.int64), torch.full((1, 1, 4, 4), 31))
