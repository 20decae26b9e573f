"""At the precision "bf16" maps between layers are stored as bfloat16, where whatever writes and
reads them can."""

import pytest
import torch
import torch.nn.functional as F
from compiled_networks import compiled, operations
from random_networks import RandomNetwork, randomise
from torch import nn

import jsc
from jsc import _config
from jsc.network.accuracy import measure
from jsc.network.graph import Convolution, TorchCall

pytestmark = pytest.mark.skipif(not _config.bf16(), reason="this CPU multiplies no bfloat16")


class Residual(nn.Module):
    def __init__(self, act=nn.ReLU):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.a, self.b = nn.Conv2d(32, 48, 1), nn.Conv2d(48, 48, 3, padding=1, groups=48)
        self.c, self.act = nn.Conv2d(48, 32, 1), act()
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, 32, 1), nn.Sigmoid())
        self.d, self.head = nn.Conv2d(64, 40, 3, padding=1), nn.Linear(40, 7)

    def forward(self, x):
        x = self.pool(self.stem(x))
        y = F.relu(x + self.c(F.relu(self.b(F.relu(self.a(x))))))
        y = torch.cat([y * self.gate(y), x], 1)
        y = self.act(self.d(y))
        return self.head(F.adaptive_avg_pool2d(y, 1).flatten(1))


X = (3, 3, 40, 36)


def stored(net):
    """For each map that an operation writes: is it bfloat16?"""
    return {o: o.out.root.bf16 for o in operations(net)}


def test_all_maps_between_layers_are_and_take_half_the_memory():
    model, x = randomise(Residual()), torch.randn(X)
    net, exact = compiled(model, x, precision="bf16"), compiled(model, x)
    halves = stored(net)
    # Float32 are the image, what the last pool and the linear layer write.
    others = [o.kind for o, half in halves.items() if not half]
    assert others == ["copy", "adaptivepool", "linear"]
    assert not any(stored(exact).values())
    assert net.memory()[0] < 0.7 * exact.memory()[0]
    out, expected = net(x), exact(x)
    assert out.dtype == torch.float32
    assert 1e-5 < (out - expected).abs().max() / expected.abs().max() < 2e-2


def test_the_error_is_that_of_rounded_operands():
    model, x = randomise(Residual()), torch.randn(X)
    net = compiled(model, x, precision="bf16")
    accuracy = measure(model, net(x), (x,), {}, net.precision)
    assert accuracy.error <= 2 * accuracy.torch_error


@pytest.mark.parametrize("seed", range(8))
def test_random_networks(seed):
    model, x = randomise(RandomNetwork(seed)), torch.randn(2, 3, 13, 11)
    net = compiled(model, x, precision="bf16")
    accuracy = measure(model, net(x), (x,), {}, net.precision)
    assert accuracy.error <= 3 * accuracy.torch_error


@pytest.mark.parametrize("seed", range(4))
def test_threads_and_batches_keep_the_bits(threads, seed):
    model, x = randomise(RandomNetwork(seed)), torch.randn(4, 3, 13, 11)
    net = compiled(model, x, precision="bf16")
    threads(1)
    outs = [o.clone() for o in net(x)]
    for count in (2, 3):
        threads(count)
        assert all(map(torch.equal, net(x), outs))
    for i in range(4):
        assert all(torch.equal(a[0], b[i]) for a, b in zip(net(x[i : i + 1]), outs, strict=True))


@pytest.mark.parametrize("method", ["direct_bf16", "winograd2x2", "winograd2x4", "winograd4x4"])
def test_by_each_method(method):
    model = randomise(
        nn.Sequential(*(nn.Conv2d(24, 24, 3, padding=1) for _ in range(3)), nn.Flatten())
    )
    x = torch.randn(2, 24, 10, 9)
    net = compiled(model, x, precision="bf16", plan={f"{i}.weight": method for i in range(3)})
    assert net.methods() == {method: 3}
    convolutions = [o for o in operations(net) if isinstance(o, Convolution)]
    assert [o.out.root.bf16 for o in convolutions] == [True, True, False]
    exact = model.double()(x.double())
    assert (net(x) - exact).abs().max() < 2e-2 * exact.abs().max()


def test_what_reads_sparse_maps_or_runs_in_torch_gets_float32():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(16, 32, 1), nn.Conv2d(32, 32, 1)
            self.c, self.d = nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 1)

        def forward(self, x):
            x = F.relu(self.b(F.relu(self.a(x))))
            return self.d(torch.special.i0e(self.c(x)))

    model, x = randomise(Mixed()), torch.randn(1, 16, 8, 8)
    net = compiled(model, x, precision="bf16", plan={"b.weight": "cpc"})
    assert any(isinstance(o, TorchCall) for o in operations(net))
    assert not any(stored(net).values())
    assert any(stored(compiled(model, x, precision="bf16")).values())


def test_layers_at_another_precision_keep_float32():
    conv = torch.backends.mkldnn.conv
    before = conv.fp32_precision
    model = randomise(nn.Sequential(nn.Conv2d(16, 24, 1), nn.Conv2d(24, 24, 1)))
    conv.fp32_precision = "tf32"
    try:
        net = compiled(model, torch.randn(1, 16, 8, 8))
    finally:
        conv.fp32_precision = before
    assert not any(stored(net).values())


def test_nothing_finite_is_lost_and_nan_and_inf_stay():
    model = randomise(nn.Sequential(nn.Conv2d(4, 32, 1), nn.Conv2d(32, 32, 1), nn.MaxPool2d(2)))
    x = torch.randn(1, 4, 8, 8)
    x[0, 0, 0, 0], x[0, 1, 4, 4] = float("nan"), float("inf")
    out = compiled(model, x, precision="bf16")(x)
    with torch.no_grad():
        assert torch.equal(out.isfinite(), model(x).isfinite())


def test_a_profile_and_a_file_take_such_maps(tmp_path):
    model, x = randomise(Residual()), torch.randn(X)
    net = jsc.compile(model, x, precision="bf16", budget=0.3, progress=False, check=False)
    assert "in all" in str(net.profile(x, repeats=1))
    net.save(tmp_path / "net.jsc")
    loaded = jsc.load(tmp_path / "net.jsc")
    assert list(stored(loaded).values()) == list(stored(net).values())
    assert torch.equal(loaded(x), net(x))


def test_instruction_sets_without_bfloat16_have_float32_maps(isa):
    if isa == "avx512":
        pytest.skip("it has them")
    net = compiled(randomise(Residual()), torch.randn(X), precision="bf16")
    assert not any(stored(net).values())
