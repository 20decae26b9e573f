"""Convolutions that read one map in the same way become one: which do, and what stays as it was."""

import pytest
import torch
import torch.nn.functional as F
from compiled_networks import close, compiled, operations
from random_networks import errors, randomise
from torch import nn

import jsc
from jsc.network.accuracy import largest_error
from jsc.network.graph import Convolution
from jsc.network.tune import _Check

X = (2, 20, 9, 7)


class Of(nn.Module):
    """`function(self, x)` of convolutions of 20 channels: a, b, c, ..."""

    def __init__(self, function, *convolutions):
        super().__init__()
        self.function = function
        for name, layer in zip("abcde", convolutions, strict=False):
            self.add_module(name, layer)

    def forward(self, x):
        return self.function(self, x)


def conv(filters, kernel=1, **options):
    return nn.Conv2d(20, filters, kernel, **options)


def normed(filters, kernel=1, **options):
    return nn.Sequential(conv(filters, kernel, bias=False, **options), nn.BatchNorm2d(filters))


def begun(self, x):
    """A concatenation begins with one of three siblings."""
    return F.avg_pool2d(inception(self, x), 2)


def inception(self, x):
    """The same, and it is the network's output."""
    a, b, c = self.a(x).relu(), self.b(x).relu(), self.c(x).relu()
    return torch.cat([a, F.max_pool2d(b, 3, 1, 1), F.avg_pool2d(c, 3, 1, 1)], 1)


def concatenated(self, x):
    """Neighbours, in another order than that in which they are computed."""
    a, b, c = self.a(x), self.b(x), self.c(x)
    return torch.cat([F.max_pool2d(x, 3, 1, 1), b, a, c], 1).relu()


def put_before_what_they_read(self, x):
    """What they read lies in the same concatenation."""
    x = x.exp()
    a, b, c = self.a(x), self.b(x), self.c(x)
    return F.avg_pool2d(torch.cat([b, c, x, F.max_pool2d(a, 3, 1, 1)], 1), 2)


def ends(self, x):
    both = torch.cat([F.max_pool2d(self.b(x), 3, 1, 1), self.a(x)], 1)
    return F.avg_pool2d(both, 2)


def one_of_two(self, x):
    return torch.cat([self.a(x), F.max_pool2d(self.b(x), 3, 1, 1)], 1)


def parted(self, x):
    return torch.cat([self.a(x), x, self.b(x)], 1)


def two_heads(self, x):
    x = x.relu()
    return self.a(x), self.b(x)


def between(self, x):
    """What depends on the first sibling runs before the second one is asked for."""
    a = self.a(x).relu()
    late = self.c(F.pad(a, (0, 0, 0, 0, 0, 12)))
    return late + a.mean(1, keepdim=True), F.max_pool2d(self.b(x).relu(), 2)


def many_readers(self, x):
    a, b = self.a(x).relu(), self.b(x).relu()
    return a.softmax(1) * b + a, b.cumsum(2), a.flatten(1), b


def tied(self, x):
    self.b.weight = self.a.weight
    return F.max_pool2d(self.a(x), 2), F.avg_pool2d(self.b(x), 2)


def rows_and_columns(self, x):
    return self.a(x[:, :, 1:]).relu(), self.b(x[:, :, 1:]).relu()


def tokens(self, x):
    """Linear layers of each pixel are convolutions too: queries, keys and values."""
    x = x.permute(0, 2, 3, 1)
    parts = [layer(x).flatten(1, 2) for layer in (self.a, self.b, self.c)]
    return F.scaled_dot_product_attention(*parts)


def linear(features):
    return nn.Linear(20, features)


