"""The storage format CPC: round trips, sizes, and arrays that contradict each other or are special
(those of CPO and CPS too)."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from strategies import conv_cases

from jsc.formats import CPC, CPO, CPS

fixtures = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@fixtures
@given(case=conv_cases())
def test_round_trip_and_sizes(isa, dtype, case):
    x, _, _ = case.tensors(dtype, integer=False)
    N, C, H, W = x.shape
    code = CPC.encode(x, case.kernel, case.stride, case.padding, case.dilation)
    assert torch.equal(code.decode(), x)
    nonzeros, words = int((x != 0).sum()), N * -(-C // 64) * H * W
    assert code.elements == nonzeros + words + N * H + 1
    assert code.nbytes == nonzeros * dtype.itemsize + 8 * (words + N * H + 1)
    by_definition = [
        sum(1 << b for b, v in enumerate(x[n, 64 * s : 64 * s + 64, h, w].tolist()) if v != 0)
        for n, s, h, w in [(0, -(-C // 64) - 1, H - 1, W // 2)]
        if N
    ]
    assert [int(code.masks[0, -1, H - 1, W // 2]) for _ in by_definition] == by_definition
    arrays = (code.DA, code.masks, code.offsets)
    again = CPC.from_arrays(
        *arrays, tuple(x.shape), case.kernel, case.stride, case.padding, case.dilation
    )
    assert again == code


def test_nan_is_stored_and_negative_zero_is_not():
    x = torch.tensor([float("nan"), -0.0, 0.0, float("inf")]).view(1, 4, 1, 1)
    code = CPC.encode(x, 1)
    assert len(code.DA) == 2
    torch.testing.assert_close(code.decode(), x, equal_nan=True)


def test_compression_ratio_counts_the_windows():
    x = torch.zeros(1, 64, 8, 8)
    code = CPC.encode(x, 3, padding=1)
    assert code.elements == 64 + 9
    assert code.compression_ratio == 64 * 64 * 9 / 73
    assert "density 0.000" in repr(code)


def test_contradicting_arrays_are_errors():
    code = CPC.encode(torch.relu(torch.randn(2, 5, 4, 3)), 3, padding=1)
    other = CPC.encode(torch.ones(2, 5, 4, 3), 3, padding=1)

    def decode(**change):
        return dataclasses.replace(code, **change).decode()

    with pytest.raises(ValueError, match="different numbers of non-zeros"):
        decode(masks=other.masks)
    with pytest.raises(ValueError, match="must ascend from 0"):
        decode(offsets=other.offsets)
    with pytest.raises(ValueError, match="must ascend from 0"):
        decode(DA=code.DA[1:])
    with pytest.raises(TypeError, match=r"masks must be torch.uint64"):
        decode(masks=code.masks.long())
    with pytest.raises(ValueError, match="masks must be"):
        decode(masks=code.masks[:1])
    beyond = code.masks.clone()
    beyond[0, 0, 0, 0] = 1 << 40
    with pytest.raises(ValueError, match="behind channel 4"):
        decode(masks=beyond)
    with pytest.raises(TypeError, match="float32 or float64"):
        CPC.encode(torch.zeros(1, 1, 4, 4).half(), 3)
    with pytest.raises(ValueError, match="does not fit"):
        CPC.encode(torch.zeros(1, 1, 4, 4), 7)


@pytest.mark.parametrize("kind", [CPC, CPO, CPS])
def test_values_may_have_gradients_negations_and_another_default_device(kind):
    x = torch.relu(torch.randn(2, 5, 4, 3)).requires_grad_()
    with torch.device("meta"):
        code = kind.encode(x, 3, padding=1)
    rest = [getattr(code, f.name) for f in dataclasses.fields(code)[1:-1]]
    for DA in (code.DA.clone().requires_grad_(), torch._neg_view(-code.DA)):
        made = kind.from_arrays(DA, *rest, tuple(x.shape), 3, padding=1)
        assert made == code
        decoded = made.decode()
        assert torch.equal(decoded, x)
        assert not decoded.requires_grad
