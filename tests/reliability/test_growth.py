"""The short form of `python -m tests.reliability.growth`: fewer calls of the paths that have most
of ours in them, each in this process."""

from __future__ import annotations

import pytest

from tests.reliability.growth import LIMIT, PATHS, Path, growth

CALLS = 400
QUICK = [
    *(name for name in PATHS if name.startswith(("module,", "new weights,"))),
    "training with cpc", "jpeg forward and backward", "encode and decode, CPO",
    "encode and decode of 4,489 sizes, CPC", "refused calls", "network, cpc fused, weights written",
    "5,041 sizes, cpc", "two thousand threads",
]  # fmt: skip


@pytest.mark.parametrize("name", QUICK)
def test_memory_does_not_grow(name):
    made = PATHS[name]()
    # The allocator takes a page now and then; what leaks at each call grows every time.
    assert min(growth(made, CALLS) for _ in range(3)) <= LIMIT


def test_the_measure_sees_a_leak():
    kept = []
    assert growth(Path(lambda: kept.append(bytearray(4096))), CALLS) > LIMIT
