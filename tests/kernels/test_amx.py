"""amx: dense float32 convolution on AMX tiles."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from strategies import conv_cases

import jsc
from jsc import _config
from jsc._geometry import ConvGeometry
from jsc._kernels.amx import amx as kernel
from jsc.ops import amx

needs_amx = pytest.mark.skipif(not _config.amx(), reason="this CPU has no AMX tiles")
fixtures = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def geometry(case, x, w):
    return ConvGeometry(
        *x.shape, w.shape[0], *w.shape[2:], *case.stride, *case.padding, *case.dilation
    )


def run(x, w, b, g):
    return amx.Convolution(amx.pack(w, g), b, g)(x)


@given(case=conv_cases(groups=1))
def test_packed_weights_are_the_weights(case):
    x, w, _ = case.tensors(torch.float32, integer=False)
    g = geometry(case, x, w)
    assert torch.equal(amx.unpack(amx.pack(w, g), g), w)


@needs_amx
@fixtures
@given(case=conv_cases(groups=1))
def test_integers_are_exact(num_threads, case):
    x, w, b = case.tensors(torch.float32, integer=True)
    x = 1000 * x  # more than the eight bits of one bfloat16
    out = run(x, w, b, geometry(case, x, w))
    assert torch.equal(out, case.by_torch(x, w, b))
    assert out.is_contiguous(memory_format=torch.channels_last)


@needs_amx
@fixtures
@given(case=conv_cases(groups=1))
def test_error_is_that_of_float32(num_threads, case):
    """Six products and their sums instead of one: n' = 6 n + 6 roundings and what is left out."""
    x, w, b = case.tensors(torch.float32, integer=False)
    out = run(x, w, b, geometry(case, x, w)).double()
    exact = F.conv2d(x.double(), w.double(), b if b is None else b.double(), **case.arguments)
    size = F.conv2d(
        x.double().abs(), w.double().abs(), b if b is None else b.double().abs(), **case.arguments
    )
    n = w[0].numel()
    assert bool(((out - exact).abs() <= (6 * n + 6 + 4) * 2.0**-24 * size).all())


@pytest.fixture
def switch():
    """torch's switch for convolutions, as it was afterwards."""
    conv = torch.backends.mkldnn.conv
    before = conv.fp32_precision

    def to(word):
        conv.fp32_precision = word

    yield to
    conv.fp32_precision = before


@needs_amx
@fixtures
@given(case=conv_cases(groups=1))
def test_precision_is_that_of_torchs_switch(switch, case):
    """The operands of tf32 have two pieces of eight bits, those of bf16 one."""
    x, w, b = case.tensors(torch.float32, integer=False)
    g = geometry(case, x, w)
    exact = F.conv2d(x.double(), w.double(), b if b is None else b.double(), **case.arguments)
    size = F.conv2d(
        x.double().abs(), w.double().abs(), b if b is None else b.double().abs(), **case.arguments
    )
    sums = (3 * w[0].numel() + 4) * 2.0**-24
    outs = {}
    for word, allowed in (("none", 2.0**-22), ("tf32", 2.0**-14), ("bf16", 2.0**-6.9)):
        switch(word)
        outs[word] = run(x, w, b, g)
        assert bool(((outs[word] - exact).abs() <= (allowed + 2 * sums) * size).all()), word
    switch("ieee")
    assert torch.equal(run(x, w, b, g), outs["none"])


@needs_amx
@pytest.mark.parametrize("word", ["tf32", "bf16"])
def test_precisions_differ(switch, word):
    x, w = torch.randn(1, 64, 12, 12), torch.randn(48, 64, 3, 3)
    g = ConvGeometry(1, 64, 12, 12, 48, 3, 3, 1, 1, 1, 1)
    exact = run(x, w, None, g)
    switch(word)
    error = ((run(x, w, None, g) - exact).abs().max() / exact.abs().max()).item()
    least, most = {"tf32": (1e-7, 3e-5), "bf16": (3e-4, 1e-2)}[word]
    assert least < error < most


@needs_amx
@pytest.mark.parametrize(
    ("kernel", "stride"), [((1, 1), 1), ((3, 3), 1), ((3, 2), 2), ((1, 7), 3), ((1, 1), 2)]
)
def test_tails(kernel, stride):
    for channels in (1, 3, 4, 7, 16, 31, 32, 48, 65):
        for filters in (1, 16, 17, 32, 50):
            x = torch.randint(-3000, 3001, (2, channels, 9, 13)).float()
            w = torch.randint(-4, 5, (filters, channels, *kernel)).float()
            g = ConvGeometry(*x.shape, filters, *kernel, stride, stride, 1, 2)
            expected = F.conv2d(x, w, None, stride, (1, 2))
            assert torch.equal(run(x, w, None, g), expected), (channels, filters)


