"""The benchmarks themselves: wrong results are refused, and each benchmark runs."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import __main__ as command_line
from benchmarks import allocation, conv, harness, jpeg, memory, report
from benchmarks.peers.jpeg_dl import AuthorsJPEG, dct_matrix, soft_quantize

# harness


def test_a_wrong_result_is_not_timed():
    right = torch.arange(6.0)
    wrong = right.clone()
    wrong[3] += 1e-2
    calls = []

    def counted():
        calls.append(1)
        return wrong

    with pytest.raises(harness.WrongResult, match="bad: error"):
        harness.compare({"good": lambda: right, "bad": counted}, right.double(), 1e-4)
    assert len(calls) == 1


@pytest.mark.parametrize(
    "result", [torch.full((3,), float("nan")), torch.zeros(3, 1), torch.full((3,), float("inf"))]
)
def test_nan_inf_and_wrong_shapes_are_wrong_results(result):
    with pytest.raises(harness.WrongResult):
        harness.check("method", result, torch.ones(3), 1e-4)


def test_a_zero_reference_is_reached_by_zero_only():
    assert harness.check("method", torch.zeros(3), torch.zeros(3), 1e-4) == 0
    with pytest.raises(harness.WrongResult):
        harness.check("method", torch.full((3,), 1e-30), torch.zeros(3), 1e-4)


def test_methods_run_in_turn_and_take_turns_to_begin():
    order = []
    runs = {name: (lambda name=name: order.append(name)) for name in "ab"}
    times = harness.interleave(runs, rounds=3, sample_seconds=0)
    assert "".join(order[4:]) == "aabbbbaaaabb"  # each first once untimed
    assert all(len(timing.samples) == 3 for timing in times.values())


def test_ratio_is_that_of_the_medians():
    slow = harness.Timing(np.array([2.0, 4.0, 6.0]))
    fast = harness.Timing(np.array([1.0, 1.0, 2.0]))
    ratio = harness.Ratio.of(slow, fast)
    assert ratio.value == 4.0
    assert ratio.low == 2.5
    assert ratio.high == 3.5
    assert slow.half(0) == 4.0
    assert slow.half(1) == 4.0


def test_saved_and_peak_bytes():
    x = torch.rand(1000, requires_grad=True)
    assert allocation.saved_bytes(lambda: x.exp(), [x]) == 4000
    assert allocation.saved_bytes(lambda: x * x, [x]) == 0
    assert allocation.peak_bytes(lambda: (x.detach() + 1).exp()) == 8000


def test_commands_are_kept_without_folders():
    given = ["--quick", "--data", "/a/b", "--out=/c", "--threads", "1"]
    kept = report.command("conv", given)
    assert kept == "python -m benchmarks conv --quick --data DIR --out=DIR --threads 1"


# peers


def test_the_dct_matrix_is_orthonormal():
    basis = dct_matrix(torch.float64)
    torch.testing.assert_close(basis @ basis.T, torch.eye(8, dtype=torch.float64))


def test_the_authors_quantiser_is_the_mean_level():
    z = torch.linspace(-40, 40, 41, dtype=torch.float64)
    q = torch.tensor(7.0, dtype=torch.float64)
    levels = 7.0 * torch.arange(-60, 61)
    weight = torch.softmax(-0.02 * (z[:, None] - levels) ** 2, 1)
    soft = soft_quantize(z, q.expand(41), 0.02, window=41, levels=None)
    torch.testing.assert_close(soft, weight @ levels.double())
    assert soft_quantize(z, q.expand(41), 5.0, levels=2).abs().max() <= 14  # it saturates


def test_the_authors_layer_is_the_identity_for_small_steps():
    x = 255 * torch.rand(1, 3, 13, 20, dtype=torch.float64)
    layer = AuthorsJPEG(torch.full((2, 8, 8), 1e-3, dtype=torch.float64), levels=None)
    torch.testing.assert_close(layer(x), x, atol=0.02, rtol=0)


# every benchmark


def run(tmp_path, *words):
    name, *options = words
    given = [name, "--quick", "--threads", "1", *options]
    if "--out" not in options:
        given += ["--out", str(tmp_path)]
    assert command_line.main(given) == 0
    return {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}


def test_conv_times_every_method(tmp_path):
    found = run(tmp_path, "conv")["conv"]
    assert {row["method"] for row in found["rows"]} == {"dense", "cpc"}
    assert found["command"].endswith("--out DIR")
    assert str(tmp_path) not in (tmp_path / "conv.md").read_text()
    assert found["environment"]["torch"] == torch.__version__


def test_fused_times_layers_and_networks(tmp_path):
    found = run(tmp_path, "fused")["fused"]
    assert all(row["fused ms"] > 0 for row in found["layers"])
    assert [row["network"] for row in found["networks"]] == ["small ResNet"]


def test_memory_and_figures(tmp_path):
    pytest.importorskip("matplotlib")
    run(tmp_path, "conv")
    for row in run(tmp_path, "memory")["memory"]["rows"]:
        assert row["im2col"]["compression ratio"] == 1
    run(tmp_path, "plots")
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert {"memory_ratio.png", "conv_saving_over_dense_1.png"} <= drawn


def test_jpeg_times_every_operator(tmp_path):
    rows = run(tmp_path, "jpeg")["jpeg"]["rows"]
    timed = {row["operator"] for row in rows if "pass" in row}
    assert {"jsc, exact", jpeg.AUTHORS, "x.clone()"} <= timed


def test_mec_and_im2col_sizes():
    layer = nn.Conv2d(2, 1, 3, padding=1)
    sizes = memory.lowered(layer, torch.ones(1, 2, 5, 6))
    assert sizes["im2col"].elements == 2 * 5 * 6 * 9
    assert sizes["MEC"].elements == 2 * 6 * 7 * 3
    assert sizes["MEC"].compression_ratio == pytest.approx(540 / 252)


def test_sums_take_the_best_method_of_each_layer():
    common = {"network": "n", "batch": 1, "threads": 1}
    rows = [
        {**common, "name": "a", "method": "dense", "halves": [2.0, 2.0]},
        {**common, "name": "a", "method": "cpc", "halves": [1.0, 1.5]},
        {**common, "name": "b", "method": "dense", "halves": [3.0, 3.0]},
        {**common, "name": "b", "method": "cpc", "halves": [4.0, 1.0]},
    ]
    (found,) = conv.sums(rows)
    assert found["best ms"] == 4.5
    assert found["sparse chosen"] == 1
    assert found["ratio"] == 5 / 4.5
