"""`conv`: its rows and sums, targets, the share of the best product, a lower instruction set."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import __main__ as command_line
from benchmarks.common import harness, isa
from benchmarks.convolution import conv, conv_tables, targets
from benchmarks.inputs import workloads


def row(name: str, ratio: float, density: float, **more: object) -> targets.Row:
    size = {"3x3": "3x3", "1x7": "long"}[name[:3]]
    base = {"method": "cpc", "layer": name, "class": size, "threads": 1, "batch": 1}
    return {**base, "ratio": ratio, "density": density, **more}


def test_targets_lie_between_the_given_ones():
    curve = {0.5: 1.3, 0.2: 2.5}
    assert targets.at(curve, 0.5) == pytest.approx(1.3)
    assert targets.at(curve, 0.1**0.5) == pytest.approx((1.3 * 2.5) ** 0.5)  # middle of both axes
    assert targets.at(curve, 0.01) == targets.at(curve, 0) == 2.5
    assert targets.at(curve, 0.51) is None
    assert targets.at({}, 0.5) is None


def test_targets_are_met_or_not_by_the_rows():
    rows = [
        row("3x3 8-8@8", 2.0, 0.502),
        row("3x3 9-9@9", 1.6, 0.5, **{"class": "3x3 small"}),
        row("3x3 8-8@8", 9.0, 0.4),  # no random density that has a target
        row("1x7 8-8@8", 3.9, 0.2),
        row("1x7 8-8@8", 9.9, 0.5, method="dense"),
        row("3x3 7-7@7", 1.1, 0.7, network="net_a"),
        row("3x3 6-6@6", 1.6, 0.7, network="net_a"),
        row("3x3 5-5@5", 0.5, 0.71, network="net_a"),  # denser than all targets
    ]
    square, real, long = targets.layers(rows, "avx512")
    assert (square["layers"], square["inputs"]) == ("3x3 (2)", "density 0.5")
    assert square["mean"] == pytest.approx(3.2**0.5)
    assert (square["worst"], square["worst layer"]) == (1.6, "3x3 9-9@9")
    assert square["met"] == "yes"
    assert (real["inputs"], real["worst layer"]) == ("real, batch 1", "3x3 7-7@7 at 0.70 (net)")
    assert real["met"] == "yes"
    assert long["mean wanted"] == 4
    assert long["met"] == "**no**"
    slow = [row("3x3 8-8@8", 9.0, 0.5), row("3x3 9-9@9", 1.39, 0.5)]
    assert targets.layers(slow, "avx512")[0]["met"] == "**no**"  # one layer is below 1.4
    assert targets.layers(slow, "avx2")[0]["met"] == "yes"
    assert targets.layers(rows, "base") == []


def test_sums_over_networks_have_targets():
    lines = [
        {"network": name, "threads": 1, "batch": 8, "ratio": 1.6}
        for name in ("squeezenet_v1.1", "resnet20_cifar10", "another")
    ]
    more = [{**line, "ratio": 2.5} for line in lines]
    found = targets.networks(lines, more)
    assert [line["met"] for line in found] == ["yes", "**no**"]
    assert found[1]["all timed"] == 2.5


def test_inputs_take_turns_and_the_first_is_the_given_one():
    x = workloads.activation(4, 9, 0.4)
    images = conv.others(x, 5)
    assert torch.equal(images[0], x)
    assert len({image.numpy().tobytes() for image in images}) == 5
    assert all((image != 0).sum() == (x != 0).sum() for image in images)
    assert len(conv.others(workloads.activation(64, 56, 0.4), 5)) == 1  # no longer in L2
    layer = workloads.conv(4, 6, (3, 3))
    calls = conv.runners(layer, x, ["cpc"], 2)
    for call in calls.values():
        first, second, third = call(), call(), call()
        torch.testing.assert_close(first, layer(x))
        torch.testing.assert_close(second, layer(images[1]))
        torch.testing.assert_close(third, layer(x))


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"), [(1, 1, 1, 1), (2, 2, 1, 2), (3, 0, 2, 1)]
)
def test_products_are_those_of_non_zeros_and_outputs(stride, padding, dilation, groups):
    layer = nn.Conv2d(4, 6, (3, 2), stride, padding, dilation, groups)
    x = workloads.activation(4, 9, 0.4, 2)
    ones = torch.ones_like(layer.weight)
    count = F.conv2d((x != 0).float(), ones, None, stride, padding, dilation, groups).sum()
    assert conv.products(layer, x) == int(count)


def test_a_call_on_a_lower_instruction_set_runs_again(monkeypatch, tmp_path):
    """In a process with the environment; here it is only asked for."""
    started = []
    monkeypatch.setattr(isa, "run_again", lambda *words: started.append(words) or 0)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    given = ["--isa", "avx2", "--quick", "--out", str(tmp_path)]
    assert command_line.main(["conv", *given]) == 0
    assert started == [("avx2", "conv", given)]
    assert not list(tmp_path.iterdir())
    for key, value in isa.ENVIRONMENTS["avx2"].items():
        monkeypatch.setenv(key, value)
    assert isa.is_set("avx2")
    monkeypatch.setattr(isa, "_onednn", lambda: "Intel AVX-512")
    with pytest.raises(RuntimeError, match=r"oneDNN avx-512.*not comparable"):
        isa.require("avx2")


def test_batches_and_targets_are_on_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(conv, "product_rate", lambda threads: harness.product_rate(threads, 64, 3))
    given = ["conv", "--quick", "--threads", "1", "--batch", "2", "3", "--out", str(tmp_path)]
    assert command_line.main(given) == 0
    found = json.loads((tmp_path / "conv.json").read_text())
    assert {line["batch"] for line in found["rows"]} == {2}  # random activations: the first
    assert all(line["share"] > 0 for line in found["rows"] if line["method"] != "dense")
    assert "torch's best matrix product" in (tmp_path / "conv.md").read_text()
    with pytest.raises(SystemExit):
        command_line.main(["conv", "--paper", "--batch", "1", "8"])


def test_conv_times_every_method(run, tmp_path):
    found = run("conv")["conv"]
    assert {row["method"] for row in found["rows"]} == {"dense", "cpc"}
    assert found["command"].endswith("--out DIR")
    assert str(tmp_path) not in (tmp_path / "conv.md").read_text()
    assert found["environment"]["torch"] == torch.__version__


def test_sums_take_the_best_method_of_each_layer():
    common = {"network": "n", "batch": 1, "threads": 1}
    rows = [
        {**common, "name": "a", "method": "dense", "halves": [2.0, 2.0]},
        {**common, "name": "a", "method": "cpc", "halves": [1.0, 1.5]},
        {**common, "name": "b", "method": "dense", "halves": [3.0, 3.0]},
        {**common, "name": "b", "method": "cpc", "halves": [4.0, 1.0]},
    ]
    (found,) = conv_tables.sums(rows)
    assert found["best ms"] == 4.5
    assert found["sparse chosen"] == 1
    assert found["ratio"] == 5 / 4.5
