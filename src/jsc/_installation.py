"""What is installed and where it runs: for `jsc.show_versions`, the doctor, and plans."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jsc import _config
from jsc._kernels import cpu
from jsc._version import __version__


def cpu_name() -> str:
    """The processor's name as the system gives it. On ARM Linux gives none, but the numbers of the
    designer and of the cores, of which a processor may have several kinds."""
    found: dict[str, list[str]] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            values = found.setdefault(key.strip(), [])
            if value.strip() not in values:
                values.append(" ".join(value.split()))
    except OSError:
        pass
    if "model name" in found:
        return found["model name"][0]
    if "CPU part" in found:
        designer, parts = found.get("CPU implementer", ["unknown"]), found["CPU part"]
        return f"{platform.machine()}, designer {designer[0]}, cores {' '.join(parts)}"
    return platform.processor() or platform.machine()


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


def installation() -> dict[str, Any]:
    """Everything besides programs and data that decides what jsc does; JSON can hold it.

    `isa_used` is None where JSC_ISA asks for what there is not, and `isa_error` says so.
    """
    used, error = None, ""
    try:
        used = _config.ISA_NAMES[_config.isa()]
    except ValueError as wrong:
        error = str(wrong)
    best = _config.ISA_NAMES[cpu.supported_isa()]
    return {
        "jsc": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "compiler": cpu.compiler(),
        "cpu": cpu_name(),
        "isa_available": list(_config.ISA_NAMES[: cpu.supported_isa() + 1]),
        "isa_used": used,
        "isa_error": error,
        "isa_limited": used not in (None, best),
        "amx": used is not None and _config.amx(),
        "emulated": cpu.emulated(),
        "threads": torch.get_num_threads(),
        "openmp_build": cpu.openmp_version(),
        "openmp_runtimes": openmp_runtimes(),
        "variables": {k: v for k, v in sorted(os.environ.items()) if k.startswith("JSC_")},
    }


def described(found: dict[str, Any]) -> list[tuple[str, str]]:
    """An installation as names and values for people."""
    forced = " (limited by JSC_ISA)" if found["isa_limited"] else ""
    used = f"{found['isa_used']}{forced}" if found["isa_used"] else f"none: {found['isa_error']}"
    return [
        *((name, found[name]) for name in ("jsc", "python", "torch", "numpy", "system")),
        ("compiler", found["compiler"]),
        ("processor", found["cpu"]),
        (
            "instructions",
            f"{used}; available {', '.join(found['isa_available'])}"
            f"{', AMX tiles' if found['amx'] else ''}"
            f"{' (AVX-512 and AMX emulated: for tests, slow)' if found['emulated'] else ''}",
        ),
        ("threads", f"{found['threads']} (torch.set_num_threads changes it)"),
        ("OpenMP of build", f"{found['openmp_build'] or 'none'}"),
        ("OpenMP loaded", ", ".join(found["openmp_runtimes"]) or "not known"),
        ("environment", " ".join(f"{k}={v}" for k, v in found["variables"].items()) or "no JSC_*"),
    ]


def table(rows: list[tuple[str, str]]) -> str:
    """Names and values in two columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def show_versions() -> None:
    """Print what a report of a fault needs: the versions of jsc, Python, torch and numpy, the
    compiler of the kernels, the processor, its instruction sets and the one in use, the number of
    threads, the OpenMP runtimes, and the environment variables JSC_*.

    `python -m jsc doctor` prints the same and tests the kernels.
    """
    print(table(described(installation())))