# What is computed, the layers, and how many filters the siblings have that become one.
MERGED = {
    "Inception": (begun, [normed(24), normed(16), conv(3)], [(16, 3, 24)]),
    "Inception at the end": (inception, [normed(24), normed(16), conv(3)], [(16, 3)]),
    "what they read": (put_before_what_they_read, [conv(24), conv(7), conv(5)], [(24, 7, 5)]),
    "concatenation": (concatenated, [conv(5), conv(8), conv(2)], [(8, 5, 2)]),
    "outputs": (two_heads, [conv(3), conv(12)], [(3, 12)]),
    "one has a batch-norm": (two_heads, [normed(6), conv(7)], [(6, 7)]),
    "neither has a shift": (two_heads, [conv(6, bias=False), conv(7, bias=False)], [(6, 7)]),
    "3x3": (two_heads, [conv(9, 3, padding=1), conv(40, 3, padding=1)], [(9, 40)]),
    "stride and dilation": (
        two_heads,
        [conv(9, 3, stride=2, dilation=2), conv(4, 3, stride=2, dilation=2)],
        [(9, 4)],
    ),
    "something between them": (between, [conv(8), conv(9), conv(8)], [(8, 9)]),
    "many readers": (many_readers, [conv(8), conv(8)], [(8, 8)]),
    "one weight": (tied, [conv(8), conv(8)], [(8, 8)]),
    "tokens": (tokens, [linear(8), linear(8), linear(6)], [(8, 8, 6)]),
}
APART = {
    "the concatenation is an output": (one_of_two, [conv(8), conv(8)]),
    "the concatenation begins otherwise": (ends, [conv(8), conv(8)]),
    "others between them": (parted, [conv(8), conv(8)]),
    "kernel": (two_heads, [conv(8), conv(8, 3, padding=1)]),
    "stride": (two_heads, [conv(8), conv(8, stride=2)]),
    "padding": (two_heads, [conv(8, 3), conv(8, 3, padding=1)]),
    "dilation": (
        two_heads,
        [conv(8, 3, padding=1), conv(8, 3, padding=2, dilation=2)],
    ),
    "groups": (two_heads, [conv(20, groups=2), conv(20, groups=2)]),
    "activation": (lambda self, x: (self.a(x).relu(), self.b(x)), [conv(8), conv(8)]),
    "residual": (
        lambda self, x: (self.a(x) + x).relu() * self.b(x).relu(), [conv(20), conv(20)]
    ),
    "input": (lambda self, x: (self.a(x), self.b(x.exp())), [conv(8), conv(8)]),
    "parts of a map": (rows_and_columns, [conv(8), conv(8)]),
    "what hangs over": (
        lambda self, x: (
            self.a(F.pad(x, (0, 1, 0, 1))),
            self.b(F.pad(x, (0, 2, 0, 2))),
        ),
        [conv(8, 3), conv(8, 3)],
    ),
}  # fmt: skip


def model_of(case):
    function, layers, *_ = case
    torch.manual_seed(0)
    return randomise(Of(function, *layers))


def convolutions(net):
    return [o for o in operations(net) if isinstance(o, Convolution)]


def filters(net):
    return [c.filters for c in convolutions(net) if c.filters]


@pytest.mark.parametrize("name", MERGED)
def test_siblings_become_one(name, isa, threads):
    model, x = model_of(MERGED[name]), torch.randn(X)
    net = compiled(model, x)
    assert filters(net) == MERGED[name][2]
    threads(1)
    first = net(x)
    error, torch_error = errors(first, model, x)
    assert error <= max(2 * torch_error, 2e-6)
    for count in (2, 3):
        threads(count)
        torch.testing.assert_close(net(x), first, rtol=0, atol=0)
    close(net(x[:1]), model(x[:1]))
    last = x.contiguous(memory_format=torch.channels_last)
    close(net(last), model(last))


@pytest.mark.parametrize("name", APART)
def test_what_differs_stays_apart(name):
    model, x = model_of(APART[name]), torch.randn(X)
    net = compiled(model, x)
    assert filters(net) == []
    assert len(convolutions(net)) == 2
    close(net(x), model(x))


def test_a_batch_and_its_images_have_the_same_bits(isa):
    model, x = model_of(MERGED["Inception at the end"]), torch.randn(4, *X[1:])
    net = compiled(model, x)
    whole = net(x)
    for i in range(4):
        assert torch.equal(net(x[i : i + 1])[0], whole[i])


