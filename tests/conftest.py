"""Shared fixtures: every kernel test runs on each instruction set and with one and two threads."""

import platform

import hypothesis
import pytest
import torch

from jsc import _config
from jsc._kernels import cpu

hypothesis.settings.register_profile("ci", max_examples=25, deadline=None, derandomize=True)
hypothesis.settings.register_profile("deep", max_examples=500, deadline=None)
hypothesis.settings.load_profile("ci")

ISAS = _config.ISA_NAMES[: cpu.supported_isa() + 1]

# What the tests compare with is torch's convolution, and there oneDNN makes -inf of some NaN
# (torch 2.10 for aarch64). Without it torch runs kernels of its own, which are right.
if platform.machine() == "aarch64":
    torch.backends.mkldnn.enabled = False


def pytest_collection_modifyitems(config, items):
    """Tests marked `slow` run when they are asked for: `-m slow`, or by any other `-m`. The method
    "amx" is tested where the processor can run it, and not once for each instruction set."""
    items[:] = [item for item in items if not _is_again(item)]
    for item in items:
        if _parameters(item).get("method") == "amx" and not _config.amx():
            item.add_marker(pytest.mark.skip(reason="this CPU has no AMX tiles"))
    if config.getoption("-m"):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow: run by `make test-slow`"))


def _parameters(item):
    callspec = getattr(item, "callspec", None)
    return callspec.params if callspec else {}


def _is_again(item):
    parameters = _parameters(item)
    return parameters.get("method") == "amx" and parameters.get("isa", ISAS[-1]) != ISAS[-1]


@pytest.fixture(params=ISAS)
def isa(request):
    """Each instruction set this machine has."""
    with _config.use_isa(request.param):
        yield request.param


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def num_threads(request, monkeypatch):
    """One and two threads, also for small work that would otherwise stay on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    monkeypatch.setattr(_config, "SERIAL_WORK", 0)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def threads(monkeypatch):
    """Sets the number of threads, for small work too."""
    monkeypatch.setattr("jsc._config.SERIAL_WORK", 0)
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
