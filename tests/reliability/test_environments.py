"""Environment variables, orders of imports, warnings as errors, and no memory."""

from __future__ import annotations

import hashlib

import pytest

from tests.reliability import life
from tests.reliability.life import METHODS, START, finishes, python

slow = pytest.mark.slow  # each of these is a process of its own, which imports torch first


QUICK_ENVIRONMENTS = [
    {"OMP_NUM_THREADS": "999"},
    {"OMP_NUM_THREADS": "abc"},
    {"OMP_THREAD_LIMIT": "1"},
    {"MALLOC_PERTURB_": "165", "PYTHONMALLOC": "debug"},  # new memory is not zero
]
ENVIRONMENTS = [
    {"OMP_NUM_THREADS": None},
    {"OMP_NUM_THREADS": "1"},
    {"OMP_NUM_THREADS": "64"},
    {"OMP_NUM_THREADS": "0"},
    {"OMP_NUM_THREADS": "2,3"},
    {"OMP_DYNAMIC": "true", "OMP_MAX_ACTIVE_LEVELS": "3"},
    {"OMP_WAIT_POLICY": "active", "OMP_PROC_BIND": "true"},
    {"MKL_NUM_THREADS": "1"},
    {"JSC_ISA": "base"},
    {"PYTHONOPTIMIZE": "2", "PYTHONHASHSEED": "1"},
]


def digests():
    """Of what is exact on every instruction set, and of the JPEG layer's result."""
    results = life.work()
    exact = b"".join(r.numpy().tobytes() for r in results[:-3])
    return [hashlib.sha256(part).hexdigest() for part in (exact, results[-3].numpy().tobytes())]


@pytest.mark.parametrize(
    "changes",
    [*QUICK_ENVIRONMENTS, *(pytest.param(c, marks=slow) for c in ENVIRONMENTS)],
    ids=lambda changes: ",".join(f"{k}={v}" for k, v in changes.items()),
)
def test_environments(changes):
    """The same bits: of integers, and of the JPEG layer where the instruction set is the same."""
    run = python(
        "from tests.reliability import test_environments\nprint(*test_environments.digests())",
        **changes,
    )
    assert run.returncode == 0, run.stderr
    count = 1 if "JSC_ISA" in changes else 2
    assert run.stdout.split()[:count] == digests()[:count]


@slow
@pytest.mark.parametrize(
    "order",
    [
        "import torch, jsc",
        "import jsc, torch",
        "import numpy, jsc",
        "import jsc._kernels.cpc.forward, torch",
    ],
)
def test_orders_of_imports(order):
    finishes(python(f"{order}\nfrom tests.reliability import life\nlife.work(); print('done')"))


@slow
def test_warnings_as_errors_and_developer_mode():
    finishes(python(f"{START}life.work(); print('done')", "-W", "error", "-X", "dev"))


NO_MEMORY = """
import resource
expected = life.work()
small = life.integers(1, 32, 24, 24).relu()
large = torch.zeros(1).expand(1, 32, 3000, 3000)  # its output alone has 1.7 GB
_, hard = resource.getrlimit(resource.RLIMIT_AS)
for method in life.METHODS:
    module = life.layer(method)
    right = module(small)
    pages = int(open('/proc/self/statm').read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 200 * 2**20, hard))
    for _ in range(3):
        try:
            module(large)
        except (RuntimeError, MemoryError) as error:
            assert str(error), type(error)
            print(method)
        assert torch.equal(module(small), right)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
life.same_work(expected); print('done')"""


def test_no_memory_is_an_error_and_nothing_else():
    """The address space has no room for the result or the scratch; afterwards all is as before."""
    refused = " ".join(method for method in METHODS for _ in range(3))
    finishes(python(START + NO_MEMORY), f"{refused} done")
