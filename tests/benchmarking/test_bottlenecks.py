"""`bottlenecks`: the masks, pairs and counts it sweeps over, its bands, and that it runs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import jsc
from benchmarks import __main__ as command_line
from benchmarks.common import harness
from benchmarks.convolution import bottlenecks, cpc_sweep
from benchmarks.inputs import masks, workloads
from jsc._geometry import ConvGeometry
from jsc.ops import cpc

GEOMETRIES = [
    ConvGeometry(1, 96, 6, 9, 8, 3, 3, 1, 1, 1, 1),
    ConvGeometry(1, 70, 5, 8, 8, 3, 3, 2, 2, 1, 1),
    ConvGeometry(1, 16, 4, 7, 8, 1, 1),
    ConvGeometry(1, 64, 7, 7, 8, 1, 1, 2, 2),
    ConvGeometry(1, 48, 9, 5, 8, 7, 1, 1, 1, 3, 0),
    ConvGeometry(1, 20, 3, 11, 8, 1, 7, 1, 1, 0, 3),
]


def test_masks_are_those_of_the_kernel():
    x = torch.relu(torch.randn(1, 70, 4, 5))
    expected = cpc.encode(x)[1][0].numpy()
    assert np.array_equal(masks.pack((x[0] != 0).permute(1, 2, 0).numpy()), expected)


@pytest.mark.parametrize("g", GEOMETRIES, ids=str)
def test_pairs_take_every_pixel_that_is_read_once(g):
    columns = [c for pair in masks.pairs(g) for c in pair if 0 <= c < g.W]
    assert len(columns) == len(set(columns))
    read = {o * g.Sw + j - g.Pw for o in range(g.Ow) for j in range(g.Kw)}
    assert {c for c in read if 0 <= c < g.W} <= set(columns)


@pytest.mark.parametrize("g", GEOMETRIES, ids=str)
@pytest.mark.parametrize("density", [0.2, 0.5])
def test_even_masks_have_the_same_counts_in_every_pair(g, density):
    occupied = masks.even(g, density, np.random.default_rng(0))
    for first in range(0, g.C, 32):
        part = occupied[..., first : first + 32]
        counts = {"both": [], "left": [], "right": []}
        for left, right in masks.pairs(g):
            if left >= 0 and right < g.W:
                a, b = part[:, left], part[:, right]
                counts["both"].append((a & b).sum(1))
                counts["left"].append((a & ~b).sum(1))
                counts["right"].append((b & ~a).sum(1))
        n = part.shape[2]
        for key, per_row in counts.items():
            mean = n * density * (density if key == "both" else 1 - density)
            assert all(np.array_equal(row, per_row[0]) for row in per_row)  # along a row
            assert np.ptp(per_row[0]) <= 1
            assert abs(np.mean(per_row[0]) - mean) <= 0.5 / g.H + 1e-9


def test_work_counts_what_the_sweep_does():
    """Pointwise: a visit is a non-zero. 3x3: one of each of the three rows that exist, and three
    taps. With stride 2: two taps at even columns of the padded map, one at odd ones."""
    occupied = np.ones((4, 6, 5), bool)
    point = ConvGeometry(1, 5, 4, 6, 8, 1, 1)
    assert masks.work(point, occupied, 2, 3) == (2 * 120, 2 * 3 * 120)
    square = ConvGeometry(1, 5, 4, 6, 8, 3, 3, 1, 1, 1, 1)
    visits = (2 + 3 + 3 + 2) * 6 * 5
    assert masks.work(square, occupied, 1, 1) == (visits, 3 * visits)
    half = ConvGeometry(1, 5, 4, 6, 8, 3, 3, 2, 2, 1, 1)
    visits = (1 + 2 + 1 + 1) * 6 * 5
    assert masks.work(half, occupied, 1, 1) == (visits, visits // 2 * 3)
    occupied[:, 1] = False
    assert masks.work(point, occupied, 1, 1)[0] == 100


def test_causes_add_up():
    seconds = {
        "call": 30.0, "encoding": 2.0, "fresh": 3.0, "old": 1.0, "repeated": 20.0,
        "as it is": 22.0, "even": 19.0, "activations": 18.0, "all": 14.0, "empty": 3.0,
    }  # fmt: skip
    row = {
        "seconds": seconds, "vector multiply-adds": 8, "instructions": -1, "visits": 4,
        "useful": 0.9,
    }  # fmt: skip
    parts = bottlenecks.causes(row, 1.0)
    assert list(parts.values()) == [8, 3, 3, 4, 1, 3, 2, 2, 6]
    assert sum(parts.values()) == 30 + 22 - 20  # a call, had it not seen its input before
    shown = bottlenecks.shares(row, 1.0, 1.0)
    assert shown["instructions / visit"] is None  # not counted here
    assert shown["cycles / visit"] == 5.5
    assert sum(v for k, v in shown.items() if k.removesuffix(" %") in bottlenecks.CAUSES) == (
        pytest.approx(100)
    )


@pytest.mark.parametrize("shapes", bottlenecks.LAYERS.values(), ids=bottlenecks.LAYERS)
def test_bands_are_those_of_the_product(shapes, monkeypatch):
    """On one thread, layer by layer: what a call asks for is what the benchmark sweeps."""
    asked = []
    product = cpc.Convolution.band_rows

    def spied(self, threads):
        asked.append((threads, product(self, threads)))
        return asked[-1][1]

    monkeypatch.setattr(cpc.Convolution, "band_rows", spied)
    for inputs, outputs, size, height, width, stride in shapes:
        layer = workloads.conv(inputs, outputs, (height, width), stride)
        x = torch.zeros(1, inputs, size, size)
        with torch.inference_mode(), harness.num_threads(1):
            jsc.functional.conv2d(x, layer.weight, None, stride, layer.padding, method="cpc")
            case = cpc_sweep.Case(None, layer, x)
        assert asked == [(1, case.rows)] * 2
        assert case.tile.size % case.rows == 0
        asked.clear()


def test_bands_are_shorter_only_for_threads_to_share():
    g = ConvGeometry(1, 16, 32, 32, 16, 3, 3, 1, 1, 1, 1)
    convolution = cpc.Convolution(cpc.pack(torch.zeros(16, 16, 3, 3), g), None, g)
    tasks = [-(-32 // convolution.band_rows(threads)) for threads in (1, 2, 4)]
    assert tasks[0] == 1  # the whole map fits into a tile
    assert tasks[1] >= 8
    assert tasks[2] >= 16


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    return cpc_sweep.build(tmp_path_factory.mktemp("native"), ["-std=c++17", "-O1", "-Wno-psabi"])


@pytest.mark.slow
def test_the_program_convolves_and_counts(native):
    """The sweep that is timed is the convolution; fewer channels take fewer instructions."""
    layer = workloads.conv(40, 20, (3, 3))
    x = workloads.activation(40, 9, 0.4)
    with torch.inference_mode():
        expected = jsc.functional.conv2d(x, layer.weight, None, padding=1)
    case = cpc_sweep.Case(native, layer, x)
    occupied = (x[0] != 0).permute(1, 2, 0).numpy()
    case.sweep([masks.pack(occupied)], "as it is", 1)()
    out = torch.from_numpy(case.out.copy()).view(9, 9, 20).permute(2, 0, 1)
    torch.testing.assert_close(out, expected[0])
    counts = []
    for channels in (0, 20, 40):
        fewer = occupied & (np.arange(40) < channels)
        counts.append(native.instructions(case.described(masks.pack(fewer)), case.isa, 4))
    assert counts == sorted(counts) or counts == [-1, -1, -1]


@pytest.mark.slow
def test_bottlenecks_run(tmp_path, native, monkeypatch):
    monkeypatch.setattr(bottlenecks, "build", lambda *_: native)
    assert command_line.main(["bottlenecks", "--quick", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "bottlenecks.json").read_text())
    assert [row["class"] for row in found["rows"]] == ["3x3 small", "1x1"]
    assert found["cycle seconds"] < 1e-8
    assert "mispredictions %" in (tmp_path / "bottlenecks.md").read_text()
