"""Of compiled networks."""

from __future__ import annotations

import functools
import random
from typing import Any

import torch
from torch import nn

import jsc
from tests.reliability.arguments import Arguments, Call, rand, some


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.MaxPool2d(2),
        nn.Flatten(2), nn.Softmax(1),
    ).eval()  # fmt: skip


def compile_arguments(r: random.Random) -> Arguments:
    own = some(r, plan=r.choice([None, {}, {"0.weight": "direct"}]), check=False)
    x = rand(r, r.choice([1, 2]), 3, r.randint(5, 9), 8)
    return {"model": network(), "sample": x, "budget": 0.0, "progress": False, **own}


def compile_and_call(sample: Any, **arguments: Any) -> Any:
    net = jsc.compile(sample=sample, **arguments)
    repr(net), net.plan, net.methods(), net.memory()
    return net(sample) if isinstance(sample, torch.Tensor) else None


@functools.cache
def compiled() -> Any:
    net = jsc.compile(network(), torch.rand(2, 3, 9, 8), budget=0, check=False)
    net(torch.rand(1, 3, 9, 8))
    return net


def call(args: Any, x: Any, options: Any) -> Any:
    return compiled()(x, *args, **options)


def call_arguments(r: random.Random) -> Arguments:
    x = rand(r, r.choice([1, 2, 3]), 3, 9, 8)
    return {"x": x, "args": (), "options": {}}


def refresh(model: Any) -> Any:
    net = compiled()
    net.refresh(model)
    return net(torch.rand(2, 3, 9, 8))


def profile(x: Any, repeats: Any) -> Any:
    if isinstance(repeats, int) and repeats > 1000:
        return None  # as many calls as were asked for, and as much time
    return str(compiled().profile(x, repeats=repeats))


CALLS = [
    Call("compile", compile_arguments, compile_and_call, 0.05),
    Call("CompiledNetwork()", call_arguments, call, 3),
    Call("CompiledNetwork.refresh", lambda r: {"model": network()}, refresh, 0.5),
    Call(
        "CompiledNetwork.profile",
        lambda r: {"x": rand(r, 2, 3, 9, 8), "repeats": 1},
        profile,
        0.2,
    ),
    Call(
        "CompiledNetwork.save",
        lambda r: {"path": "net.jsc"},
        lambda path: compiled().save(path),
        0.2,
    ),
    Call("load", lambda r: {"path": "no such file"}, lambda path: jsc.load(path), 0.2),
]
