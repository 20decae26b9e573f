"""A model, a sample and a plan for it."""

import pytest
import torch
from fake_times import QUICK, Nested, clock, tune_module

from jsc.tuning import tune


def pytest_collection_modifyitems(items):
    """Where a test really measures, torch alone may be faster on the small networks here."""
    ignore = pytest.mark.filterwarnings("ignore:torch alone takes:jsc.PlanWarning")
    for item in items:
        item.add_marker(ignore, append=False)


@pytest.fixture
def model():
    return Nested()


@pytest.fixture
def sample():
    return torch.rand(2, 3, 12, 12)


@pytest.fixture
def no_promise(monkeypatch):
    """Choices without the whole-model check, which gives layers back on a busy machine."""

    def keep(whole, choices, min_gain, *rest):
        return tune_module.Plan(tuple(choices), 2.0, 1.0, 0.0, min_gain)

    monkeypatch.setattr(tune_module, "verify", keep)


@pytest.fixture
def plan(model, sample, monkeypatch, no_promise):
    clock(monkeypatch, {"dense": 2.0, "cpc": 1.0})
    return tune(model, sample, **{**QUICK, "budget_s": 60.0})
