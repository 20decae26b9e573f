"""CPC: occupancy masks of a map, and convolution over its non-zeros."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from method_runs import METHODS, by_definition, geometry, run
from strategies import conv_cases

from jsc._kernels.cpc import forward as kernel
from jsc.ops import cpc

fixtures = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_encode_is_the_definition(isa, dtype):
    x = torch.randn(2, 70, 3, 5, dtype=dtype).relu()
    masks = cpc.encode(x)[1]
    assert torch.equal(cpc.occupied(masks)[..., :70], x.permute(0, 2, 3, 1) != 0)
    assert not cpc.occupied(masks)[..., 70:].any()
    assert kernel.taps(3, 1, 1) == 3


@fixtures
@given(case=conv_cases(groups=1), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_integers_are_exact(isa, num_threads, case, dtype):
    x, w, b = case.tensors(dtype, integer=True)
    g = geometry(x, w, case.stride, case.padding, case.dilation)
    assert METHODS["cpc"].unsupported(g) is None
    out = run("cpc", x, w, b, g)
    assert torch.equal(out, by_definition(x, w, b, g))
    assert out.dtype == dtype
    assert out.is_contiguous() or out.is_contiguous(memory_format=torch.channels_last)


def test_padding_wider_than_the_output(isa):
    x, w = torch.randint(-4, 5, (1, 3, 7, 3)).float(), torch.randint(-4, 5, (2, 3, 7, 7)).float()
    g = geometry(x, w, padding=(0, 2))
    assert torch.equal(run("cpc", x, w, None, g), by_definition(x, w, None, g))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_bad_activations_propagate_as_by_definition(isa, bad):
    x = torch.relu(torch.randn(1, 20, 11, 9))
    x[0, 3, 4, 5] = bad
    w = torch.randn(8, 20, 3, 3)
    g = geometry(x, w, padding=(1, 1))
    expected = by_definition(x, w, None, g)
    out = run("cpc", x, w, None, g)
    assert torch.equal(out.isnan(), expected.isnan())
    finite = expected.isfinite()
    torch.testing.assert_close(out[finite], expected[finite], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("K", [24, 70])
def test_threads_and_bands_do_not_change_a_bit(isa, dtype, K, monkeypatch):
    monkeypatch.setattr("jsc._config.SERIAL_WORK", 0)
    x = torch.randn(3, 65, 11, 9, dtype=dtype).relu()
    w, bias = torch.randn(K, 65, 3, 3, dtype=dtype), torch.randn(K, dtype=dtype)
    g = geometry(x, w, (2, 1), (1, 1))
    packed, results = cpc.pack(w, g), []
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        for tile in (1, 128 * 1024):
            monkeypatch.setattr(cpc, "TILE_BYTES", tile)
            results.append(cpc.Convolution(packed, bias, g)(x))
    torch.set_num_threads(before)
    assert all(torch.equal(out, results[0]) for out in results[1:])


@pytest.mark.parametrize("K", [1, 3, 4, 8, 15, 16, 17, 33, 63, 64, 65, 100, 128, 129, 200, 260])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (1, 7)])
def test_every_number_of_filters(isa, dtype, K, kernel):
    """Blocks of 2 to 128 filters, whole and not: a filter that is absent is not stored."""
    x = torch.randint(-3, 4, (2, 70, 6, 5)).to(dtype).relu()
    w = torch.randint(-4, 5, (K, 70, *kernel)).to(dtype)
    g = geometry(x, w, padding=(kernel[0] // 2, kernel[1] // 2))
    assert torch.equal(run("cpc", x, w, None, g), by_definition(x, w, None, g))


def test_a_field_that_is_missing_is_an_error():
    with pytest.raises(ValueError, match="No value specified for struct attribute"):
        kernel.Convolution(False, {"N": 1, "C": 3}, 0)
