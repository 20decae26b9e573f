"""The time budget, on a clock that only convolutions advance."""

from __future__ import annotations

import pytest
import torch
from fake_times import measure_module, timing_module, tune_module, whole_module
from torch import nn

from jsc.methods import METHODS, get
from jsc.nn import SparseConv2d
from jsc.tuning import tune
from jsc.tuning.measure import FIRST_CALL_RATIO
from jsc.tuning.timing import Deadline

LAYERS = 120
SECONDS = {
    **dict.fromkeys(METHODS, 1.0),
    "dense": 0.1, "im2col": 2.0, "mec": 4.0, "cpo": 30.0, "cps": 30.0, "cpc": 0.08,
}  # fmt: skip


@pytest.fixture
def work(monkeypatch):
    """The clock, and what has run: a dense layer takes 0.1 s, others what `SECONDS` says."""
    clock, seconds, runs = [0.0], dict(SECONDS), []
    forward, sparse = nn.Conv2d._conv_forward, SparseConv2d._conv_forward

    def dense(self, *arguments):
        clock[0] += seconds["dense"]
        return forward(self, *arguments)

    def other(self, *arguments):
        before = clock[0]
        result = sparse(self, *arguments)
        runs.append((self.method, before))
        clock[0] = before + seconds[self.method]
        return result

    monkeypatch.setattr(timing_module, "clock", lambda: clock[0])
    monkeypatch.setattr(nn.Conv2d, "_conv_forward", dense)
    monkeypatch.setattr(SparseConv2d, "_conv_forward", other)
    return clock, seconds, runs


@pytest.fixture
def detector():
    """Many layers, each of which has zeros to skip."""
    torch.manual_seed(0)
    layers = [m for _ in range(LAYERS) for m in (nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))]
    return nn.Sequential(*layers).eval()


X = torch.randn(1, 8, 6, 6)
QUIET = {"progress": False, "repeats": 3}


@pytest.mark.parametrize("runs", [0.5, 2, 10, 100])
def test_the_budget_is_kept(work, detector, runs):
    """A run takes 12 s here: the budget is so many of them, and the least is some twelve."""
    clock, _, _ = work
    budget = runs * LAYERS * SECONDS["dense"]
    plan = tune(detector, X, budget_s=budget, **QUIET)
    assert clock[0] <= 1.2 * budget + 15 * LAYERS * SECONDS["dense"]
    assert [layer.calls for layer in plan.layers] == [1] * LAYERS
    if runs == 100:
        assert all(layer.method == "cpc" for layer in plan.layers)
        assert plan.gain == pytest.approx(1.25)


def test_no_method_is_begun_after_the_time_for_layers(work, detector):
    _, _, runs = work
    budget = 10 * LAYERS * SECONDS["dense"]
    plan = tune(detector, X, budget_s=budget, methods=["mec", "cpc"], **QUIET)
    late = [method for method, begun in runs if method == "mec" and begun > budget / 2]
    assert not late
    reasons = [layer.reason for layer in plan.layers]
    assert any("the time was over" in reason for reason in reasons)
    assert plan.chosen == ()  # `mec` took what there was
    plan = tune(detector, X, budget_s=budget, methods=["cpc", "mec"], **QUIET)
    assert len(plan.chosen) > LAYERS / 8
    assert plan.tuned_ms < plan.dense_ms


@pytest.mark.parametrize("cheapest", ["cpc", "mec", "cps"])
def test_a_budget_that_ends_early_has_tried_the_likely_fastest(
    work, detector, cheapest, monkeypatch
):
    _, seconds, runs = work
    seconds.update(dict.fromkeys(seconds.keys() - {"dense"}, 0.5))
    monkeypatch.setattr(get(cheapest), "cost", lambda g, density: 0.0)
    tune(detector, X, budget_s=20 * LAYERS * SECONDS["dense"], **QUIET)
    tried = [method for method, _ in runs]
    assert tried[0] == cheapest
    assert max(set(tried), key=tried.count) == cheapest


