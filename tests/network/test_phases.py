"""Transposed convolution and pixel shuffle as convolutions and copies of every s-th pixel."""

import pytest
import torch
from compiled_networks import close, compiled
from random_networks import randomise
from torch import nn

from jsc.network.graph import Affine, Convolution, Elementwise, TorchCall


def operations(net):
    return next(iter(net._programs.values())).graph.operations


CASES = {
    "2x2 of 2": {"kernel_size": 2, "stride": 2},
    "4x4 of 2": {"kernel_size": 4, "stride": 2, "padding": 1},
    "3x3 of 2": {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
    "uneven": {
        "kernel_size": (3, 5),
        "stride": (1, 3),
        "padding": (1, 0),
        "output_padding": (0, 2),
    },
    "cut": {"kernel_size": 3, "stride": 2, "padding": 2},
    "far cut": {"kernel_size": 3, "stride": 1, "padding": 2},
    "bilinear": {"kernel_size": 4, "stride": 2, "padding": 1, "groups": 12, "bias": False},
    "groups": {"kernel_size": 4, "stride": 2, "padding": 1, "groups": 3},
    "stride 8": {"kernel_size": 16, "stride": 8, "padding": 4},
}


@pytest.mark.parametrize("case", CASES)
def test_transposed_convolution(case, isa, num_threads):
    options = CASES[case]
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.ReLU(), nn.ConvTranspose2d(12, 12, **options), nn.BatchNorm2d(12),
        nn.ReLU(), nn.Conv2d(12, 4, 3, padding=1),
    )  # fmt: skip
    randomise(model)
    x = torch.randn(2, 3, 9, 11)
    net = compiled(model, x)
    kinds = {type(o) for o in operations(net)}
    assert not kinds & {TorchCall, Affine, Elementwise}
    close(net(x), model(x))
    x = torch.randn(1, 3, 12, 7)
    close(net(x), model(x))
    model[2].weight.mul_(-2)
    net.refresh(model)
    close(net(x), model(x))


@pytest.mark.parametrize(
    "options",
    [{"kernel_size": 2, "stride": 3}, {"kernel_size": 3, "stride": 2, "dilation": 2}],
    ids=["pixels of no tap", "dilated"],
)
def test_what_torch_keeps(options):
    model = randomise(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 8, **options)))
    x = torch.randn(2, 3, 9, 11)
    net = compiled(model, x)
    assert [o for o in operations(net) if isinstance(o, TorchCall)]
    close(net(x), model(x))


def test_a_transposed_convolution_that_two_read_or_the_caller_gets():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.out = nn.ConvTranspose2d(3, 8, 2, 2), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            y = self.up(x)
            z = self.up(-x)
            return y, self.out(torch.cat([y.relu(), y.sigmoid()[:, :0], z.tanh()], 1)[:, 4:12])

    model = randomise(Two())
    x = torch.randn(2, 3, 6, 5)
    close(compiled(model, x)(x), model(x))


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("width", [1, 5, 16])
def test_pixel_shuffle_and_back(factor, width, isa, num_threads):
    class Shuffles(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, width * factor**2, 3, padding=1)
            self.up, self.down = nn.PixelShuffle(factor), nn.PixelUnshuffle(factor)
            self.last = nn.Conv2d(3 * factor**2 + width * factor**2, 4, 1)

        def forward(self, x):
            y = self.up(self.conv(x).relu())
            small = self.down(
                torch.cat([y, x.repeat_interleave(factor, 2).repeat_interleave(factor, 3)], 1)
            )
            return y, small, self.last(small)

    model = randomise(Shuffles())
    x = torch.randn(2, 3, 6, 5)
    net = compiled(model, x)
    names = [str(o.target) for o in operations(net) if isinstance(o, TorchCall)]
    assert not [n for n in names if "shuffle" in n]
    for ours, theirs in zip(net(x), model(x), strict=True):
        close(ours, theirs)
        assert ours.stride() == theirs.stride()


def test_phases_are_convolutions():
    net = compiled(nn.ConvTranspose2d(8, 8, 4, 2, 1).eval(), torch.randn(1, 8, 5, 5))
    kernels = [o.kernel for o in operations(net) if isinstance(o, Convolution)]
    assert kernels == [(2, 2)] * 4
