"""Convolution over the streams of CPO and CPS."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from method_runs import METHODS, by_definition, geometry, run
from strategies import conv_cases

from jsc.ops import column_conv

SPARSE = ["cpo", "cps"]
fixtures = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("method", SPARSE)
@fixtures
@given(case=conv_cases(groups=1), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_integers_are_exact(isa, num_threads, method, case, dtype):
    x, w, b = case.tensors(dtype, integer=True)
    g = geometry(x, w, case.stride, case.padding, case.dilation)
    assert METHODS[method].unsupported(g) is None
    out = run(method, x, w, b, g)
    assert torch.equal(out, by_definition(x, w, b, g))
    assert out.dtype == dtype
    assert out.is_contiguous() or out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("method", SPARSE)
@pytest.mark.parametrize("band_bytes", [1, 20_000])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"),
    [
        ((3, 3), 1, 1),
        ((5, 2), 1, 2),
        ((2, 3), 3, 1),
        ((1, 1), 2, 1),
        ((1, 1), 5, 1),
        ((7, 3), 2, 1),
    ],
)
def test_bands_and_strips_do_not_change_a_bit(
    isa, dtype, method, band_bytes, kernel, stride, dilation, monkeypatch
):
    """Narrow bands walk overlapping rows of the streams; strips enter them in the middle."""
    # More than 64 rows: row masks have a second word; more than 64 channels: a second set.
    x = torch.randn(2, 67, 70, 5, dtype=dtype) * (torch.rand(2, 67, 70, 5) < 0.4)
    w = torch.randn(20, 67, *kernel, dtype=dtype)
    g = geometry(x, w, (stride, stride), (1, 2), (dilation, dilation))
    whole = run(method, x, w, None, g)
    torch.testing.assert_close(whole, by_definition(x, w, None, g), atol=1e-3, rtol=1e-3)
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(run(method, last, w, None, g), whole)
    monkeypatch.setattr(column_conv, "BAND_BYTES", band_bytes)
    monkeypatch.setattr(column_conv, "BAND_ROWS", 1)
    monkeypatch.setattr("jsc._config.SERIAL_WORK", 0)
    before = torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        assert torch.equal(run(method, x, w, None, g), whole)
        assert torch.equal(run(method, x[1:], w, None, g._replace(N=1)), whole[1:])
    torch.set_num_threads(before)


@pytest.mark.parametrize("method", SPARSE)
def test_padding_wider_than_the_output(isa, method):
    x, w = torch.randint(-4, 5, (1, 3, 7, 3)).float(), torch.randint(-4, 5, (2, 3, 7, 7)).float()
    g = geometry(x, w, padding=(0, 2))
    assert torch.equal(run(method, x, w, None, g), by_definition(x, w, None, g))


@pytest.mark.parametrize("method", SPARSE)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_bad_activations_propagate_as_by_definition(isa, method, bad):
    x = torch.relu(torch.randn(1, 20, 11, 9))
    x[0, 3, 4, 5] = bad
    w = torch.randn(8, 20, 3, 3)
    g = geometry(x, w, padding=(1, 1))
    expected = by_definition(x, w, None, g)
    out = run(method, x, w, None, g)
    assert torch.equal(out.isnan(), expected.isnan())
    finite = expected.isfinite()
    torch.testing.assert_close(out[finite], expected[finite], atol=1e-3, rtol=1e-3)
