"""The machine and the versions that a result belongs to."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import jsc
from jsc import _config

LOAD = os.getloadavg()[0]  # taken at import, before the benchmark adds its own
BUSY = 0.5  # with a higher load before the run, times are not for quoting


def environment() -> dict[str, Any]:
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "isa": _config.isa_name(),
        "torch isa": torch.backends.cpu.get_cpu_capability(),
        "openmp": _openmp_runtimes(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "jsc": jsc.__version__,
        "revision": _revision(),
        "load before": round(LOAD, 2),
    }


def words(environment: dict[str, Any]) -> str:
    """The same as one line of a page."""

    def shown(value: Any) -> str:
        return "+".join(value) if isinstance(value, list) else str(value)

    return "; ".join(f"{key} {shown(value)}" for key, value in environment.items())


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _openmp_runtimes() -> list[str]:
    # Two runtimes in one process would fight for the cores, so a result has to show them.
    try:
        maps = Path("/proc/self/maps").read_text().split()
    except OSError:
        return []
    libraries = {Path(word).name for word in maps if word.startswith("/")}
    return sorted(name for name in libraries if name.startswith(("libgomp", "libomp", "libiomp")))


def _revision() -> str:
    def git(*words: str) -> str:
        folder = Path(__file__).parent
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        revision = git("rev-parse", "--short", "HEAD")
        changed = git("status", "--porcelain", "-uno")
    except OSError:
        return ""
    return revision + ("+changes" if changed else "")