@needs_amx
@pytest.mark.parametrize(
    ("channels", "kernel"), [(40, (3, 3)), (3, (5, 5)), (16, (3, 3)), (64, (1, 1))]
)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("heavy", [False, True])
def test_bands_threads_and_batch_do_not_change_a_bit(channels, kernel, stride, heavy, monkeypatch):
    monkeypatch.setattr(amx, "WEIGHT_BYTES", 0 if heavy else amx.WEIGHT_BYTES)
    x = torch.randn(3, channels, 21, 19)
    w, b = torch.randn(48, channels, *kernel), torch.randn(48)
    g = ConvGeometry(*x.shape, 48, *kernel, stride, stride, 1, 1)
    whole = run(x, w, b, g)
    torch.testing.assert_close(whole, F.conv2d(x, w, b, stride, 1), atol=2e-4, rtol=1e-4)
    monkeypatch.setattr("jsc._config.SERIAL_WORK", 0)
    before = torch.get_num_threads()
    for planes in (1, 30_000, amx.PLANES_BYTES):
        monkeypatch.setattr(amx, "PLANES_BYTES", planes)
        monkeypatch.setattr(amx, "SHARED_BYTES", planes)
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(run(x, w, b, g), whole)
            assert torch.equal(run(x[1:2], w, b, g._replace(N=1)), whole[1:2])
    torch.set_num_threads(before)


@needs_amx
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 3.4e38])
def test_inputs_without_three_pieces_go_the_dense_way(bad, num_threads):
    x, w = torch.randn(1, 20, 11, 9), torch.randn(8, 20, 3, 3) / 100
    x[0, 3, 4, 5] = bad
    g = ConvGeometry(*x.shape, 8, 3, 3, 1, 1, 1, 1)
    last = x.contiguous(memory_format=torch.channels_last)
    out, expected = run(x, w, None, g), F.conv2d(last, w, None, 1, 1)
    torch.testing.assert_close(out, expected, equal_nan=True, atol=1e-5, rtol=1e-5)


@needs_amx
def test_small_numbers_lose_no_more_than_tiny():
    x, w = torch.tensor([1e-38, 1e-33, 1e-25]).view(3, 1, 1, 1), torch.full((1, 1, 1, 1), 0.3)
    g = ConvGeometry(3, 1, 1, 1, 1, 1, 1)
    error = (run(x, w, None, g).double() - x.double() * w.double()).abs()
    assert float(error[:2].max()) < 2.0**-126
    assert float(error[2]) < 2.0**-22 * 3e-26


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 3.4e38])
def test_weights_without_three_pieces_go_the_dense_way(bad):
    assert not amx.takes(torch.tensor([1.0, bad]))
    assert not amx.takes(torch.ones(1, dtype=torch.float64))
    assert amx.takes(torch.tensor([1e-45, -3.38e38, 0.0]))


@needs_amx
def test_layer_runs_it_and_float64_is_dense():
    layer = torch.nn.Conv2d(20, 24, 3, padding=1)
    fast = jsc.nn.SparseConv2d.from_dense(layer, method="amx")
    x = torch.randn(2, 20, 10, 10)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), layer(x), atol=1e-5, rtol=1e-5)
        assert not torch.equal(fast(x), layer(x))  # it did run
        assert torch.equal(fast.double()(x.double()), layer.double()(x.double()))


def test_without_amx_it_is_refused_in_words_and_the_layer_is_dense(monkeypatch):
    monkeypatch.setattr(_config, "_amx", False)
    x, layer = torch.randn(1, 4, 5, 5), torch.nn.Conv2d(4, 4, 3)
    with pytest.raises(ValueError, match="AMX"):
        jsc.functional.conv2d(x, layer.weight.detach(), method="amx")
    with torch.no_grad():
        fast = jsc.nn.SparseConv2d.from_dense(layer, method="amx")
        assert torch.equal(fast(x), layer(x))


def test_a_field_that_is_missing_is_an_error():
    with pytest.raises(ValueError, match="No value specified for struct attribute"):
        kernel.Convolution({"N": 1, "C": 3})


def test_a_padded_bias_is_float32_whatever_the_default(monkeypatch):
    monkeypatch.setattr(amx.Convolution, "_kernel", lambda self, pieces: SimpleNamespace(steps=1))
    w, g = torch.randn(3, 2, 1, 1), ConvGeometry(1, 2, 4, 4, 3, 1, 1)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            made = amx.Convolution(
                amx.pack(w, g), torch.ones(3, dtype=torch.float32, device="cpu"), g
            )
            assert torch.equal(amx.unpack(made._packed, g), w)
    finally:
        torch.set_default_dtype(torch.float32)
    assert made._bias.dtype == torch.float32
    assert made._bias.tolist() == [1.0] * 3 + [0.0] * 29
