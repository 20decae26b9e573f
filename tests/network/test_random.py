"""Random networks: the compiled network computes what torch does, on each instruction set, for
every number of threads with the same bits, whatever the batch."""

import pytest
import torch
from random_networks import RandomNetwork, errors, randomise
from torch import nn

import jsc
from jsc import _config
from jsc.network import tune
from jsc.network.choices import TILES

X = (2, 3, 13, 11)


def outputs(net, x):
    logits, value = net(x)
    return logits.clone(), value.clone()


@pytest.mark.parametrize("seed", range(20))
def test_is_as_exact_as_torch(isa, seed):
    model = randomise(RandomNetwork(seed))
    x = torch.randn(X)
    net = jsc.compile(model, x, budget=0.0, check=False)
    error, torch_error = errors(net(x), model, x)
    assert error <= max(2 * torch_error, 2e-6)


@pytest.mark.parametrize("seed", range(6))
def test_threads_and_batches_keep_the_bits(isa, threads, seed):
    model = randomise(RandomNetwork(seed))
    x = torch.randn(4, *X[1:])
    net = jsc.compile(model, x, budget=0.0, check=False)
    threads(1)
    logits, value = outputs(net, x)
    for count in (2, 3):
        threads(count)
        again = outputs(net, x)
        assert torch.equal(again[0], logits)
        assert torch.equal(again[1], value)
    for i in range(4):
        one = outputs(net, x[i : i + 1])
        assert torch.equal(one[0][0], logits[i])
        assert torch.equal(one[1][0], value[i])


@pytest.mark.parametrize("method", ["cpc", "amx"])
@pytest.mark.parametrize("seed", range(8))
def test_every_convolution_that_can_by_one_method(isa, threads, seed, method):
    """As exact as torch, the same bits."""
    if method == "amx" and not _config.amx():
        pytest.skip("this CPU has no AMX tiles")
    model = randomise(RandomNetwork(seed))
    x = torch.randn(4, *X[1:])
    names = [name for name, part in model.named_modules() if isinstance(part, nn.Conv2d)]
    everything = {f"{name}.weight": method for name in names}
    net = jsc.compile(model, x, plan=everything, check=False)
    if method == "cpc":
        assert net.methods().get(method, 0) or not any(
            part.in_channels >= 16 and part.groups == 1
            for part in model.modules() if isinstance(part, nn.Conv2d)
        )  # fmt: skip
    threads(1)
    logits, value = outputs(net, x)
    error, torch_error = errors((logits, value), model, x)
    assert error <= max(2 * torch_error, 2e-6)
    threads(3)
    assert all(torch.equal(a, b) for a, b in zip(outputs(net, x), (logits, value), strict=True))
    one = outputs(net, x[2:3])
    assert torch.equal(one[0][0], logits[2])
    assert torch.equal(one[1][0], value[2])


def test_weights_that_are_not_finite_do_not_pass_over_zeros():
    """torch's 0 times inf is NaN."""
    model = randomise(nn.Sequential(nn.ReLU(), nn.Conv2d(16, 8, 3)))
    x = torch.randn(1, 16, 9, 9)
    net = jsc.compile(model, x, plan={"1.weight": "cpc"}, check=False)
    assert net.methods() == {"cpc": 1}
    before = net(x)
    good = model[1].weight[3, 4, 1, 1].item()
    with torch.no_grad():
        model[1].weight[3, 4, 1, 1] = float("inf")
    with pytest.raises(ValueError, match="must have finite weights"):
        net.refresh(model)
    assert torch.equal(net(x), before)
    again = jsc.compile(model, x, plan={"1.weight": "cpc"}, check=False)
    assert again.methods() == {"grouped": 1}
    torch.testing.assert_close(again(x), model(x), equal_nan=True)
    with torch.no_grad():
        model[1].weight[3, 4, 1, 1] = 2 * good
    net.refresh(model)
    torch.testing.assert_close(net(x), model(x))


@pytest.mark.parametrize("seed", range(8))
def test_channels_last_input_gives_channels_last_output(seed):
    model = randomise(RandomNetwork(seed))
    x = torch.randn(X).contiguous(memory_format=torch.channels_last)
    net = jsc.compile(model, x, budget=0.0, check=False)
    error, torch_error = errors(net(x), model, x)
    assert error <= max(2 * torch_error, 2e-6)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("alone", [True, False])
