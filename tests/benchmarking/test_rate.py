"""The benchmark of the rate: its figures, on random pictures and an untrained network."""

import json

import numpy as np
import pytest
import torch

import jsc
from benchmarks import __main__ as command_line
from benchmarks.jpeg import rate, rate_accuracy, rate_files


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


def model():
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 3, 5, stride=3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )


def test_trained_tables_follow_lambda():
    pytest.importorskip("PIL.Image")
    sets = torch.stack(rate.natural(12, 32)), torch.arange(12) % 3
    rows, measured = rate_accuracy.curve(model(), sets, sets, [50], [8.0, 24.0], [0.01, 100.0], 8)
    assert [row["tables"] for row in rows] == ["libjpeg"] + 2 * ["sensitivity"] + 2 * ["trained"]
    assert rows[2]["bpp"] < rows[1]["bpp"]
    assert rows[4]["bpp"] < rows[3]["bpp"]
    assert torch.tensor(rows[3]["entries"]).shape == (2, 8, 8)
    assert measured.shape == (5, 3, 12)
    assert measured[4, 0].mean() == pytest.approx(rows[4]["bpp"])


def test_the_network_sees_rounding_and_each_frequency_has_one_gradient():
    x = torch.stack(rate.natural(2, 16)).float() / 255
    tables = jsc.jpeg.quality_tables(50).requires_grad_()
    size = torch.zeros(2, 8, 8)
    size[0, :2] = 1000
    y = rate_accuracy.seen(x, tables, size)
    hard = jsc.functional.jpeg(x, tables.detach(), quantizer="hard").clamp(0, 1)
    torch.testing.assert_close(y, hard, atol=1e-5, rtol=0)
    (found,) = torch.autograd.grad(y.square().sum(), tables)
    for options, part in (({"quantizer": "ste"}, size > 0), ({"kappa": 6.0}, size == 0)):
        z = jsc.functional.jpeg(x, tables, **options)
        upstream = 2 * hard * ((hard > 0) & (hard < 1))
        (expected,) = torch.autograd.grad(z, tables, upstream)
        torch.testing.assert_close(found[part], expected[part], atol=1e-3, rtol=1e-3)


def test_steps_follow_sensitivity():
    sets = torch.stack(rate.natural(4, 16)), torch.arange(4) % 3
    network = model()
    tables = rate_accuracy.from_sensitivity(network, sets)
    x = sets[0].float() / 255
    s = jsc.jpeg.sensitivity(network, [(x, sets[1])], rate_accuracy.loss_of).float()
    torch.testing.assert_close(tables[0] / tables[0, 0, 0], (s[0, 0, 0] / s[0]).sqrt())
    assert tables.log().mean().abs() < 1e-5


def test_saved_bits_are_read_off_the_curves():
    bits, right = np.array([1.0, 2.0, 4.0]), np.array([50.0, 60.0, 70.0])
    measured = np.zeros((6, 3, 5))
    measured[:3, 0], measured[3:, 0] = bits[:, None], 0.5 * bits[:, None]
    measured[:3, 1] = measured[3:, 1] = right[:, None]
    measured[:, 2] = 1 - measured[:, 1] / 100
    rows = [{"tables": name} for name in 3 * ["libjpeg"] + 3 * ["trained"]]
    found = rate_accuracy.savings(rows, measured, {"top-1 %": [55.0, 80.0], "cross-entropy": []})
    assert [row["at equal"] for row in found] == [
        "top-1 % 55", "top-1 %, mean", "cross-entropy, mean"
    ]  # fmt: skip
    for row in found:
        assert row["bits saved %"] == pytest.approx(50)
        assert row["from"] == pytest.approx(50)
        assert row["to"] == pytest.approx(50)


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
