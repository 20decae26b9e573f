"""Maps of bfloat16 in a network program: the bits are those of float32 maps that hold the same
numbers, rounded to the nearest."""

import math
import random

import pytest
import torch
import torch.nn.functional as F
from convolution_runs import (
    TILES_ACTS,
    convolution,
    drawn,
    drawn_depthwise,
    drawn_for_pairs,
    pairs_fields,
    tiles_fields,
)
from network_maps import (
    CHANNELS,
    Maps,
    act,
    close,
    elementwise_fields,
    image,
    operand_of,
    pool_fields,
    resize_fields,
)

from jsc import _config
from jsc._precision import rounded
from jsc.network import packing

pytestmark = pytest.mark.skipif(not _config.bf16(), reason="this CPU multiplies no bfloat16")
LANES = 16
STORED = [(True, False), (False, True), (True, True)]  # the input so, the output so
names = {True: "bf16", False: "float32"}.__getitem__


@pytest.fixture(params=[1, 2], ids=lambda n: f"{n} threads")
def maps(request):
    return Maps("avx512", request.param, 1 << 19)


def runs(maps, seed, stored, kind, g, r, **more):
    """What the kernel makes of float32 maps, rounded, and of the same maps stored as told."""
    found = []
    state = r.getstate()
    for halves in ((False, False), stored):
        torch.manual_seed(seed)
        r.setstate(state)
        ours, _ = convolution(maps, r, g, kind, special=seed % 4 == 0, bf16=halves, **more)
        found.append(ours)
    return found


def same(found, stored):
    expected, ours = found
    assert ours.dtype == (torch.bfloat16 if stored[1] else torch.float32)
    if stored[1]:
        expected = expected.bfloat16()
    assert torch.equal(ours.nan_to_num(77.0), expected.nan_to_num(77.0))
    assert torch.equal(ours.isnan(), expected.isnan())


@pytest.mark.parametrize("stored", STORED, ids=lambda s: "-".join(map(names, s)))
@pytest.mark.parametrize("seed", range(20))
def test_direct_bf16(maps, seed, stored):
    r, g, cut = drawn_for_pairs(seed)
    fields = pairs_fields(maps, cut)
    same(runs(maps, seed, stored, "direct_bf16", g, r, precision="bf16", fields=fields), stored)


@pytest.mark.parametrize("stored", STORED, ids=lambda s: "-".join(map(names, s)))
@pytest.mark.parametrize("seed", range(24))
def test_depthwise(maps, seed, stored):
    r, g = drawn_depthwise(seed)
    weight = lambda w: maps.constant(packing.depthwise(w, LANES))  # noqa: E731
    same(runs(maps, seed, stored, "depthwise", g, r, weight=weight), stored)


