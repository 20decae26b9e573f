"""What the threads of `races` do. Small integers, so that every right result is one bit pattern."""

from __future__ import annotations

import copy
import io
import pickle
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

import jsc
from jsc.methods import available
from tests.reliability.networks import Net, applied, plan_by_hand, trained
from tests.reliability.races import Scenario

SIZES = [(8, 8), (21, 17), (40, 40), (5, 33), (12, 3), (30, 31)]
METHODS = [method for method in available() if method != "dense"]


@dataclass
class Entry:
    make: Callable[[], Scenario]
    weight: float  # share of the calls


SCENARIOS: dict[str, Entry] = {}


Maker = Callable[..., Scenario]


def scenario(name: str, weight: float, *arguments: object) -> Callable[[Maker], Maker]:
    def add(make: Maker) -> Maker:
        SCENARIOS[name] = Entry(partial(make, *arguments), weight)
        return make

    return add


def for_each(name: str, weight: float, values: list[object]) -> Callable[[Maker], Maker]:
    def add(make: Maker) -> Maker:
        for value in values:
            scenario(f"{name}, {value}", weight / len(values), value)(make)
        return make

    return add


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randint(-4, 5, shape).to(dtype)


def maps(channels: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [numbers(1, channels, *size, dtype=dtype).relu() for size in SIZES]


def layer(method: str, channels: int = 16, filters: int = 32, **options: object) -> nn.Module:
    module = jsc.nn.SparseConv2d(channels, filters, 3, padding=1, method=method, **options)
    for parameter in module.requires_grad_(False).parameters():
        parameter.copy_(numbers(*parameter.shape))
    return module.eval()


def of(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return F.conv2d(x, module.weight, module.bias, padding=1, groups=module.groups)


# One layer, sizes mixed.


@for_each("a layer and six sizes", 4.0, METHODS)
def sizes(method):
    module, xs = layer(method), maps(16)
    expected = [of(module, x) for x in xs]

    def call(rng):
        i = rng.randrange(len(xs))
        return torch.equal(module(xs[i]), expected[i])

    return Scenario(call)


@for_each("grouped, and float64, by turns", 1.0, METHODS)
def grouped(method):
    modules = [layer(method, 8, 16, groups=2), layer(method, 4, 8).double()]
    inputs = [maps(8)[:3], maps(4, torch.float64)[:3]]
    expected = [[of(m, x) for x in xs] for m, xs in zip(modules, inputs, strict=True)]

    def call(rng):
        i, j = rng.randrange(2), rng.randrange(3)
        return torch.equal(modules[i](inputs[i][j]), expected[i][j])

    return Scenario(call)


@for_each("threads of different numbers of threads", 1.0, METHODS)
def thread_counts(method):
    module, xs = layer(method, 32, 48), maps(32)
    expected = [of(module, x) for x in xs]

    def call(rng):
        i = rng.randrange(len(xs))
        if rng.random() < 0.1:
            torch.set_num_threads(rng.randint(1, 3))
        return torch.equal(module(xs[i]), expected[i])

    return Scenario(call)


@for_each("first calls at once", 1.0, METHODS)
def first(method):
    held, xs = {}, maps(16)

    def begin():
        held["module"] = layer(method)
        held["expected"] = [of(held["module"], x) for x in xs]

    def call(rng):
        i = rng.randrange(len(xs))
        return torch.equal(held["module"](xs[i]), held["expected"][i])

    return Scenario(call, begin=begin, calls_a_round=3)


@for_each("first calls of a layer from a pickle", 0.5, METHODS)
def first_of_a_pickle(method):
    held, xs, module = {}, maps(16), layer(method)
    expected = [of(module, x) for x in xs]
    module(xs[0]), module(xs[0])
    stored = pickle.dumps(module)

    def begin():
        held["module"] = pickle.loads(stored)

    def call(rng):
        i = rng.randrange(len(xs))
        return torch.equal(held["module"](xs[i]), expected[i])

    return Scenario(call, begin=begin, calls_a_round=3)


@for_each("layers of a setting that another thread changes", 1.0, METHODS)
def settings(method):
    """Repacking, modes, copies and other methods: none changes a result."""
    module, xs = layer(method), maps(16)
    expected = [of(module, x) for x in xs]
    changes = [
        lambda: module.repack(),
        lambda: module.train(),
        lambda: module.eval(),
        lambda: copy.deepcopy(module)(xs[1]),
        lambda: pickle.dumps(module),
        lambda: setattr(module, "method", METHODS[0]),
        lambda: setattr(module, "method", method),
        lambda: module.load_state_dict(module.state_dict()),
        lambda: module.to(memory_format=torch.channels_last),
        lambda: module.to(memory_format=torch.contiguous_format),
    ]

    def call(rng):
        i = rng.randrange(len(xs))
        return torch.equal(module(xs[i]), expected[i])

    return Scenario(call, (lambda rng: rng.choice(changes)(),))


# Weights that another thread writes.


class Shared:
    """A lock that readers share and a writer has alone."""

    def __init__(self) -> None:
        self._lock, self._readers, self._free = threading.Lock(), 0, threading.Condition()

    @contextmanager
    def read(self):
        with self._lock, self._free:
            self._readers += 1
        try:
            yield
        finally:
            with self._free:
                self._readers -= 1
                self._free.notify_all()

    @contextmanager
    def write(self):
        with self._lock, self._free:
            self._free.wait_for(lambda: self._readers == 0)
            yield


def two_sets(method):
    module, xs = layer(method, bias=False), maps(16)
    sets = [module.weight.detach().clone(), numbers(*module.weight.shape)]
    return module, xs, sets, [[F.conv2d(x, w, padding=1) for x in xs] for w in sets]


@for_each("weights swapped by another thread", 1.5, METHODS)
def swapped(method):
    """The old weights' result or the new ones', never anything between."""
    module, xs, sets, expected = two_sets(method)
    parameters = [nn.Parameter(w, requires_grad=False) for w in sets]

    def swap(rng):
        i = rng.randrange(2)
        if rng.random() < 0.5:
            module.weight = parameters[i]
        else:
            module.load_state_dict({"weight": sets[i]}, assign=True)

    def call(rng):
        i = rng.randrange(len(xs))
        out = module(xs[i])
        return torch.equal(out, expected[0][i]) or torch.equal(out, expected[1][i])

    return Scenario(call, (swap,))


@for_each("weights written under a lock", 1.5, METHODS)
def written(method):
    """Exactly the weights that are there while the reader has the lock."""
    module, xs, sets, expected = two_sets(method)
    lock, state = Shared(), {"now": 0}
    ways = [
        lambda w: module.weight.copy_(w),
        lambda w: module.weight.data.copy_(w),
        lambda w: module.weight.numpy().__setitem__(..., w.numpy()),
        lambda w: setattr(module.weight, "data", w.clone()),
    ]

    def write(rng):
        with lock.write():
            state["now"] = rng.randrange(2)
            rng.choice(ways)(sets[state["now"]])

    def call(rng):
        i = rng.randrange(len(xs))
        with lock.read():
            return torch.equal(module(xs[i]), expected[state["now"]][i])

    return Scenario(call, (write,))


@for_each("evaluation while another thread trains", 1.0, METHODS)
def trains(method):
    """Forwards that record gradients, and evaluations, of one layer; no optimizer steps."""
    module, xs = layer(method), maps(16)
    module.requires_grad_(True)
    expected = [of(module, x).detach() for x in xs]

    def train(rng):
        module(rng.choice(xs)).sum().backward()

    def call(rng):
        i = rng.randrange(len(xs))
        with torch.no_grad():
            return torch.equal(module(xs[i]), expected[i])

    return Scenario(call, (train,))


# Functions, formats and the JPEG layer.


@for_each("functional.conv2d", 1.0, METHODS)
def function(method):
    weights = [numbers(12, 5, 3, 3), numbers(7, 5, 1, 1), numbers(9, 5, 2, 5)]
    xs = maps(5)
    expected = [[F.conv2d(x, w, padding=1) for x in xs] for w in weights]

    def call(rng):
        i, j = rng.randrange(len(xs)), rng.randrange(len(weights))
        out = jsc.functional.conv2d(xs[i], weights[j], padding=1, method=method)
        return torch.equal(out, expected[j][i])

    return Scenario(call)


@for_each("encode and decode", 2.0, ["CPO", "CPS", "CPC"])
def formats(name):
    kind, xs = getattr(jsc.formats, name), maps(6)
    whole = [kind.encode(x, 3, padding=1) for x in xs]

    def call(rng):
        i = rng.randrange(len(xs))
        made = kind.encode(xs[i], 3, padding=1)
        return made == whole[i] and torch.equal(made.decode(), xs[i])

    return Scenario(call)


def images():
    return [torch.rand(1, 3, *size) for size in SIZES]


@scenario("functions of the JPEG layer", 2.0)
def jpeg_functions():
    tables = jsc.jpeg.quality_tables(60)
    functions = [
        jsc.functional.block_dct,
        lambda x: jsc.functional.block_idct(jsc.functional.block_dct(x)),
        lambda x: jsc.functional.jpeg(x, tables),
        lambda x: jsc.functional.jpeg(x, tables, subsampling="4:2:0", quantizer="hard"),
        lambda x: jsc.functional.jpeg_rate(x, tables),
    ]
    xs = [torch.rand(1, 3, 8 * h, 8 * w) for h, w in ((1, 1), (3, 2), (4, 4), (2, 5))]
    expected = [[f(x) for x in xs] for f in functions]

    def call(rng):
        i, j = rng.randrange(len(xs)), rng.randrange(len(functions))
        return torch.equal(functions[j](xs[i]), expected[j][i])

    return Scenario(call)


@for_each("a JPEG layer forward and backward", 2.0, ["4:4:4", "4:2:0"])
def jpeg_layer(subsampling):
    made = jsc.nn.JPEG.from_quality(50, kappa=3.0, subsampling=subsampling, train_alpha=True)
    xs, parameters = images(), list(made.parameters())

    def run(x):
        x = x.clone().requires_grad_()
        y = made(x)
        return y.detach(), *torch.autograd.grad(y.square().sum(), [x, *parameters])

    expected = [run(x) for x in xs]

    def call(rng):
        i = rng.randrange(len(xs))
        return all(map(torch.equal, run(xs[i]), expected[i]))

    return Scenario(call)


@for_each("training of a layer by all", 1.0, ["cpc", "im2col"])
def training(method):
    """Gradients of integers are exact too; channels-last, where cpc skips zeros in training."""
    module = layer(method).to(memory_format=torch.channels_last).requires_grad_(True)
    xs = [x.contiguous(memory_format=torch.channels_last) for x in maps(16)]

    def run(forward, x):
        x = x.clone().requires_grad_()
        y = forward(x)
        return y.detach(), *torch.autograd.grad(y.relu().sum(), [x, module.weight, module.bias])

    plain = partial(of, module)
    expected = [run(plain, x) for x in xs]

    def call(rng):
        i = rng.randrange(len(xs))
        return all(map(torch.equal, run(module, xs[i]), expected[i]))

    return Scenario(call)


# Networks.

TURNS = {"cpc": ["cpc"], "mixed": ["cps", "cpo", "mec", "im2col"]}
NETWORKS = ["cpc", "mixed", "compiled"]


def turned(model, x, kind):
    if kind == "compiled":
        return jsc.compile(model, x, budget=0, check=False)
    return applied(model, x, TURNS[kind])


def close(a, b):
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-4)


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
        methods = [m for m in METHODS if m != "bf16x3"]
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
