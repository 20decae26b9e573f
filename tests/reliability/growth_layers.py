"""Paths of `growth` through layers, functions and formats."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

import jsc
from jsc.methods import available
from tests.reliability.memory import (
    CALLS,
    Path,
    Paths,
    into,
    numbers,
    refused,
    shuffled,
    without_gradients,
)

METHODS = [method for method in available() if method != "dense"]
PATHS: Paths = {}
path = into(PATHS)


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
def torch_alone() -> Path:
    """What the measure says of a path of torch alone."""
    x, w = numbers(1, 8, 12, 12), torch.randn(16, 8, 3, 3)
    return Path(without_gradients(lambda: F.conv2d(x, w)))