def test_multiply_adds_and_the_summary():
    net = compiled(model_of(MERGED["Inception at the end"]), torch.randn(X))
    merged = convolutions(net)[1]
    assert merged.macs == merged.out.pixels * 20 * (16 + 3)
    assert "conv 1x1 20->16+3 + bn + relu @9x7 x2" in repr(net)
    (row,) = [r for r in net.profile(torch.randn(X), repeats=1).rows if "16+3" in r.what]
    assert row.layer == "b.0"


def test_new_weights_reach_each_sibling():
    model, x = model_of(MERGED["Inception at the end"]), torch.randn(X)
    net = compiled(model, x)
    for parameter in model.parameters():
        parameter.mul_(torch.rand_like(parameter) + 0.5)
    model.b[1].running_var.mul_(2)
    net.refresh(model)
    close(net(x), model(x))


@pytest.mark.parametrize("method", ["direct", "cpc"])
def test_the_name_is_that_of_the_first(method, tmp_path):
    """A plan made when each stood alone, or by another network, keeps its meaning for the first."""
    model, x = model_of(MERGED["Inception at the end"]), torch.randn(X)
    each = {"a.0.weight": "direct", "b.0.weight": method, "c.weight": "direct"}
    net = compiled(model, x, plan=each)
    by_filters = {
        c.filters: next(iter(net._programs.values())).method(c) for c in convolutions(net)
    }
    assert by_filters == {(): "direct", (16, 3): method}
    close(net(x), model(x))
    again = compiled(model, x, plan=net.plan)
    assert again.methods() == net.methods()
    net.save(tmp_path / "net.jsc")
    loaded = jsc.load(tmp_path / "net.jsc")
    assert filters(loaded) == [(16, 3)]
    assert loaded.methods() == net.methods()
    assert torch.equal(loaded(x), net(x))


def test_methods_are_timed_for_the_one_that_they_become(isa):
    model, x = model_of(MERGED["3x3"]), torch.randn(X)
    net = jsc.compile(model, x, budget=5.0, check=False, progress=False)
    assert set(net.plan) == {"a.weight"}
    error, torch_error = errors(net(x), model, x)
    assert error <= max(4 * torch_error, 4e-6)


@pytest.mark.parametrize("name", ["one has a batch-norm", "concatenation", "stride and dilation"])
def test_the_check_of_a_method_knows_all_siblings(name):
    """What the rule's own method wrote passes; a wrong filter of the last sibling does not."""
    model, x = model_of(MERGED[name]), torch.randn(X)
    program = next(iter(compiled(model, x)._programs.values()))
    seen = []

    def visit(operation, run):
        run()
        if isinstance(operation, Convolution) and operation.filters:
            check = _Check(program, operation)
            out = program.map_view(operation.out)
            assert largest_error(out[:, :, : check.rows], check.exact) <= 1e-5
            out[:, -1] += 1
            seen.append(check.passes())

    with torch.no_grad():
        program.walk_singly([x], visit)
    assert seen == [False]


def test_weights_that_are_not_finite_keep_their_siblings_from_passing_over_zeros():
    model, x = model_of(MERGED["outputs"]), torch.randn(X)
    model.b.weight[1, 2, 0, 0] = float("inf")
    net = compiled(model, x, plan={"a.weight": "cpc"})
    assert net.methods() == {"direct": 1}
    torch.testing.assert_close(net(x), model(x), equal_nan=True)


def test_first_layers_of_one_image_become_one_of_whole_windows():
    """`widen_stems` takes an image that one convolution alone reads."""

    class Stems(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = (nn.Conv2d(3, n, 5, stride=2, padding=2) for n in (8, 5))

        def forward(self, x):
            return F.max_pool2d(self.a(x).relu(), 2), self.b(x).relu()

    model, x = randomise(Stems()), torch.randn(2, 3, 16, 16)
    net = compiled(model, x)
    assert [(c.filters, c.kernel, c.name) for c in convolutions(net)] == [
        ((8, 5), (5, 1), "a.weight")
    ]
    close(net(x), model(x))
