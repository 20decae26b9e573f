"""Paths of `growth` through networks: with a plan, and compiled."""

from __future__ import annotations

import itertools
import os
import tempfile
import threading
from collections.abc import Callable

import torch
from torch import Tensor, nn

import jsc
from tests.reliability.memory import Path, Paths, into, refused, shuffled, without_gradients
from tests.reliability.networks import Net, applied, trained

PATHS: Paths = {}
path = into(PATHS)


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
def tuned_and_applied() -> Path:
    model, x = trained(Net(4, 2)), torch.rand(1, 3, 8, 8)
    options = {"methods": ["cpc"], "repeats": 1, "budget_s": 0.001, "progress": False}
    return Path(lambda: jsc.apply(model, jsc.tune(model, x, **options)), 200)


def compiled(model: nn.Module, x: Tensor) -> nn.Module:
    return jsc.compile(model, x, budget=0, check=False)


@path
def compiled_network_of_40_batches() -> Path:
    """More programs than a network keeps: each call makes one and drops one."""
    whole = torch.rand(42, 3, 12, 12)
    net, batches = compiled(trained(Net(4, 2)), whole[:2]), itertools.cycle(range(2, 42))
    return Path(without_gradients(lambda: net(whole[: next(batches)])), 800)


@path
def compiled_network_refreshed() -> Path:
    model, x = trained(Net()), torch.rand(1, 3, 16, 16)
    net = compiled(model, x)

    def call() -> None:
        net.refresh(model)
        net(x)

    return Path(without_gradients(call), 2000)


@path
def compiled_network_printed_and_profiled() -> Path:
    x = torch.rand(1, 3, 12, 12)
    net = compiled(trained(Net()), x)

    def call() -> None:
        repr(net), str(net.profile(x, repeats=1)), net.memory(), net.plan

    return Path(call, 2000)


@path
def compiled_network_saved_and_loaded() -> Path:
    x, folder = torch.rand(1, 3, 12, 12), tempfile.mkdtemp()
    net, file = compiled(trained(Net(4, 2)), x), os.path.join(folder, "net.jsc")

    def call() -> None:
        net.save(file)
        jsc.load(file)(x)

    return Path(without_gradients(call), 400)


@path
def networks_compiled_and_dropped() -> Path:
    model, x = trained(Net(4, 2)), torch.rand(1, 3, 12, 12)
    return Path(without_gradients(lambda: compiled(model, x)(x)), 200)


@path
def networks_exported_by_torch_alone() -> Path:
    """What the path above has of torch's."""
    model, x = trained(Net(4, 2)), torch.rand(1, 3, 12, 12)
    return Path(lambda: torch.export.export(model, (x,)).run_decompositions({}), 200)


@path
def refused_networks() -> Path:
    model, x = trained(Net(4, 2)), torch.rand(1, 3, 12, 12)
    net, damaged = compiled(model, x), os.path.join(tempfile.mkdtemp(), "damaged.jsc")
    net.save(damaged)
    with open(damaged, "r+b") as file:
        file.seek(200)
        file.write(b"damaged")
    return Path(
        refused(
            (TypeError, ValueError, RuntimeError),
            lambda: net(x.double()),
            lambda: net(x, x),
            lambda: net("x"),
            lambda: net.refresh(nn.Conv2d(1, 1, 1)),
            lambda: jsc.load(damaged),
            lambda: jsc.compile(model, "x"),
        ),
        4000,
    )


@path
def two_thousand_threads_of_a_compiled_network() -> Path:
    x = torch.rand(1, 3, 16, 16)
    net = compiled(trained(Net()), x)

    def work() -> None:
        with torch.no_grad():
            torch.set_num_threads(1)
            net(x)

    def call() -> None:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    return Path(call, 2000)
