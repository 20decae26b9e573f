"""The convolutions of a network program, one at a time, against torch in float64."""

import random

import pytest
import torch
import torch.nn.functional as F
from network_maps import Maps, act, close

from jsc import _config
from jsc._geometry import ConvGeometry
from jsc._kernels.amx.amx import Convolution as Tiles
from jsc._kernels.cpc.forward import tile_columns
from jsc._precision import PIECES, rounded
from jsc.network import packing
from jsc.network.choices import AMX_FIELDS
from jsc.network.emit import NOWHERE
from jsc.ops import amx, cpc

LANES = {"base": 4, "avx2": 8, "avx512": 16}


@pytest.fixture(params=[1, 2], ids=lambda n: f"{n} threads")
def maps(request, isa):
    return Maps(isa, request.param)


def drawn(seed):
    """Sizes and geometry of a convolution."""
    r = random.Random(seed)
    groups = r.choice([1, 1, 1, 2, 3])
    kernel = r.choice([(1, 1), (3, 3), (3, 3), (5, 5), (1, 7), (2, 3)])
    g = {
        "N": r.choice([1, 2]), "C": groups * r.choice([1, 3, 8, 20]), "H": r.randint(5, 11),
        "W": r.randint(7, 13), "K": groups * r.choice([1, 5, 16, 33, 70]), "groups": groups,
        "kernel": kernel, "stride": r.choice([(1, 1), (1, 1), (2, 2), (2, 1)]),
        "padding": tuple(r.randint(0, k // 2) for k in kernel),
        "dilation": (1, 1) if kernel[0] > 3 else r.choice([(1, 1), (2, 1)]),
    }  # fmt: skip
    return r, g


ACTS = [
    ("none", 0, 0), ("clamp", 0, float("inf")), ("clamp", 0, 6), ("silu", 0, 0), ("softplus", 0, 0),
]  # fmt: skip


def convolution(
    maps, r, g, kind, special=False, zeros=0.0, workspace=None, acts=ACTS, fields=None,
    precision="ieee", **more
):  # fmt: skip
    """Ours and torch's in float64, with a random epilogue. `fields` makes those of the instruction
    from those that all have, the weight and the shift. Operands have the bits of the precision."""
    x = rounded(torch.randn(g["N"], g["C"], g["H"], g["W"]), precision)
    x[torch.rand(x.shape) < zeros] = 0
    if special:
        x[0, 0, 2, 3], x[0, -1, 4, 1] = float("nan"), float("inf")
    w = rounded(torch.randn(g["K"], g["C"] // g["groups"], *g["kernel"]), precision)
    steps = (g["stride"], g["padding"], g["dilation"], g["groups"])
    exact = F.conv2d(x.double(), w.double(), None, *steps)
    N, K, H, W = exact.shape
    shift = torch.randn(K) if r.random() < 0.5 else None
    residual = torch.randn(exact.shape) if r.random() < 0.5 else None
    # torch's SiLU of -inf is NaN, ours 0.
    name, a, b = r.choice(acts[:3] if special else acts)
    if shift is not None:
        exact = exact + shift.double()[:, None, None]
    if residual is not None:
        exact = exact + residual.double()
    function = {
        "none": lambda y: y, "clamp": lambda y: y.clamp(a, b), "silu": F.silu,
        "softplus": F.softplus,
    }[name]  # fmt: skip
    exact = function(exact)
    out, _ = maps.place((N, H, W, K), around=3)
    own = {
        "x": maps.put(x, around=2), "out": out,
        "epilogue": {
            "shift": maps.constant(shift),
            "has_residual": int(residual is not None),
            "residual": NOWHERE if residual is None else maps.put(residual), "act": act(name, a, b),
        },
    }  # fmt: skip
    for i, letter in enumerate("hw"):
        for key, field in (("kernel", "K"), ("stride", "S"), ("padding", "P"), ("dilation", "D")):
            own[field + letter] = g[key][i]
    if fields is not None:
        return maps.run(kind, fields(own, w, shift), workspace), exact
    more = {key: value(w) if callable(value) else value for key, value in more.items()}
    return maps.run(kind, {**own, **more}, workspace), exact


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


needs_bf16 = pytest.mark.skipif(not _config.bf16(), reason="this CPU multiplies no bfloat16")


def drawn_for_pairs(seed):
    """Sizes, geometry and blocking for direct_bf16."""
    r, g = drawn(seed)
    g |= {"C": r.choice([1, 3, 8, 20, 33, 64, 70]), "K": g["K"] // g["groups"], "groups": 1}
    pairs = -(-g["C"] // 2)
    cut = {
        "vectors": min(r.randint(1, 4), -(-g["K"] // 16)), "tiles_first": r.randint(0, 2),
        "chunk": r.choice([pairs, r.randint(1, pairs)]), "band_rows": r.randint(1, 4),
        "task_blocks": r.randint(1, 3),
    }  # fmt: skip
    return r, g, cut


def pairs_fields(maps, cut):
    def fields(own, w, shift):
        packed = packing.direct(packing.pairs(w), 1, 16, cut["vectors"], cut["chunk"])
        direct = {**own, **cut, "groups": 1, "weight": maps.constant(packed)}
        return {"direct": direct, "out": own["out"]}

    return fields


@needs_bf16
@pytest.mark.parametrize("seed", range(40))
def test_direct_bf16(maps, isa, seed):
    if isa != "avx512":
        pytest.skip("an extension of AVX-512")
    r, g, cut = drawn_for_pairs(seed)
    ours, exact = convolution(
        maps, r, g, "direct_bf16", special=seed % 4 == 0, precision="bf16",
        fields=pairs_fields(maps, cut),
    )  # fmt: skip
    close(ours, exact, 1e-5)  # of chains of up to 1,750 products


@needs_bf16
@pytest.mark.parametrize("channels", [3, 16, 50])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_direct_bf16_rounds_to_the_nearest(maps, isa, channels, kernel, stride):
    """Ties to even; what is too large becomes inf, NaN and inf stay, denormals count as zero."""
    if isa != "avx512":
        pytest.skip("an extension of AVX-512")
    x, w = torch.randn(2, channels, 9, 8), torch.randn(21, channels, kernel, kernel)
    x.view(torch.int32)[:, :, ::2] &= -(1 << 15)  # ties
    x[0, :, 3, 3], x[1, 0, 2, 2], x[1, 1, 4, 6] = 1e-40, float("nan"), 3.4e38
    size = (9 - kernel) // stride + 1, (8 - kernel) // stride + 1
    cut = {"vectors": 2, "chunk": -(-channels // 2), "band_rows": 2, "task_blocks": 1}

    def run(x):
        own = {
            "x": maps.put(x), "out": maps.place((2, *size, 21))[0],
            "epilogue": {"shift": 0, "has_residual": 0, "residual": NOWHERE, "act": act()},
            "Kh": kernel, "Kw": kernel, "Sh": stride, "Sw": stride,
            "Ph": 0, "Pw": 0, "Dh": 1, "Dw": 1,
        }  # fmt: skip
        fields = pairs_fields(maps, {**cut, "tiles_first": 1})
        return maps.run("direct_bf16", fields(own, w, None))

    ours = run(x)
    x[0, :, 3, 3] = 0
    assert torch.equal(ours.nan_to_num(7.0), run(rounded(x, "bf16")).nan_to_num(7.0))


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
        weight=lambda w: maps.constant(packing.winograd(w, tile, lanes, vectors)),
        plain=lambda w: maps.constant(packing.plain(w, lanes)),
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
    close(ours, exact, 2e-5)  # of one chain of up to 3,250 products


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
    if not _config.amx():
        pytest.skip("this CPU has no AMX tiles")
    r, g = drawn(seed)
    g |= {"C": r.choice([3, 16, 33, 70]), "groups": 1}
    steps = (g["kernel"], g["stride"], g["padding"], g["dilation"])
    sizes = ConvGeometry(
        g["N"], g["C"], g["H"], g["W"], g["K"], *(n for step in steps for n in step)
    )
    if amx.unsupported(sizes):
        pytest.skip("not for AMX")
    pieces = PIECES[precision]
    cut = {**sizes.sizes(), **amx.cut(sizes, pieces), "packed": r.randint(pieces, 3)}
    cut["weight_bytes"] = r.choice([cut["weight_bytes"], 0])  # 0: bands that threads share
    floats = Tiles({**dict.fromkeys(AMX_FIELDS, 0), **cut}).common_bytes // 4
    room, common = maps.place((1, 1, 1, floats + 16), around=0)
    common.fill_(float("nan"))
    missing = -g["K"] % amx.BLOCK
    acts = [("none", 0, 0), ("clamp", 0, float("inf"))]

    def fields(own, w, shift):
        bias = torch.zeros(g["K"]) if shift is None else shift
        blocking = {
            "vectors": 1,
            "chunk": g["C"],
            "band_rows": 2,
            "task_blocks": 1,
            "tiles_first": 0,
        }
        weight = maps.constant(packing.direct(w, 1, LANES[isa], 1, g["C"]))
        tiles = {
            **cut, "weight": maps.constant(amx.pack(w, sizes, cut["packed"])),
            "x_pitch": own["x"]["pixel"], "out_pitch": own["out"]["pixel"],
            "residual_pitch": own["epilogue"]["residual"]["pixel"],
            "bias": maps.constant(F.pad(bias, (0, missing))),
            "relu": int(own["epilogue"]["act"]["kind"] == act("clamp")["kind"]),
        }  # fmt: skip
        return {
            "amx": tiles, "common": -(-room["offset"] // 16) * 16, "out": own["out"],
            "direct": {**own, **blocking, "groups": 1, "weight": weight},
        }  # fmt: skip

    ours, exact = convolution(
        maps, r, g, "tiles", special=seed % 4 == 0, acts=acts, workspace=common, fields=fields,
        precision=precision,
    )  # fmt: skip
    close(ours, exact, 1e-5)


def test_winograd_2x2_keeps_integers_exact(maps, isa):
    x, w = torch.randint(-8, 9, (1, 16, 9, 9)).float(), torch.randint(-4, 5, (24, 16, 3, 3)).float()
    exact = F.conv2d(x, 4 * w, None, 1, 1)
    out, _ = maps.place((1, 9, 9, 24))
    epilogue = {"shift": 0, "has_residual": 0, "residual": NOWHERE, "act": act()}
    packed = packing.winograd(4 * w, (2, 2), LANES[isa], 1)
    fields = {
        "x": maps.put(x), "out": out, "Ph": 1, "Pw": 1, "mv": 2, "mh": 2, "vectors": 1,
        "tiles": 5, "weight": maps.constant(packed), "epilogue": epilogue,
        "plain": maps.constant(packing.plain(4 * w, LANES[isa])),
    }  # fmt: skip
    assert torch.equal(maps.run("winograd", fields), exact)


@pytest.mark.parametrize("seed", range(24))
def test_depthwise(maps, isa, seed):
    r, g = drawn(seed)
    C = r.choice([1, 7, 16, 37, 70])
    g |= {"C": C, "K": C, "groups": C}
    if seed >= 12:  # the widths that have a tile of their own
        k = r.choice([3, 5, 7])
        g |= {"kernel": (r.choice([1, k]), k), "stride": r.choice([(1, 1), (2, 2), (1, 2)])}
        g |= {"dilation": (r.choice([1, 2]), 1), "padding": (0, r.randint(0, k - 1))}
        g |= {"H": r.randint(13, 15)}
    weight = lambda w: maps.constant(packing.depthwise(w, LANES[isa]))  # noqa: E731
    ours, exact = convolution(maps, r, g, "depthwise", weight=weight)
    close(ours, exact)


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
    pack = lambda w: packing.grouped(w, g["groups"], width, most)  # noqa: E731
    ours, exact = convolution(
        maps, r, g, "grouped", groups=g["groups"], width=width, band_rows=r.randint(1, 4), S=step,
        weight=lambda w: maps.constant(pack(w)),
    )  # fmt: skip
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
