"""Maps whose pixels are counted otherwise: (N, C, H, W) as tokens (N, H W, C) and back costs
nothing, and nothing becomes wrong by it."""

import random

import pytest
import torch
import torch.nn.functional as F
from random_networks import errors, randomise
from torch import nn

import jsc
from jsc.network.graph import TorchCall, Value


class Mixer(nn.Module):
    """The feed-forward part of many transformers for images: linear, depthwise, GELU, linear."""

    def __init__(self, C, wide):
        super().__init__()
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(C), nn.Linear(C, wide), nn.Linear(wide, C)
        self.depthwise = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)

    def forward(self, tokens, size):
        N = tokens.shape[0]
        x = self.fc1(self.norm(tokens))
        x = self.depthwise(x.transpose(1, 2).view(N, -1, *size))
        return tokens + self.fc2(F.gelu(x.flatten(2).transpose(1, 2)))


class LinearNorm(nn.Module):
    """A linear layer and a batch-norm over all tokens of all images, as LeViT has them."""

    def __init__(self, C):
        super().__init__()
        self.linear, self.norm = nn.Linear(C, C, bias=False), nn.BatchNorm1d(C)

    def forward(self, tokens, size):
        x = self.linear(tokens)
        return F.hardswish(self.norm(x.flatten(0, 1)).reshape_as(x))


class Rows(nn.Module):
    """Each row of pixels as an image of its own."""

    def __init__(self, C):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(C), nn.Linear(C, C)

    def forward(self, tokens, size):
        N, L, C = tokens.shape
        rows = tokens.reshape(N * size[0], size[1], C)
        return (rows + self.linear(self.norm(rows))).reshape(N, L, C)


class Joined(nn.Module):
    """Two linear layers side by side, the first channels of the tokens beside them."""

    def __init__(self, C):
        super().__init__()
        self.one, self.other, self.back = nn.Linear(C, 9), nn.Linear(C, C), nn.Linear(C + 13, C)

    def forward(self, tokens, size):
        N = tokens.shape[0]
        parts = (F.relu(self.one(tokens)), self.other(tokens), tokens[..., :4])
        return self.back(torch.cat(parts, -1)).view(N, *size, -1).flatten(1, 2)


class Strided(nn.Module):
    """Every second pixel of the map, as tokens: they do not follow each other in memory."""

    def __init__(self, C):
        super().__init__()
        self.linear = nn.Linear(C, C)

    def forward(self, tokens, size):
        N, _, C = tokens.shape
        image = tokens.transpose(1, 2).reshape(N, C, *size)
        some = self.linear(image[:, :, ::2, 1:].flatten(2).transpose(1, 2))
        return tokens + some.mean(1, keepdim=True)


