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
