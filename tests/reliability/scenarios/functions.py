"""Functions, formats and the JPEG layer."""

from __future__ import annotations

from functools import partial

import torch
from torch.nn import functional as F

import jsc
from tests.reliability.races import Scenario
from tests.reliability.scenarios.table import (
    METHODS,
    for_each,
    images,
    layer,
    maps,
    numbers,
    of,
    scenario,
)

# Functions, formats and the JPEG layer.


@for_each("functional.conv2d", 1.0, METHODS)
def function(method):
    weights = [numbers(12, 5, 3, 3), numbers(7, 5, 1, 1), numbers(9, 5, 2, 5)]
    if method == "winograd":  # it has no other kernels
        weights = [numbers(filters, 5, 3, 3) for filters in (12, 7, 9)]
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


@scenario("functions of the JPEG layer", 2.0)
def jpeg_functions():
    tables = jsc.jpeg.quality_tables(60)
    functions = [
        jsc.functional.block_dct,
        lambda x: jsc.functional.block_idct(jsc.functional.block_dct(x)),
        lambda x: jsc.functional.jpeg(x, tables),
        jsc.functional.local_contrast,
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
