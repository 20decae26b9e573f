"""The convolutions of a network program, one at a time, against torch in float64."""

import random

import pytest
import torch
import torch.nn.functional as F
from convolution_runs import (
    LANES,
    TILES_ACTS,
    convolution,
    drawn,
    drawn_depthwise,
    tiles_fields,
)
from network_maps import Maps, act, close

from jsc._kernels.cpc.forward import tile_columns
from jsc._precision import PIECES
from jsc.network import packing
from jsc.network.emit import NOWHERE
from jsc.ops import cpc


@pytest.fixture(params=[1, 2], ids=lambda n: f"{n} threads")
def maps(request, isa):
    return Maps(isa, request.param)


@pytest.mark.parametrize("seed", range(12))
def test_direct(maps, isa, seed):
    r, g = drawn(seed)
    lanes = LANES[isa]
    C, K = g["C"] // g["groups"], g["K"] // g["groups"]
    vectors = min(r.randint(1, 4 if lanes == 16 else 3), -(-K // lanes))
    tiles_first = r.randint(0, 2 if g["groups"] == 1 else 1)
    chunk = r.choice([min(C, 256), r.randint(1, C)])
    ours, exact = convolution(
        maps, r, g, "convolution", groups=g["groups"], vectors=vectors, chunk=chunk,
        band_rows=r.randint(1, 4), task_blocks=r.randint(1, 3), tiles_first=tiles_first,
        weight=lambda w: maps.constant(packing.direct(w, g["groups"], lanes, vectors, chunk)),
    )  # fmt: skip
    close(ours, exact)


@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 3)])
@pytest.mark.parametrize("vectors", [1, 2, 3, 4])
def test_direct_over_rows_longer_than_a_tile(maps, isa, vectors, stride):
    """Tiles lie within one row, go on in the next, and hang over either border."""
    lanes = LANES[isa]
    if vectors == 4 and lanes < 16:
        pytest.skip("blocks of four vectors are for AVX-512")
    r = random.Random(vectors)
    g = {
        "N": 2, "C": 5, "H": 6, "W": 13 * stride[1] + 20, "K": vectors * lanes + 3, "groups": 1,
        "kernel": (3, 3), "stride": stride, "padding": (1, 2), "dilation": (1, 2),
    }  # fmt: skip
    for chunk, tiles_first in ((5, 1), (2, 0)):
        ours, exact = convolution(
            maps, r, g, "convolution", special=chunk == 2, groups=1, vectors=vectors, chunk=chunk,
            band_rows=4, task_blocks=1, tiles_first=tiles_first,
            weight=lambda w, c=chunk: maps.constant(packing.direct(w, 1, lanes, vectors, c)),
        )  # fmt: skip
        close(ours, exact)


