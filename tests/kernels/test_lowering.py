"""The matrices of im2col and MEC, multiplied by the library."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from method_runs import METHODS, by_definition, geometry, run
from strategies import conv_cases

from jsc.ops import lowering

fixtures = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("method", ["im2col", "mec"])
@fixtures
@given(case=conv_cases(groups=1), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_integers_are_exact(isa, num_threads, method, case, dtype):
    x, w, b = case.tensors(dtype, integer=True)
    g = geometry(x, w, case.stride, case.padding, case.dilation)
    if METHODS[method].unsupported(g):
        assert method == "mec"
        assert g.Dh > 1
        return
    out = run(method, x, w, b, g)
    assert torch.equal(out, by_definition(x, w, b, g))
    assert out.dtype == dtype
    assert out.is_contiguous() or out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("method", ["im2col", "mec"])
def test_padding_wider_than_the_output(isa, method):
    x, w = torch.randint(-4, 5, (1, 3, 7, 3)).float(), torch.randint(-4, 5, (2, 3, 7, 7)).float()
    g = geometry(x, w, padding=(0, 2))
    assert torch.equal(run(method, x, w, None, g), by_definition(x, w, None, g))


@pytest.mark.parametrize("method", ["im2col", "mec"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_bad_activations_propagate_as_by_definition(isa, num_threads, dtype, method, bad):
    x = torch.relu(torch.randn(1, 20, 11, 9, dtype=dtype))
    x[0, 3, 4, 5] = bad
    w = torch.randn(8, 20, 3, 3, dtype=dtype)
    g = geometry(x, w, padding=(1, 1))
    expected = by_definition(x, w, None, g)
    out = run(method, x, w, None, g)
    assert torch.equal(out.isnan(), expected.isnan())
    finite = expected.isfinite()
    assert torch.equal(out[~finite].nan_to_num(), expected[~finite].nan_to_num())
    torch.testing.assert_close(out[finite], expected[finite], atol=1e-3, rtol=1e-3)


def test_mec_reads_its_lowered_matrix_in_place():
    """torch's batched product takes overlapping views and a broadcast factor without a copy."""
    x = torch.randn(1, 64, 28, 28).contiguous(memory_format=torch.channels_last)
    w = torch.randn(32, 64, 3, 3)
    g = geometry(x, w, padding=(1, 1))
    packed = lowering.im2col_pack(w, g)
    with torch.profiler.profile(profile_memory=True) as profile:
        lowering.mec_run(x, packed, None, g)
    allocated = sum(
        e.self_cpu_memory_usage for e in profile.key_averages() if e.self_cpu_memory_usage > 0
    )
    lowered, out = 28 * 30 * 3 * 64 * 4, 32 * 28 * 28 * 4
    assert allocated < 1.1 * (lowered + out)
