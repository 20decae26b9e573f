"""What a compiled network is called with: other kinds than the sample's are refused in words."""

import numpy as np
import pytest
import torch
from compiled_networks import X, close, compiled, small
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

import jsc


@pytest.fixture(scope="module")
def net():
    with torch.no_grad():
        net = compiled(small(), torch.randn(X))
        net(torch.randn(X))  # another call of this size goes the short way
        yield net


def fake():
    with FakeTensorMode():
        return torch.empty(X)


SPECIAL = {
    "FakeTensor": fake,
    "torch.sparse_coo": lambda: torch.randn(X).to_sparse(),
    "torch._mkldnn": lambda: torch.randn(X).to_mkldnn(),
    "nested tensor": lambda: torch.nested.nested_tensor([torch.randn(X[1:])] * 2),
    "on meta": lambda: torch.empty(X, device="meta"),
    "tensor without memory": lambda: torch._efficientzerotensor(X),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("word", SPECIAL)
def test_tensors_without_plain_memory(net, word):
    with pytest.raises(TypeError, match=f"was compiled for a 4-dim.*; got a .*{word}"):
        net(SPECIAL[word]())
    if word != "on meta":
        with pytest.raises(TypeError, match=f"sample must have ordinary tensors; .*{word}"):
            compiled(small(), SPECIAL[word]())


def test_a_numpy_array(net):
    with pytest.raises(TypeError, match=r"got a numpy array; .* makes a tensor"):
        net(np.zeros(X, np.float32))
    with pytest.raises(TypeError, match="sample must be a tensor"):
        compiled(small(), np.zeros(X, np.float32))


def vmapped(net, x):
    return torch.vmap(net)(x[None])


def differentiated(net, x):
    return torch.func.grad(lambda x: net(x).sum())(x)


def faked(net, x):
    with FakeTensorMode(allow_non_fake_inputs=True):
        return net(x)


def recorded(net, x):
    return make_fx(net)(x)


def traced(net, x):
    return torch.jit.trace(net, x)


def exported(net, x):
    return torch.export.export(net, (x,), strict=False)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("function", [vmapped, differentiated, faked, recorded, exported, traced])
def test_transforms_and_traces(net, function):
    x = torch.randn(X)
    with pytest.raises(RuntimeError, match="native code cannot run within"):
        function(net, x)
    with torch.no_grad():
        assert net(x).shape == (2, 7)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # which torch itself uses
def test_derivatives_of_forward_mode(net):
    x = torch.randn(X)
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="computes no gradients"):
        net(forward_ad.make_dual(x, x))


def test_compile_within_a_fake_mode():
    with FakeTensorMode(), pytest.raises(RuntimeError, match="cannot run within"):
        compiled(small(), torch.randn(X))


def test_a_call_within_torch_compile(net):
    x = torch.randn(X)
    with torch.no_grad():
        function = torch.compile(lambda x: net(x) * 2, backend="eager")
        for _ in range(2):
            close(function(x), net(x) * 2)
    torch._dynamo.reset()


def test_numbers_and_names_of_arguments():
    class Two(nn.Module):
        def forward(self, image, *, scale):
            return image * scale

    x = torch.randn(X)
    net = compiled(small(), x)
    given = {"image": x, "scale": torch.ones(2, 1, 1, 1)}
    named = compiled(Two(), given)
    for call, words in (
        (lambda: net(), r"for 1 positional argument; got no arguments"),
        (lambda: net(x, x), r"for 1 positional argument; got 2 positional arguments"),
        (lambda: net(x, mask=x), r"got 1 positional argument and mask=\.\.\."),
        (lambda: net([x]), r"for arguments TreeSpec"),
        (lambda: named(x), r"for image=\.\.\. and scale=\.\.\.; got 1 positional argument"),
        (lambda: named(**given, mode=1), r"got image=.* and scale=.* and mode=\.\.\."),
    ):
        with pytest.raises(TypeError, match=words):
            call()


def test_another_number_of_channels():
    net = compiled(small(), torch.randn(X))
    sizes = r"takes inputs of the sizes \(2 or more, 3, 16, 16\); got \(2, 4, 16, 16\), for which"
    with pytest.raises(jsc.CompileError, match=sizes):
        net(torch.randn(2, 4, 16, 16))


@pytest.mark.parametrize(
    ("budget", "error", "message"),
    [
        ("1", TypeError, "budget must be a number of seconds"),
        (None, TypeError, "budget must be a number of seconds"),
        (float("nan"), ValueError, "budget must be finite"),
        (-1, ValueError, "budget must be at least 0"),
    ],
)
def test_a_budget_of_the_wrong_kind(budget, error, message):
    with pytest.raises(error, match=message):
        jsc.compile(small(), torch.randn(X), budget=budget)
