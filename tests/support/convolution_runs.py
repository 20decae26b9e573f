"""One convolution of a network program on random numbers, and torch's in float64."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from network_maps import act

from jsc import _config
from jsc._geometry import ConvGeometry
from jsc._kernels.amx.amx import Convolution as Tiles
from jsc._precision import PIECES, rounded
from jsc.network import packing
from jsc.network.choices import AMX_FIELDS
from jsc.network.emit import NOWHERE
from jsc.ops import amx

LANES = {"base": 4, "avx2": 8, "avx512": 16}


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


def drawn_depthwise(seed):
    """The same of a depthwise one."""
    r, g = drawn(seed)
    C = r.choice([1, 7, 16, 37, 70])
    g |= {"C": C, "K": C, "groups": C}
    if seed >= 12:  # the widths that have a tile of their own
        k = r.choice([3, 5, 7])
        g |= {"kernel": (r.choice([1, k]), k), "stride": r.choice([(1, 1), (2, 2), (1, 2)])}
        g |= {"dilation": (r.choice([1, 2]), 1), "padding": (0, r.randint(0, k - 1))}
        g |= {"H": r.randint(13, 15)}
    return r, g


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


ACTS = [
    ("none", 0, 0), ("clamp", 0, float("inf")), ("clamp", 0, 6), ("silu", 0, 0), ("softplus", 0, 0),
]  # fmt: skip


def convolution(
    maps, r, g, kind, special=False, zeros=0.0, workspace=None, acts=ACTS, fields=None,
    precision="ieee", bf16=None, **more
):  # fmt: skip
    """Ours and torch's in float64, with a random epilogue. `fields` makes those of the instruction
    from those that all have, the weight and the shift. Operands have the bits of the precision.
    With `bf16` all maps have its numbers; it says whether input and output are stored so."""
    x = rounded(torch.randn(g["N"], g["C"], g["H"], g["W"]), precision)
    x[torch.rand(x.shape) < zeros] = 0
    if special:
        x[0, 0, 2, 3], x[0, -1, 4, 1] = float("nan"), float("inf")
    x = x if bf16 is None else rounded(x, "bf16")
    w = rounded(torch.randn(g["K"], g["C"] // g["groups"], *g["kernel"]), precision)
    steps = (g["stride"], g["padding"], g["dilation"], g["groups"])
    exact = F.conv2d(x.double(), w.double(), None, *steps)
    N, K, H, W = exact.shape
    shift = torch.randn(K) if r.random() < 0.5 else None
    residual = torch.randn(exact.shape) if r.random() < 0.5 else None
    if residual is not None and bf16 is not None:
        residual = rounded(residual, "bf16")
    halves = bf16 or (False, False)
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
    out, _ = maps.place((N, H, W, K), around=3, bf16=halves[1])
    own = {
        "x": maps.put(x, around=2, bf16=halves[0]), "out": out,
        "epilogue": {
            "shift": maps.constant(shift),
            "has_residual": int(residual is not None),
            "residual": NOWHERE if residual is None else maps.put(residual, bf16=halves[1]),
            "act": act(name, a, b),
        },
    }  # fmt: skip
    for i, letter in enumerate("hw"):
        for key, field in (("kernel", "K"), ("stride", "S"), ("padding", "P"), ("dilation", "D")):
            own[field + letter] = g[key][i]
    if fields is not None:
        return maps.run(kind, fields(own, w, shift), workspace), exact
    more = {key: value(w) if callable(value) else value for key, value in more.items()}
    return maps.run(kind, {**own, **more}, workspace), exact


TILES_ACTS = [("none", 0, 0), ("clamp", 0, float("inf"))]


def tiles_fields(maps, r, g, precision, bf16=(False, False)):
    """The room that a convolution on tiles shares, and what makes its fields; `bf16` says whether
    its input and its output are stored so. Skips the test where it is not for AMX."""
    if not _config.amx():
        pytest.skip("this CPU has no AMX tiles")
    steps = (g["kernel"], g["stride"], g["padding"], g["dilation"])
    sizes = ConvGeometry(
        g["N"], g["C"], g["H"], g["W"], g["K"], *(n for step in steps for n in step)
    )
    if amx.unsupported(sizes):
        pytest.skip("not for AMX")
    pieces = PIECES[precision]
    cut = {**sizes.sizes(), **amx.cut(sizes, pieces), "packed": r.randint(pieces, 3)}
    if bf16[0] and cut["window"]:
        pytest.skip("windows are of float32 maps")
    cut["weight_bytes"] = r.choice([cut["weight_bytes"], 0])  # 0: bands that threads share
    floats = Tiles({**dict.fromkeys(AMX_FIELDS, 0), **cut}).common_bytes // 4
    room, common = maps.place((1, 1, 1, floats + 16), around=0)
    common.fill_(float("nan"))
    missing = -g["K"] % amx.BLOCK
    numbers = -(-g["C"] // 2) if any(bf16) else g["C"]
    blocking = {"vectors": 1, "chunk": numbers, "band_rows": 2, "task_blocks": 1, "tiles_first": 0}

    def fields(own, w, shift):
        bias = torch.zeros(g["K"]) if shift is None else shift
        plain = packing.pairs(w) if any(bf16) else w
        tiles = {
            **cut, "weight": maps.constant(amx.pack(w, sizes, cut["packed"])),
            "x_pitch": own["x"]["pixel"], "out_pitch": own["out"]["pixel"],
            "x_bytes": 2 if bf16[0] else 4, "out_bytes": 2 if bf16[1] else 4,
            "residual_pitch": own["epilogue"]["residual"]["pixel"],
            "bias": maps.constant(F.pad(bias, (0, missing))),
            "relu": int(own["epilogue"]["act"]["kind"] == act("clamp")["kind"]),
        }  # fmt: skip
        weight = maps.constant(packing.direct(plain, 1, 16, 1, numbers))
        return {
            "amx": tiles, "common": -(-room["offset"] // 16) * 16, "out": own["out"],
            "direct": {**own, **blocking, "groups": 1, "weight": weight},
        }  # fmt: skip

    return common, fields
