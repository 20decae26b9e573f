"""Some seconds of `python -m tests.reliability.races`: every scenario, a few calls by 8 threads."""

from __future__ import annotations

import time

import pytest
import torch

from tests.reliability.races import Scenario, storm
from tests.reliability.scenarios import SCENARIOS

# That torch alone were faster with other maps is a matter of times, and not of results.
pytestmark = pytest.mark.filterwarnings("ignore::jsc.PlanWarning")

SHARE = 8_000 / sum(entry.weight for entry in SCENARIOS.values())  # calls for a weight of 1


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_result_is_wrong(name):
    entry = SCENARIOS[name]
    report = storm(entry.make(), calls=max(16, round(SHARE * entry.weight)))
    assert report.clean, report


class Kept:
    """A call that reads twice what it keeps: what another thread put there in between is wrong."""

    value = 0

    def __call__(self, i):
        if not self.holds(i):
            self.value = i
        time.sleep(0)  # lets go of the interpreter, as a kernel does
        return self.value

    def holds(self, i):
        return self.value == i


def test_the_harness_finds_a_race():
    kept = Kept()

    def call(rng):
        i = rng.randrange(9)
        return kept(i) == i

    assert storm(Scenario(call), calls=20_000).wrong > 0


def test_the_harness_reports_errors():
    report = storm(Scenario(lambda rng: 1 / 0, (lambda rng: 1 / 0,)), calls=16)
    assert report.calls == 16
    assert report.errors["ZeroDivisionError: division by zero"] == 16
    assert not report.clean
