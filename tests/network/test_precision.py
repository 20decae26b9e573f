"""`precision=`: a permission to round the operands of convolutions and linear layers."""

import pytest
import torch
from compiled_networks import X, compiled, operations, small
from torch import nn

import jsc
from jsc import _config
from jsc._precision import Precision, rounded
from jsc.network.accuracy import Rounding, largest_error
from jsc.network.graph import Convolution, Linear

BITS = {"ieee": 24, "tf32": 11, "bf16": 8}


@pytest.fixture
def switches():
    """torch's switches, as they were afterwards."""
    conv, matmul = torch.backends.mkldnn.conv, torch.backends.mkldnn.matmul
    before = conv.fp32_precision, matmul.fp32_precision
    yield conv, matmul
    conv.fp32_precision, matmul.fp32_precision = before


def wide():
    """Where each precision has a method of its own on the CPUs that have one."""
    return nn.Sequential(
        nn.Conv2d(32, 48, 3, padding=1), nn.ReLU(), nn.Conv2d(48, 40, 1), nn.BatchNorm2d(40),
        nn.ReLU(), nn.Conv2d(40, 33, 3, 2, 1), nn.Flatten(), nn.Linear(33 * 49, 12),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("precision", BITS)
def test_error_is_that_of_rounded_operands(precision):
    model, x = wide(), torch.randn(3, 32, 14, 14)
    net = jsc.compile(model, x, precision=precision, progress=False)
    assert net.precision == (precision, precision)
    assert net.accuracy.error <= max(2 * net.accuracy.torch_error, 1e-6)
    with torch.no_grad():
        exact = model.double()(x.double())
    error = largest_error(net(x), exact) / exact.abs().max().item()
    assert error < 2.0 ** (2 - BITS[precision]) + 2e-6  # sums are float32
    assert ("precision" in str(net)) == (precision != "ieee")


def test_bf16_is_used_where_the_cpu_has_it():
    if not (_config.bf16() or _config.amx()):
        pytest.skip("this CPU multiplies no bfloat16")
    model, x = wide(), torch.randn(1, 32, 14, 14)
    exact, fast = compiled(model, x, precision="ieee"), compiled(model, x, precision="bf16")
    assert ("amx" if _config.amx() else "direct_bf16") in fast.methods()
    error = ((fast(x) - exact(x)).abs().max() / exact(x).abs().max()).item()
    assert 1e-4 < error < 0.05


def test_linear_layers_have_weights_of_bf16_whatever_the_batch():
    layer, x = nn.Linear(203, 37), torch.randn(9, 203)
    net = compiled(layer, x, precision="bf16")
    with torch.no_grad():
        expected = x.double() @ rounded(layer.weight, "bf16").T.double() + layer.bias.double()
    assert largest_error(net(x), expected) < 1e-5
    for rows in (1, 2, 3, 5):
        assert torch.equal(net(x[:rows]), net(x)[:rows])


def test_none_is_what_torchs_switches_say_when_it_compiles(switches):
    conv, matmul = switches
    model, x = small(), torch.randn(X)
    assert compiled(model, x).precision == Precision("ieee", "ieee")
    conv.fp32_precision = "bf16"
    net = compiled(model, x)
    matmul.fp32_precision = "tf32"
    assert net.precision == Precision("bf16", "ieee")
    assert compiled(model, x).precision == Precision("bf16", "tf32")
    assert compiled(model, x, precision="ieee").precision == Precision("ieee", "ieee")
    conv.fp32_precision = "none"
    out = net(x)
    net(torch.randn(5, 3, 16, 16))  # planned now, at the precision of then
    assert torch.equal(net(x), out)


@pytest.mark.parametrize("precision", ["float32", "bf16x3", 1, torch.bfloat16, True])
def test_another_word_is_refused(precision):
    with pytest.raises(ValueError, match="'ieee', 'tf32', 'bf16'"):
        jsc.compile(small(), torch.randn(X), precision=precision)


@pytest.mark.parametrize("precision", BITS)
def test_refresh_save_and_load_keep_it(tmp_path, precision):
    model, x = small(), torch.randn(X)
    net = compiled(model, x, precision=precision)
    net.save(tmp_path / "net.jsc")
    loaded = jsc.load(tmp_path / "net.jsc")
    assert loaded.precision == net.precision
    assert torch.equal(loaded(x), net(x))
    other = small()
    net.refresh(other)
    assert torch.equal(net(x), compiled(other, x, precision=precision)(x))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 3.4e38])
def test_weights_without_bfloat16_stay_float32(bad):
    model = wide()
    with torch.no_grad():
        model[0].weight[3, 2, 1, 1] = bad
    net = compiled(model, torch.randn(1, 32, 14, 14), precision="bf16")
    convolutions = [o for o in operations(net) if isinstance(o, Convolution)]
    program = next(iter(net._programs.values()))
    assert program.method(convolutions[0]) in ("direct", "grouped")
    assert any(isinstance(o, Linear) for o in operations(net))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_same_bits_for_every_number_of_threads(threads):
    model, x = wide(), torch.randn(2, 32, 14, 14)
    before = torch.get_num_threads()
    nets = [compiled(model, x, precision=p) for p in BITS]
    outs = [net(x) for net in nets]
    torch.set_num_threads(threads)
    try:
        assert all(torch.equal(net(x), out) for net, out in zip(nets, outs, strict=True))
    finally:
        torch.set_num_threads(before)


def test_numbers_are_rounded_to_the_nearest_even():
    x = torch.cat([torch.randn(2000) * 10.0**k for k in range(-30, 30, 6)])
    x = torch.cat([x, torch.tensor([1.00390625, 1.01171875, 0.0, -0.0, 3.4e38])])
    assert torch.equal(rounded(x, "bf16"), x.bfloat16().float())
    assert torch.equal(rounded(x, "ieee"), x)
    tf32 = rounded(x, "tf32")
    assert bool((tf32.view(torch.int32) & 0x1FFF == 0).all())
    assert bool(((tf32 - x).abs() <= 2.0**-11 * x.abs())[:-1].all())
    special = torch.tensor([float("nan"), float("inf"), -float("inf")])
    assert torch.equal(rounded(special, "tf32").nan_to_num(1), special.nan_to_num(1))


def test_the_reference_rounds_the_operands_of_convolutions_and_linear_layers():
    model, x = small(), torch.randn(X)
    with torch.no_grad(), Rounding(Precision("bf16", "ieee")):
        ours = model[0](x)
        linear = model[7](x.new_ones(1, 24 * 64) * 1.001)
    conv = model[0]
    expected = torch.conv2d(rounded(x, "bf16"), rounded(conv.weight, "bf16"), conv.bias, 1, 1)
    assert torch.equal(ours, expected)
    assert torch.equal(linear, model[7](x.new_ones(1, 24 * 64) * 1.001))
