"""Formats of maps without rows, columns, channels or images: nothing uninitialised is read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from method_runs import run

from jsc._geometry import ConvGeometry
from jsc.formats import CPC, CPO, CPS

FORMATS = [CPO, CPS, CPC]
SHAPES = [
    (1, 3, 0, 5), (1, 3, 5, 0), (2, 3, 0, 0), (0, 3, 5, 5), (2, 0, 5, 5), (0, 0, 0, 0),
    (3, 70, 0, 6),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _dirty():
    """Memory that the allocator hands out next is not zero."""
    junk = [np.full(n, 0x7FFFFFFF7FFFFFFF, np.int64) for n in (4, 8, 16, 32, 64, 4096) * 100]
    del junk


def empty(shape, channels_last):
    x = torch.zeros(shape)
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_of_nothing_nothing_is_stored(isa, num_threads, kind, shape, channels_last, dtype):
    for kernel, padding in ((3, 3), (1, 1), (2, 1)):
        made = kind.encode(empty(shape, channels_last).to(dtype), kernel, padding=padding)
        assert made.DA.numel() == 0
        assert not made.offsets.any()
        assert made.decode().shape == shape
        assert made == kind.encode(made.decode(), kernel, padding=padding)


@pytest.mark.parametrize("kind", [CPO, CPS])
@pytest.mark.parametrize("shape", [(1, 1, 0, 5), (1, 1, 5, 0)], ids=str)
def test_values_of_a_map_without_elements_are_refused(kind, shape):
    made = kind.encode(torch.zeros(1, 1, 5, 5), 3, padding=3)
    entries = kind.encode(torch.zeros(shape), 3, padding=3)
    stream = kind.encode(torch.ones(1, 1, 1, 1), 1)
    offsets = {name: torch.tensor([0, 1]) for name in ("offsets", "set_offsets")}
    offsets = {name: value for name, value in offsets.items() if hasattr(made, name)}
    plan_entries = torch.zeros((1, _entries(entries)), dtype=stream.Ptr.dtype)
    with pytest.raises(ValueError, match="contradict"):
        kind.from_arrays(stream.DA, stream.IN, plan_entries, *offsets.values(), shape, 3, padding=3)


def _entries(made):
    return made.Ptr.shape[1]


def test_too_many_empty_channels_are_refused_in_words():
    for kind in FORMATS:
        with pytest.raises(ValueError, match="no elements"):
            kind.encode(torch.zeros(2**30, 1, 0, 5), 3, padding=3)
    for kind in (CPO, CPS):
        with pytest.raises(ValueError, match="overflows 32-bit"):
            kind.encode(torch.zeros(1, 1, 0, 2**40), 1, padding=1)


@pytest.mark.parametrize("method", ["cpo", "cps", "cpc"])
@pytest.mark.parametrize("shape", [(2, 3, 0, 5), (2, 3, 5, 0), (2, 0, 5, 5), (0, 3, 5, 5)], ids=str)
def test_convolutions_of_nothing_are_the_bias(isa, num_threads, method, shape, dtype):
    w, b = torch.ones(9, shape[1], 3, 3, dtype=dtype), torch.arange(9).to(dtype)
    g = ConvGeometry(*shape, 9, 3, 3, 1, 1, 4, 4)
    x = torch.zeros(shape, dtype=dtype)
    expected = b.view(1, -1, 1, 1).expand(g.N, 9, g.Oh, g.Ow)
    assert torch.equal(run(method, x, w, b, g), expected)
    assert not run(method, x, w, None, g).any()
