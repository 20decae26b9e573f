"""Resizing of a network program, against torch in float64."""

import pytest
import torch
import torch.nn.functional as F
from network_maps import CHANNELS, Maps, close, image, resize_fields


@pytest.mark.parametrize("size", [(7, 10), (14, 20), (21, 15), (3, 4), (1, 1), (8, 23)], ids=str)
def test_nearest(maps, size):
    for channels in CHANNELS:
        x = image(channels, special=True)
        exact = F.interpolate(x, size)
        ours = maps.run("resize", resize_fields(maps, x, size, "nearest"))
        torch.testing.assert_close(ours, exact, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("scale", [0.3, 0.7, 1.1, 2.0, 2.7, 3.3])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_resize_by_a_scale(maps, mode, scale):
    x = image(3, (13, 17))
    options = {"recompute_scale_factor": False, "mode": mode}
    exact = F.interpolate(x.double(), scale_factor=scale, **options)
    if mode == "nearest":  # which pixel is nearest is a question of rounding
        exact = F.interpolate(x, scale_factor=scale, **options)
    fields = resize_fields(maps, x, exact.shape[2:], mode, scales=(scale, scale))
    close(maps.run("resize", fields), exact, 0 if mode == "nearest" else 4e-6)


def test_nearest_finds_the_same_pixel_for_many_sizes(isa):
    maps = Maps(isa, 1)
    for size in range(1, 40):
        for to in range(1, 90, 3):
            x = torch.arange(size, dtype=torch.float32).view(1, 1, 1, size)
            maps.used = 7
            ours = maps.run("resize", resize_fields(maps, x, (1, to), "nearest"))
            assert torch.equal(ours, F.interpolate(x, (1, to)))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(7, 10), (14, 20), (21, 15), (3, 4), (1, 1), (8, 23)], ids=str)
def test_bilinear(maps, size, align_corners):
    for channels in CHANNELS:
        x = image(channels)
        exact = F.interpolate(x.double(), size, mode="bilinear", align_corners=align_corners)
        close(
            maps.run("resize", resize_fields(maps, x, size, "bilinear", align_corners)), exact, 4e-6
        )


@pytest.mark.parametrize("size", [(7, 10), (14, 20), (3, 4)], ids=str)
def test_bilinear_keeps_what_is_not_finite(maps, size):
    x = image(19, special=True)
    exact = F.interpolate(x, size, mode="bilinear")
    close(maps.run("resize", resize_fields(maps, x, size, "bilinear")), exact, 4e-6)
