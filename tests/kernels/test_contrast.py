"""Local contrast and its gradient against the definition, on every instruction set."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import gradients, same_bits
from torch.library import opcheck

import jsc
from jsc.functional import local_contrast
from jsc.functional.contrast import settings_of
from jsc.ops.contrast import plain
from jsc.reference import contrast as reference

SCALES = {3: {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}, 1: {"mean": [0.5], "std": [0.2]}}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(0, 3), channels=st.sampled_from([1, 3]),
    h=st.one_of(st.integers(1, 40), st.just(150)), w=st.integers(1, 90),
    deviation=st.sampled_from([0.5, 0.8, 2.0, 4.0, 11.3]), gain=st.sampled_from([0.2, 1.0]),
    epsilon=st.sampled_from([0.01, 0.05]), peak=st.sampled_from([1.0, 255.0]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_value_and_gradient(
    isa, num_threads, dtype, n, channels, h, w, deviation, gain, epsilon, peak, seed
):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((n, channels, h, w), generator=generator, dtype=torch.float64).to(dtype)
    g = torch.randn((n, channels, h, w), generator=generator, dtype=torch.float64).to(dtype)
    scale = {key: [peak * v for v in values] for key, values in SCALES[channels].items()}
    options = {"gain": gain, "epsilon": epsilon, "peak": peak, **scale}
    y, (found,) = gradients(lambda x: local_contrast(x, deviation, **options), x, g=g)
    expected, (wanted,) = gradients(
        lambda x: reference.local_contrast(x, deviation, **options), x.double(), g=g.double()
    )
    if h * w == 1:  # flat: the definition has no derivative
        wanted = torch.zeros_like(wanted)
    rtol = 1e-11 if dtype == torch.float64 else 3e-6
    for ours, exact in ((y, expected), (found, wanted)):
        size = exact.abs().max().item() if exact.numel() else 0.0
        limit = rtol * (size + gain / epsilon)
        torch.testing.assert_close(ours.double(), exact, rtol=0, atol=limit)


def test_same_bits_for_threads_instruction_sets_and_batches(num_threads, dtype):
    # Tall enough to be divided into bands.
    x, g = torch.rand(5, 3, 150, 69, dtype=dtype), torch.randn(5, 3, 150, 69, dtype=dtype)

    def run():
        return gradients(local_contrast, x, g=g)

    y, (found,) = same_bits(run)
    for i in range(len(x)):
        one, (own,) = gradients(local_contrast, x[i : i + 1], g=g[i : i + 1])
        assert torch.equal(one, y[i : i + 1])
        assert torch.equal(own, found[i : i + 1])


@pytest.mark.parametrize("shape", [(1, 3, 300, 40), (2, 1, 7, 200), (1, 1, 1, 5), (1, 3, 64, 1)])
def test_plain_torch_is_the_same(isa, shape):
    x, g = torch.rand(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    chosen = settings_of(shape[1], 3.0, 0.3, 0.1, None, None, 1.0)
    y, (found,) = gradients(lambda x: local_contrast(x, 3.0, gain=0.3, epsilon=0.1), x, g=g)
    expected, (wanted,) = gradients(lambda x: plain(x, chosen), x, g=g)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def test_derivatives(isa):
    x = torch.rand(1, 1, 7, 6, dtype=torch.float64, requires_grad=True)
    f = lambda x: local_contrast(x, 1.5, mean=0.4, std=0.3)  # noqa: E731
    assert torch.autograd.gradcheck(f, x)
    assert torch.autograd.gradgradcheck(f, x, fast_mode=True)


def test_what_is_flat_has_a_gradient(isa, dtype):
    """Its own root has none: torch's operators, written down as they are, give NaN."""
    x = torch.zeros(1, 1, 60, 60, dtype=dtype)
    x[..., 50:, 50:] = torch.rand(10, 10, dtype=dtype)
    for f in (local_contrast, lambda x: plain(x, settings_of(1, 4, 0.2, 0.05, None, None, 1))):
        y, (found,) = gradients(f, x, g=torch.ones_like(x))
        assert torch.equal(y[..., :20, :20], torch.full((1, 1, 20, 20), 0.5, dtype=dtype))
        assert found.isfinite().all()
        assert found.abs().max() > 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_reaches_four_deviations(isa, dtype, value):
    x = torch.rand(2, 3, 40, 50, dtype=dtype)
    clean = local_contrast(x, 2.0)
    x[1, 2, 13, 20] = value
    y = local_contrast(x, 2.0)
    hit = torch.zeros_like(x, dtype=torch.bool)
    hit[1, 2, 5:22, 12:29] = True
    assert torch.equal(y[~hit], clean[~hit])
    assert y[1, 2, 9:18, 16:25].isnan().all()


def test_layouts_and_precisions():
    x = torch.rand(2, 3, 20, 24)
    y = local_contrast(x)
    last = local_contrast(x.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, y)
    assert torch.equal(local_contrast(x[0]), y[0])
    assert torch.equal(local_contrast(x[..., ::2]), local_contrast(x[..., ::2].contiguous()))
    for half in (torch.float16, torch.bfloat16):
        found = local_contrast(x.to(half))
        assert found.dtype == half
        assert torch.equal(found, local_contrast(x.to(half).float()).to(half))
    negated = torch._neg_view(x)
    assert torch.equal(local_contrast(negated), local_contrast(-x))


def test_autocast_leaves_second_derivatives_in_float32():
    x = torch.rand(1, 3, 12, 14, requires_grad=True)

    def second():
        loss = local_contrast(x).square().sum()
        (first,) = torch.autograd.grad(loss, x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), x)[0]

    expected = second()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(second(), expected)


