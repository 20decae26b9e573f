"""Arguments of unusual types: taken where torch takes them, else an error in words."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import jsc
from jsc import _checks
from jsc.functional import conv2d, jpeg

HUGE = 10**400


@pytest.mark.parametrize(
    "value", [2, (2,), [2], (2, 2), np.int64(2), (np.int8(2), 2), torch.Size([2, 2]), np.uint8(2)]
)
def test_pairs_that_torch_takes(value):
    x, weight = torch.rand(1, 3, 9, 9), torch.rand(4, 3, 3, 3)
    assert _checks.pair(value, "stride", 1) == (2, 2)
    for method in ("dense", "cpc", "im2col"):
        expected = F.conv2d(x, weight, stride=value)
        torch.testing.assert_close(conv2d(x, weight, stride=value, method=method), expected)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (None, TypeError), ("2", TypeError), ("12", TypeError), (2.0, TypeError), (True, TypeError),
        ((1, 2, 3), TypeError), ((), TypeError), ((1.0, 2), TypeError), (np.float32(2), TypeError),
        (object(), TypeError), (0, ValueError), (-1, ValueError), ((1, 0), ValueError),
        (2**61, ValueError), (HUGE, ValueError), ([[1]], TypeError),
    ],
)  # fmt: skip
def test_pairs_that_nobody_takes(value, error):
    with pytest.raises(error, match="stride must be"):
        conv2d(torch.rand(1, 3, 9, 9), torch.rand(4, 3, 3, 3), stride=value)


@pytest.mark.parametrize("name", ["mean", "std", "peak", "chroma_offset", "alpha", "kappa"])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (HUGE, ValueError), (-HUGE, ValueError), (math.nan, ValueError), (math.inf, ValueError),
        ("abc", TypeError), (object(), TypeError), (1j, TypeError), (True, TypeError),
        ({"a": 1}, TypeError), (b"abc", TypeError),
    ],
)  # fmt: skip
def test_numbers(name, value, error):
    x, tables = torch.rand(1, 3, 8, 8), jsc.jpeg.quality_tables(50)
    for call in (
        lambda: jpeg(x, tables, **{name: value}),
        lambda: jsc.functional.jpeg_rate(x, tables, **{name: value}),
        lambda: jsc.nn.JPEG(tables, **{name: value}),
    ):
        with pytest.raises(error, match=name):
            call()


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16, int])
def test_numbers_of_numpy(kind):
    x, tables = torch.rand(1, 3, 8, 8) * 255, jsc.jpeg.quality_tables(50)
    options = {"peak": 255, "mean": 1, "std": 2, "kappa": 8, "chroma_offset": 0}
    expected = jpeg(x, tables, **{k: float(v) for k, v in options.items()})
    assert torch.equal(jpeg(x, tables, **{k: kind(v) for k, v in options.items()}), expected)
    layer = jsc.nn.JPEG(tables, **{k: kind(v) for k, v in options.items()})
    assert torch.equal(layer(x), expected)


def test_whole_numbers_of_numpy():
    tables = jsc.jpeg.quality_tables(np.int64(75))
    assert torch.equal(tables, jsc.jpeg.quality_tables(75))
    layer = jsc.nn.JPEG(tables, rounds=np.int32(2), window=np.int8(5), levels=np.int64(127))
    assert layer(torch.rand(1, 3, 8, 8)).shape == (1, 3, 8, 8)


@pytest.mark.parametrize("value", [5, None, "tables", [[1.0] * 8] * 8])
@pytest.mark.parametrize("function", [jsc.jpeg.to_zigzag, jsc.jpeg.from_zigzag])
def test_zigzag_takes_tensors(function, value):
    with pytest.raises(TypeError, match=r"must be a torch\.Tensor"):
        function(value)


class Broken:
    def __repr__(self):
        raise RuntimeError("no repr")


@pytest.mark.parametrize("value", [HUGE, [10**9999], Broken(), "x" * 10_000, list(range(10_000))])
def test_values_in_messages_are_short(value):
    assert 0 < len(_checks.shown(value)) <= 80
