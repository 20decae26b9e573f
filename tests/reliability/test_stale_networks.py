"""A network that `jsc.apply` returned has the results of its weights and statistics as they are."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import jsc
from tests.reliability.changes import CHANGES
from tests.reliability.networks import Net, applied, trained

# That torch alone were faster with other maps is a matter of times, and not of results.
pytestmark = pytest.mark.filterwarnings("ignore::jsc.PlanWarning")

METHODS = (["cpc"], ["cps", "cpo", "mec", "im2col"])


@pytest.fixture(params=METHODS, ids="-".join)
def network(request):
    """Prepared for two sizes, with its input, and what it gave last."""
    x = torch.relu(torch.randn(2, 3, 10, 12))
    net = applied(trained(Net()), x, request.param)
    with torch.no_grad():
        for size in ((8, 8), (10, 12)):
            for _ in range(3):
                before = net(x[..., : size[0], : size[1]])
    return net, x, before


def right(net, x):
    """What plain torch makes of the same parameters and buffers: a copy without any of ours."""
    twin = Net().to(next(net.parameters()).dtype).train(net.training)
    twin.load_state_dict(net.state_dict())
    for name, module in net.named_modules():
        for setting in ("eps", "momentum"):
            if isinstance(module, nn.BatchNorm2d):
                setattr(twin.get_submodule(name), setting, getattr(module, setting))
    return twin(x)


def check(net, x, before, expected=None):
    with torch.no_grad():
        for _ in range(3):
            expected = right(net, x) if expected is None else expected
            torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-4, equal_nan=True)
    assert not torch.allclose(before, expected, rtol=1e-5, atol=1e-6), "the change must matter"


PLAIN = [  # of these the state_dict keeps its keys and shapes, so that a plain twin can be made
    "step of SGD plain", "step of SGD fused", "step of Adam fused", "step of AdamW foreach",
    "epoch of Adagrad fused", "in place without gradients", "in place in inference mode",
    "version counter kept", "state loaded", "state assigned", "state assigned then written",
    "data replaced", "data replaced twice", "data of other memory format", "data multiplied",
    "data copied", "numpy view", "numpy from dlpack", "torch from dlpack", "storage copied",
    "set to other memory", "swapped tensors", "half and back swapping", "state loaded swapping",
    "new parameter",
    "new parameter in the dict", "applied to every tensor", "averaged model swapped in",
    "bias in place", "bias data", "bias data added", "one number of the bias by numpy",
    "bias from dlpack", "bias replaced",
]  # fmt: skip


@pytest.mark.parametrize("layer", ["stem", "b"])
@pytest.mark.parametrize("name", PLAIN)
def test_changes_of_one_layer(network, name, layer):
    net, x, before = network
    with torch.random.fork_rng():
        if "epoch" in name and layer == "stem":
            pytest.skip("it is trained alone, and the sample has three channels")
        CHANGES[name](getattr(net, layer))
    if name == "half and back swapping":
        before = before + 1  # rounding of one layer is not to be seen behind the others
    check(net, x, before)


def norm_trained(net, x):
    """Statistics and momentum as a training forward leaves them."""
    net.train()
    with torch.no_grad():
        net(3 * x + 1)
    net.eval()


def norm_momentum_none(net, x):
    net.a_norm.momentum = None
    norm_trained(net, x)


def optimizer(make, **options):
    def train(net, x):
        found = make(net.parameters(), lr=0.05, **options)
        net.train()
        for _ in range(2):
            found.zero_grad()
            net(x).square().sum().backward()
            found.step()
        net.eval()

    return train


def step_only(net, x):
    for parameter in net.parameters():
        parameter.grad = torch.randn_like(parameter)
    torch.optim.AdamW(net.parameters(), lr=0.1, fused=True).step()


def averaged(net, x):
    other = trained(Net())
    average = torch.optim.swa_utils.AveragedModel(other, use_buffers=True)
    for mine, theirs in zip(net.parameters(), average.module.parameters(), strict=True):
        mine.data, theirs.data = theirs.data, mine.data


def other_buffer(net, x):
    net.b_norm.running_mean = torch.randn(12)


WHOLE = {
    "statistics by training": norm_trained,
    "statistics without momentum": norm_momentum_none,
    "mean in place": lambda net, x: net.a_norm.running_mean.add_(1),
    "mean data": lambda net, x: net.a_norm.running_mean.data.add_(1),
    "mean by numpy": lambda net, x: net.a_norm.running_mean.numpy().__iadd__(1),
    "variance replaced": lambda net, x: setattr(net.b_norm, "running_var", torch.full((12,), 7.0)),
    "buffer replaced": other_buffer,
    "statistics reset": lambda net, x: net.a_norm.reset_running_stats(),
    "scale data": lambda net, x: net.b_norm.weight.data.mul_(3),
    "shift by numpy": lambda net, x: net.b_norm.bias.detach().numpy().__iadd__(1),
    "eps": lambda net, x: setattr(net.a_norm, "eps", 3.0),
    "SGD": optimizer(torch.optim.SGD),
    "SGD fused": optimizer(torch.optim.SGD, fused=True),
    "Adam fused": optimizer(torch.optim.Adam, fused=True),
    "AdamW foreach": optimizer(torch.optim.AdamW, foreach=True),
    "step of AdamW fused": step_only,
    "averaged model": averaged,
    "state loaded": lambda net, x: net.load_state_dict(trained(Net()).state_dict()),
    "state assigned": lambda net, x: net.load_state_dict(trained(Net()).state_dict(), assign=True),
    "head data": lambda net, x: net.head.weight.data.mul_(2),
    "bfloat16 and back": lambda net, x: net.bfloat16().float().head.weight.data.mul_(1.5),
    "channels-last and written": lambda net, x: net.to(
        memory_format=torch.channels_last
    ).a.weight.data.mul_(2),
    "layer replaced": lambda net, x: setattr(net, "a", nn.Conv2d(12, 12, 3, padding=1)),
    "norm replaced": lambda net, x: setattr(net, "a_norm", trained(nn.BatchNorm2d(12))),
    "shared with another": lambda net, x: setattr(net.a, "weight", net.b.weight),
}


@pytest.mark.parametrize("name", WHOLE)
def test_changes_of_the_network(network, name):
    net, x, before = network
    WHOLE[name](net, x)
    check(net, x, before)


@pytest.mark.parametrize("make", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies(network, make):
    net, x, before = network
    new = make(net)
    with torch.no_grad():
        torch.testing.assert_close(new(x), before)
        new.a.weight.data.mul_(2)
        torch.testing.assert_close(net(x), before)
    check(new, x, before)


def test_the_given_model_is_trained_on():
    """Its parameters are those of what `apply` returned, so both see the change."""
    model, x = trained(Net()), torch.rand(2, 3, 10, 12)
    net = applied(model, x, ["cpc"])
    with torch.no_grad():
        net(x), net(x)
        before = net(x)
    optimizer(torch.optim.Adam, fused=True)(model, x)
    check(net, x, before, model(x).detach())
    assert jsc.restore(net).a.weight is model.a.weight


def test_parametrized_layer_of_a_network():
    model, x = trained(Net()), torch.rand(2, 3, 10, 12)
    net = applied(model, x, ["cpc"])
    with torch.no_grad():
        net(x), net(x)
        before = net(x)
        parametrizations.weight_norm(net.b)
        net(x), net(x)
        net.b.parametrizations.weight.original0.mul_(2)
        model.b.weight.copy_(net.b.weight)
    check(net, x, before, model(x).detach())


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_networks(network, backend):
    net, x, before = network
    torch._dynamo.reset()
    compiled = torch.compile(net, backend=backend)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), before, rtol=1e-4, atol=1e-4)
    for change in (step_only, WHOLE["mean data"], WHOLE["state loaded"]):
        change(net, x)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), right(net, x), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(net(x), right(net, x), rtol=1e-4, atol=1e-4)


def test_functional_call_of_a_network(network):
    net, x, before = network
    for _ in range(2):
        state = trained(Net()).state_dict()
        with torch.no_grad():
            out = torch.func.functional_call(net, state, (x,))
            twin = Net().eval()
            twin.load_state_dict(state)
            torch.testing.assert_close(out, twin(x), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(net(x), before)
