"""What every convolution method promises, on a fixed grid of geometries and on unusual inputs.

A method is covered as soon as it is in `jsc.methods.METHODS`. What one promises less than the
others stands in a table here.
"""

from __future__ import annotations

import itertools
import random
import warnings
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from strategies import ConvCase
from torch import Tensor

import jsc
from jsc import _config
from jsc import methods as ops
from jsc._kernels import cpu
from jsc.ops import _scratch
from jsc.reference import winograd

METHODS = [m for m in ops.METHODS if m != "dense"]
LIBRARY = ("im2col", "mec")  # products of a library, whatever our instruction set
ONLY_FLOAT32 = ("winograd", "amx")  # torch's own convolution otherwise, and its promises
ISAS = _config.ISA_NAMES[: cpu.supported_isa() + 1]
PATHS = [(m, isa) for m in METHODS for isa in (ISAS[-1:] if m in LIBRARY else ISAS)]
# Times the bound on a sum's rounding in any order: the products of amx are off by 2 eps alone.
BOUND = {"amx": 2.0, "winograd": 2.0}  # of winograd relative to a tile: `products`
VALUES = {
    "C": (1, 63, 64, 65, 127),
    "K": (1, 15, 16, 17, 63, 65),
    "N": (1, 3),
    "stride": (1, 2, 3),
    "dilation": ((1, 1), (1, 1), (2, 1), (1, 2), (3, 2)),
    "groups": (1, 1, 1, 2),
    "density": (0.0, 0.1, 0.5, 0.9, 1.0),
    "extra": (0, 1, 2, 5),  # rows and columns beyond the smallest map
    "flag": (False, True),
}


