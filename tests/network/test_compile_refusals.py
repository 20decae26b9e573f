"""What `jsc.compile` and a compiled network refuse, and in which words."""

import pytest
import torch
from compiled_networks import X, close, compiled, small
from torch import nn

import jsc


def test_wrong_inputs_are_refused_in_words():
    net = compiled(small(), torch.randn(X))
    for bad in (torch.randn(X).double(), torch.randn(3, 16, 16), torch.randn(X, device="meta")):
        with pytest.raises(TypeError, match="was compiled for"):
            net(bad)
    for bad in (torch.randn(2, 4, 16, 16), torch.randn(2, 3, 20, 20)):
        with pytest.raises(jsc.CompileError, match="itself fails for inputs like these"):
            net(bad)
    with pytest.raises(TypeError, match="sample must be"):
        jsc.compile(small(), "image")
    with pytest.raises(TypeError, match="model must be"):
        jsc.compile(lambda x: x, torch.randn(X))


def hooked():
    model = small()
    model[2].register_forward_hook(lambda *args: None)
    return model, "has hooks"


def counting():
    class Counting(nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return x.relu()

    return Counting(), "sets calls"


def remembering():
    class Remembering(nn.Module):
        def forward(self, x):
            self.seen = x
            return x.relu()

    return Remembering(), "sets seen"


def updating():
    class Updating(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("steps", torch.zeros(()))

        def forward(self, x):
            self.steps.add_(1)
            return x * self.steps

    return Updating(), "sets steps"


def half():
    return small().half(), "float32 models"


@pytest.mark.parametrize("make", [hooked, counting, remembering, updating, half])
def test_what_would_be_lost_is_refused(make):
    model, message = make()
    with pytest.raises(jsc.CompileError, match=message):
        compiled(model, torch.rand(X))


@pytest.mark.parametrize(
    ("plan", "error", "message"),
    [
        (torch.float32, TypeError, "plan must be a mapping"),
        (10**400, TypeError, "plan must be a mapping"),
        ({"0.weight": "fastest"}, ValueError, "the method of 0.weight must be one of direct"),
        ({"0.weight": [1]}, ValueError, "the method of 0.weight must be one of direct"),
    ],
)
def test_a_plan_of_the_wrong_kind(plan, error, message):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3)).eval()
    with pytest.raises(error, match=message):
        jsc.compile(model, torch.rand(X), plan=plan, progress=False)


def test_a_plan_with_a_name_that_no_convolution_has():
    model, x = torch.nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)).eval(), torch.rand(X)
    words = r"has the name 1\.wieght and 1 more, .* the closest are: 1\.weight"
    with pytest.warns(RuntimeWarning, match=words):
        compiled(model, x, plan={"1.wieght": "direct", "0.bias": "direct", "0.weight": "direct"})


def test_a_plan_with_the_names_of_rows_and_phases():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.ConvTranspose2d(8, 8, 4, stride=2)
    ).eval()  # fmt: skip
    odd = {c.name: "direct" for c in compiled(model, torch.rand(X))._convolutions()}
    assert len(odd) == 5
    assert all(name.startswith("(") for name in odd)
    x = torch.rand(1, 3, 5, 5)
    net = compiled(model, x, plan=odd)
    assert net.plan == odd
    close(net(x), model(x))
