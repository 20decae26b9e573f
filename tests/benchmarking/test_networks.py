"""The benchmark of whole networks: its page, its summary, and that a wrong network is not timed."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from benchmarks.common import workers
from benchmarks.networks import load, networks
from jsc import _config


@pytest.mark.parametrize(
    ("isa", "page"),
    [("avx512", "networks"), ("avx512+amx", "networks_amx"), ("avx2", "networks_avx2")],
)
def test_each_kind_of_processor_has_a_page(isa, page, monkeypatch):
    monkeypatch.setattr(_config, "isa_name", lambda: isa)
    assert networks.page_name() == page


def test_the_summary_counts_losses():
    rows = [
        {"kind": "trained", "batch": 1, "threads": 1, "ratio": ratio} for ratio in (0.5, 2.0, 8.0)
    ]
    (line,) = networks.summaries(rows)
    assert line["geometric mean"] == 2.0
    assert (line["least"], line["most"], line["slower than a peer"]) == (0.5, 8.0, 1)


def small() -> tuple[nn.Module, list[torch.Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    return model, [torch.randn(1, 3, 9, 9) for _ in range(networks.INPUTS)]


def off_by_a_thousandth(make, budget):
    model, xs = make()
    about = {"first": 0.0, "methods": "", "memory": ""}
    return networks.in_turn(lambda x: model(x) * 1.001, xs), about


@pytest.mark.parametrize("right", [True, False])
def test_a_row_is_timed_only_if_its_output_is_right(right, monkeypatch, tmp_path):
    monkeypatch.setattr(networks.runtimes, "missing", lambda: ["onnxruntime"])
    if not right:
        monkeypatch.setattr(networks, "compiled", off_by_a_thousandth)
    options = networks.argparse.Namespace(inductor=False, rounds=3, budget=0.0, batch=[1])
    measure = partial(networks.measure, "trained", "small", small, options, tmp_path)
    with workers.Workers(1) as there, torch.no_grad():
        if right:
            row = measure(there)
            assert row["torch.compile ms"] is None
            assert row["jsc ms"] > 0
        else:
            with pytest.raises(AssertionError, match="not timed"):
                measure(there)


def test_a_first_answer_is_timed_only_if_it_is_right(monkeypatch, tmp_path):
    monkeypatch.setattr(load.runtimes, "missing", lambda: ["onnxruntime"])
    options = load.argparse.Namespace(rounds=1, budget=0.0)
    with torch.no_grad():
        (row,) = load.measure("small", small, options, tmp_path, 1)
        assert row["together, s"] > 0
        monkeypatch.setattr(load, "TOLERANCE", -1.0)
        with pytest.raises(AssertionError, match="small: jsc is"):
            load.measure("small", small, options, tmp_path, 1)
    (line,) = load.by_network([row])
    assert line["jsc, s"] == row["together, s"]
