"""`dense`: methods that fit a layer, rows, means of classes."""

from __future__ import annotations

import json

import pytest

from benchmarks.convolution import dense
from benchmarks.inputs.workloads import DENSE


def test_classes_are_shapes_that_a_layer_can_have():
    for shapes in DENSE.values():
        for inputs, filters, height, width, kh, kw, stride, groups in shapes:
            assert inputs % groups == filters % groups == 0
            assert kh <= height
            assert kw <= width
            assert stride in (1, 2)


@pytest.mark.parametrize(
    ("shape", "methods"),
    [
        ((16, 16, 8, 8, 3, 3, 1, 1), {"direct", "winograd2x2", "winograd4x4"}),
        ((16, 16, 8, 8, 3, 3, 1, 16), {"depthwise"}),
        ((16, 32, 8, 8, 1, 1, 1, 1), {"direct"}),
        ((3, 16, 8, 8, 3, 3, 2, 1), {"direct"}),
    ],
)
def test_every_method_that_fits_is_there(shape, methods):
    layer, x, _ = dense.layer_of(shape)
    found = dense.compiled(layer, x, "ieee")
    assert methods <= set(found)
    assert "cpc" not in found
    assert all(net.methods() == {method: 1} for method, net in found.items())


def test_a_row_and_the_mean_of_its_class(tmp_path, capsys):
    where = ["--threads", "1", "--out", str(tmp_path)]
    dense.main(["--quick", "--classes", "1x1", "depthwise", *where])
    rows = json.loads((tmp_path / "dense.json").read_text())["rows"]
    assert [row["layer"] for row in rows] == ["1x1 64-256@56", "3x3 32-32 g32@112"]
    one, other = dense.summaries(rows)
    assert one["best"] == rows[0]["best ratio"] == rows[0][rows[0]["best"]]
    assert (other["class"], other["goal"]) == ("depthwise", 1.3)
    assert "| depthwise | 1 | 1 |" in capsys.readouterr().out
    assert (tmp_path / "dense.png").exists()
