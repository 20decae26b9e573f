"""Both sides on a lower instruction set: jsc and everything torch convolves and multiplies with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import torch

from jsc import _config

# jsc, torch's own kernels, oneDNN and MKL; each library reads its variable once, when it is loaded.
ENVIRONMENTS = {
    "avx2": {
        "JSC_ISA": "avx2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    }
}
CONVOLVE = "import torch; torch.conv2d(torch.ones(1, 64, 28, 28), torch.ones(64, 64, 3, 3))"


def is_set(isa: str) -> bool:
    return all(os.environ.get(key) == value for key, value in ENVIRONMENTS[isa].items())


def run_again(isa: str, benchmark: str, arguments: Sequence[str]) -> int:
    """The same command in a process of its own with the environment of `isa`: its exit status."""
    command = [sys.executable, "-m", "benchmarks", benchmark, *arguments]
    return subprocess.run(command, env={**os.environ, **ENVIRONMENTS[isa]}).returncode


def require(isa: str) -> None:
    """Raise RuntimeError unless jsc, torch and oneDNN all say that they are on `isa`."""
    said = {
        "jsc": _config.ISA_NAMES[_config.isa()],
        "torch": torch.backends.cpu.get_cpu_capability().lower(),
        "oneDNN": _onednn().removeprefix("Intel ").lower(),
    }
    if wrong := {name: word for name, word in said.items() if word != isa}:
        words = ", ".join(f"{name} {word or 'does not say'}" for name, word in wrong.items())
        raise RuntimeError(f"expected everything to run on {isa}, but {words}: not comparable")


def _onednn() -> str:
    # Only its log says so: "onednn_verbose,v1,info,cpu,isa:Intel AVX2".
    done = subprocess.run(
        [sys.executable, "-c", CONVOLVE], env={**os.environ, "ONEDNN_VERBOSE": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    words = [line.split("isa:")[1] for line in done.stdout.splitlines() if ",cpu,isa:" in line]
    return words[0].strip() if words else ""
