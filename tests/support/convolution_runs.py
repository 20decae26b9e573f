"""One convolution of a network program on random numbers, and torch's in float64."""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F
from network_maps import act

from jsc._precision import rounded
from jsc.network.emit import NOWHERE

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
