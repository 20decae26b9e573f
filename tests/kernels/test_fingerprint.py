"""A fingerprint tells any change of a whole tensor, wherever and however its numbers lie."""

import numpy as np
import pytest

from jsc._kernels.fingerprint import fingerprint


def of(values, whole=False):
    return fingerprint(values.ctypes.data, values.nbytes, whole)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 127, 128, 129, 300, 4096, 9 * 512 * 512])
def test_changes_of_the_whole_are_seen(kind, size):
    values = np.random.default_rng(size).standard_normal(size).astype(kind)
    before = of(values)
    assert of(values) == before
    assert of(values.copy()) == before  # wherever it lies
    for changed in (values * 1.0000002, -values, values[::-1], values + 1, np.zeros_like(values)):
        other = np.ascontiguousarray(changed, kind)
        assert (of(other) == before) == (other.tobytes() == values.tobytes())


@pytest.mark.parametrize(("words", "whole"), [(1, False), (64, False), (511, False), (5001, True)])
def test_each_number_counts_where_everything_is_read(words, whole):
    values = np.zeros(words, np.float32)
    seen = {of(values, whole)}
    for i in range(words):
        values[i] = 1
        seen.add(of(values, whole))
        values[i] = 0
    assert len(seen) == words + 1


def test_samples_of_a_large_tensor_are_spread():
    size = 512 * 512 * 9
    blocks = 32
    values = np.zeros(size, np.float32)
    before = of(values)
    for part in np.array_split(np.arange(size), blocks):
        values[part] = 1
        assert of(values) != before
        values[part] = 0


def test_length_counts():
    values = np.zeros(500, np.float32)
    assert len({fingerprint(values.ctypes.data, n, False) for n in range(2000)}) == 2000


def test_any_alignment():
    raw = np.random.default_rng(0).integers(0, 255, 4 * 1000 + 3).astype(np.uint8)
    for offset in range(4):
        part = raw[offset : offset + 4000]
        for whole in (False, True):
            assert of(part, whole) == of(part.copy(), whole)
