"""Is this installation in order? Versions, processor, threads, OpenMP runtimes, and a short
self-test of the compiled kernels on every instruction set this machine has.

Exit code 0 when all is well, 1 when something was found wrong."""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jsc import _config
from jsc._kernels import cpu
from jsc._version import __version__
from jsc.cli.selftest import self_test
from jsc.tuning.plan.environment import cpu_name

HELP = "check this installation: versions, instruction sets, threads, kernels"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments of its own."""


def openmp_runtimes() -> list[str]:
    """Paths of the OpenMP runtimes in this process. One is right; two compete for the cores."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return _mapped_runtimes()
    return sorted({e["filepath"] for e in threadpool_info() if e.get("user_api") == "openmp"})


def _mapped_runtimes() -> list[str]:
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:  # not Linux: unknown, which is not a fault
        return []
    files = {line.split(maxsplit=5)[5] for line in lines if "/" in line}
    stems = ("libgomp", "libomp", "libiomp5")
    return sorted(file for file in files if Path(file).name.startswith(stems))


def examine() -> dict[str, Any]:
    """Everything the doctor examines; `problems` holds one sentence for each fault."""
    best, used = _config.ISA_NAMES[cpu.supported_isa()], _config.ISA_NAMES[_config.isa()]
    runtimes, openmp = openmp_runtimes(), cpu.openmp_version()
    tests = self_test()
    problems = [
        f"{test['kernel']} on {test['isa']}: {test['error']}" for test in tests if test["error"]
    ]
    if not openmp:
        problems.append("the kernels were built without OpenMP and run on one thread; rebuild jsc")
    if len(runtimes) > 1:
        problems.append(
            f"{len(runtimes)} OpenMP runtimes are loaded ({', '.join(runtimes)}): they fight for "
            "the cores; import torch before the package that brings the other one, or remove it"
        )
    return {
        "jsc": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_name(),
        "isa_available": list(_config.ISA_NAMES[: cpu.supported_isa() + 1]),
        "isa_used": used,
        "isa_limited": used != best,
        "amx": _config.amx(),
        "emulated": cpu.emulated(),
        "threads": torch.get_num_threads(),
        "openmp_build": openmp,
        "openmp_runtimes": runtimes,
        "self_test": tests,
        "problems": problems,
    }


def run(options: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    """Print the examination; 1 when it found a problem."""
    found = examine()
    forced = " (limited by JSC_ISA)" if found["isa_limited"] else ""
    openmp = found["openmp_build"]
    lines = [
        ("jsc", found["jsc"]),
        ("python", found["python"]),
        ("torch", found["torch"]),
        ("numpy", found["numpy"]),
        ("system", found["system"]),
        ("processor", found["cpu"]),
        (
            "instructions",
            f"{found['isa_used']}{forced}, available {', '.join(found['isa_available'])}"
            f"{', AMX tiles' if found['amx'] else ''}"
            f"{' (AVX-512 and AMX emulated: for tests, slow)' if found['emulated'] else ''}",
        ),
        ("threads", f"{found['threads']} (torch.set_num_threads changes it)"),
        ("OpenMP of build", f"{openmp}" if openmp else "none"),
        ("OpenMP loaded", ", ".join(found["openmp_runtimes"]) or "not known"),
    ]
    for test in found["self_test"]:
        verdict = test["error"] or f"right, {test['ms']:.2f} ms"
        lines.append((f"{test['kernel']} {test['isa']}", verdict))
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:<{width}}  {value}")
    problems = found["problems"]
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    count = len(found["self_test"])
    print(
        f"{len(problems)} problem{'s' if len(problems) > 1 else ''} found, see above."
        if problems
        else f"All is well: {count} self-tests right, kernels run with {found['isa_used']}."
    )
    return (1 if problems else 0), found
