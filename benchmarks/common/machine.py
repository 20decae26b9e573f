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
from jsc._installation import cpu_name, openmp_runtimes

LOAD = os.getloadavg()[0]  # taken at import, before the benchmark adds its own
BUSY = 0.5  # with a higher load before the run, times are not for quoting


def environment() -> dict[str, Any]:
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "isa": _config.isa_name(),
        "torch isa": torch.backends.cpu.get_cpu_capability(),
        "openmp": [Path(file).name for file in openmp_runtimes()],
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


def _revision() -> str:
    def git(*words: str) -> str:
        folder = Path(__file__).parent
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        revision = git("rev-parse", "--short", "HEAD")
        # A page that was published before is no change of what is measured.
        changed = git(
            "status", "--porcelain", "-uno", "--", ":/", ":(exclude,top)benchmarks/results"
        )
    except OSError:
        return ""
    return revision + ("+changes" if changed else "")
