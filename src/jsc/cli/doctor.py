"""Is this installation in order? Versions, processor, threads, OpenMP runtimes, and a short
self-test of the compiled kernels on every instruction set this machine has.

Exit code 0 when all is well, 1 when something was found wrong."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from jsc import _config
from jsc._installation import described, installation, table
from jsc.cli.selftest import self_test

HELP = "check this installation: versions, instruction sets, threads, kernels"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments of its own."""


def examine() -> dict[str, Any]:
    """Everything the doctor examines; `problems` holds one sentence for each fault.

    Raises ValueError  if JSC_ISA asks for what there is not.
    """
    _config.isa()
    found, tests = installation(), self_test()
    runtimes = found["openmp_runtimes"]
    problems = [
        f"{test['kernel']} on {test['isa']}: {test['error']}" for test in tests if test["error"]
    ]
    if not found["openmp_build"]:
        problems.append("the kernels were built without OpenMP and run on one thread; rebuild jsc")
    if len(runtimes) > 1:
        problems.append(
            f"{len(runtimes)} OpenMP runtimes are loaded ({', '.join(runtimes)}): they fight for "
            "the cores; import torch before the package that brings the other one, or remove it"
        )
    return {**found, "self_test": tests, "problems": problems}


def run(options: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    """Print the examination; 1 when it found a problem."""
    found = examine()
    rows = described(found)
    for test in found["self_test"]:
        verdict = test["error"] or f"right, {test['ms']:.2f} ms"
        rows.append((f"{test['kernel']} {test['isa']}", verdict))
    print(table(rows))
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
