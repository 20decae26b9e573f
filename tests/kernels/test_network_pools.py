"""Pooling of a network program, against torch."""

import pytest
import torch
import torch.nn.functional as F
from network_maps import CHANNELS, Maps, act, close, image, pool_fields

WINDOWS = [  # kernel, stride, padding, dilation, ceil_mode
    ((3, 3), (2, 2), (1, 1), (1, 1), False),
    ((3, 3), (2, 2), (0, 0), (1, 1), True),
    ((3, 3), (1, 1), (1, 1), (1, 1), False),
    ((2, 2), (2, 2), (0, 0), (1, 1), True),
    ((2, 2), (2, 2), (1, 1), (1, 1), True),
    ((3, 2), (2, 3), (1, 0), (2, 1), False),
    ((5, 4), (3, 1), (2, 2), (1, 1), True),
    ((2, 2), (1, 1), (1, 1), (7, 9), False),
    ((1, 1), (2, 2), (0, 0), (1, 1), False),
]


@pytest.mark.parametrize("special", [False, True], ids=["finite", "special"])
@pytest.mark.parametrize("window", WINDOWS)
def test_max_pool(maps, window, special):
    kernel, stride, padding, dilation, ceil_mode = window
    for channels in CHANNELS:
        x = image(channels, (9, 12), special)
        exact = F.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode)
        ours = maps.run(
            "pool", pool_fields(maps, x, exact.shape, kernel, stride, padding, dilation)
        )
        torch.testing.assert_close(ours, exact, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("special", [False, True], ids=["finite", "special"])
@pytest.mark.parametrize("count_include_pad", [False, True])
@pytest.mark.parametrize("window", [w for w in WINDOWS if w[3] == (1, 1)])
def test_average_pool(maps, window, count_include_pad, special):
    kernel, stride, padding, _, ceil_mode = window
    for channels in CHANNELS:
        x = image(channels, special=special)
        exact = F.avg_pool2d(x.double(), kernel, stride, padding, ceil_mode, count_include_pad)
        more = {"average": 1, "count_padding": int(count_include_pad)}
        ours = maps.run("pool", pool_fields(maps, x, exact.shape, kernel, stride, padding, **more))
        close(ours, exact)


def test_average_pool_with_a_divisor_and_an_activation(maps):
    x = image(21)
    exact = F.silu(F.avg_pool2d(x.double(), 3, 2, 1, divisor_override=7))
    fields = pool_fields(
        maps, x, exact.shape, (3, 3), (2, 2), (1, 1), average=1, divisor=7, act=act("silu")
    )
    close(maps.run("pool", fields), exact)


def test_max_pool_with_bounds(maps):
    x = image(21, special=True)
    exact = F.max_pool2d(x, 3, 2, 1).clamp(0.25, 0.5)
    fields = pool_fields(maps, x, exact.shape, (3, 3), (2, 2), (1, 1), act=act("clamp", 0.25, 0.5))
    torch.testing.assert_close(maps.run("pool", fields), exact, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("special", [False, True], ids=["finite", "special"])
@pytest.mark.parametrize("size", [(1, 1), (3, 4), (7, 10), (9, 13)])
@pytest.mark.parametrize("average", [0, 1], ids=["max", "average"])
def test_adaptive_pool(maps, average, size, special):
    for channels in CHANNELS:
        x = image(channels, special=special)
        exact = (
            F.adaptive_avg_pool2d(x.double(), size) if average else F.adaptive_max_pool2d(x, size)
        )
        out, _ = maps.place((2, *size, channels))
        fields = {"x": maps.put(x), "out": out, "average": average, "act": act()}
        close(maps.run("adaptive_pool", fields), exact, 2e-6 if average else 0)


def test_mean_of_a_large_map(isa, num_threads):
    maps = Maps(isa, num_threads, 1 << 19)
    x = torch.rand(1, 20, 112, 112) + 1
    out, _ = maps.place((1, 1, 1, 20))
    fields = {"x": maps.put(x), "out": out, "average": 1, "act": act()}
    close(maps.run("adaptive_pool", fields), x.double().mean((2, 3), keepdim=True), 5e-7)
