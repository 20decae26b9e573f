"""What runs in torch between native parts, and what is computed once, of constants alone."""

import pytest
import torch
import torch.nn.functional as F
from compiled_networks import close, compiled
from random_networks import randomise
from torch import nn

from jsc.network.graph import TorchCall


class Of(nn.Module):
    """`function(self, x)` of some layers."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            if isinstance(layer, torch.Tensor):
                self.register_buffer(name, layer)
            else:
                setattr(self, name, layer)

    def forward(self, x):
        return self.function(self, x)


def torch_targets(net):
    graph = next(iter(net._programs.values())).graph
    return [str(o.target) for o in graph.operations if isinstance(o, TorchCall)]


def attention(heads):
    def forward(self, x):
        y = self.conv(x).flatten(2).transpose(1, 2)
        N, L, C = y.shape
        parts = self.qkv(y).reshape(N, L, 3, heads, C // heads).permute(2, 0, 3, 1, 4).unbind(0)
        return F.scaled_dot_product_attention(*parts).transpose(1, 2).reshape(N, L, C)

    return Of(forward, conv=nn.Conv2d(3, 16, 4, 4), qkv=nn.Linear(16, 48))


def windows(self, x):
    """Windows of a map and back, as in MobileViT and Swin: views of permuted tensors."""
    y = self.conv(x)
    N, C, H, W = y.shape
    y = y.reshape(N * C * H // 2, 2, W // 2, 2).transpose(1, 2).reshape(N, C, -1, 4)
    y = y.transpose(1, 3).reshape(N * 4, -1, C)
    y = self.fc(y).view(N, 4, -1, C).transpose(1, 3).reshape(N * C * H // 2, W // 2, 2, 2)
    return self.last(y.transpose(1, 2).reshape(N, C, H, W))


def strided(self, x):
    y = self.conv(x)
    return y.as_strided((2, 5), (y.stride(0), 7)), y.as_strided((3, 3), (2, 1), 4)


MODELS = {
    "one head": lambda: attention(1),
    "four heads": lambda: attention(4),
    "windows": lambda: Of(
        windows, conv=nn.Conv2d(3, 8, 3, padding=1), fc=nn.Linear(8, 8), last=nn.Conv2d(8, 4, 1)
    ),
    "one channel": lambda: Of(
        lambda self, x: F.scaled_dot_product_attention(*[self.conv(x)] * 3).cumsum(2),
        conv=nn.Conv2d(3, 1, 3),
    ),
    "as_strided": lambda: Of(strided, conv=nn.Conv2d(3, 8, 3)),
}


@pytest.mark.parametrize("name", MODELS)
def test_torch_sees_the_tensors_that_it_expects(name):
    model = randomise(MODELS[name]())
    x = torch.randn(2, 3, 16, 16)
    net = compiled(model, x)
    for n in (2, 1):
        x = torch.randn(n, 3, 16, 16)
        if name != "as_strided" or n == 2:
            close(net(x), model(x))


def standardised(self, x):
    weight = F.batch_norm(
        self.conv.weight.reshape(1, 8, -1), None, None, training=True, eps=1e-4
    ).reshape_as(self.conv.weight)
    return F.conv2d(x, weight, self.conv.bias * 2, padding=1).relu()


def test_weights_that_are_computed_are_constants_and_are_refreshed():
    model = randomise(Of(standardised, conv=nn.Conv2d(3, 8, 3)))
    x = torch.randn(2, 3, 16, 16)
    net = compiled(model, x)
    assert not torch_targets(net)
    close(net(x), model(x))
    model.conv.weight.copy_(torch.randn(8, 3, 3, 3))
    model.conv.bias.mul_(3)
    net.refresh(model)
    close(net(x), model(x))


def test_grids_are_computed_once():
    def anchors(self, x):
        y = self.conv(x)
        H, W = y.shape[2:]
        grid = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
        grid = torch.stack(grid).float() * self.stride
        for _ in range(40):  # each step uses the last one twice
            grid = (grid + grid) / 2
        return y.sigmoid() + grid, grid, self.stride

    model = randomise(Of(anchors, conv=nn.Conv2d(3, 2, 3), stride=torch.tensor(8.0)))
    x = torch.randn(2, 3, 16, 16)
    net = compiled(model, x)
    assert set(torch_targets(net)) == {"aten.add.Tensor", "aten.clone.default"}
    close(net(x), model(x))
    net(x)[1].zero_()  # a result is the caller's
    close(net(x), model(x))
    x = torch.randn(1, 3, 20, 12)
    close(net(x), model(x))


def test_random_numbers_are_no_constants():
    model = Of(lambda self, x: self.conv(x) + torch.rand(8, 1, 1), conv=nn.Conv2d(3, 8, 3))
    net = compiled(randomise(model), x := torch.randn(2, 3, 16, 16))
    assert not torch.equal(net(x), net(x))


def test_says_where_little_is_gained():
    model = randomise(Of(lambda self, x: x.cumsum(2).cumsum(3), conv=nn.Conv2d(3, 8, 3)))
    with pytest.warns(RuntimeWarning, match=r"little is gained on Of: no convolution.*2 x cumsum"):
        compiled(model, torch.randn(2, 3, 8, 8), check=True)
    most = Of(lambda self, x: self.conv(x).cumsum(2).cumsum(3).cumsum(2).flip(2).flip(3),
              conv=nn.Conv2d(3, 8, 3))  # fmt: skip
    with pytest.warns(RuntimeWarning, match=r"% of its operations run in torch; most often 3 x"):
        compiled(randomise(most), torch.randn(2, 3, 8, 8), check=True)
