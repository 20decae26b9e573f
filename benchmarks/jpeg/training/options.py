"""Options that the training benchmarks share."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.common import report
from benchmarks.jpeg.training import runs


def parse(parser: argparse.ArgumentParser, given: list[str], seeds: int = 3) -> argparse.Namespace:
    """Adds --seeds and --runs, then parses; --quick takes one seed and a folder of its own."""
    parser.add_argument("--seeds", nargs="+", type=int, default=[*range(seeds)])
    parser.add_argument("--runs", type=Path, default=runs.SCRATCH, help="finished runs, weights")
    parser.set_defaults(threads=[1])
    options = report.parse(parser, given)
    if options.data is None:
        parser.error("--data DIR is needed: the folder with images/*.npz")
    if options.quick:
        options.seeds, options.runs = options.seeds[:1], options.runs / "quick"
    return options