def test_operators():
    x = torch.rand(2, 3, 10, 12)
    options = (1.5, [0.5] * 3, [0.2] * 3, [0.05] * 3)
    opcheck(torch.ops.jsc.local_contrast.default, (x, *options))
    opcheck(torch.ops.jsc.local_contrast_backward.default, (x, x, *options))


@pytest.mark.parametrize("deviation", [-3.0, 0.0, 64.5, 1e9, float("nan")])
def test_operators_refuse_a_blur_that_the_kernel_has_no_room_for(deviation):
    x = torch.rand(1, 3, 10, 12)
    constants = [[0.5] * 3, [0.2] * 3, [0.05] * 3]
    with pytest.raises(ValueError, match="deviation must be"):
        torch.ops.jsc.local_contrast(x, deviation, *constants)
    with pytest.raises(ValueError, match="deviation must be"):
        torch.ops.jsc.local_contrast_backward(x, x, deviation, *constants)


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_operators_refuse_other_channels(count):
    x = torch.rand(1, 3, 10, 12)
    for constants in ([[0.5] * count] * 3, [[0.5] * 3, [0.2] * 3, [0.05] * count]):
        with pytest.raises(ValueError, match="each of 3 channels"):
            torch.ops.jsc.local_contrast(x, 2.0, *constants)


@pytest.mark.parametrize("g", [torch.rand(1, 3, 12, 10), torch.rand(1, 3, 10, 12).double()])
def test_operators_refuse_another_gradient(g):
    with pytest.raises(ValueError, match=r"the gradient must be \(1, 3, 10, 12\)"):
        torch.ops.jsc.local_contrast_backward(g, torch.rand(1, 3, 10, 12), 2.0, *[[0.5] * 3] * 3)


def test_operators_refuse_what_is_no_batch():
    for x in (torch.rand(3, 10, 12), torch.rand(1, 3, 10, 12).half()):
        with pytest.raises(ValueError, match=r"x must be \(N, C, H, W\)"):
            torch.ops.jsc.local_contrast(x, 2.0, *[[0.5] * 3] * 3)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 1, 0, 5), (2, 3, 5, 0)])
def test_nothing_gives_nothing(shape):
    y, (found,) = gradients(local_contrast, torch.rand(shape), g=torch.rand(shape))
    assert y.shape == found.shape == shape


@pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning", "ignore:.torch.jit:DeprecationWarning"
)
def test_transforms():
    x = torch.rand(4, 3, 10, 12)
    y = local_contrast(x)
    assert torch.equal(torch.vmap(local_contrast)(x), y)
    layer = jsc.nn.LocalContrast()
    assert torch.equal(torch.export.export(layer, (x,)).module()(x), y)
    assert torch.equal(torch.fx.symbolic_trace(layer)(x), y)
    traced = torch.jit.trace(layer, (x,))
    torch.testing.assert_close(traced(x[:, :, :9]), local_contrast(x[:, :, :9]))
    found = torch.func.grad(lambda x: local_contrast(x).square().sum())(x)
    (wanted,) = torch.autograd.grad(
        local_contrast(z := x.clone().requires_grad_()).square().sum(), z
    )
    assert torch.equal(found, wanted)
    assert local_contrast(torch.empty(1, 3, 5, 4, device="meta")).shape == (1, 3, 5, 4)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"x": [1]}, TypeError, "must be a torch.Tensor"),
        ({"x": torch.zeros(1, 3, 8, 8, dtype=torch.int32)}, TypeError, "float32 or float64"),
        ({"x": torch.zeros(1, 2, 8, 8)}, ValueError, r"\(N, 3, H, W\)"),
        ({"deviation": 0.4}, ValueError, "from 0.5 to 64"),
        ({"deviation": 65}, ValueError, "from 0.5 to 64"),
        ({"deviation": "4"}, TypeError, "deviation must be a number"),
        ({"epsilon": 0}, ValueError, "epsilon must be positive"),
        ({"gain": float("nan")}, ValueError, "gain must be finite"),
        ({"std": 0.0}, ValueError, "std must be positive"),
        ({"mean": (0.1, 0.2)}, ValueError, "one per channel"),
        ({"peak": -1}, ValueError, "peak must be positive"),
    ],
)
def test_refusals(wrong, error, words):
    arguments = {"x": torch.zeros(1, 3, 8, 8), **wrong}
    with pytest.raises(error, match=words):
        local_contrast(**arguments)
    if "x" not in wrong:
        with pytest.raises(error, match=words):
            jsc.nn.LocalContrast(**wrong)


def test_largest_blur_and_narrow_images(isa):
    x = torch.rand(1, 3, 5, 3, dtype=torch.float64)
    torch.testing.assert_close(local_contrast(x, 64), reference.local_contrast(x, 64))


def test_the_module_says_what_it_is():
    layer = jsc.nn.LocalContrast(2.0, std=(0.2, 0.3, 0.4), peak=255)
    assert "deviation=2.0" in repr(layer)
    assert "std=(0.2, 0.3, 0.4)" in repr(layer)
    assert not layer.state_dict()
    given = [0.2, 0.3, 0.4]
    held = jsc.nn.LocalContrast(mean=given, std=given)
    given.clear()
    assert (held.mean, held.std) == ((0.2, 0.3, 0.4), (0.2, 0.3, 0.4))
    x = torch.rand(1, 3, 16, 16)
    expected = local_contrast(x, 2.0, std=(0.2, 0.3, 0.4), peak=255)
    assert torch.equal(layer(x), expected)
