"""`refresh` takes the weights of a model that is built like the compiled one, and of no other."""

import pytest
import torch
from compiled_networks import X, close, compiled, small
from torch import nn

import jsc


def changed(index, part):
    model = small()
    model[index] = part
    return model


OTHERS = {
    "another activation": (lambda: changed(2, nn.GELU()), "2 must be of class ReLU, and is of cl"),
    "one more": (lambda: small().append(nn.ReLU()), "8 must be missing, and is of class ReLU"),
    "one less": (lambda: nn.Sequential(*small()[:5], nn.Identity(), *small()[6:]), "5 must be of"),
    "weights of one more": (lambda: small().append(nn.Linear(7, 7)), r"it has 8\.bias besides; it"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_model_that_is_built_otherwise(other, tmp_path):
    make, message = OTHERS[other]
    x = torch.randn(X)
    with torch.no_grad():
        net = compiled(small(), x)
        before = net(x)
        net.save(tmp_path / "net.jsc")
        for network in (net, jsc.load(tmp_path / "net.jsc")):
            with pytest.raises(ValueError, match=f"built otherwise .*{message}.*Compile it anew"):
                network.refresh(make())
            assert torch.equal(network(x), before)


def test_a_model_with_methods_is_no_other():
    model, x = small(), torch.randn(X)
    fast = nn.Sequential(jsc.nn.SparseConv2d.from_dense(model[0]), *model[1:])
    with torch.no_grad():
        net = compiled(model, x)
        model[0].weight.mul_(0.5)
        net.refresh(fast)
        close(net(x), model(x))