@pytest.mark.parametrize("methods", [["cpc"], []])
def test_what_is_not_tried_is_not_run(work, detector, methods, monkeypatch):
    """Not for the memory column either."""
    encoded = []

    def spy(x, g):
        encoded.append(1)
        return 1

    slow = {name for name in METHODS if get(name).slow_to_count}
    for name in slow:
        monkeypatch.setattr(get(name), "stored_bytes", spy)
    _, _, runs = work
    plan = tune(detector, X, methods=methods, budget_s=1e4, **QUIET)
    assert {method for method, _ in runs} == set(methods)
    assert not encoded
    assert set(plan.layers[0].memory) == set(METHODS) - slow


def test_a_method_that_is_hopeless_at_first_is_not_timed(work, detector):
    _, seconds, runs = work
    assert seconds["cpo"] > FIRST_CALL_RATIO * seconds["dense"] > seconds["cpc"]
    plan = tune(detector, X, methods=["cpo", "cpc"], budget_s=1e5, **QUIET)
    assert [method for method, _ in runs].count("cpo") == LAYERS
    assert set(plan.layers[0].times_ms) == {"dense", "cpc"}
    assert "cpo" not in plan.layers[0].memory


def test_a_first_call_may_pack_weights(work, monkeypatch):
    """A short one is timed again, whatever it took beside the dense one."""
    _, seconds, runs = work
    seconds["dense"], seconds["cpc"] = 1e-6, measure_module.FIRST_CALL_SECONDS / 2
    tune(nn.Sequential(nn.Conv2d(8, 8, 3)), X, methods=["cpc"], budget_s=100, **QUIET)
    assert len(runs) > 1


def test_out_of_time_half_is_given_back_before_all(work, detector, monkeypatch):
    """The layers that gain most alone are kept, if the model is faster with them."""
    clock, seconds, _ = work
    seconds["cpc"] = 0.05
    compared = []
    times = whole_module.interleaved

    def whole(candidates, rounds, left, **options):
        found = times(candidates, rounds, left, **options)
        model = candidates["tuned"].args[0] if "tuned" in candidates else None
        sparse = sum(isinstance(m, SparseConv2d) for m in model.modules()) if model else 0
        compared.append(sparse)
        if sparse > LAYERS / 2:  # alone they all gain
            found["tuned"] = type(found["dense"])(1e9, 1e9)
        return found

    monkeypatch.setattr(whole_module, "interleaved", whole)
    budget = 25 * LAYERS * seconds["dense"]
    plan = tune(detector, X, methods=["cpc"], budget_s=budget, **QUIET)
    assert clock[0] <= 1.5 * budget
    assert compared[0] == LAYERS
    assert len(plan.chosen) == LAYERS / 2 == compared[-1]
    assert plan.tuned_ms < plan.dense_ms
    assert all(layer.gain >= 1 for layer in plan.chosen)


def test_something_is_always_compared(work, detector, monkeypatch):
    """However short the time: what is chosen has been seen to be right and not slower."""
    compared = []
    times = whole_module.interleaved
    monkeypatch.setattr(
        whole_module, "interleaved", lambda *a, **k: compared.append(list(a[0])) or times(*a, **k)
    )
    plan = tune(detector, X, methods=["cpc"], budget_s=1e-9, **QUIET)
    assert len(compared) == 1
    assert plan.dense_ms > 0
    assert not plan.chosen
    assert plan.layers[0].reason == "dense: not tried, the time was over"


def test_shares_go_by_products(work, monkeypatch):
    """And the last layer may have all that is left."""
    shares = []
    measure = tune_module.measure_call

    def spy(m, x, methods, rounds, share, *rest):
        shares.append(share.left)
        return measure(m, x, methods, rounds, share, *rest)

    monkeypatch.setattr(tune_module, "measure_call", spy)
    model = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 64, 5, padding=2), nn.Conv2d(64, 8, 1))
    tune(model, X, methods=[], budget_s=1000, **QUIET)
    small, large, last = shares
    assert large > 10 * small
    assert last > 300


def test_deadline(monkeypatch):
    now = [5.0]
    monkeypatch.setattr(timing_module, "clock", lambda: now[0])
    deadline = Deadline(2.0)
    assert (deadline.left, deadline.over) == (2.0, False)
    now[0] = 8.0
    assert (deadline.left, deadline.over) == (0.0, True)
    assert Deadline(-1.0).over
    assert set(SECONDS) == set(METHODS)