class Channels(nn.Module):
    """Some channels of a map, as tokens, beside all of them."""

    def __init__(self, C):
        super().__init__()
        self.conv, self.linear, self.half = nn.Conv2d(C, C, 1), nn.Linear(C // 2, C), C // 2

    def forward(self, tokens, size):
        N, _, C = tokens.shape
        image = F.relu(self.conv(tokens.transpose(1, 2).reshape(N, C, *size)))
        both = torch.cat([image, image[:, self.half :]], 1)
        part = both[:, self.half : 2 * self.half].flatten(2).transpose(1, 2)
        return tokens + self.linear(part)


KINDS = [
    lambda C: Mixer(C, 20),
    lambda C: Mixer(C, 48),
    LinearNorm,
    Rows,
    Joined,
    Strided,
    Channels,
]


class Tokens(nn.Module):
    def __init__(self, seed, steps=4):
        super().__init__()
        drawn = random.Random(seed)
        C = drawn.choice([6, 16, 24])
        self.stem = nn.Conv2d(3, C, 3, padding=1, stride=drawn.choice([1, 2]))
        self.layers = nn.ModuleList(drawn.choice(KINDS)(C) for _ in range(steps))
        self.turned = drawn.random() < 0.5
        self.end = nn.Conv2d(C, 8, 3, padding=1)
        self.head = nn.Linear(C, 5)

    def forward(self, x):
        x = F.relu(self.stem(x))
        size, N, C = x.shape[2:], x.shape[0], x.shape[1]
        tokens = x.flatten(2).transpose(1, 2)
        for layer in self.layers:
            tokens = layer(tokens, size)
        image = tokens.transpose(1, 2).reshape(N, C, *(size[::-1] if self.turned else size))
        return self.end(image).contiguous(), tokens.contiguous(), self.head(tokens.mean(1))


X = (2, 3, 13, 10)


@pytest.mark.parametrize("seed", range(10))
def test_is_as_exact_as_torch(isa, seed):
    model, x = randomise(Tokens(seed)), torch.randn(X)
    net = jsc.compile(model, x, budget=0.0, check=False)
    error, torch_error = errors(net(x), model, x)
    assert error <= max(2 * torch_error, 2e-6)


@pytest.mark.parametrize("seed", range(4))
def test_threads_and_batches_keep_the_bits(isa, threads, seed):
    model, x = randomise(Tokens(seed)), torch.randn(4, *X[1:])
    net = jsc.compile(model, x, budget=0.0, check=False)
    threads(1)
    first = [t.clone() for t in net(x)]
    threads(3)
    assert all(map(torch.equal, net(x), first))
    for i in range(4):
        assert all(torch.equal(a[0], b[i]) for a, b in zip(net(x[i : i + 1]), first, strict=True))


@pytest.mark.parametrize("seed", range(4))
def test_maps_of_bfloat16(seed):
    model, x = randomise(Tokens(seed)), torch.randn(X)
    net = jsc.compile(model, x, precision="bf16", budget=0.0, check=False)
    error, _ = errors(net(x), model, x)
    assert error < 0.05


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_images_own_pixels(channels_last):
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 7)

        def forward(self, x):
            return self.linear(x.flatten(2).transpose(1, 2)), x.permute(0, 2, 3, 1).flatten(1, 2)

    model, x = Flat().eval(), torch.randn(X)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    net = jsc.compile(model, x, budget=0.0)
    for ours, theirs in zip(net(x), model(x), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_file_keeps_them(tmp_path):
    model, x = randomise(Tokens(3)), torch.randn(X)
    net = jsc.compile(model, x, budget=0.0, check=False)
    net.save(tmp_path / "net.jsc")
    loaded = jsc.load(tmp_path / "net.jsc")
    for size in (X, (5, *X[1:])):
        given = torch.randn(size)
        assert all(map(torch.equal, loaded(given), net(given)))


def native(layer, C=16):
    """The operations of a network of one layer over tokens, none of them torch's."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.layer = nn.Conv2d(3, C, 3, padding=1), layer

        def forward(self, x):
            x = self.stem(x)
            tokens = self.layer(x.flatten(2).transpose(1, 2), x.shape[2:])
            return tokens.mean(1)

    net = jsc.compile(randomise(Net()), torch.randn(X), budget=0.0)
    operations = net._programs[next(iter(net._programs))].graph.operations
    assert not [o for o in operations if isinstance(o, TorchCall)]
    return [o.kind for o in operations if o.kind != "copy"]


def test_views_are_no_operations_and_hinder_no_epilogue():
    convolutions = ["convolution"] * 4  # stem, linear, depthwise + GELU, linear + residual
    assert sorted(native(Mixer(16, 32))) == sorted([*convolutions, "layernorm", "adaptivepool"])
    # stem, linear + batch-norm + hard-swish
    assert native(LinearNorm(16)) == ["convolution"] * 2 + ["adaptivepool"]
    assert native(Rows(16)) == ["convolution", "layernorm", "convolution", "adaptivepool"]
    assert native(Channels(16)) == ["convolution"] * 3 + ["adaptivepool"]
    # What does not lie in a row is copied, here and not by torch.
    strided = ["convolution"] * 2 + ["adaptivepool", "elementwise", "adaptivepool"]
    assert native(Strided(16)) == strided
    assert native(Joined(16)) == ["convolution"] * 4 + ["adaptivepool"]


def test_recounted_maps():
    whole = Value((2, 4, 6, 8))
    row = whole.recount((2, 1, 24))
    assert row.shape == (2, 1, 24, 8)
    assert row.held is whole
    assert row.recount((2, 4, 6)) is whole
    assert row.recount((8, 6, 1)).held is whole
    assert whole.recount((2, 4, 6)) is whole
    part = whole.part((2, 3))
    assert part.in_a_row
    assert part.recount((1, 1, 48)).root is whole
    assert not Value((2, 2, 6, 8), whole, (0, 0, 0), (2, 1)).in_a_row
    assert not Value((2, 4, 6, 8), planar=True).in_a_row
