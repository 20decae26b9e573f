"""Compiled networks against float64: random ones, each instruction set, loaded from a file too.

    python -m tests.reliability.differential_networks --cases 1000 --seed 0
    python -m tests.reliability.differential_networks --first 123 --cases 1    a failure again

The largest error is at most twice torch's own, at "bf16" four times that of float32 with rounded
operands. The bits are the same for 1 to 3 threads, for a batch and its images, and for the network
that was saved and loaded. Exit status 1 where anything fails.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

import jsc
from jsc import _config
from jsc._kernels import cpu
from jsc.network.accuracy import measure
from jsc.typing import PrecisionName
from tests.support.random_networks import RandomNetwork, errors, randomise

THREADS = (1, 2, 3)
SMALLEST = 2e-6  # of the largest output: errors up to this are right, whatever torch's
PRECISIONS: tuple[PrecisionName, ...] = ("ieee", "bf16")


def drawn(seed: int, index: int) -> tuple[nn.Module, Tensor]:
    r = random.Random(f"{seed}:{index}")
    torch.manual_seed(r.getrandbits(32))
    model = randomise(RandomNetwork(r.getrandbits(32), steps=r.randint(2, 14)))
    x = torch.randn(r.randint(1, 4), 3, r.randint(9, 24), r.randint(9, 24))
    last = r.random() < 0.3
    return model, x.contiguous(memory_format=torch.channels_last) if last else x


def failures(model: nn.Module, x: Tensor, precision: PrecisionName) -> Iterator[str]:
    """What is wrong with one network on this instruction set."""
    net = jsc.compile(model, x, budget=0, check=False, precision=precision)
    torch.set_num_threads(1)
    first = net(x)
    error, of_torch = errors(first, model, x)
    if precision == "bf16":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = measure(model, first, (x,), {}, net.precision)
        assert found is not None
        error, of_torch = found.error, 2 * found.torch_error
    if not error <= max(2 * of_torch, SMALLEST):
        yield f"error {error:.2e}, torch's {of_torch:.2e}"
    for threads in THREADS[1:]:
        torch.set_num_threads(threads)
        if not all(map(torch.equal, net(x), first)):
            yield f"other bits with {threads} threads"
    singly = zip(*(net(image) for image in x.split(1)), strict=True)
    if not all(map(torch.equal, map(torch.cat, singly), first)):
        yield "other bits one image at a time"
    net(x)
    with tempfile.TemporaryDirectory() as folder:
        net.save(Path(folder) / "net.jsc")
        loaded = jsc.load(Path(folder) / "net.jsc")
    if not all(map(torch.equal, loaded(x), first)):
        yield "other bits from a file"


def run(
    cases: int, seed: int, first: int = 0, until: float = float("inf")
) -> tuple[int, list[str]]:
    """How many networks were tried, and what was wrong; on every instruction set."""
    found, tried = [], 0
    threads, work = torch.get_num_threads(), _config.SERIAL_WORK
    _config.SERIAL_WORK = 0  # small work is shared out too
    try:
        for index in range(first, first + cases):
            if time.monotonic() > until:
                break
            for isa in _config.ISA_NAMES[: cpu.supported_isa() + 1]:
                for precision in PRECISIONS:
                    model, x = drawn(seed, index)
                    with _config.use_isa(isa), torch.no_grad():
                        wrong = list(failures(model, x, precision))
                    found += [f"network {index}, {isa}, {precision}: {what}" for what in wrong]
            tried += 1
    finally:
        _config.SERIAL_WORK = work
        torch.set_num_threads(threads)
    return tried, found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.differential_networks")
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first network")
    options = parser.parse_args()
    tried, found = run(options.cases, options.seed, options.first)
    isas = ", ".join(_config.ISA_NAMES[: cpu.supported_isa() + 1])
    print(f"{tried} networks on {isas} with {THREADS} threads: {len(found)} failures")
    for line in found[:20]:
        print(line)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
