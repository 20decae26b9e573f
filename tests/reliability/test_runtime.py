"""How the kernels live in a process: threads, forks, instruction sets, OpenMP runtimes."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
import threadpoolctl
import torch

import jsc
from jsc import _config
from jsc._kernels import cpu

CONVOLVE = (
    "y = jsc.functional.conv2d(torch.ones(1, 64, 32, 32), torch.ones(64, 64, 3, 3), method='cpc')"
)


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("first", ["import torch, jsc", "import jsc, torch"])
def test_exactly_one_openmp_runtime(first):
    run = python(
        f"{first}\n{CONVOLVE}\nimport threadpoolctl\n"
        "found = [p for p in threadpoolctl.threadpool_info() if p['user_api'] == 'openmp']\n"
        "print(len({p['filepath'] for p in found}))"
    )
    assert run.stdout.strip() == "1", run.stderr


def test_this_process_has_one_openmp_runtime():
    runtimes = {p["filepath"] for p in threadpoolctl.threadpool_info() if p["user_api"] == "openmp"}
    assert len(runtimes) == 1
    assert cpu.openmp_version() >= 201511


def test_kernels_leave_torchs_threads_alone():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    jsc.functional.conv2d(torch.ones(1, 64, 32, 32), torch.ones(64, 64, 3, 3))
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_a_forked_child_does_not_hang():
    run = python(
        f"import os, torch, jsc\ntorch.set_num_threads(2)\n{CONVOLVE}\n"
        f"pid = os.fork()\nif pid == 0:\n    {CONVOLVE}\n"
        "    os._exit(0 if y[0, 0, 0, 0] == 576 else 3)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    assert run.stdout.strip() == "0", run.stderr


def test_many_python_threads_share_one_module():
    module = jsc.nn.SparseConv2d(64, 64, 3, padding=1).eval().requires_grad_(False)
    x = torch.relu(torch.randn(1, 64, 20, 20))
    expected, results = module(x), [None] * 8

    def work(i):
        results[i] = module(x)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(r, expected) for r in results)


@pytest.mark.parametrize("name", _config.ISA_NAMES)
def test_environment_chooses_the_instruction_set(name):
    run = python("from jsc import _config; print(_config.ISA_NAMES[_config.isa()])", JSC_ISA=name)
    if _config.ISA_NAMES.index(name) <= cpu.supported_isa():
        assert run.stdout.strip() == name, run.stderr
    else:
        assert f"supports {_config.ISA_NAMES[cpu.supported_isa()]} at most" in run.stderr


def test_unknown_instruction_set_is_an_error():
    """An error of the first call that needs one, not a traceback out of the import."""
    message = "JSC_ISA='sse9' is not one of base, avx2, avx512; unset it to take the widest"
    run = python(
        f"import torch, jsc\ntry:\n    {CONVOLVE}\nexcept ValueError as error:\n    print(error)",
        JSC_ISA="sse9",
    )
    assert (run.stdout.strip(), run.stderr, run.returncode) == (message, "", 0)
    doctor = python(
        "from jsc.cli.main import main; raise SystemExit(main(['doctor']))", JSC_ISA="sse9"
    )
    assert doctor.stderr.strip() == f"python -m jsc doctor: {message}"
    assert doctor.returncode == 2


def test_profilers_see_the_operators():
    sparse = jsc.nn.SparseConv2d(4, 8, 3, method="cpc")
    layer = jsc.nn.JPEG()
    with torch.no_grad():
        sparse(torch.rand(1, 4, 9, 9))  # prepared: the next call would not go by the dispatcher
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            sparse(torch.rand(1, 4, 9, 9))
            layer(torch.rand(1, 3, 8, 8))
    names = {event.key for event in profiler.key_averages()}
    assert {"jsc::conv2d", "jsc::jpeg"} <= names
