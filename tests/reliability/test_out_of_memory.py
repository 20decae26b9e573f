"""Where memory runs out, in an output or in scratch, there is an exception; the next call works."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of address space")

SCRIPT = """
import resource, sys
import torch, torch.nn.functional as F
import jsc
from jsc.formats import CPC, CPO, CPS
from jsc import methods

MiB = 2**20
kinds = {"CPO": CPO, "CPS": CPS, "CPC": CPC}

def call(name, x, w):
    if name in kinds:
        return kinds[name].encode(x, 3, padding=1).decode()
    return jsc.functional.conv2d(x, w, padding=1, method=name)

def expected(name, x, w):
    return x if name in kinds else F.conv2d(x, w, padding=1)

small, w = torch.randint(-4, 5, (1, 4, 9, 9)).float(), torch.randint(-4, 5, (4, 4, 3, 3)).float()
large = torch.randint(0, 2, (1, 4, 1024, 1024)).float()  # 16 MiB
torch.set_num_threads(2)
F.conv2d(torch.zeros(1, 8, 64, 64), torch.zeros(8, 8, 3, 3))  # threads and libraries are there
names = [*kinds, *(m for m in methods.available() if m != "dense")]
for name in names:
    call(name, torch.zeros(1, 4, 64, 64), w)
seen = {}
for room in (2, 18, 50):
    held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    for name in names:
        resource.setrlimit(resource.RLIMIT_AS, (held + room * MiB, resource.RLIM_INFINITY))
        try:
            out = call(name, large, w)
            seen.setdefault(name, []).append("done")
        except (MemoryError, RuntimeError) as error:
            assert "alloc" in str(error).lower(), error
            seen.setdefault(name, []).append(type(error).__name__)
        out = None
        assert torch.equal(call(name, small, w), expected(name, small, w)), name
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
for name in names:
    assert torch.equal(call(name, large, w), expected(name, large, w)), name
    assert seen[name][0] != "done", seen
print(seen)
"""


def test_out_of_memory_is_an_exception_and_the_next_call_works():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "RuntimeError" in done.stdout


@pytest.mark.parametrize("size", [2**33, 2**40, 2**61])
def test_sizes_beyond_all_memory_are_exceptions(size):
    """In scratch, before any kernel runs."""
    from jsc.ops._scratch import Booking, memory

    for wanted in (
        lambda: memory(8 * size * 2**20),
        lambda: Booking({"a": ("f8", (size, 2**20)), "b": ("f4", (3,))})(),
    ):
        with pytest.raises((MemoryError, RuntimeError, OverflowError)):
            wanted()
        assert memory(40).bytes.size >= 40
