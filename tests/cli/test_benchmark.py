"""python -m jsc benchmark: a model of a file, its table, its JSON, what it says of wrong use."""

import json

import numpy as np
import pytest
import torch

from jsc.cli.benchmark.contenders import _onnxruntime
from jsc.cli.benchmark.measure import difference, measure
from jsc.cli.main import main

NET = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))

class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)

    def forward(self, x):
        return {"map": self.conv(x).cumsum(2), "size": x.shape[2]}
"""

COUNTS = """
import torch
from torch import nn

class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.conv(x)
"""


@pytest.fixture
def net(tmp_path):
    (tmp_path / "bench_net.py").write_text(NET)
    return f"{tmp_path / 'bench_net.py'}"


def test_a_model_of_a_file(net, tmp_path, capsys):
    file = tmp_path / "found.json"
    arguments = ["--size", "12", "--batch", "2", "--seconds", "0.01", "--budget", "0"]
    assert main(["benchmark", f"{net}:make", *arguments, "--json", str(file)]) == 0
    output = capsys.readouterr().out
    assert "on 2x3x12x12" in output
    assert "2 convolutions, 0 linear layers; 100 %" in output
    found = json.loads(file.read_text())
    rows = {row["name"]: row for row in found["contenders"]}
    assert {"jsc", "torch", "torch channels-last"} <= rows.keys()
    assert all(rows[name]["error"] < 1e-5 for name in ("jsc", "torch", "torch channels-last"))
    assert rows["jsc"]["calls"] >= 5
    assert rows["jsc"]["p90_ms"] >= rows["jsc"]["median_ms"] > 0
    assert found["native_share"] == 1.0


def test_without_times_and_what_runs_in_torch(net, tmp_path, capsys):
    file = tmp_path / "found.json"
    arguments = ["--size", "9", "--channels", "1", "--seconds", "0", "--budget", "0"]
    assert main(["benchmark", f"{net}:Odd", *arguments, "--json", str(file)]) == 0
    assert "in torch: 1 x cumsum (no native form)" in capsys.readouterr().out
    found = json.loads(file.read_text())
    assert found["in_torch"] == {"cumsum": 1}
    assert found["contenders"][0]["median_ms"] is None


def test_real_images(net, tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    pillow.fromarray(pixels).save(tmp_path / "a.png")
    options = ["--size", "12", "--batch", "2", "--seconds", "0", "--budget", "0"]
    assert main(["benchmark", f"{net}:make", *options, "--images", str(tmp_path)]) == 0
    (tmp_path / "empty").mkdir()
    assert main(["benchmark", f"{net}:make", *options, "--images", str(tmp_path / "empty")]) == 2


@pytest.mark.parametrize("model", ["timm:no-such", "transformers:NoSuch", "net.py:make", "x"])
def test_wrong_models(model, capsys):
    assert main(["benchmark", model]) == 2
    assert "python -m jsc benchmark: " in capsys.readouterr().err


def test_images_that_the_model_does_not_take(net, capsys):
    assert main(["benchmark", f"{net}:make", "--channels", "5", "--size", "12"]) == 2
    assert "MODEL does not run on the sample: RuntimeError: " in capsys.readouterr().err


def test_a_model_that_cannot_be_compiled(tmp_path, capsys):
    (tmp_path / "counts.py").write_text(COUNTS)
    assert (
        main(["benchmark", f"{tmp_path / 'counts.py'}:Counts", "--size", "12", "--seconds", "0"])
        == 2
    )
    captured = capsys.readouterr()
    assert captured.err.startswith("python -m jsc benchmark: ")
    assert "calls" in captured.err


def test_an_exporter_that_fails_without_a_word(monkeypatch):
    pytest.importorskip("onnxruntime")

    def silent(*arguments, **options):
        raise RuntimeError

    monkeypatch.setattr(torch.onnx, "export", silent)
    found = _onnxruntime(torch.nn.ReLU(), torch.ones(1), None)
    assert found == "cannot take it: RuntimeError: "


def test_what_is_wrong_is_not_timed():
    right = torch.ones(3)
    runs = {"a": lambda: right, "b": lambda: right * 1.1, "c": "cannot take it"}
    a, b, c = measure(runs, right.double(), 0.001, 1)
    assert a["calls"] >= 5
    assert a["error"] == 0
    assert b["problem"].startswith("wrong")
    assert not b["calls"]
    assert c["problem"] == "cannot take it"
    assert difference([right * float("nan")], right) == float("inf")
