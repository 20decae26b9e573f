"""Copies of a network program: layouts, borders and orders of channels, against torch."""

import pytest
import torch
import torch.nn.functional as F
from network_maps import image

from jsc.network.emit import BORDERS

COPIES = [  # N, H, W, C
    (2, 7, 9, 1), (2, 6, 11, 2), (2, 9, 21, 3), (1, 5, 33, 4), (2, 7, 7, 12), (1, 3, 5, 70),
    (2, 12, 31, 19), (1, 33, 65, 3),
]  # fmt: skip
LAYOUTS = {
    "planar": {"planar": True, "around": 0},
    "planar slice": {"planar": True, "around": 3, "rows": 2},
    "last": {"around": 0},
    "last slice": {"around": 5},
}


@pytest.mark.parametrize("border", [(0, 0, 0, 0), (1, 2, 3, 1), (0, 3, 0, 0)], ids=str)
@pytest.mark.parametrize("to", LAYOUTS)
@pytest.mark.parametrize("source", LAYOUTS)
def test_copy(maps, source, to, border):
    top, left, bottom, right = border
    for N, H, W, C in COPIES:
        x = image(C, (H, W), batch=N)
        out, _ = maps.place((N, H + top + bottom, W + left + right, C), **LAYOUTS[to])
        fields = {
            "x": maps.put(x, **LAYOUTS[source]), "out": out, "top": top, "left": left, "border": 0,
            "fill": -1.5, "order": 0,
        }  # fmt: skip
        exact = F.pad(x, (left, right, top, bottom), value=-1.5)
        assert torch.equal(maps.run("copy", fields), exact)


@pytest.mark.parametrize(
    "border", [(1, 2, 3, 1), (0, 3, 0, 0), (2, 2, 2, 2), (2, 0, 2, 4)], ids=str
)
@pytest.mark.parametrize("to", LAYOUTS)
@pytest.mark.parametrize("source", LAYOUTS)
@pytest.mark.parametrize("mode", BORDERS[1:])
def test_borders_of_the_map_itself(maps, mode, source, to, border):
    top, left, bottom, right = border
    for N, H, W, C in [*COPIES, (1, 4, 5, 9)]:
        x = image(C, (H, W), batch=N)
        x[0, 0, 1, 1] = float("nan")
        if max(top, bottom) >= H:
            continue
        out, _ = maps.place((N, H + top + bottom, W + left + right, C), **LAYOUTS[to])
        fields = {
            "x": maps.put(x, **LAYOUTS[source]), "out": out, "top": top, "left": left,
            "border": BORDERS.index(mode), "fill": -1.5, "order": 0,
        }  # fmt: skip
        exact = F.pad(x, (left, right, top, bottom), mode=mode)
        ours = maps.run("copy", fields)
        torch.testing.assert_close(ours, exact, rtol=0, atol=0, equal_nan=True)


def copy_in_order(maps, x, order, **options):
    N, _, H, W = x.shape
    out, _ = maps.place((N, H, W, len(order)), **options)
    numbers = maps.constant(torch.tensor(order, dtype=torch.int32))
    fields = {
        "x": maps.put(x, **options),
        "out": out,
        "top": 0,
        "left": 0,
        "border": 0,
        "fill": 7.0,
        "order": numbers,
    }
    return maps.run("copy", fields)


@pytest.mark.parametrize("around", [0, 5], ids=["dense", "slice"])
@pytest.mark.parametrize(
    ("groups", "members"), [(2, 58), (3, 20), (4, 17), (29, 2), (12, 3), (8, 8), (1, 9), (2, 2)]
)
def test_channel_shuffle(maps, groups, members, around):
    x = image(groups * members, (5, 6))
    order = [(c % groups) * members + c // groups for c in range(groups * members)]
    exact = F.channel_shuffle(x, groups)
    assert torch.equal(copy_in_order(maps, x, order, around=around), exact)


def test_copy_in_any_order(maps):
    x = image(11)
    order = [3, -1, 10, 0, 0, -1, 7, 2]
    exact = torch.stack([x[:, c] if c >= 0 else torch.full_like(x[:, 0], 7.0) for c in order], 1)
    assert torch.equal(copy_in_order(maps, x, order), exact)
    assert torch.equal(copy_in_order(maps, x, order, planar=True), exact)


@pytest.mark.parametrize(("r", "C"), [(2, 5), (3, 1), (2, 3)])
def test_pixel_shuffle_is_a_copy_for_each_row_of_it(maps, r, C):
    x = image(C * r * r, (4, 5))
    N, H, W = 2, 4, 5
    out, _ = maps.place((N, H * r, W * r, C), around=0)
    for i in range(r):
        order = torch.tensor(
            [c * r * r + i * r + j for j in range(r) for c in range(C)], dtype=torch.int32
        )
        rows = {
            **out, "offset": out["offset"] + i * out["row"], "H": H, "W": W, "C": r * C,
            "row": r * out["row"], "pixel": r * C,
        }  # fmt: skip
        fields = {
            "x": maps.put(x),
            "out": rows,
            "top": 0,
            "left": 0,
            "border": 0,
            "fill": 0.0,
            "order": maps.constant(order),
        }
        part = maps.run("copy", fields)
        maps.view(rows).copy_(part)
    assert torch.equal(maps.view(out), F.pixel_shuffle(x, r))
