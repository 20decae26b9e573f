"""A short run of the differential harness, `python -m tests.reliability.differential`."""

import dataclasses
import time

import torch

from jsc import _config
from tests.reliability import differential, differential_networks


def test_every_method_is_right_on_random_cases():
    report = differential.run(150, seed=1, until=time.monotonic() + 30)
    assert not report.failures, report.failures[:3]
    assert report.cases > 10
    assert set(report.bound) >= {"im2col", "cpo", "cps", "cpc"}
    assert max(report.bound.values()) < 1


def test_it_notices_a_wrong_result(monkeypatch):
    """One wrong element, other bits with other threads, a missing refusal."""
    right = differential.called

    def wrong(case, method, x, w, b):
        for out in right(case, method, x, w, b):
            if method == "cpc" and out.numel():
                out[-1, -1, -1, -1] += 1 if torch.get_num_threads() == 2 else 0
            yield out

    monkeypatch.setattr(differential, "called", wrong)
    failures = differential.run(10, seed=1, methods=("im2col", "cpc")).failures
    assert failures
    assert all(f.startswith("cpc") and "2 threads" in f for f in failures)


def test_cases_cover_what_they_say():
    cases = [differential.draw(0, i) for i in range(3000)]
    flags = (True, False)
    for name, values in (
        ("layout", differential.LAYOUTS), ("density", differential.DENSITIES),
        ("groups", (1, 2, 3)), ("dtype", (torch.float32, torch.float64)), ("integer", flags),
        ("module", flags),
    ):  # fmt: skip
        assert {getattr(case, name) for case in cases} == set(values), name
    for axis in range(4):
        assert 0 in {case.shape[axis] for case in cases}
    assert {case.kernel[0] for case in cases} == set(range(1, 8))
    assert differential.draw(0, 7) == cases[7]
    assert dataclasses.replace(cases[7], index=0) != cases[7]
    assert _config.SERIAL_WORK > 0


def test_compiled_networks_are_right():
    tried, found = differential_networks.run(6, seed=1, until=time.monotonic() + 30)
    assert tried > 0
    assert not found, found[:3]


def test_it_notices_a_wrong_network(monkeypatch):
    monkeypatch.setattr(differential_networks, "errors", lambda *_: (1e-3, 1e-7))
    _, found = differential_networks.run(1, seed=1)
    assert found
    assert all("error 1.00e-03" in line for line in found)