@pytest.mark.parametrize("seed", range(24))
def test_pointwise(maps, isa, seed):
    """1x1 at stride 1, whose pixels lie one step apart: tails of pixels and of filters, chunks."""
    r, g = drawn(seed)
    lanes = LANES[isa]
    g |= {"kernel": (1, 1), "stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
    filters = r.choice([lanes, lanes + 1, 2 * lanes, 3 * lanes - 1, 5 * lanes + 3])
    g["K"] = g["groups"] * filters
    C = g["C"] // g["groups"]
    vectors = min(r.randint(1, 4 if lanes == 16 else 3), -(-filters // lanes))
    chunk = r.choice([C, max(1, C // 2), max(1, C // 3)])
    ours, exact = convolution(
        maps, r, g, "convolution", groups=g["groups"], vectors=vectors, chunk=chunk,
        band_rows=r.randint(1, 4), task_blocks=r.randint(1, 3),
        tiles_first=r.randint(1, 2 if g["groups"] == 1 else 1),
        weight=lambda w: maps.constant(packing.direct(w, g["groups"], lanes, vectors, chunk)),
    )  # fmt: skip
    close(ours, exact)


def both(maps, tile, lanes, vectors):
    """The fields of the weights in their two layouts."""

    def packed(w):
        found = packing.winograd(w, tile, lanes, vectors)
        return maps.constant(found), packing.winograd_plain(found, tile)

    return {"weight": lambda w: packed(w)[0], "plain": lambda w: sum(packed(w))}


@pytest.mark.parametrize("tile", [(2, 2), (2, 4), (4, 4)])
@pytest.mark.parametrize("seed", range(6))
def test_winograd(maps, isa, tile, seed):
    r, g = drawn(seed)
    g |= {"kernel": (3, 3), "stride": (1, 1), "dilation": (1, 1), "groups": 1}
    g["padding"] = (r.randint(0, 1), r.randint(0, 1))
    lanes = LANES[isa]
    vectors = min(r.randint(1, 4 if lanes == 16 else 3), -(-g["K"] // lanes))
    ours, exact = convolution(
        maps, r, g, "winograd", mv=tile[0], mh=tile[1], vectors=vectors, tiles=r.randint(1, 9),
        **both(maps, tile, lanes, vectors),
    )  # fmt: skip
    close(ours, exact, 2e-5)


@pytest.mark.parametrize("seed", range(24))
def test_sparse(maps, isa, seed):
    r, g = drawn(seed)
    g |= {"C": r.choice([16, 24, 64, 70, 130]), "groups": 1}
    lanes = LANES[isa]
    Kw, Sw, Dw = g["kernel"][1], g["stride"][1], g["dilation"][1]
    vectors = r.choice([1, 2, 4] if Kw < 3 or lanes == 16 else [1, 2])
    columns = tile_columns(Kw, Sw, Dw, g["W"])  # enough for any padding
    room, masks = maps.place((g["N"], g["H"], g["W"], 2 * -(-g["C"] // 64)), around=0)
    masks.fill_(float("nan"))
    ours, exact = convolution(
        maps, r, g, "sparse", special=seed % 3 == 0, zeros=r.choice([0.0, 0.5, 0.9, 1.0]),
        masks=room["offset"], vectors=vectors, block=vectors * lanes, columns=columns,
        band_rows=r.randint(1, 4), workspace=masks,
        weight=lambda w: maps.constant(cpc.pack_blocks(w, vectors * lanes)),
    )  # fmt: skip
    close(ours, exact, 5e-6)  # of chains of up to 64 channels and a kernel row


@pytest.mark.parametrize("filters", [5, 16, 70])
def test_sparse_stores_with_the_bits_of_one_by_one(maps, isa, filters):
    """relu(conv + residual) as the convolution, an addition and torch's ReLU: NaN and -0.0 stay."""
    x, w = torch.randn(2, 20, 7, 6).relu(), torch.randn(filters, 20, 3, 3)
    room, masks = maps.place((2, 7, 6, 2), around=0)
    masks.fill_(float("nan"))
    plain = {"shift": 0, "has_residual": 0, "residual": NOWHERE, "act": act()}
    fields = {
        "x": maps.put(x), "Kh": 3, "Kw": 3, "Sh": 1, "Sw": 1, "Ph": 1, "Pw": 1, "Dh": 1, "Dw": 1,
        "masks": room["offset"], "vectors": 1, "block": LANES[isa], "band_rows": 3,
        "columns": tile_columns(3, 1, 1, 6), "epilogue": plain,
        "weight": maps.constant(cpc.pack_blocks(w, LANES[isa])),
    }  # fmt: skip

    def run(epilogue):
        out, _ = maps.place((2, 7, 6, filters))
        return maps.run("sparse", {**fields, "out": out, "epilogue": epilogue}, masks)

    sums = run(plain)
    added = torch.randn_like(sums)
    added[0, :5, 0, 0] = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0])
    added[1, :, 2] = -sums[1, :, 2]
    fused = run({**plain, "has_residual": 1, "residual": maps.put(added),
                 "act": act("clamp", 0, float("inf"))})  # fmt: skip
    expected = (sums + added).relu()
    assert torch.equal(fused.isnan(), expected.isnan())
    bits = [torch.where(t.isnan(), 0, t).contiguous().view(torch.int32) for t in (fused, expected)]
    assert torch.equal(*bits)


@pytest.mark.parametrize("precision", PIECES)
@pytest.mark.parametrize("seed", range(24))
def test_tiles(maps, isa, seed, precision):
    r, g = drawn(seed)
    g |= {"C": r.choice([3, 16, 33, 70]), "groups": 1}
    common, fields = tiles_fields(maps, r, g, precision)
    ours, exact = convolution(
        maps, r, g, "tiles", special=seed % 4 == 0, acts=TILES_ACTS, workspace=common,
        fields=fields, precision=precision,
    )  # fmt: skip
    close(ours, exact, 1e-5)


def test_winograd_2x2_keeps_integers_exact(maps, isa):
    x, w = torch.randint(-8, 9, (1, 16, 9, 9)).float(), torch.randint(-4, 5, (24, 16, 3, 3)).float()
    exact = F.conv2d(x, 4 * w, None, 1, 1)
    out, _ = maps.place((1, 9, 9, 24))
    epilogue = {"shift": 0, "has_residual": 0, "residual": NOWHERE, "act": act()}
    weights = {name: f(4 * w) for name, f in both(maps, (2, 2), LANES[isa], 1).items()}
    fields = {
        "x": maps.put(x), "out": out, "Ph": 1, "Pw": 1, "mv": 2, "mh": 2, "vectors": 1,
        "tiles": 5, "epilogue": epilogue, **weights,
    }  # fmt: skip
    assert torch.equal(maps.run("winograd", fields), exact)


@pytest.mark.parametrize("seed", range(24))
def test_depthwise(maps, isa, seed):
    r, g = drawn_depthwise(seed)
    weight = lambda w: maps.constant(packing.depthwise(w, LANES[isa]))  # noqa: E731
    ours, exact = convolution(maps, r, g, "depthwise", weight=weight)
    close(ours, exact)


def grouped(maps, r, g, packed_groups, width, most):
    return convolution(
        maps, r, g, "grouped", groups=g["groups"], width=width, band_rows=r.randint(1, 4),
        S=g["stride"][0], T=g["kernel"][1],
        weight=lambda w: maps.constant(packing.grouped(w, packed_groups, width, most)),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(24))
def test_grouped(maps, isa, seed):
    r, g = drawn(seed)
    lanes = LANES[isa]
    width = r.choice([lanes, max(4, lanes // 2)])
    filters = r.choice([width, width + 3, 2 * width, 5 * width + 1])
    most = 2 if width == lanes and filters >= 2 * width else 1
    step = r.choice([1, 2])
    g |= {"C": g["groups"] * r.choice([1, 3, 8]), "K": g["groups"] * filters}
    g |= {
        "kernel": (r.choice([1, 3, 5]), 3),
        "stride": (step, step),
        "H": 11,
        "W": r.randint(8, 33),
    }
    g |= {"dilation": (r.choice([1, 2]), 1), "padding": (r.randint(0, 2), r.randint(0, 2))}
    ours, exact = grouped(maps, r, g, g["groups"], width, most)
    close(ours, exact)


@pytest.mark.parametrize("seed", range(16))
def test_groups_that_share_a_vector(maps, isa, seed):
    r, g = drawn(seed)
    lanes, step = LANES[isa], r.choice([1, 2])
    filters = r.choice([f for f in (2, 4, 8) if f < lanes])
    groups = lanes // filters + r.choice([0, 1, 2, 5])
    g |= {"groups": groups, "C": groups * filters, "K": groups * filters, "H": 11}
    g |= {"kernel": (r.choice([1, 3, 5]), 3), "stride": (step, step), "W": r.randint(8, 33)}
    g |= {"dilation": (r.choice([1, 2]), 1), "padding": (r.randint(0, 2), r.randint(0, 2))}
    ours, exact = grouped(maps, r, g, 1, lanes, 1)
    close(ours, exact)


@pytest.mark.parametrize("seed", range(16))
def test_images_under_kernels_of_seven_columns(maps, isa, seed):
    r, g = drawn(seed)
    lanes, step = LANES[isa], r.choice([1, 2])
    g |= {"groups": 1, "C": r.randint(1, 4), "K": r.choice([lanes, lanes + 3, 5 * lanes])}
    g |= {"kernel": (r.choice([1, 3, 7]), 7), "stride": (step, step), "W": r.randint(15, 33)}
    g |= {"dilation": (r.choice([1, 2]), 1), "padding": (r.randint(0, 3), r.randint(0, 3))}
    g |= {"H": 15}
    ours, exact = grouped(maps, r, g, 1, lanes, 1)
    close(ours, exact)


def test_nan_and_inf_reach_the_outputs_that_torch_says(maps, isa):
    r, g = drawn(1)
    g |= {"kernel": (3, 3), "stride": (1, 1), "dilation": (1, 1), "groups": 1, "padding": (1, 1)}
    r.random = lambda: 1.0  # no shift or residual
    r.choice = lambda options: options[0]
    lanes = LANES[isa]
    ours, exact = convolution(
        maps, r, g, "convolution", special=True, groups=1, vectors=1, chunk=g["C"], band_rows=2,
        task_blocks=9, tiles_first=0,
        weight=lambda w: maps.constant(packing.direct(w, 1, lanes, 1, g["C"])),
    )  # fmt: skip
    assert torch.equal(ours.isfinite(), exact.isfinite())
