"""Networks with a plan, and what calls them while they are tuned."""

from __future__ import annotations

import io
import os
import tempfile

import torch
from torch import nn

import jsc
from tests.reliability.networks import Net, applied, plan_by_hand, trained
from tests.reliability.races import Scenario
from tests.reliability.scenarios.table import (
    METHODS,
    Shared,
    close,
    for_each,
    images,
    layer,
    numbers,
    of,
    scenario,
)

# Networks.

TURNS = {"cpc": ["cpc"], "mixed": ["cps", "cpo", "mec", "im2col"]}
NETWORKS = ["cpc", "mixed", "compiled"]


def turned(model, x, kind):
    if kind == "compiled":
        return jsc.compile(model, x, budget=0, check=False)
    return applied(model, x, TURNS[kind])


@for_each("an applied network", 3.0, NETWORKS)
def network(kind):
    model, xs = trained(Net()), images()
    net = turned(model, xs[0], kind)
    with torch.no_grad():
        expected = [model(x) for x in xs]

    def call(rng):
        i = rng.randrange(len(xs))
        with torch.no_grad():
            return close(net(xs[i]), expected[i])

    return Scenario(call)


@for_each("an applied network, first calls at once, from a file", 0.3, list(TURNS))
def network_of_a_file(kind):
    model, xs, held, stored = trained(Net()), images(), {}, io.BytesIO()
    torch.save(turned(model, xs[0], kind), stored)
    with torch.no_grad():
        expected = [model(x) for x in xs]

    def begin():
        stored.seek(0)
        held["net"] = torch.load(stored, weights_only=False)

    def call(rng):
        i = rng.randrange(len(xs))
        with torch.no_grad():
            return close(held["net"](xs[i]), expected[i])

    return Scenario(call, begin=begin, calls_a_round=3)


@for_each("an applied network in training of another thread", 0.3, list(TURNS))
def network_in_training(kind):
    """Statistics and weights stay: gradients are thrown away, and batch-norm evaluates."""
    model, xs = trained(Net()), images()
    net = turned(model, xs[0], kind)
    with torch.no_grad():
        expected = [model(x) for x in xs]

    def train(rng):
        net(rng.choice(xs)).sum().backward()

    def call(rng):
        i = rng.randrange(len(xs))
        with torch.no_grad():
            return close(net(xs[i]), expected[i])

    return Scenario(call, (train,))


def bystanders():
    """What other threads run meanwhile: torch alone, and our layers."""
    plain = trained(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()))
    sparse, xs = layer("cpc", 3, 8), [numbers(1, 3, 9, 9).relu(), numbers(1, 3, 16, 20).relu()]
    with torch.no_grad():
        expected = [(plain(x), of(sparse, x)) for x in xs]

    def call(rng):
        i = rng.randrange(2)
        with torch.no_grad():
            return close(plain(xs[i]), expected[i][0]) and torch.equal(
                sparse(xs[i]), expected[i][1]
            )

    return call


@scenario("torch and our layers while another thread tunes", 1.5)
def tune():
    model, x = trained(Net()), torch.rand(1, 3, 16, 16)

    def disturb(rng):
        methods = [m for m in METHODS if m != "amx"]
        jsc.tune(model, x, methods=methods, repeats=1, budget_s=0.3, progress=False)

    return Scenario(bystanders(), (disturb,))


@scenario("torch and our layers while another thread applies", 1.5)
def apply():
    model, x = trained(Net()), torch.rand(1, 3, 16, 16)
    plan = plan_by_hand(model, x, ["cpc"])

    def disturb(rng):
        net = jsc.apply(model, plan)
        with torch.no_grad():
            net(x)
        jsc.restore(net)

    return Scenario(bystanders(), (disturb,))


@scenario("a model served while another thread tunes it", 0.5)
def served_while_tuned():
    model, xs = trained(Net()), images()
    with torch.no_grad():
        expected = [model(x) for x in xs]

    def disturb(rng):
        jsc.tune(model, xs[0], methods=["cpc"], repeats=1, budget_s=0.1, progress=False)

    def call(rng):
        i = rng.randrange(len(xs))
        with torch.no_grad():
            return close(model(xs[i]), expected[i]) and not model.training

    return Scenario(call, (disturb,))


