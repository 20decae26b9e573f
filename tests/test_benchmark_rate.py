"""The benchmark of the rate: its figures, on random pictures and a network nobody trained."""

import json

import pytest
import torch

import jsc
from benchmarks import __main__ as command_line
from benchmarks import rate, rate_accuracy, rate_files


def test_runs_without_data(tmp_path):
    pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    given = ["rate", "--quick", "--threads", "1", "--out", str(tmp_path)]
    before = torch.get_num_threads()
    assert command_line.main(given) == 0
    torch.set_num_threads(before)
    found = json.loads((tmp_path / "rate.json").read_text())
    assert {row["subsampling"] for row in found["files"]} == {"4:4:4", "4:2:0"}
    for row in found["files"]:
        assert row["scan"] < row["file"]
        assert 0.7 < row["estimate"] / row["optimised scan"] < 1.1
    assert (tmp_path / "rate.png").read_bytes().startswith(b"\x89PNG")


def test_a_scan_is_the_file_without_its_tables():
    pytest.importorskip("PIL.Image")
    (x,) = rate.natural(1, 32)
    tables = jsc.jpeg.quality_tables(75).long()
    whole, scan = rate_files.file_bits(x, tables, "4:4:4", False)
    assert 8 * 600 < whole - scan < 8 * 640  # two tables of 64, four codes, markers


def test_trained_tables_follow_lambda():
    pytest.importorskip("PIL.Image")
    pixels = torch.stack(rate.natural(12, 32))
    labels = torch.arange(12) % 3
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 3, 5, stride=3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    rows = rate_accuracy.curve(model, pixels, labels, [50], [0.01, 100.0], 5)
    assert [row["tables"] for row in rows] == ["libjpeg", "trained", "trained"]
    assert rows[2]["bpp"] < rows[1]["bpp"]
    assert torch.tensor(rows[1]["trained tables"]).shape == (2, 2, 8, 8)


def test_probabilities_and_scores_have_one_loss():
    scores, labels = torch.randn(4, 5), torch.tensor([0, 1, 2, 3])
    expected = torch.nn.functional.cross_entropy(scores, labels)
    torch.testing.assert_close(rate_accuracy.loss_of(scores, labels), expected)
    torch.testing.assert_close(rate_accuracy.loss_of(scores.softmax(1), labels), expected)


def test_input_is_the_networks_preprocessing():
    recipe = {"order": "BGR", "scale": "none (0..255)", "mean": [1, 2, 3], "std": [1, 1, 2]}
    x = torch.rand(2, 3, 4, 4)
    found = rate_accuracy.Input(torch.nn.Identity(), recipe)(x)
    torch.testing.assert_close(found[:, 0], 255 * x[:, 2] - 1)
    torch.testing.assert_close(found[:, 2], (255 * x[:, 0] - 3) / 2)
