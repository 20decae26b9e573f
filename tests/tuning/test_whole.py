"""The model as a whole: no plan is kept that is off by more than the bound, or slower."""

from __future__ import annotations

import warnings

import pytest
import torch
from fake_times import QUICK, Nested, clock, methods_of, whole_module
from torch import nn

from jsc.nn import SparseConv2d
from jsc.tuning import PlanWarning, apply, tune
from jsc.tuning.timing import Times
from jsc.tuning.whole import relative_error


def race(monkeypatch, milliseconds):
    """Let candidates of the whole model take `milliseconds(name, races so far)`; the races."""
    races = []

    def fake(candidates, rounds, seconds, baseline="dense", least=3):
        races.append(list(candidates))
        return {n: Times(*[milliseconds(n, len(races))] * 2) for n in candidates}

    monkeypatch.setattr(whole_module, "interleaved", fake)
    return races


@pytest.fixture
def quick(monkeypatch):
    """Every layer gains with CPC alone."""
    clock(monkeypatch, {"dense": 2.0, "cpc": 1.0})


@pytest.mark.usefixtures("quick")
def test_slower_whole_model_gives_layers_back(model, sample, monkeypatch):
    races = race(monkeypatch, lambda name, race: 3.0 if name == "tuned" and race < 3 else 2.0)
    plan = tune(model, sample, **QUICK)
    assert len(races) == 3
    assert plan.tuned_ms <= plan.dense_ms
    assert sum("nothing in the whole model" in layer.reason for layer in plan.layers) == 2
    assert len(plan.chosen) == 1


@pytest.mark.usefixtures("quick")
def test_never_slower_even_if_nothing_helps(model, sample, monkeypatch):
    race(monkeypatch, lambda name, race: 2.1 if name == "tuned" else 2.0)
    plan = tune(model, sample, **QUICK)
    assert not plan.chosen
    assert plan.gain == 1


@pytest.mark.usefixtures("quick")
def test_there_is_one_plan_to_try(model, sample, monkeypatch):
    races = race(monkeypatch, lambda name, race: {"tuned": 1.0}.get(name, 2.0))
    plan = tune(model.eval(), sample, **QUICK)
    assert races == [["dense", "tuned", whole_module.TORCH]]
    assert "forward" not in vars(apply(model, plan))


class Chaotic(nn.Module):
    """Magnifies the last bits of its second layer's output, whichever method computes it."""

    def __init__(self):
        super().__init__()
        self.calm, self.wild = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x):
        y = self.wild(x)
        return self.calm(x).relu(), (y * 1e6).sin()


@pytest.mark.usefixtures("quick")
def test_no_plan_is_further_off_than_the_bound(monkeypatch):
    races = race(monkeypatch, lambda name, race: 2.0 if name == "dense" else 1.0)
    model, x = Chaotic().eval(), torch.randn(2, 16, 12, 12).relu()
    plan = tune(model, x, max_error=1e-4, **QUICK)
    assert "tuned" in races[0]  # the first that is timed is right
    assert all("tuned" in names for names in races)
    assert plan.max_error <= 1e-4
    assert methods_of(plan)["wild"] == "dense"
    assert "off with cpc" in plan.layers[1].reason
    with torch.no_grad():
        right, found = model(x), apply(model, plan)(x)
    assert relative_error(list(found), list(right)) == plan.max_error
    loose = tune(model, x, max_error=2.0, **QUICK)
    assert methods_of(loose) == {"calm": "cpc", "wild": "cpc"}
    assert loose.max_error > 1e-4


class Aliasing(nn.Module):
    """`z` is a copy of a contiguous `y`, and `y` itself where that is channels-last."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x):
        y = self.conv(x).relu()
        z = y.permute(0, 2, 3, 1).contiguous()
        z.mul_(3.0)
        return y + z.permute(0, 3, 1, 2)


@pytest.mark.usefixtures("quick")
def test_channels_last_maps_that_change_an_answer_are_not_timed(monkeypatch):
    """Neither a plan's, nor torch's own."""
    races = race(monkeypatch, lambda name, race: {"dense": 2.0, "tuned": 1.5}.get(name, 1.0))
    plan = tune(Aliasing().eval(), torch.randn(2, 16, 12, 12).relu(), **QUICK)
    assert races[0] == ["dense", "tuned"]
    assert plan.channels_last_ms == 0
    assert plan.max_error <= 1e-4


@pytest.mark.usefixtures("quick")
@pytest.mark.filterwarnings("default:torch alone:jsc.PlanWarning")
def test_torch_with_everything_channels_last_is_timed_too(monkeypatch):
    model, x = Nested().eval(), torch.rand(2, 3, 12, 12)
    weights = [p.stride() for p in model.parameters()]
    times = {"dense": 3.0, "tuned": 2.0, whole_module.TORCH: 1.0}
    race(monkeypatch, lambda name, race: times[name])
    with pytest.warns(PlanWarning, match=r"model\.to\(memory_format=torch\.channels_last\)"):
        plan = tune(model, x, **QUICK)
    assert (plan.channels_last_ms, plan.tuned_ms, plan.dense_ms) == (1.0, 2.0, 3.0)
    assert plan.chosen  # it keeps its promise, which is about the model as given
    assert "tune again" in str(plan)
    assert weights == [p.stride() for p in model.parameters()]
    times[whole_module.TORCH] = 1.99
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = tune(model, x, **QUICK)
        last = x.contiguous(memory_format=torch.channels_last)
        done = tune(model.to(memory_format=torch.channels_last), last, **QUICK)
    assert plan.channels_last_ms == 1.99
    assert done.channels_last_ms == 0  # it was given so


def test_errors_of_outputs():
    x = torch.tensor([1.0, -4.0, torch.nan, torch.inf])
    off = torch.tensor([1.0, -3.0, torch.nan, torch.inf])
    whole = torch.arange(10)
    assert relative_error([x], [x]) == 0
    assert relative_error([off], [x]) == 0.25
    assert relative_error([whole + (whole > 8)], [whole]) == pytest.approx(0.1)
    assert relative_error([], []) == relative_error([whole[:0]], [whole[:0]]) == 0
    wrong = (x[:3], x.double(), x.nan_to_num(0.0), torch.tensor([torch.nan, -4.0, 1.0, torch.inf]))
    for result in wrong:
        assert relative_error([result], [x]) == float("inf")
    assert relative_error([x, x], [x]) == float("inf")
    assert relative_error([torch.tensor([1e-7])], [torch.zeros(1)]) == pytest.approx(1e-7)


def test_a_method_that_is_wrong_only_in_the_whole_model_is_given_back(model, sample, monkeypatch):
    """Right when it was checked, wrong later: the last comparison finds it."""
    clock(monkeypatch, {"dense": 2.0, "cpc": 1.0})
    race(monkeypatch, lambda name, race: 2.0 if name == "dense" else 1.0)
    right = SparseConv2d._conv_forward

    def later(self, *arguments):
        return right(self, *arguments) * (1 + 0.01 * getattr(self, "spoilt", 0))

    def spoil(model, plan, **options):
        tuned = apply(model, plan, **options)
        for module in tuned.modules():
            if isinstance(module, SparseConv2d):
                module.spoilt = True
        return tuned

    monkeypatch.setattr(SparseConv2d, "_conv_forward", later)
    monkeypatch.setattr(whole_module, "apply", spoil)
    plan = tune(model, sample, **QUICK)
    assert not plan.chosen
    assert plan.max_error == 0
