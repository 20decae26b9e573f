"""One convolution called by all threads, and its weights written by another."""

from __future__ import annotations

import copy
import pickle

import torch
from torch import nn
from torch.nn import functional as F

from tests.reliability.races import Scenario
from tests.reliability.scenarios.table import (
    METHODS,
    Shared,
    for_each,
    layer,
    maps,
    numbers,
    of,
)

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
