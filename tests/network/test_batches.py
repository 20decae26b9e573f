"""A batch in parts: the bits of the whole, and parts where they save bytes to and from memory."""

import pytest
import torch
import torch.nn.functional as F
from random_networks import RandomNetwork, randomise
from torch import nn

import jsc
from jsc.network import batches
from jsc.network.graph import TorchCall


def program_of(net):
    return next(reversed(net._programs.values()))


def compiled(model, x, **options):
    return jsc.compile(model, x, **{"budget": 0.0, "check": False, "progress": False} | options)


def in_parts(net, monkeypatch, images):
    """Plans the network again, for parts of so many images."""
    monkeypatch.setattr(batches, "images_together", lambda graph, for_tuning=False: images)
    net._programs.clear()
    net._last = None


@pytest.mark.parametrize("images", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_parts_have_the_bits_of_the_whole(isa, threads, seed, images, monkeypatch):
    model, x = randomise(RandomNetwork(seed)), torch.randn(5, 3, 13, 11)
    net = compiled(model, x)
    whole = [y.clone() for y in net(x)]
    in_parts(net, monkeypatch, images)
    for count in (1, 2, 3):
        threads(count)
        for expected, y in zip(whole, net(x), strict=True):
            assert torch.equal(y, expected)
            assert y.stride() == expected.stride()
    starts = {1: [0, 1, 2, 3, 4], 2: [0, 2, 3], 3: [0, 2], 4: [0, 1]}[images]
    assert program_of(net).starts == starts


@pytest.mark.parametrize("seed", range(4))
def test_channels_last_batches(seed, monkeypatch):
    model = randomise(RandomNetwork(seed))
    x = torch.randn(5, 3, 13, 11).contiguous(memory_format=torch.channels_last)
    net = compiled(model, x)
    whole = [y.clone() for y in net(x)]
    in_parts(net, monkeypatch, 2)
    for expected, y in zip(whole, net(x), strict=True):
        assert torch.equal(y, expected)
        assert y.stride() == expected.stride()


class Several(nn.Module):
    """Two inputs, of an image and a vector; outputs of every form, an input among them."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.scale, self.line = nn.Linear(6, 8), nn.Conv1d(6, 4, 3, padding=1)

    def forward(self, x, vector):
        y = F.relu(self.conv(x)) * torch.sigmoid(self.scale(vector))[:, :, None, None]
        return {
            "map": y, "flat": y.flatten(1), "line": self.line(vector[:, :, None]), "number": 3,
            "same": vector, "last": y.permute(0, 2, 3, 1), "pooled": y.mean((2, 3)),
        }  # fmt: skip


def test_several_inputs_and_outputs_of_every_form(monkeypatch):
    given = torch.randn(7, 3, 6, 5), torch.randn(7, 6)
    net = compiled(Several().eval(), given)
    whole = {k: y.clone() if isinstance(y, torch.Tensor) else y for k, y in net(*given).items()}
    assert not any(isinstance(o, TorchCall) for o in program_of(net).graph.operations)
    in_parts(net, monkeypatch, 3)
    for name, y in net(*given).items():
        assert torch.equal(y, whole[name]) if name != "number" else y == 3
    assert program_of(net).starts == [0, 3, 4]


def wide(images, size=160):
    """Large maps and few weights: 64 channels of 160 x 160 pixels are 6.5 MB an image."""
    layers = [nn.Conv2d(3, 64, 1), nn.ReLU(), nn.Conv2d(64, 4, 1), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten()).eval(), torch.randn(images, 3, size, size)


def test_large_maps_go_two_by_two():
    model, x = wide(4)
    net = compiled(model, x)
    assert program_of(net).images == 2
    assert "the batch goes through it in 2 parts of 2" in str(net)
    assert net.memory()[0] < 3 * 64 * 160 * 160 * 4  # bytes: there is room for two images
    with torch.no_grad():
        torch.testing.assert_close(net(x), model(x), rtol=1e-4, atol=1e-5)


def test_maps_that_fit_go_together():
    model, x = wide(4, 16)
    assert program_of(compiled(model, x)).images == 4


def test_heavy_weights_go_together():
    """The maps leave the cache, but weights, read again for each image, would be more."""
    model, x = wide(4)
    model.extend([nn.Linear(4, 4096), nn.Linear(4096, 4608)])
    assert program_of(compiled(model, x)).images == 4


class WithTorch(nn.Module):
    """Torch's operator turns the images of the batch round."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 64, 1), nn.Conv2d(64, 4, 1)

    def forward(self, x):
        return self.second(self.first(x).flip(0)).mean((2, 3))


def test_torch_sees_the_whole_batch():
    model, x = WithTorch().eval(), torch.randn(4, 3, 160, 160)
    net = compiled(model, x)
    assert program_of(net).images == 4
    with torch.no_grad():
        torch.testing.assert_close(net(x), model(x), rtol=1e-4, atol=1e-5)


class Shared(nn.Module):
    """One vector for all images."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 64, 1), nn.Conv2d(64, 4, 1)

    def forward(self, x, scale):
        return self.second(self.first(x) * scale).mean((2, 3))


def test_an_input_for_all_images_keeps_them_together():
    model = Shared().eval()
    given = torch.randn(4, 3, 160, 160), torch.randn(1, 64, 1, 1)
    net = compiled(model, given)
    assert program_of(net).images == 4
    with torch.no_grad():
        torch.testing.assert_close(net(*given), model(*given), rtol=1e-4, atol=1e-5)


def test_tuning_profile_and_files(monkeypatch, tmp_path):
    model, x = wide(4)
    monkeypatch.setattr(batches, "TUNING_MACS", 1)
    net = compiled(model, x, budget=5.0)
    assert "2.weight" in net.plan
    profile = net.profile(x, repeats=1)
    assert len(profile.rows) == len(program_of(net).graph.operations)
    net.save(tmp_path / "net.jsc")
    loaded = jsc.load(tmp_path / "net.jsc")
    assert torch.equal(loaded(x), net(x))
    assert program_of(loaded).images == 2


@pytest.mark.parametrize("images", [0, 1])
def test_batches_of_none_and_one(images):
    model, x = wide(2, 8)
    net = compiled(model, x)
    assert net(x[:images]).shape == (images, 4)


def test_tuning_takes_a_part_of_much_work(monkeypatch):
    """As long as an image has no more than TUNING_MACS."""
    model, x = wide(8, 16)
    graph = program_of(compiled(model, x)).graph
    macs = 16 * 16 * 64 * (3 + 4)
    for most, images in ((1 << 40, 8), (3 * macs, 3), (macs, 1), (1, 1)):
        monkeypatch.setattr(batches, "TUNING_MACS", most)
        assert batches.images_together(graph, for_tuning=True) == images
        assert batches.images_together(graph) == 8
