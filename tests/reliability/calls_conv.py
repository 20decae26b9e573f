"""Of the convolutions and the formats."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import jsc
from tests.reliability.arguments import METHODS, Arguments, Call, dtype, rand, some, sparse


def conv_arguments(r: random.Random) -> Arguments:
    kind = dtype(r)
    groups = r.choice([1, 1, 1, 2])
    channels, filters = r.choice([1, 2, 3, 16, 64, 65]), r.choice([1, 2, 8, 33])
    kernel = r.choice([(1, 1), (3, 3), (3, 3), (2, 4), (1, 5), (5, 5)])
    size = [kernel[0] + r.randint(0, 6), kernel[1] + r.randint(0, 6)]
    own = some(
        r, bias=rand(r, filters * groups, dtype=kind), stride=r.choice([1, 2, (1, 3)]),
        padding=r.choice([0, 1, (2, 0), "valid"]), dilation=r.choice([1, 1, (1, 2)]),
    )  # fmt: skip
    if r.random() < 0.1:  # nothing but padding
        size[r.randrange(2)], own["padding"] = 0, 4
    return {
        "input": sparse(r, r.choice([0, 1, 2]), channels * groups, *size, dtype=kind),
        "weight": rand(r, filters * groups, channels, *kernel, dtype=kind) - 0.5,
        "groups": groups, "method": r.choice(METHODS), **own,
    }  # fmt: skip


def conv2d_of_torch(method: Any, **arguments: Any) -> Any:
    return nn.functional.conv2d(**arguments)


def module_arguments(r: random.Random) -> Arguments:
    kind = dtype(r)
    channels, kernel = r.choice([1, 3, 64]), r.choice([1, 3, (2, 4)])
    own = some(
        r, stride=r.choice([1, 2, (1, 3)]), padding=r.choice([0, 1, "same", "valid"]), bias=False,
        dilation=r.choice([1, (1, 2)]), padding_mode=r.choice(["zeros", "reflect", "circular"]),
    )  # fmt: skip
    return {
        "in_channels": channels, "out_channels": r.choice([1, 8, 33]), "kernel_size": kernel,
        "method": r.choice(METHODS), "dtype": kind, "training": r.random() < 0.3,
        "xs": [sparse(r, 1, channels, r.randint(4, 9), r.randint(4, 9), dtype=kind) for _ in "ab"],
        **own,
    }  # fmt: skip


def module(xs: Any, training: Any, method: Any, **arguments: Any) -> Any:
    """One module, several inputs, another method, and there and back."""
    sizes = [arguments.get(n) for n in ("in_channels", "out_channels", "kernel_size")]
    if any(isinstance(n, int) and n > 1000 for n in sizes):
        arguments["device"] = "meta"  # torch would draw gigabytes of weights
    made = jsc.nn.SparseConv2d(method=method, **arguments).train(bool(training))
    made.requires_grad_(bool(training))
    found = [made(x) for x in xs for _ in range(2)]
    made.repack()
    other = jsc.nn.SparseConv2d.from_dense(made.to_dense(), method="cpc").eval()
    return [*found, *(other(x) for x in xs)]


def module_of_torch(xs: Any, training: Any, method: Any, **arguments: Any) -> Any:
    made = nn.Conv2d(**arguments).train(bool(training))
    return [made(x) for x in xs]


def from_dense(conv: Any, method: Any, x: Any) -> Any:
    return jsc.nn.SparseConv2d.from_dense(conv, method=method).eval()(x)


def map_arguments(r: random.Random, empty: float = 0.1) -> Arguments:
    kernel = r.choice([1, 3, (2, 4), (3, 3)])
    size = [r.randint(5, 9), r.randint(7, 10)]
    own = some(r, stride=r.choice([1, 2]), padding=r.choice([0, 1]), dilation=r.choice([1, 2]))
    if r.random() < empty:  # nothing but padding
        size[r.randrange(2)], own["padding"] = 0, 4
    x = sparse(r, r.choice([0, 1, 2]), r.choice([1, 3, 65]), *size)
    return {"x": x.to(dtype(r)), "kernel_size": kernel, **own}


def encoded(format: Any) -> Callable[..., Any]:
    def run(**arguments: Any) -> Any:
        made = format.encode(**arguments)
        repr(made), made.elements, made.nbytes, made.compression_ratio
        return made.decode(), torch.tensor(made == format.encode(**arguments))

    return run


def array_arguments(format: Any) -> Callable[[random.Random], Arguments]:
    def good(r: random.Random) -> Arguments:
        arguments = map_arguments(r, empty=0)
        made = format.encode(**arguments)
        names = [name for name in format.__dataclass_fields__ if name != "geometry"]
        arrays = {name: getattr(made, name) for name in names}
        if r.random() < 0.7:  # one entry of one array is wrong
            array = arrays[r.choice(names)]
            if array.numel():
                bytes_ = array.view(torch.uint8).view(-1)
                bytes_[r.randrange(len(bytes_))] ^= 1 << r.randrange(8)
        x = arguments.pop("x")
        return {**arrays, "shape": tuple(x.shape), **arguments}

    return good


def from_arrays(format: Any) -> Callable[..., Any]:
    return lambda **arguments: format.from_arrays(**arguments).decode()


CALLS = [
    Call("functional.conv2d", conv_arguments, jsc.functional.conv2d, 6, conv2d_of_torch),
    Call("nn.SparseConv2d", module_arguments, module, 5, module_of_torch),
    Call(
        "nn.SparseConv2d.from_dense",
        lambda r: {
            "conv": nn.Conv2d(3, 4, 3),
            "method": r.choice(METHODS),
            "x": sparse(r, 1, 3, 9, 9),
        },
        from_dense,
    ),
    *(
        call
        for kind in (jsc.formats.CPO, jsc.formats.CPS, jsc.formats.CPC)
        for call in (
            Call(f"formats.{kind.__name__}.encode", map_arguments, encoded(kind), 2),
            Call(
                f"formats.{kind.__name__}.from_arrays", array_arguments(kind), from_arrays(kind), 2
            ),
        )
    ),
]