def grid() -> list[ConvCase]:
    """Each kernel from 1x1 to 7x7 with each horizontal stride; the other values in turn, in an
    order of their own."""
    order = random.Random(0)

    def turns(name: str) -> itertools.cycle:
        return itertools.cycle(order.sample(VALUES[name], len(VALUES[name])))

    names = ("C", "K", "N", "stride", "dilation", "groups", "density", "extra", "extra", "flag")
    cycles = [turns(name) for name in names]
    cases = []
    kernels = list(itertools.product(range(1, 8), range(1, 8), VALUES["stride"]))
    order.shuffle(kernels)
    for seed, (height, width, across) in enumerate(kernels):
        C, K, N, down, dilation, groups, density, high, wide, bias = map(next, cycles)
        if seed % 7 == 0:
            cycles = [turns(name) for name in names]  # or two cycles of one length stay in step
        padding = order.randint(0, height), order.randint(0, width)
        need = [
            max(1, d * (k - 1) + 1 - 2 * p)
            for d, k, p in zip(dilation, (height, width), padding, strict=True)
        ]
        cases.append(
            ConvCase(
                N=N, C=C, H=need[0] + high, W=need[1] + wide, K=K, kernel=(height, width),
                stride=(down, across), padding=padding, dilation=dilation, groups=groups,
                density=density, bias=bias, channels_last=bool(seed % 2), seed=seed,
            )
        )  # fmt: skip
    for seed in range(900, 908):  # all that "winograd" does
        cases.append(
            replace(
                cases[seed % len(cases)], kernel=(3, 3), stride=(1, 1), dilation=(1, 1),
                padding=(seed % 3, seed // 3 % 3), H=3 + seed % 5, W=3 + seed % 7, seed=seed,
            )
        )  # fmt: skip
    return cases


CASES = grid()


@cache
def problem(index: int, dtype: torch.dtype, integer: bool) -> tuple[tuple, Tensor, Tensor]:
    """Arguments, the float64 result, and the same of all absolute values."""
    case = CASES[index]
    tensors = case.tensors(dtype, integer)
    exact = [None if t is None else t.double() for t in tensors]
    sizes = [None if t is None else t.abs() for t in exact]
    return tensors, case.by_torch(*exact), case.by_torch(*sizes)


@cache
def bad_problem(index: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The same input with a NaN and both infinities somewhere, and torch's result."""
    (x, w, b), _, _ = problem(index, dtype, True)
    bad = x.clone()
    places = torch.randint(x.numel(), (3,), generator=torch.Generator().manual_seed(index))
    for place, value in zip(places.tolist(), ("nan", "inf", "-inf"), strict=True):
        bad[np.unravel_index(place, x.shape)] = float(value)
    return bad, CASES[index].by_torch(bad, w, b)


@cache
def runnable(method: str) -> list[int]:
    """The cases that `method` covers; it refuses the others in words."""
    found = []
    for index, case in enumerate(CASES):
        x, w, b = problem(index, torch.float32, True)[0]
        g = ops.geometry(x, w, case.stride, case.padding, case.dilation, case.groups)
        if ops.unsupported(method, g) is None:
            found.append(index)
        elif index % 10 == 0:
            with pytest.raises(ValueError, match="cannot do this convolution"):
                jsc.functional.conv2d(x, w, b, **case.arguments, method=method)
    assert found
    return found


def test_the_grid_has_every_value_with_every_stride():
    for name in ("C", "K", "N", "groups", "density"):
        for across in VALUES["stride"]:
            seen = {getattr(case, name) for case in CASES if case.stride[1] == across}
            assert seen == set(VALUES[name])
    assert {case.kernel for case in CASES} == set(itertools.product(range(1, 8), range(1, 8)))
    assert {case.stride for case in CASES} == set(itertools.product((1, 2, 3), (1, 2, 3)))
    assert {case.padding[0] - case.kernel[0] for case in CASES} >= {-1, 0}


@pytest.mark.parametrize(("method", "isa"), PATHS, indirect=["isa"])
def test_integers_are_exact_and_bad_numbers_as_in_dense(method, isa, dtype, threads):
    """Bit for bit, also where some windows hold a NaN or an infinity."""
    for index in runnable(method):
        threads(1 + index % 2)
        case = CASES[index]
        (x, w, b), exact, _ = problem(index, dtype, True)
        out = jsc.functional.conv2d(x, w, b, **case.arguments, method=method)
        assert torch.equal(out, exact.to(dtype)), case
        bad, expected = bad_problem(index, dtype)
        out = jsc.functional.conv2d(bad, w, b, **case.arguments, method=method)
        torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("method", "isa"), PATHS, indirect=["isa"])
def test_rounding_is_bounded_and_the_same_however_work_is_shared(method, isa, dtype, threads):
    """Higham's n eps / (1 - n eps) sum |x w| for n products; the same bits for 1, 2, 3 threads."""
    eps = torch.finfo(dtype).eps
    for index in runnable(method):
        case = CASES[index]
        (x, w, b), exact, size = problem(index, dtype, False)
        n = w[0].numel() + 1

        def run(x, w=w, b=b, case=case):
            return jsc.functional.conv2d(x, w, b, **case.arguments, method=method)

        threads(1)
        out = run(x)
        if method == "winograd":
            size = winograd.products(x, w, b, case.padding, case.groups)
        bound = BOUND.get(method, 1.0) * n * eps / (1 - n * eps) * size
        assert bool(((out.double() - exact).abs() <= bound).all()), case
        if method not in LIBRARY and (method not in ONLY_FLOAT32 or dtype == torch.float32):
            threads(2 + index % 2)
            parts = x.split(1) if index % 3 else (x,)
            assert torch.equal(torch.cat([run(part) for part in parts]), out), case


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("groups", [1, 2])
def test_weights_that_are_not_finite_and_depthwise_go_dense(dtype, method, groups):
    x = torch.relu(torch.randn(2, 6, 7, 5, dtype=dtype))
    for value in ("nan", "inf", "-inf"):
        w = torch.randn(4, 6 // groups, 3, 3, dtype=dtype)
        w[-1, 0, 2, 1] = float(value)
        arguments = {"padding": 1, "groups": groups}
        out = jsc.functional.conv2d(x, w, **arguments, method=method)
        torch.testing.assert_close(out, F.conv2d(x, w, **arguments), rtol=0, atol=0, equal_nan=True)
    w = torch.randn(12, 1, 3, 3, dtype=dtype)
    out = jsc.functional.conv2d(x, w, groups=6, method=method)
    assert torch.equal(out, F.conv2d(x, w, groups=6))


def mapped(path, values: Tensor) -> Tensor:
    """`values` in pages that cannot be written: an attempt ends the process."""
    values.numpy().tofile(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that the array is read-only
        return torch.from_numpy(np.memmap(path, values.numpy().dtype, "r", shape=values.shape))


@pytest.mark.parametrize("method", METHODS)
def test_inputs_may_be_read_only_shared_and_expanded(dtype, method, tmp_path):
    def numbers(*shape):
        return torch.randint(-4, 5, shape).to(dtype)

    x, w, b = numbers(2, 9, 8, 20), numbers(17, 20, 3, 3), numbers(17)
    x, w, b = (mapped(tmp_path / name, t) for name, t in zip("xwb", (x, w, b), strict=True))
    pixels, planes = x.permute(0, 3, 1, 2), mapped(tmp_path / "p", x.permute(0, 3, 1, 2).clone())
    storage = numbers(20 * 20 * 9)
    shared = storage.view(1, 20, 20, 9), storage[-17 * 20 * 9 :].view(17, 20, 3, 3), storage[7:24]
    cases = {
        "read-only, channels-last": (pixels, w, b),
        "read-only": (planes, w, b),
        "one storage": shared,
        "expanded": (
            numbers(1, 20, 1, 8).expand(3, 20, 9, 8), numbers(1, 20, 3, 1).expand(17, 20, 3, 3),
            numbers(1).expand(17),
        ),
        "channels expanded": (numbers(2, 1, 9, 8).expand(2, 20, 9, 8), w, b),
        "flipped windows": (numbers(1, 20, 19).unfold(2, 8, 1)[..., :7], w, b),
        "sliced": (
            numbers(3, 41, 9, 17)[1:, 1::2, :, ::2], numbers(34, 41, 3, 3)[::2, 1::2], b
        ),
    }  # fmt: skip
    for name, (x, w, b) in cases.items():
        before = [t.clone() for t in (x, w, b)]
        module = jsc.nn.SparseConv2d(20, 17, 3, padding=1, method=method).requires_grad_(False)
        module.weight, module.bias = (torch.nn.Parameter(t, requires_grad=False) for t in (w, b))
        for run in (lambda x: jsc.functional.conv2d(x, w, b, padding=1, method=method), module):  # noqa: B023
            for _ in range(2):  # the second call of a module is prepared
                out = run(x)
                assert torch.equal(out, F.conv2d(x, w, b, padding=1)), name
                used = {t.untyped_storage().data_ptr() for t in (x, w, b)}
                assert out.untyped_storage().data_ptr() not in used, name
        assert all(map(torch.equal, (x, w, b), before)), name


@pytest.mark.parametrize("method", METHODS)
def test_huge_sizes_are_refused_in_words(method):
    x, w = torch.ones(1, 2, 4, 4), torch.ones(3, 2, 3, 3)

    def run(x=x, w=w, **arguments):
        return jsc.functional.conv2d(x, w, method=method, **arguments)

    with pytest.raises(ValueError, match="more elements than can be addressed"):
        run(padding=2**40)
    for name in ("stride", "padding", "dilation"):
        with pytest.raises(ValueError, match=f"{name} must be at most"):
            run(**{name: 2**62})
    no_room = pytest.raises((RuntimeError, ValueError), match=r"allocate|overflows 32-bit places")
    one = torch.ones(1, 1, 1, 1)
    with no_room:  # 8 PiB
        run(one.expand(2**20, 2, 2**15, 2**15), padding=1)
    with no_room:
        run(w=one.expand(2**45, 2, 3, 3), padding=1)
    if method == "amx":  # its planes have room for a whole stride
        with pytest.raises(ValueError, match="strides are at most"):
            run(stride=2**60)
    if method == "winograd":
        with pytest.raises(ValueError, match="of stride and dilation 1"):
            run(stride=2**60)
    stride = {"amx": 64, "winograd": 1}.get(method, 2**60)
    assert torch.equal(run(stride=stride), F.conv2d(x, w, stride=min(stride, 4)))


def layer_and_map(method, dtype=torch.float32):
    layer = jsc.nn.SparseConv2d(20, 17, 3, padding=1, method=method, dtype=dtype)
    return layer.eval().requires_grad_(False), torch.relu(torch.randn(2, 20, 9, 9, dtype=dtype))


@pytest.mark.parametrize("method", METHODS)
def test_torchs_default_device_and_dtype_do_not_matter(method, dtype, monkeypatch):
    layer, x = layer_and_map(method, dtype)
    expected = layer(x)
    monkeypatch.setattr(_scratch, "_arena", _scratch._Arena())  # scratch is allocated anew
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            prepared = layer(x)
            called = jsc.functional.conv2d(x, layer.weight, layer.bias, padding=1, method=method)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(prepared, expected)
    assert torch.equal(called, expected)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # of torch itself
@pytest.mark.parametrize("method", METHODS)
def test_derivatives_of_forward_mode_are_torchs(method):
    layer, x = layer_and_map(method)
    w, b, t = layer.weight.detach(), layer.bias.detach(), torch.randn_like(x)
    given, tangents = (x, w, b), (t, torch.randn_like(w), torch.randn_like(b))

    def ours(x, w, b):
        return jsc.functional.conv2d(x, w, b, padding=1, method=method)

    expected = torch.func.jvp(lambda *p: F.conv2d(*p, padding=1), given, tangents)
    assert all(map(torch.equal, torch.func.jvp(ours, given, tangents), expected))
    expected = torch.func.jvp(layer.to_dense(), (x,), (t,))
    for _ in range(2):
        assert all(map(torch.equal, torch.func.jvp(layer, (x,), (t,)), expected))
        layer(x)  # prepared


@pytest.mark.parametrize("method", METHODS)
def test_vmap_of_no_elements(method):
    layer, x = layer_and_map(method)
    out = torch.vmap(lambda x: jsc.functional.conv2d(x, layer.weight, method=method), 2)(
        torch.empty(2, 20, 0, 9, 9)
    )
    assert out.shape == (0, 2, 17, 7, 7)
    assert out.dtype == x.dtype
