"""An evaluation has the result of the weights as they are now, however they were changed."""

from __future__ import annotations

import copy
import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import jsc
from jsc.methods import METHODS
from tests.reliability.changes import CHANGES

SPARSE = [method for method in METHODS if method != "dense"]
GROUPS = (1, 2)
TOLERANCE = {"rtol": 1e-5, "atol": 1e-4, "equal_nan": True}


def prepared(method, groups=1, bias=True):
    """A layer that has been called twice for each of two sizes, an input, and what it gave."""
    module = jsc.nn.SparseConv2d(6, 8, 3, padding=1, groups=groups, bias=bias, method=method).eval()
    x = 4 * torch.relu(torch.randn(2, 6, 7, 9))
    with torch.no_grad():
        for size in ((5, 5), (7, 9)):
            for _ in range(2):
                before = module(x[..., : size[0], : size[1]])
    return module, x, before


def right(module, x):
    """What the weight that the layer now has stands for, by torch."""
    x = x.to(module.weight.dtype)
    return F.conv2d(x, module.weight, module.bias, padding=1, groups=module.groups)


def check(out, module, x):
    """`out` is torch's result, up to the rounding of sums of such numbers; returns torch's."""
    expected = right(module, x)
    sizes = [None if t is None else t.abs() for t in (x.to(out.dtype), module.weight, module.bias)]
    size = float(F.conv2d(*sizes, padding=1, groups=module.groups).max())
    atol = 2e-6 * size if math.isfinite(size) else 0.0
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=atol, equal_nan=True)
    return expected


def agree(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and torch.allclose(a, b, **TOLERANCE)


@pytest.mark.parametrize("method", SPARSE)
@pytest.mark.parametrize("name", CHANGES)
def test_every_change_is_seen(name, method):
    for groups in GROUPS:
        module, x, before = prepared(method, groups)
        if groups == 2 and "fewer" in name:
            continue  # the halves of two groups are no convolution
        module = CHANGES[name](module) or module
        with torch.no_grad():
            for _ in range(2):  # the call that finds out, and one that is prepared again
                out = module(x.to(module.weight.dtype))
                expected = check(out, module, x)
        assert not agree(before, expected), "the change must matter, or nothing is tested"


@pytest.mark.parametrize("method", SPARSE)
def test_a_change_that_comes_and_goes(method):
    """Two sets of weights in turn, in one memory: the first set's result comes back."""
    module, x, first = prepared(method)
    sets = [module.weight.detach().clone(), torch.randn(module.weight.shape)]
    for i in range(6):
        module.weight.detach().numpy()[...] = sets[i % 2].numpy()
        with torch.no_grad():
            out = module(x)
            check(out, module, x)
            assert agree(out, first) == (i % 2 == 0)


@pytest.mark.parametrize("method", SPARSE)
def test_copies_do_not_share_what_was_laid_out(method):
    module, x, before = prepared(method)
    new = copy.deepcopy(module)
    with torch.no_grad():
        new(x)
        module.weight.data.mul_(2)
        assert agree(new(x), before)
        check(module(x), module, x)
        sparse = jsc.nn.SparseConv2d.from_dense(module, method=method)
        sparse(x)
        module.weight.data.mul_(2)  # the parameter of both
        for one in (module, sparse):
            check(one(x), module, x)


@pytest.mark.parametrize("method", SPARSE)
@pytest.mark.parametrize("groups", GROUPS)
def test_functional_call(method, groups):
    module, x, before = prepared(method, groups)
    sets = [{k: torch.randn(v.shape) for k, v in module.named_parameters()} for _ in range(3)]
    with torch.no_grad():
        for _ in range(2):
            for given in sets:
                out = torch.func.functional_call(module, given, (x,))
                expected = F.conv2d(x, given["weight"], given["bias"], padding=1, groups=groups)
                torch.testing.assert_close(out, expected, **TOLERANCE)
            assert agree(module(x), before)


@pytest.mark.parametrize("method", SPARSE)
def test_functional_call_of_many_weights_at_once(method):
    """An ensemble: vmap over stacked parameters, as `torch.func` shows it."""
    module, x, before = prepared(method)
    stacked = {k: torch.randn(3, *v.shape) for k, v in module.named_parameters()}
    for given in (stacked, {k: 2 * v for k, v in stacked.items()}):
        with torch.no_grad():
            out = torch.vmap(lambda p: torch.func.functional_call(module, p, (x,)))(given)
        one_by_one = [
            F.conv2d(x, given["weight"][i], given["bias"][i], padding=1) for i in range(3)
        ]
        torch.testing.assert_close(out, torch.stack(one_by_one), **TOLERANCE)
    with torch.no_grad():
        assert agree(module(x), before)


@pytest.mark.parametrize("method", SPARSE)
def test_gradients_by_torch_func(method):
    module, x, _ = prepared(method)
    parameters = {k: v.detach() for k, v in module.named_parameters()}

    def loss(p):
        return torch.func.functional_call(module, p, (x,)).square().sum()

    for _ in range(2):
        found = torch.func.grad(loss)(parameters)
        expected = torch.func.grad(
            lambda p: F.conv2d(x, p["weight"], p["bias"], padding=1).square().sum()
        )(parameters)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-2)
        parameters = {k: 2 * v for k, v in parameters.items()}


def trace(module, x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and used
        return torch.jit.trace(module, (x,))


def compiled(backend):
    def make(module, x):
        torch._dynamo.reset()
        return torch.compile(module, backend=backend)

    return make


CAPTURES = {"jit.trace": trace, "eager": compiled("eager"), "aot_eager": compiled("aot_eager")}
WRITES = ("in place without gradients", "data multiplied", "numpy view", "bias data added",
          "step of SGD fused", "state loaded")  # fmt: skip


@pytest.mark.parametrize("capture", [*CAPTURES, pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", SPARSE)
def test_captured_modules_have_live_weights(capture, method):
    module, x, before = prepared(method)
    make = CAPTURES.get(capture) or compiled(capture)
    with torch.no_grad():
        taken = make(module, x)
        for _ in range(2):
            torch.testing.assert_close(taken(x), before, **TOLERANCE)
    for name in WRITES:
        CHANGES[name](module)
        with torch.no_grad():
            check(taken(x), module, x)
            check(module(x), module, x)


@pytest.mark.parametrize("method", SPARSE)
def test_exported_programs_have_live_weights(method):
    module, x, before = prepared(method)
    with torch.no_grad():
        taken = torch.export.export(module, (x,)).module()
        torch.testing.assert_close(taken(x), before, **TOLERANCE)
        for change in (lambda w: w.mul_(2), lambda w: w.data.add_(1)):
            change(taken.weight)
            expected = F.conv2d(x, taken.weight, taken.bias, padding=1)
            torch.testing.assert_close(taken(x), expected, **TOLERANCE)
            assert not agree(before, expected)


def write_elsewhere(modules):
    with torch.no_grad():
        for module in modules:
            module.weight.mul_(3)
            module.bias.add_(1)


def test_weights_written_by_another_process():
    """Hogwild training: versions are counted in each process by itself."""
    made = [prepared(method) for method in SPARSE]
    modules = nn.ModuleList([module for module, _, _ in made]).share_memory()
    with torch.no_grad():
        for module, x, _ in made:
            module(x), module(x)
        child = torch.multiprocessing.get_context("spawn").Process(
            target=write_elsewhere, args=(modules,)
        )
        child.start()
        child.join(120)
        assert child.exitcode == 0
        for module, x, before in made:
            out = module(x)
            check(out, module, x)
            assert not agree(out, before)
