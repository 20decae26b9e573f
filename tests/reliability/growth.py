"""Memory that grows with the number of calls: none may.

    python -m tests.reliability.growth

makes 20,000 calls of every main path (fewer of the slow ones; among them 5,000 sizes of input
through one network, and 2,000 threads, one after the other) and prints by how much the resident
memory of the process grew, after calls of the same kind that bring it to where it stays. More than
256 KiB is a fault.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

import torch

from tests.reliability import growth_layers, growth_networks
from tests.reliability.memory import LIMIT, growth

PATHS = {**growth_layers.PATHS, **growth_networks.PATHS}


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.growth")
    parser.add_argument("--calls", type=int, default=None, help="at most so many of each path")
    parser.add_argument("--only", default="", help="paths whose name has this in it")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    worst = 0
    for name, make in PATHS.items():
        if options.only in name:
            made = make()
            grown = growth(made, options.calls)
            if grown > LIMIT:  # what leaks grows again; caches and the allocator's heaps do not
                grown = min(grown, growth(made, options.calls))
            worst = max(worst, grown)
            calls = made.calls if options.calls is None else min(made.calls, options.calls)
            note = "   MORE THAN THE LIMIT" if grown > LIMIT else ""
            print(f"{name:44} {calls:7,} calls {grown / 1024:9,.0f} KiB{note}", flush=True)
    print(f"the worst grew by {worst / 1024:,.0f} KiB; the limit is {LIMIT // 1024} KiB")
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
