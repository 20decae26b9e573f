"""Training with kernels of ours: each pass, however it is computed, is torch's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from training_ways import LAST, integers, take

import jsc
from jsc import methods as ops
from jsc.methods import operator
from jsc.ops import training

WAYS = [
    ("dense", "input"), ("dense", "output"), ("sweep", "dense"), ("sweep", "output"),
    ("gated", "input"),
]  # fmt: skip
GEOMETRIES = {
    "3x3": (3, 1, 1), "3x3 valid": (3, 1, 0), "1x1": (1, 1, 0), "5x5": (5, 1, 2), "7x7": (7, 1, 3),
    "1x7": ((1, 7), 1, (0, 3)), "2x2": (2, 1, 1),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids="-".join)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_gradcheck(monkeypatch, way, geometry):
    taken = take(monkeypatch, way)
    # gradcheck asks for the input's gradient itself: nothing could be skipped there.
    monkeypatch.setattr(operator, "behind_relu", lambda *given: True)
    kernel, stride, padding = GEOMETRIES[geometry]
    # Away from zero, where ReLU has no derivative; channels beyond one task and one vector.
    a = torch.randn(2, 17 if geometry == "1x1" else 3, 5, 4, dtype=torch.float64)
    a = (a + a.sign() * 0.1).contiguous(memory_format=LAST).requires_grad_()
    size = (2, a.shape[1], *nn.modules.utils._pair(kernel))
    w = torch.randn(size, dtype=torch.float64, requires_grad=True)
    b = torch.randn(2, dtype=torch.float64, requires_grad=True)

    def f(a, w, b):
        return jsc.functional.conv2d(F.relu(a), w, b, stride, padding).relu()

    assert torch.autograd.gradcheck(f, (a, w, b), fast_mode=geometry != "3x3")
    assert way in taken
    assert torch.autograd.gradgradcheck(f, (a, w, b), fast_mode=True)


@pytest.mark.parametrize("way", [("dense", "input"), ("gated", "input")], ids="-".join)
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_gradcheck_of_strides(monkeypatch, way, kernel):
    taken = take(monkeypatch, way)
    monkeypatch.setattr(operator, "behind_relu", lambda *given: True)
    a = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    a = (a + a.sign() * 0.1).contiguous(memory_format=LAST).requires_grad_()
    w = torch.randn(2, 3, kernel, kernel, dtype=torch.float64, requires_grad=True)

    def f(a, w):
        return jsc.functional.conv2d(F.relu(a), w, None, (2, 2), kernel // 2)

    assert torch.autograd.gradcheck(f, (a, w), fast_mode=kernel != 3)
    assert way in taken


def test_groups_and_dilation_stay_dense(monkeypatch):
    taken = take(monkeypatch, ("dense", "input"))
    x = torch.randn(2, 4, 7, 6, dtype=torch.float64).contiguous(memory_format=LAST)
    x.requires_grad_()
    for dilation, groups in ((2, 1), (1, 2)):
        w = torch.randn(2, 4 // groups, 3, 3, dtype=torch.float64, requires_grad=True)
        arguments = {"padding": 2, "dilation": dilation, "groups": groups}
        assert torch.autograd.gradcheck(
            lambda x, w, arguments=arguments: jsc.functional.conv2d(x, w, **arguments),
            (x, w),
            fast_mode=True,
        )
    assert not taken


def network(bias=True):
    """ReLU and max-pooling before convolutions; weights are small integers."""
    layers = [
        nn.Conv2d(3, 8, 3, padding=1, bias=bias), nn.ReLU(), nn.Conv2d(8, 20, 3, padding=1),
        nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 7, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(7, 4, 3, 1, 0),
    ]  # fmt: skip
    model = nn.Sequential(*layers).to(memory_format=LAST)
    for parameter in model.parameters():
        parameter.data.copy_(torch.randint(-1, 2, parameter.shape))
    return model


def sparse(model):
    model = copy.deepcopy(model)
    for name, child in list(model.named_children()):
        if isinstance(child, nn.Conv2d):
            setattr(model, name, jsc.nn.SparseConv2d.from_dense(child))
    return model


@pytest.mark.parametrize("forward", ["dense", "sweep"])
@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_a_network_trains_as_in_torch(isa, num_threads, monkeypatch, way, forward):
    taken = take(monkeypatch, way, forward)
    model = network()
    ours = sparse(model)
    optimizers = [torch.optim.SGD(m.parameters(), lr=2.0**-10) for m in (model, ours)]
    x = integers(3, 3, 10, 10)
    for _ in range(2):  # weights change in between
        for m, optimizer in zip((model, ours), optimizers, strict=True):
            optimizer.zero_grad()
            m(x).square().sum().backward()
        for theirs, mine in zip(model.parameters(), ours.parameters(), strict=True):
            scale = theirs.grad.abs().max().item()
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=1e-5 * scale)
            assert mine.grad.stride() == theirs.grad.stride()
        for optimizer in optimizers:
            optimizer.step()
    assert way in taken


@pytest.mark.parametrize("channels_last", [False, True])
def test_memory_formats(monkeypatch, channels_last):
    take(monkeypatch, ("sweep", "output"), "sweep")
    memory_format = LAST if channels_last else torch.contiguous_format
    model = network().to(memory_format=memory_format)
    ours = sparse(model)
    x = integers(2, 3, 10, 10).contiguous(memory_format=memory_format)
    results = [m(x) for m in (model, ours)]
    assert torch.equal(*results)
    assert results[0].stride() == results[1].stride()
    for y in results:
        y.sum().backward()
    for theirs, mine in zip(model.parameters(), ours.parameters(), strict=True):
        assert torch.equal(theirs.grad, mine.grad)


def gated_layer(monkeypatch):
    """Asks for gated gradients; returns a layer, a leaf, and whether the last backward got them."""
    taken = take(monkeypatch, ("gated", "input"))
    layer = jsc.nn.SparseConv2d(4, 5, 3, padding=1)
    return layer, integers(2, 4, 6, 6).requires_grad_(), lambda: taken[-1][0] == "gated"


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


def test_the_derivative_of_relu_is_used_behind_relu_and_pooling(monkeypatch):
    layer, a, used = gated_layer(monkeypatch)
    for before in (F.relu, lambda a: F.relu_(a * 1), lambda a: F.max_pool2d(F.relu(a), 2)):
        layer(before(a)).sum().backward()
        assert used()
    x = F.relu(a)
    (layer(x).sum() + x.square().sum()).backward()  # also where others use the map
    assert used()
    layer(F.relu(a)).sum().backward(inputs=[a, *layer.parameters()])
    assert used()


def test_the_derivative_of_relu_is_not_used_where_others_may_read_the_gradient(monkeypatch):
    layer, a, used = gated_layer(monkeypatch)
    weight = layer.weight
    others = {
        "leaf": lambda a: a,
        "no ReLU": lambda a: F.leaky_relu(a),
        "average": lambda a: F.avg_pool2d(F.relu(a), 2),
        "own function": lambda a: Twice.apply(F.relu(a)),
        "slice": lambda a: F.relu(a)[1:],
    }
    for before in others.values():
        layer(before(a)).sum().backward()
        assert not used()

    def looked(hold, run):
        x = F.relu(a)
        hold(x)
        y = layer(x).square().sum()
        other = x.detach().clone().requires_grad_()
        dense = torch.conv2d(other, weight, layer.bias, padding=1).square().sum()
        (wanted,) = torch.autograd.grad(dense, other)
        assert bool((wanted[x == 0] != 0).any())
        torch.testing.assert_close(run(x, y), wanted)
        assert not used()

    def after(x, y):
        y.backward()
        return x.grad

    def hooked(x, y):
        kept = []
        x.register_hook(kept.append)
        y.backward()
        return kept[0]

    looked(lambda x: x.retain_grad(), after)
    looked(lambda x: None, hooked)
    looked(lambda x: None, lambda x, y: torch.autograd.grad(y, x)[0])
    looked(lambda x: None, lambda x, y: torch.autograd.grad(y, (x, weight))[0])
    looked(lambda x: None, lambda x, y: torch.autograd.grad(y, (x, a))[0])

    def with_inputs(x, y):
        y.backward(inputs=[x, weight])
        return x.grad

    looked(lambda x: None, with_inputs)

    kept = []
    layer.register_full_backward_hook(lambda m, given, _: kept.append(given[0]))
    looked(lambda x: None, lambda x, y: (y.backward(), kept[-1])[1])


def test_hooks_on_what_was_pooled(monkeypatch):
    layer, a, used = gated_layer(monkeypatch)
    x = F.relu(a)
    x.retain_grad()
    layer(F.max_pool2d(x, 2)).sum().backward()
    assert not used()


def test_the_derivative_of_relu_is_not_used_under_hooks_on_saved_tensors(monkeypatch):
    """What is unpacked there is another tensor, whose readers are not seen."""
    layer, a, used = gated_layer(monkeypatch)
    for before in (lambda x: x, lambda x: F.max_pool2d(x, 2, 1)):
        x = F.relu(a)
        x.retain_grad()
        with torch.autograd.graph.save_on_cpu():
            y = layer(before(x))
        y.sum().backward()
        assert not used()
        assert bool((x.grad[x == 0] != 0).any())
    # A checkpoint unpacks once: here for the pooling's own gradient.
    pooled = checkpoint(lambda a: F.max_pool2d(F.relu(2 * a), 2), a, use_reentrant=False)
    layer(pooled).sum().backward()
    assert not used()


@pytest.mark.parametrize("way", WAYS, ids="-".join)
@pytest.mark.parametrize("which", ["x", "grad", "w"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_propagates_as_in_torch(monkeypatch, way, which, bad):
    take(monkeypatch, way)
    a = integers(2, 5, 6, 6).requires_grad_()
    w, grad = torch.randn(4, 5, 3, 3), torch.randn(2, 4, 6, 6)
    place = {"x": a.detach(), "w": w, "grad": grad}[which]
    place[0, 0, 0, 0] = bad
    found = []
    for convolve in (torch.conv2d, jsc.functional.conv2d):
        weight = w.clone().requires_grad_()
        a.grad = None
        convolve(F.relu(a), weight, None, 1, 1).backward(grad)
        found.append((a.grad, weight.grad))
    for theirs, mine in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, equal_nan=True, rtol=1e-4, atol=1e-4)


def test_same_bits_for_threads_and_again(monkeypatch):
    monkeypatch.setattr("jsc._config.SERIAL_WORK", 0)
    monkeypatch.setattr(training, "SMALL", 0)
    layer = jsc.nn.SparseConv2d(48, 40, 3, padding=1)
    a = torch.randn(8, 48, 9, 9).contiguous(memory_format=LAST).requires_grad_()
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 3, 3):
        torch.set_num_threads(threads)
        a.grad = layer.weight.grad = None
        F.relu(layer(F.relu(a - 1))).square().sum().backward()
        results.append((a.grad.clone(), layer.weight.grad.clone()))
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))


def test_second_derivatives_and_transforms_are_torchs(monkeypatch):
    taken = take(monkeypatch, ("sweep", "output"))
    layer = jsc.nn.SparseConv2d(4, 5, 3, padding=1)
    x = integers(2, 4, 6, 6).requires_grad_()
    found = []
    for convolve in (layer, layer.to_dense()):
        x.grad = layer.weight.grad = None
        taken.clear()
        (gx,) = torch.autograd.grad(convolve(x).square().sum(), x, create_graph=True)
        assert not taken
        gx.square().sum().backward()
        found.append((x.grad, layer.weight.grad))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-3)
    taken.clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    compiled(x).sum().backward()
    assert not taken
    assert layer(x.detach()[0]).shape == (5, 6, 6)
    layer(x).sum().backward()
    assert taken


def test_frozen_parts(monkeypatch):
    layer, a, used = gated_layer(monkeypatch)
    layer.bias.requires_grad_(False)
    layer(F.relu(a)).sum().backward()
    assert used()
    layer.weight.requires_grad_(False)  # no node is left that says which gradients are asked for
    a.grad = None
    layer(F.relu(a)).sum().backward()
    assert not used()
    expected = torch.autograd.grad(torch.conv2d(F.relu(a), layer.weight, padding=1).sum(), a)[0]
    torch.testing.assert_close(a.grad, expected)
    layer.weight.requires_grad_()
    layer(F.relu(a.detach())).sum().backward()
    assert layer.weight.grad is not None


def test_the_rule_is_monotone_and_leaves_losing_layers_dense():
    x, w = torch.empty(64, 64, 8, 8), torch.empty(64, 64, 3, 3)
    g = ops.geometry(x, w, (1, 1), (1, 1), (1, 1), 1)
    both = True, True
    kind = torch.float64  # without Winograd's transforms
    assert training._choose(1.0, 1.0, g, kind, both, lambda: True) == ("dense", "dense")
    assert training._choose(0.2, 1.0, g, kind, both, lambda: True) == ("gated", "input")
    assert training._choose(0.2, 1.0, g, kind, both, lambda: False) == ("dense", "input")
    assert training._choose(1.0, 0.2, g, kind, both, lambda: True) == ("sweep", "output")
    assert training._choose(0.2, 0.2, g, kind, (False, True), lambda: True)[0] == "dense"
    assert training.stays_dense(0.9, g, kind)
    assert not training.stays_dense(0.3, g, kind)
    pointwise = ops.geometry(x, torch.empty(64, 64, 1, 1), (1, 1), (0, 0), (1, 1), 1)
    for dtype in (torch.float32, torch.float64):
        found = training._choose(0.1, 1.0, pointwise, dtype, both, lambda: True)
        assert found == ("dense", "dense")
