"""The short form of `python -m tests.reliability.growth`: fewer calls of the paths that have most
of ours in them, each in this process."""

from __future__ import annotations

import os

import pytest

from tests.reliability.growth import PATHS
from tests.reliability.memory import LIMIT, Path, growth

# That torch alone were faster with other maps is a matter of times, and not of results.
pytestmark = pytest.mark.filterwarnings("ignore::jsc.PlanWarning")

CALLS = 400
QUICK = [
    *(name for name in PATHS if name.startswith("module,")),
    "new weights, cpc", "training with cpc", "jpeg forward and backward", "encode and decode, CPO",
    "refused calls", "two thousand threads", "network, compiled", "compiled network refreshed",
]  # fmt: skip


@pytest.mark.parametrize("name", QUICK)
def test_memory_does_not_grow(name):
    made = PATHS[name]()
    # The allocator takes a page now and then; what leaks at each call grows every time.
    assert any(growth(made, CALLS) <= LIMIT for _ in range(3))


def test_the_measure_sees_a_leak():
    kept = []
    assert growth(Path(lambda: kept.append(os.urandom(4096))), CALLS) > LIMIT
