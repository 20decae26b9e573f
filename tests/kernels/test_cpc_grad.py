"""Gradients that visit the non-zeros of one map, against torch's own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from strategies import conv_cases

from jsc import methods as ops
from jsc.ops import cpc, cpc_grad

fixtures = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
LAST = torch.channels_last


def integers(*shape, dtype=torch.float32, density=0.5):
    x = torch.randint(-4, 5, shape).to(dtype) * (torch.rand(shape) < density)
    return x.contiguous(memory_format=LAST)


def problem(N, C, H, W, K, kernel, stride=(1, 1), padding=(0, 0), dtype=torch.float32):
    """Input, gradient of the output and weight of small integers, and the geometry."""
    x, w = integers(N, C, H, W, dtype=dtype), integers(K, C, *kernel, dtype=dtype, density=1)
    g = ops.geometry(x, w, stride, padding, (1, 1), 1)
    return x, integers(N, K, g.Oh, g.Ow, dtype=dtype), w, g


def expected(x, grad, w, g):
    steps = (g.Sh, g.Sw), (g.Ph, g.Pw), (1, 1)
    run = torch.ops.aten.convolution_backward
    return run(grad, x, w, None, *steps, False, (0, 0), 1, (True, True, False))[:2]


@fixtures
@given(case=conv_cases(dilation=1, groups=1), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_integers_are_exact(isa, num_threads, case, dtype):
    x, w, _ = case.tensors(dtype, integer=True)
    assume(x.shape[0] > 0)
    g = ops.geometry(x, w, case.stride, case.padding, (1, 1), 1)
    assume(not cpc_grad.unsupported(g))
    x = x.contiguous(memory_format=LAST)
    grad = integers(g.N, g.K, g.Oh, g.Ow, dtype=dtype)
    gx, gw = expected(x, grad, w, g)
    both = cpc_grad.gradients(x, grad, w, g, over_input=True, input_grad=True)
    assert torch.equal(both[0], gx * (x != 0))
    assert torch.equal(both[1], gw)
    assert both[1].stride() == torch.empty_like(w).stride()
    alone = cpc_grad.gradients(x, grad, w, g, over_input=True, weight_grad=False, input_grad=True)
    assert alone[1] is None
    assert torch.equal(alone[0], both[0])
    assert torch.equal(cpc_grad.gradients(x, grad, w, g, over_input=True)[1], gw)
    if g.Sh == g.Sw == 1:
        assert torch.equal(cpc_grad.gradients(grad, x, w, g, over_input=False)[1], gw)


@pytest.mark.parametrize("limits", [(28 * 1024, 4096), (3000, 100), (1, 1)])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [
        ((9, 20, 8, 8), (3, 3), (1, 1), (1, 1)),  # groups of images
        ((3, 5, 37, 41), (3, 3), (1, 1), (1, 1)),  # bands, the last one shorter; odd width
        ((2, 17, 12, 10), (3, 3), (2, 2), (1, 1)),  # phases
        ((2, 3, 9, 12), (5, 5), (1, 1), (6, 5)),  # padding wider than the kernel
        ((5, 18, 6, 4), (1, 7), (1, 1), (0, 3)),
    ],
)
def test_blocks_and_ranges_change_nothing(
    isa, dtype, limits, size, kernel, stride, padding, monkeypatch
):
    monkeypatch.setattr(cpc_grad, "_plan", cpc_grad._Plan)
    monkeypatch.setattr(cpc_grad, "BLOCK_BYTES", limits[0])
    monkeypatch.setattr(cpc_grad, "RANGE_PIXELS", limits[1])
    x, grad, w, g = problem(*size, 35, kernel, stride, padding, dtype=dtype)
    gx, gw = expected(x, grad, w, g)
    found = cpc_grad.gradients(x, grad, w, g, over_input=True, input_grad=True)
    assert torch.equal(found[0], gx * (x != 0))
    assert torch.equal(found[1], gw)
    if stride == (1, 1):
        assert torch.equal(cpc_grad.gradients(grad, x, w, g, over_input=False)[1], gw)


def test_plans_of_wide_maps_are_not_kept():
    """They have 12 bytes for each column."""
    before = cpc_grad._kept.cache_info()
    for width in (5000, 8):
        x, grad, w, g = problem(1, 2, 3, width, 3, (3, 3), padding=(1, 1))
        assert torch.equal(
            cpc_grad.gradients(x, grad, w, g, over_input=True)[1], expected(x, grad, w, g)[1]
        )
    after = cpc_grad._kept.cache_info()
    assert after.hits + after.misses == before.hits + before.misses + 1


@pytest.mark.parametrize("over_input", [True, False])
def test_same_bits_for_threads_and_again(isa, dtype, over_input, monkeypatch):
    monkeypatch.setattr("jsc._config.SERIAL_WORK", 0)
    x, grad, w, g = problem(6, 40, 17, 19, 33, (3, 3), padding=(1, 1), dtype=dtype)
    x, grad, w = x * torch.randn_like(x), grad * torch.randn_like(grad), torch.randn_like(w)
    S, D = (x, grad) if over_input else (grad, x)
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 3, 3):
        torch.set_num_threads(threads)
        results.append(cpc_grad.gradients(S, D, w, g, over_input=over_input, input_grad=over_input))
    torch.set_num_threads(before)
    for other in results[1:]:
        assert torch.equal(results[0][1], other[1])
        assert not over_input or torch.equal(results[0][0], other[0])


def test_real_numbers_are_within_the_rounding_bound(isa):
    x, grad, w, g = problem(3, 20, 14, 14, 40, (3, 3), padding=(1, 1))
    x, grad, w = x * torch.randn_like(x), grad * torch.randn_like(grad), torch.randn_like(w)
    found = cpc_grad.gradients(x, grad, w, g, over_input=True, input_grad=True)
    exact = expected(x.double(), grad.double(), w.double(), g)
    size = expected(x.double().abs(), grad.double().abs(), w.double().abs(), g)
    exact, size = (exact[0] * (x != 0), exact[1]), (size[0] * (x != 0), size[1])
    for result, right, total, n in zip(found, exact, size, (9 * 40, 3 * 14 * 14), strict=True):
        bound = (n + 2) * torch.finfo(torch.float32).eps * total
        assert bool(((result.double() - right).abs() <= bound).all())


@pytest.mark.parametrize("which", ["x", "grad", "w"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_left_to_the_dense_way(isa, which, bad):
    x, grad, w, g = problem(2, 20, 9, 9, 18, (3, 3), padding=(1, 1))
    {"x": x, "grad": grad, "w": w}[which][0, 0, 0, 0] = bad
    assert cpc_grad.gradients(x, grad, w, g, over_input=True, input_grad=True) is None
    if which != "w":
        assert cpc_grad.gradients(grad, x, w, g, over_input=False) is None
    else:
        assert cpc_grad.sweep_weight(w, g, turned=False) is None


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, LAST])
@pytest.mark.parametrize(
    "size", [(16, 16, 3, 3), (70, 65, 3, 3), (40, 130, 5, 1), (3, 5, 1, 7), (64, 64, 1, 1)]
)
def test_weights_of_the_sweep(isa, dtype, memory_format, size):
    w = torch.randn(size, dtype=dtype).contiguous(memory_format=memory_format)
    turned = w.flip(2, 3).transpose(0, 1)
    for weight, channels in ((w, w.shape[1]), (turned, w.shape[0])):
        x = torch.empty(2, channels, 9, 9)
        g = ops.geometry(x, weight, (1, 1), (3, 3), (1, 1), 1)
        packed = cpc_grad.sweep_weight(w, g, turned=weight is turned)
        assert torch.equal(packed, cpc.pack(weight, g))


@pytest.mark.parametrize("size", [(64, 16, 32, 32), (2, 512, 4, 4), (1, 3, 5, 5), (0, 4, 8, 8)])
def test_density(isa, dtype, size):
    x = integers(*size, dtype=dtype, density=0.3)
    assert cpc_grad.density(x) == pytest.approx(
        float((x != 0).double().mean().nan_to_num()), abs=0.03
    )
    assert cpc_grad.density(torch.full(size, float("nan"), dtype=dtype)) == (1 if size[0] else 0)