@scenario("one model tuned and called by several threads", 0.01)
def tune_by_all():
    model, x = trained(Net()), torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        expected = model(x)

    def call(rng):
        plan = jsc.tune(model, x, methods=["cpc"], repeats=1, budget_s=0.1, progress=False)
        with torch.no_grad():
            return close(jsc.apply(model, plan)(x), expected) and close(model(x), expected)

    return Scenario(call)


# Compiled networks: the same bits for each number of threads and each batch.


def compiled(model, x):
    return jsc.compile(model, x, budget=0, check=False)


def batches():
    """More of them than a network keeps programs."""
    return list(torch.rand(20, 3, 12, 12).tensor_split(8)) + [
        torch.rand(n, 3, 12, 12) for n in range(4, 18)
    ]


@scenario("a compiled network and 22 batches", 0.3)
def compiled_batches():
    xs = batches()
    net = compiled(trained(Net()), xs[0])
    with torch.no_grad():
        expected = [net(x) for x in xs]

    def call(rng):
        i = rng.randrange(len(xs))
        if rng.random() < 0.1:
            torch.set_num_threads(rng.randint(1, 3))
        with torch.no_grad():
            return torch.equal(net(xs[i]), expected[i])

    return Scenario(call)


@scenario("a compiled network, first calls at once, from a file", 0.05)
def compiled_of_a_file():
    xs, held, folder = batches()[:3], {}, tempfile.mkdtemp()
    net, file = compiled(trained(Net()), xs[0]), os.path.join(folder, "net.jsc")
    with torch.no_grad():
        expected = [net(x) for x in xs]
    net.save(file)

    def begin():
        held["net"] = jsc.load(file)

    def call(rng):
        i = rng.randrange(len(xs))
        with torch.no_grad():
            return torch.equal(held["net"](xs[i]), expected[i])

    return Scenario(call, begin=begin, calls_a_round=3)


@scenario("a compiled network that other threads print, profile and save", 0.5)
def compiled_and_looked_at():
    xs, folder = images(), tempfile.mkdtemp()
    net = compiled(trained(Net()), xs[0])
    with torch.no_grad():
        expected = [net(x) for x in xs]
    looks = [
        lambda: repr(net), lambda: net.methods(), lambda: net.memory(), lambda: net.plan,
        lambda: net.profile(xs[1], repeats=1), lambda: net(xs[2]),
        lambda: net.save(os.path.join(folder, "net.jsc")),
    ]  # fmt: skip

    def call(rng):
        i = rng.randrange(len(xs))
        with torch.no_grad():
            return torch.equal(net(xs[i]), expected[i])

    return Scenario(call, (lambda rng: torch.no_grad()(rng.choice(looks))(),) * 2)


@scenario("a compiled network refreshed under a lock", 0.5)
def refreshed():
    models, xs = [trained(Net()), trained(Net())], images()
    net, lock, state = compiled(models[0], xs[0]), Shared(), {"now": 0}
    expected = []
    for model in models:
        net.refresh(model)
        with torch.no_grad():
            expected.append([net(x) for x in xs])
    net.refresh(models[0])

    def refresh(rng):
        with lock.write():
            state["now"] = rng.randrange(2)
            net.refresh(models[state["now"]])

    def call(rng):
        i = rng.randrange(len(xs))
        with lock.read(), torch.no_grad():
            return torch.equal(net(xs[i]), expected[state["now"]][i])

    return Scenario(call, (refresh,))


@scenario("networks compiled by several threads", 0.005)
def compile_by_all():
    model, x = trained(Net()), torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        expected = compiled(model, x)(x)

    def call(rng):
        net = compiled(model, x)
        with torch.no_grad():
            return torch.equal(net(x), expected)

    return Scenario(call)
