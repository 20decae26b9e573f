"""`jsc.nn.FATReLU`: its definition, its state, and its place in a compiled network."""

import copy
import io
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import jsc
from jsc.network.graph import Convolution, TorchCall
from jsc.nn import FATReLU


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_is_its_definition(dtype):
    x = torch.tensor([-math.inf, -2, -0.0, 0, 0.25, 0.5, 0.75, 3, math.inf, math.nan], dtype=dtype)
    wanted = torch.tensor([0, 0, 0, 0, 0, 0, 0.75, 3, math.inf, math.nan], dtype=dtype)
    y = FATReLU(0.5)(x)
    assert y.dtype == dtype
    assert torch.equal(y.nan_to_num(-1), wanted.nan_to_num(-1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_threshold_is_rounded_to_float32(dtype):
    """And no further for half precision, of which a number may lie between T and its neighbour."""
    for threshold in (0.1, 0.3, 0.7):
        x = torch.full((70,), threshold, dtype=dtype)
        rounded = threshold if dtype == torch.float64 else float(torch.tensor(threshold))
        assert torch.equal(FATReLU(threshold)(x) != 0, x.double() > rounded)


def test_threshold_zero_is_the_relu():
    x = torch.randn(1000, requires_grad=True)
    assert torch.equal(FATReLU()(x), F.relu(x))
    ours, torchs = (torch.autograd.grad(f(x).sum(), x)[0] for f in (FATReLU(), F.relu))
    assert torch.equal(ours, torchs)


def test_threshold_zero_has_the_zeros_of_the_relu():
    x = torch.tensor([-0.0, 0.0, -1.0])
    assert torch.equal(FATReLU()(input=x).signbit(), F.relu(x).signbit())


def test_gradient_is_that_of_the_identity_above_the_threshold():
    x = torch.tensor([-1.0, 0.25, 0.5, 0.75], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad((FATReLU(0.5)(x) * torch.arange(1.0, 5)).sum(), x)
    assert gradient.tolist() == [0, 0, 0, 4]
    away = torch.tensor([-1.0, 0.25, 0.75, 2], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(FATReLU(0.5), away)
    assert torch.autograd.gradgradcheck(FATReLU(0.5), away)


def test_in_place():
    x = torch.tensor([0.25, 2.0])
    assert FATReLU(0.5, inplace=True)(x) is x
    assert x.tolist() == [0, 2]


def test_the_threshold_is_in_the_state():
    layer, other = FATReLU(0.1), FATReLU()
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.threshold == layer.threshold == 0.1
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert copied.threshold == 0.1
    assert "threshold=0.1" in repr(layer)
    with torch.device("meta"):
        assert float(layer.get_extra_state()) == 0.1


@pytest.mark.parametrize("wrong", ["1", None, torch.tensor(1.0), True, [0.5]])
def test_a_threshold_is_a_number(wrong):
    with pytest.raises(TypeError, match="threshold must be a number"):
        FATReLU(wrong)


@pytest.mark.parametrize("wrong", [-0.1, math.inf, math.nan])
def test_a_threshold_is_finite_and_not_negative(wrong):
    with pytest.raises(ValueError, match="threshold must be"):
        FATReLU(wrong)
    layer = FATReLU(0.5)
    with pytest.raises(ValueError, match="threshold must be"):
        layer.threshold = wrong
    assert layer.threshold == 0.5


def test_is_stored_by_the_convolution_of_a_compiled_network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), FATReLU(0.25),
        nn.Conv2d(16, 8, 1), FATReLU(0.125), nn.Flatten(), nn.Linear(8 * 64, 5),
    ).eval()  # fmt: skip
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        net = jsc.compile(model, x, budget=0, check=False, progress=False)
        torch.testing.assert_close(net(x), model(x), atol=1e-5, rtol=1e-5)
    operations = next(iter(net._programs.values())).graph.operations
    convs = [o for o in operations if isinstance(o, Convolution)]
    assert [(c.act.kind, c.act.a, c.act.b) for c in convs] == [
        ("threshold", 0.25, 0.0), ("threshold", 0.125, 0.0),
    ]  # fmt: skip
    assert not [o for o in operations if isinstance(o, TorchCall)]


def test_can_be_exported_and_compiled():
    layer, x = FATReLU(0.5), torch.randn(4, 5)
    program = torch.export.export(nn.Sequential(layer), (x,))
    assert torch.equal(program.module()(x), layer(x))
    graph = torch.compile(layer, fullgraph=True, backend="eager")
    assert torch.equal(graph(x), layer(x))