def test_a_result_that_the_model_makes_channels_last(batch, alone):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x):
            y = self.conv(x).contiguous(memory_format=torch.channels_last)
            return y if alone else (y, y.relu())

    model, x = randomise(Last()), torch.randn(batch, 3, 9, 9)
    found = jsc.compile(model, x, budget=0.0, check=False)(x)
    torch.testing.assert_close(found, model(x), rtol=1e-4, atol=1e-5)
    y = found if alone else found[0]
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("groups", "width"), [(8, 4), (5, 8), (16, 2), (3, 16)])
def test_groups_that_share_a_vector(isa, groups, width):
    channels = groups * width
    model = nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=groups), nn.BatchNorm2d(channels),
        nn.ReLU(), nn.Conv2d(channels, channels, (5, 3), 2, groups=groups), nn.SiLU(),
    )  # fmt: skip
    model, x = randomise(model), torch.randn(2, channels, 17, 19)
    net = jsc.compile(model, x, budget=0.0, check=False)
    error, torch_error = errors(net(x), model, x)
    assert error <= max(2 * torch_error, 2e-6)
    assert net.methods() == {"grouped": 2}


def test_nan_stays_in_its_group(isa):
    model = randomise(nn.Sequential(nn.Conv2d(32, 32, 3, padding=1, groups=8)))
    x = torch.randn(1, 32, 9, 9)
    x[0, 5, 2, 3], x[0, 30, 7, 7] = float("nan"), float("inf")
    net = jsc.compile(model, x, budget=0.0, check=False)
    assert net.methods() == {"grouped": 1}
    torch.testing.assert_close(net(x), model(x), rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("seed", range(6))
def test_tuned_methods_stay_exact(isa, seed):
    model = randomise(RandomNetwork(seed))
    x = torch.randn(2, 3, 32, 32)
    net = jsc.compile(model, x, budget=5.0, check=False)
    error, torch_error = errors(net(x), model, x)
    assert error <= max(4 * torch_error, 4e-6)


@pytest.mark.parametrize("seed", range(6))
def test_nan_and_inf_come_out_where_torch_has_them(isa, seed):
    model = randomise(RandomNetwork(seed))
    x = torch.randn(X)
    net = jsc.compile(model, x, budget=0.0, check=False)
    for number in (float("nan"), float("inf")):
        bad = x.clone()
        bad[0, 1, 4, 5] = number
        ours, theirs = net(bad)[1], model(bad)[1]
        assert torch.equal(ours.isnan() | ours.isinf(), theirs.isnan() | theirs.isinf())


@pytest.mark.parametrize("tile", list(TILES))
def test_nan_and_inf_stay_in_their_windows_with_winograd(isa, threads, tile):
    """A transform mixes a tile's pixels; outputs that do not see the number must stay numbers."""
    threads(2)
    model = randomise(nn.Sequential(nn.Conv2d(9, 21, 3, padding=1), nn.BatchNorm2d(21)))
    x = torch.randn(2, 9, 10, 11)
    net = jsc.compile(model, x, plan={"0.weight": tile}, check=False)
    assert net.methods() == {tile: 1}
    for number in (float("nan"), float("inf"), -float("inf")):
        bad = x.clone()
        bad[0, 3, 4, 5] = number
        torch.testing.assert_close(net(bad), model(bad), rtol=1e-3, atol=1e-4, equal_nan=True)
    # A transform of so large a number overflows; a tile's error is that of its largest number.
    bad[0, 3, 4, 5] = 1e38
    torch.testing.assert_close(net(bad), model(bad), rtol=0, atol=1e-5 * 1e38)


@pytest.mark.parametrize("method", ["direct", "cpc"])
@pytest.mark.parametrize(("channels", "kernel"), [(1500, 1), (300, 3), (150, (1, 7))])
def test_sums_over_many_channels_are_as_exact_as_torchs(isa, channels, kernel, method):
    """A chain of additions loses more the longer it is."""
    torch.manual_seed(0)
    model = nn.Conv2d(channels, 40, kernel, bias=False).eval()
    x = torch.randn(1, channels, 6, 9)
    net = jsc.compile(model, x, plan={"weight": method}, check=False)
    with torch.no_grad():
        ours, theirs = net(x), model(x)
        exact = model.double()(x.double())
    error, torch_error = ((y - exact).square().mean().sqrt() for y in (ours, theirs))
    assert net.methods() == {method: 1}
    assert error <= 1.5 * torch_error


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_methods_of_maps_of_few_rows_are_checked(isa, rows, monkeypatch):
    """Fewer rows than a check has otherwise; any method but the rule's counts as the faster one."""
    monkeypatch.setattr(tune, "GAIN", 1e9)
    monkeypatch.setattr(tune, "SPARSE_GAIN", 1e9)
    model = randomise(nn.Sequential(nn.ReLU(), nn.Conv2d(16, 40, 1)))
    x = torch.randn(2, 16, rows, 5)
    net = jsc.compile(model, x, budget=5.0, check=False, progress=False)
    assert net.methods() == {"cpc": 1} or _config.amx()
    torch.testing.assert_close(net(x), model(x), rtol=1e-4, atol=1e-5)
