"""Memory that grows with the number of calls: none may.

    python -m tests.reliability.growth

makes 20,000 calls of every main path (and 5,000 sizes of input through one network, and 2,000
threads, one after the other) and prints by how much the resident memory of the process grew, after
calls of the same kind that bring it to where it stays. More than 256 KiB is a fault.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import itertools
import os
import random
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import jsc
from jsc.methods import available
from tests.reliability.networks import Net, applied, trained

LIMIT = 256 * 1024
CALLS = 20_000
METHODS = [method for method in available() if method != "dense"]
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Path:
    call: Callable[[], object]
    calls: int = CALLS


PATHS: dict[str, Callable[[], Path]] = {}


def path(function: Callable[[], Path]) -> Callable[[], Path]:
    PATHS[function.__name__.replace("_", " ")] = function
    return function


def resident() -> int:
    """Bytes of this process in memory, what Python and the allocator could give back given back."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # a libc other than glibc
        ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE


def growth(made: Path, calls: int | None = None) -> int:
    """Bytes by which memory grew over the calls, behind a fifth of as many that warm up."""
    calls = made.calls if calls is None else min(calls, made.calls)
    for _ in range(max(50, calls // 5)):
        made.call()
    before = resident()
    for _ in range(calls):
        made.call()
    return resident() - before


def refused(kinds: tuple[type[Exception], ...], *calls: Callable[[], object]) -> Callable[[], None]:
    """Each call has to raise one of `kinds`."""

    def call() -> None:
        for one in calls:
            with contextlib.suppress(*kinds):
                one()
                raise AssertionError("this call was to be refused")

    return call


def numbers(*shape: int) -> torch.Tensor:
    return torch.relu(torch.randn(shape))


def shuffled(sides: range) -> Iterator[tuple[int, int]]:
    """Every size of these sides, again and again: the largest first, then in no order."""
    sizes = list(itertools.product(sides, repeat=2))
    order = sizes[1:]
    random.Random(0).shuffle(order)
    return itertools.cycle([sizes[0], *order])


def without_gradients(call: Callable[[], object]) -> Callable[[], object]:
    return torch.no_grad()(call)


for _method in METHODS:

    def _module(method: str = _method) -> Path:
        module = jsc.nn.SparseConv2d(8, 16, 3, padding=1, method=method).eval()
        xs = itertools.cycle([numbers(1, 8, 9, 9), numbers(2, 8, 24, 20), numbers(1, 8, 5, 30)])
        return Path(without_gradients(lambda: module(next(xs))))

    def _function(method: str = _method) -> Path:
        x, w, b = numbers(1, 8, 12, 12), torch.randn(16, 8, 3, 3), torch.randn(16)
        return Path(lambda: jsc.functional.conv2d(x, w, b, padding=1, method=method))

    def _changed(method: str = _method) -> Path:
        """New weights at every call: what was packed of the old ones has to be freed."""
        module, x = jsc.nn.SparseConv2d(8, 16, 3, method=method).eval(), numbers(1, 8, 9, 9)

        def call() -> None:
            module.weight = nn.Parameter(torch.randn(16, 8, 3, 3), requires_grad=False)
            module(x), module(x)

        return Path(without_gradients(call), CALLS // 4)

    PATHS[f"module, {_method}"] = _module
    PATHS[f"function, {_method}"] = _function
    PATHS[f"new weights, {_method}"] = _changed


@path
def training_with_cpc() -> Path:
    module = jsc.nn.SparseConv2d(16, 16, 3, padding=1).to(memory_format=torch.channels_last)
    x = numbers(1, 16, 12, 12).contiguous(memory_format=torch.channels_last).requires_grad_()
    return Path(lambda: module(x).relu().sum().backward())


@path
def modules_made_and_dropped() -> Path:
    x = numbers(1, 8, 9, 9)

    def call() -> None:
        for method in METHODS:
            module = jsc.nn.SparseConv2d(8, 16, 3, method=method).eval()
            module(x), module(x)

    return Path(without_gradients(call), CALLS // 10)


@path
def jpeg_forward() -> Path:
    layer, x = jsc.nn.JPEG.from_quality(50), torch.rand(1, 3, 30, 20)
    return Path(without_gradients(lambda: layer(x)))


@path
def jpeg_forward_and_backward() -> Path:
    layer = jsc.nn.JPEG.from_quality(50, kappa=3.0, train_alpha=True)
    x = torch.rand(1, 3, 30, 20, requires_grad=True)
    return Path(lambda: layer(x).square().sum().backward())


@path
def jpeg_of_420_forward_and_backward() -> Path:
    layer, x = jsc.nn.JPEG.from_quality(50, subsampling="4:2:0"), torch.rand(1, 3, 30, 20)
    return Path(lambda: layer(x).square().sum().backward(), CALLS // 4)


@path
def jpeg_rate_and_backward() -> Path:
    layer, x = jsc.nn.JPEG.from_quality(50), torch.rand(1, 3, 16, 16)
    return Path(lambda: layer.rate(x).sum().backward(), CALLS // 4)


@path
def dct_and_quantizer() -> Path:
    layers = nn.Sequential(jsc.nn.BlockDCT(), jsc.nn.InverseBlockDCT())
    quantizer, x = jsc.nn.SoftQuantizer(torch.full((8, 8), 9.0)), torch.rand(2, 3, 8, 8)

    def call() -> None:
        layers(x)
        quantizer(x)

    return Path(call)


def _format(name: str) -> Callable[[], Path]:
    def make() -> Path:
        kind, x = getattr(jsc.formats, name), numbers(1, 4, 12, 10)

        def call() -> None:
            kind.encode(x, 3, padding=1).decode()

        return Path(call)

    return make


def _formats_of_sizes(name: str) -> Callable[[], Path]:
    def make() -> Path:
        kind, whole = getattr(jsc.formats, name), numbers(1, 2, 70, 70)
        sizes = shuffled(range(69, 2, -1))

        def call() -> None:
            h, w = next(sizes)
            kind.encode(whole[..., :h, :w], 3).decode()

        return Path(call, CALLS // 4)

    return make


for _name in ("CPO", "CPS", "CPC"):
    PATHS[f"encode and decode, {_name}"] = _format(_name)
    PATHS[f"encode and decode of 4,489 sizes, {_name}"] = _formats_of_sizes(_name)


@path
def refused_calls() -> Path:
    module, x, w = jsc.nn.SparseConv2d(8, 16, 3).eval(), numbers(1, 7, 9, 9), torch.ones(2, 7, 3, 3)
    layer, f = jsc.nn.JPEG(), jsc.functional
    good = jsc.formats.CPO.encode(x, 3)
    return Path(
        refused(
            (TypeError, ValueError, RuntimeError),
            lambda: module(x),
            lambda: module("x"),
            lambda: f.conv2d(x, w, method="none"),
            lambda: f.conv2d(x, w.double()),
            lambda: f.conv2d(x, w, stride=0),
            lambda: f.conv2d(x, w, padding=2**40, method="mec"),
            lambda: layer(x),
            lambda: f.jpeg(torch.rand(1, 3, 8, 8), torch.rand(3, 3)),
            lambda: f.block_dct(torch.rand(1, 3, 9, 8)),
            lambda: jsc.formats.CPS.encode(x, 11),
            lambda: jsc.formats.CPO.from_arrays(good.DA, good.IN, good.Ptr, good.offsets[:-1],
                                                (1, 7, 9, 9), 3),
        )
    )  # fmt: skip


@path
def refused_plans() -> Path:
    return Path(refused((jsc.PlanError,), lambda: jsc.Plan.from_dict({"format": "other"})))


def _network(make_net: Callable[[nn.Module, Tensor], nn.Module]) -> Callable[[], Path]:
    def make() -> Path:
        xs = [torch.rand(1, 3, *size) for size in ((16, 16), (9, 20), (24, 24))]
        net, turn = make_net(trained(Net()), xs[0]), itertools.cycle(xs)
        return Path(without_gradients(lambda: net(next(turn))))

    return make


MIXED = ["cps", "cpo", "mec", "im2col"]
PATHS["network, cpc"] = _network(lambda net, x: applied(net, x, ["cpc"]))
PATHS["network, mixed"] = _network(lambda net, x: applied(net, x, MIXED))
PATHS["network, compiled"] = _network(lambda net, x: jsc.compile(net, x, budget=0, check=False))


def _sizes(methods: list[str]) -> Callable[[], Path]:
    """5,041 sizes, the largest among the first."""

    def make() -> Path:
        whole = torch.rand(1, 3, 78, 78)
        net = applied(trained(Net()), whole, methods)
        sizes = shuffled(range(78, 7, -1))

        def call() -> None:
            h, w = next(sizes)
            net(whole[..., :h, :w])

        return Path(without_gradients(call), 5041)

    return make


PATHS["5,041 sizes, cpc"] = _sizes(["cpc"])
PATHS["5,041 sizes, mixed"] = _sizes(MIXED)


@path
def two_thousand_threads() -> Path:
    """A thread for every request, as simple servers have it: scratch goes with its thread."""
    modules = [jsc.nn.SparseConv2d(8, 16, 3, method=method).eval() for method in METHODS]
    layer, x, image = jsc.nn.JPEG(), numbers(1, 8, 20, 20), torch.rand(1, 3, 16, 16)

    def work() -> None:
        with torch.no_grad():
            torch.set_num_threads(1)  # its own OpenMP team else, which libgomp keeps for a while
            for module in modules:
                module(x)
            layer(image)

    def call() -> None:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    return Path(call, 2000)


@path
def tuned_and_applied() -> Path:
    model, x = trained(Net(4, 2)), torch.rand(1, 3, 8, 8)
    options = {"methods": ["cpc"], "repeats": 1, "budget_s": 0.001, "progress": False}
    return Path(lambda: jsc.apply(model, jsc.tune(model, x, **options)), 200)


@path
def torch_alone() -> Path:
    """What the measure says of a path of torch alone."""
    x, w = numbers(1, 8, 12, 12), torch.randn(16, 8, 3, 3)
    return Path(without_gradients(lambda: F.conv2d(x, w)))


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
