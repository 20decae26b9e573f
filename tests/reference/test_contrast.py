"""The reference of local contrast is what its words say."""

from __future__ import annotations

import pytest
import torch

from jsc.reference import contrast


@pytest.mark.parametrize("size", [1, 3, 40])
def test_a_blur_keeps_what_is_even_and_its_weights_are_symmetric(size):
    found = contrast.blur(size, 2.0)
    torch.testing.assert_close(found.sum(1), torch.ones(size, dtype=torch.float64))
    torch.testing.assert_close(found, found.flip(0, 1))
    if size == 40:
        assert torch.count_nonzero(found[20]) == 9
        assert found[20, 21] / found[20, 20] == pytest.approx(0.8824969)  # exp(-1/8)


def test_brightness_is_taken_away_and_strong_contrast_evened_out():
    x = torch.rand(1, 3, 20, 30, dtype=torch.float64)
    y = contrast.local_contrast(x)
    torch.testing.assert_close(contrast.local_contrast(x + 7), y)
    strong = contrast.local_contrast(1000 * x)
    torch.testing.assert_close(contrast.local_contrast(3000 * x), strong, rtol=1e-4, atol=1e-4)
    assert 0.15 < strong.std() < 0.25  # the gain


def test_what_is_even_becomes_grey():
    assert torch.all(contrast.local_contrast(torch.full((1, 1, 9, 9), 0.3)).sub(0.5).abs() < 1e-12)


def test_a_normalised_image_is_the_same_image():
    mean, std, peak = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4], 255.0
    x = torch.rand(2, 3, 12, 10, dtype=torch.float64)
    a, b = (255 * torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (mean, std))
    given = {"mean": a.flatten().tolist(), "std": b.flatten().tolist(), "peak": peak}
    y = contrast.local_contrast((255 * x - a) / b, **given)
    torch.testing.assert_close(y, (255 * contrast.local_contrast(x) - a) / b)