@pytest.mark.parametrize("stored", STORED, ids=lambda s: "-".join(map(names, s)))
@pytest.mark.parametrize("tile", [(2, 2), (2, 4), (4, 4)], ids=lambda t: f"{t[0]}x{t[1]}")
@pytest.mark.parametrize("seed", range(8))
def test_winograd(maps, seed, tile, stored):
    r, g = drawn(seed)
    g |= {"kernel": (3, 3), "stride": (1, 1), "dilation": (1, 1), "groups": 1}
    g |= {"padding": (r.randint(0, 1), r.randint(0, 1))}
    vectors = min(r.randint(1, 4), -(-g["K"] // LANES))

    def fields(own, w, shift):
        packed = packing.winograd(w, tile, LANES, vectors)
        at = maps.constant(packed)
        plain = at + packing.winograd_plain(packed, tile)
        sizes = {"mv": tile[0], "mh": tile[1], "vectors": vectors, "tiles": 5}
        return {**own, **sizes, "weight": at, "plain": plain}

    same(runs(maps, seed, stored, "winograd", g, r, fields=fields), stored)


@pytest.mark.parametrize("seed", range(32))
def test_grouped(maps, seed):
    """Whose input is an image, or groups of few channels: float32 always."""
    r, g = drawn(seed)
    filters = r.choice([LANES, LANES + 3, 2 * LANES, 5 * LANES + 1])
    width = LANES if seed % 2 else LANES // 2
    most = 2 if width == LANES and filters >= 2 * width else 1
    step = r.choice([1, 2])
    g |= {"C": g["groups"] * r.choice([1, 3, 8]), "K": g["groups"] * filters}
    g |= {"kernel": (r.choice([1, 3, 5]), 3), "stride": (step, step), "dilation": (1, 1)}
    g |= {"padding": (r.randint(0, 2), r.randint(0, 2)), "H": 11, "W": r.randint(8, 33)}
    if seed >= 24:  # the first layer of an image
        g |= {"groups": 1, "C": 3, "K": filters, "kernel": (7, 7), "H": 17, "W": g["W"] + 8}
        width, most = LANES, 1
    weight = lambda w: maps.constant(packing.grouped(w, g["groups"], width, most))  # noqa: E731
    more = {"groups": g["groups"], "width": width, "band_rows": 3, "S": step, "T": g["kernel"][1]}
    stored = (False, True)
    same(runs(maps, seed, stored, "grouped", g, r, weight=weight, **more), stored)


def halved(maps, fields, *keys):
    """The same fields, for which these maps are of bfloat16."""
    fields = dict(fields)
    for key in keys:
        m = fields[key]
        fields[key], view = maps.place(tuple(m[k] for k in "NHWC"), bf16=True)
        view.copy_(maps.view(m))
    return fields


def both_ways(maps, kind, fields, *keys):
    """Of float32 maps and of maps of bfloat16."""
    return maps.run(kind, fields), maps.run(kind, halved(maps, fields, *keys))


def numbers(channels, special):
    return rounded(image(channels, (9, 12), special), "bf16")


SPECIAL = pytest.mark.parametrize("special", [False, True], ids=["finite", "special"])


@SPECIAL
@pytest.mark.parametrize("average", [0, 1], ids=["max", "average"])
@pytest.mark.parametrize("window", [(3, 2, 1), (2, 2, 0), (5, 1, 2)], ids=str)
def test_pool(maps, window, average, special):
    kernel, stride, padding = ((n, n) for n in window)
    relu = act("clamp", 0.0, math.inf) if special else act()
    for channels in CHANNELS:
        x = numbers(channels, special)
        shape = F.max_pool2d(x, *window).shape
        fields = pool_fields(maps, x, shape, kernel, stride, padding, average=average, act=relu)
        same(both_ways(maps, "pool", fields, "x", "out"), (True, True))


@SPECIAL
@pytest.mark.parametrize("stored", STORED, ids=lambda s: "-".join(map(names, s)))
@pytest.mark.parametrize("average", [0, 1], ids=["max", "average"])
@pytest.mark.parametrize("size", [(1, 1), (3, 4)], ids=str)
def test_adaptive_pool(maps, size, average, stored, special):
    keys = [key for key, halves in zip(("x", "out"), stored, strict=True) if halves]
    for channels in CHANNELS:
        x = numbers(channels, special)
        out, _ = maps.place((len(x), *size, channels))
        fields = {"x": maps.put(x), "out": out, "average": average, "act": act()}
        same(both_ways(maps, "adaptive_pool", fields, *keys), stored)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", [(13, 15), (4, 5)], ids=str)
def test_resize(maps, size, mode):
    for channels in CHANNELS:
        fields = resize_fields(maps, numbers(channels, False), size, mode)
        same(both_ways(maps, "resize", fields, "x", "out"), (True, True))


@SPECIAL
@pytest.mark.parametrize("around", [0, 5], ids=["dense", "slice"])
@pytest.mark.parametrize("operand", ["map", "pixel", "channel"])
@pytest.mark.parametrize("op", ["add", "mul"])
def test_elementwise(maps, op, operand, around, special):
    for channels in CHANNELS:
        x = numbers(channels, special)
        b = rounded(operand_of(operand, x), "bf16")
        fields = elementwise_fields(maps, x, op, operand, b, around, act=act("clamp", -1.0, 2.0))
        same(both_ways(maps, "elementwise", fields, "x", "other", "out"), (True, True))


@SPECIAL
def test_affine(maps, special):
    for channels in CHANNELS:
        scale, shift = (maps.constant(torch.randn(channels)) for _ in range(2))
        fields = elementwise_fields(
            maps, numbers(channels, special), "affine", "none", None, scale=scale, shift=shift,
            act=act("clamp", 0.0, math.inf),
        )  # fmt: skip
        same(both_ways(maps, "elementwise", fields, "x", "out"), (True, True))


@SPECIAL
@pytest.mark.parametrize("stored", STORED, ids=lambda s: "-".join(map(names, s)))
@pytest.mark.parametrize("seed", range(16))
def test_tiles(maps, seed, stored, special):
    """Where a number has no bfloat16, direct_bf16 takes over."""
    r, g = drawn(seed)
    g |= {"C": r.choice([16, 33, 64, 70]), "groups": 1}
    found = []
    for halves in ((False, False), stored):
        torch.manual_seed(seed)
        draw = random.Random(seed)
        common, fields = tiles_fields(maps, draw, g, "bf16", halves)
        ours, exact = convolution(
            maps, draw, g, "tiles", special=special, acts=TILES_ACTS, workspace=common,
            fields=fields, precision="bf16", bf16=halves,
        )  # fmt: skip
        found.append(ours)
        close(ours, exact, 1e-5 if ours.dtype == torch.float32 else 2.0**-8)
    if not special:
        same(found, stored)
