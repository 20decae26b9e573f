"""The fused forward of a network: the bits of the network itself, whatever happens in between."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from concurrent_calls import wrong
from fused_networks import Wide, X, pair, program, run
from torch import fx, nn

from benchmarks.inputs import toy_networks
from jsc import _config
from jsc.fusing.fuse import FusedForward, same, unfuse
from jsc.nn import SparseConv2d
from jsc.tuning import restore


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("last", [False, True], ids=["NCHW", "channels-last"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: toy_networks.small_resnet(16),
        lambda: toy_networks.small_vgg(24),
        Wide,
        lambda: Wide(True),
        lambda: Wide(False, False),
        lambda: Wide().double(),
    ],
    ids=["resnet", "vgg", "wide", "in-place", "no bias", "float64"],
)
def test_same_bits(isa, make, last, threads, monkeypatch):
    monkeypatch.setattr(_config, "SERIAL_WORK", 0)
    model, fused = pair(make(), skip=("stem",))
    x = torch.randn(X, dtype=next(model.parameters()).dtype)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert same(run(fused, x), run(model, x))
        assert program(fused) is not None
        nan = x.clone()
        nan[0, 1, 3, 4], nan[1, 2, 9, 9] = torch.nan, torch.inf
        assert same(run(fused, nan), run(model, nan))
    finally:
        torch.set_num_threads(before)


def test_what_is_fused(net):
    model, fused = net
    run(fused, torch.randn(X))
    steps = {c.conv: c for c in program(fused).fused}
    assert len(steps) == sum(isinstance(m, SparseConv2d) for m in model.modules())
    assert steps["0"].norm
    assert steps["0"].relu
    assert all(c.norm for c in steps.values()) == (_config.isa() > 0)
    assert sum(c.residual is not None for c in steps.values()) == 3
    units = [call[1] for call in program(fused)._calls if call[0] == 0]
    # Two projections are only added, the last block is only averaged.
    assert sum(unit._masks is None for unit in units) == 3


def test_dense_neighbours_get_the_format_they_had():
    """A dense convolution may round otherwise in another format."""
    model, fused = pair(Wide(), skip=("stem", "last", "project"))
    seen = {}
    for network in (model, fused):
        x = torch.randn(X)
        run(network, x)
        for name in ("last", "project"):
            layer = network.get_submodule(name)
            inputs = seen.setdefault(name, [])
            forward = type(layer)._conv_forward
            layer._conv_forward = lambda x, *rest, f=forward, m=layer, to=inputs: (
                to.append(x.is_contiguous()), f(m, x, *rest),
            )[1]  # fmt: skip
        if network is fused:
            with torch.no_grad():
                assert same(program(fused)(x), type(fused).forward(fused, x))
        else:
            run(network, x)
    for formats in seen.values():
        assert len(set(formats)) == 1


CHANGES = {
    "weight in place": lambda m: m[0].weight.mul_(2),
    "weight replaced": lambda m: setattr(m[0], "weight", nn.Parameter(m[0].weight * 2)),
    "state loaded": lambda m: m.load_state_dict({k: v + 1 for k, v in m.state_dict().items()}),
    "statistics": lambda m: m[1].running_mean.add_(1),
    "statistics behind torch's back": lambda m: m[1].running_var.data.mul_(2),
    "eps": lambda m: setattr(m[1], "eps", 0.5),
    "hook": lambda m: m[2].register_forward_hook(lambda *a: a[2] * 2),
    "pre-hook": lambda m: m[3].conv1.register_forward_pre_hook(lambda m, a: (a[0] * 2,)),
    "hook of a block": lambda m: m[3].register_forward_hook(lambda *a: a[2] * 2),
    "hook of a layer inside": lambda m: m[3].bn1.register_forward_hook(lambda *a: a[2] + 1),
    "layer replaced": lambda m: setattr(m[3], "conv2", nn.Conv2d(16, 16, 1)),
    "block replaced": lambda m: m.__setitem__(3, nn.Identity()),
    "block appended": lambda m: m.insert(4, nn.Tanh()),
    "stride": lambda m: setattr(m[0], "stride", (2, 2)),
    "method": lambda m: setattr(m[3].conv1, "method", "cps"),
    "method dense": lambda m: setattr(m[3].conv1, "method", "dense"),
    "training": lambda m: m[1].train(),
    "class": lambda m: setattr(m[2], "__class__", nn.Tanh),
    "forward of a layer": lambda m: setattr(m[2], "forward", torch.tanh),
    "forward of a convolution": lambda m: setattr(m[3].conv1, "forward", torch.tanh),
    "forward of a block": lambda m: setattr(m[3], "forward", torch.tanh),
    "in-place ReLU": lambda m: setattr(m[2], "inplace", True),
    "written through data": lambda m: (m[0].weight.data.mul_(2), m[0].repack()),
}


@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_changes_are_seen(change):
    network = toy_networks.small_resnet(16)
    network, fused = pair(network)
    fused = copy.deepcopy(fused)
    x = torch.randn(X)
    run(fused, x)
    assert program(fused) is not None
    CHANGES[change](fused)
    plain = copy.deepcopy(fused)
    unfuse(plain)
    state = fused.state_dict()  # in training mode each call changes the statistics
    state = {key: value.clone() for key, value in state.items()}
    for _ in range(3):
        fused.load_state_dict(state, strict=False)
        plain.load_state_dict(state, strict=False)
        assert same(fused(x), plain(x))


@torch.no_grad()
def test_making_programs_costs_little_where_they_do_not_last(monkeypatch, net):
    """Sizes that never come again, and weights that change all the time."""
    _, fused = net
    made = []
    forward = vars(fused)["forward"]
    monkeypatch.setattr(
        FusedForward, "_make", lambda self, x, graph: (made.append(1) or None, self._own(x))
    )
    for size in range(8, 40, 2):
        fused(torch.randn(1, 3, size, 16))
    assert len(made) == 1
    assert len(forward._entries) <= 16
    made.clear()
    for _ in range(100):
        fused(torch.randn(X))
    assert len(made) <= 7


@torch.no_grad()
def test_hooks_come_and_go(net):
    _model, fused = net
    x = torch.randn(X)
    run(fused, x)
    seen = []
    handle = fused[3].conv1.register_forward_hook(lambda *args: seen.append(args[2]))
    y = fused(x)
    assert len(seen) == 1
    handle.remove()
    assert same(fused(x), y)
    for _ in range(3):
        fused(x)
    assert program(fused).guard.holds()


def test_training_and_gradients_are_torch_s_own(net):
    model, fused = net
    x = torch.randn(X)
    run(fused, x)
    fused.requires_grad_()
    fused(x).sum().backward()
    assert fused[0].weight.grad is not None
    fused.train()
    before = fused[1].running_mean.clone()
    with torch.no_grad():
        fused(x)
    assert not torch.equal(fused[1].running_mean, before)
    fused.eval()
    assert same(run(fused, x), run(model, x))


def test_other_sizes_and_types(net):
    model, fused = net
    for shape in ((1, 3, 16, 16), (3, 3, 24, 16), (1, 3, 32, 32), (2, 3, 8, 8)) * 2:
        x = torch.randn(shape)
        assert same(run(fused, x), run(model, x))
    sliced = torch.randn(*X, 2)[..., 0]
    assert same(run(fused, sliced), run(model, sliced))
    fused.double(), model.double()
    assert same(run(fused, x.double()), run(model, x.double()))


def test_inputs_and_outputs_belong_to_the_caller(net):
    _model, fused = net
    x = torch.randn(X)
    first = run(fused, x)
    kept, given = first.clone(), x.clone()
    run(fused, torch.randn(X))
    assert torch.equal(first, kept)
    assert torch.equal(x, given)


@torch.no_grad()
def test_copies_and_pickles(net):
    model, fused = net
    x = torch.randn(X)
    y = run(fused, x)
    for again in (copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
        assert vars(again)["forward"]._model is again
        assert same(run(again, x), y)
        assert program(again) is not None
        again[0].weight.data.zero_()
        assert same(run(fused, x), y)
    file = io.BytesIO()
    torch.save(fused, file)
    file.seek(0)
    assert same(run(torch.load(file, weights_only=False), x), y)
    assert list(fused.state_dict()) == list(model.state_dict())
    assert [n for n, _ in fused.named_modules()] == [n for n, _ in model.named_modules()]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_compile_export_inference_mode_and_trace(net):
    model, fused = net
    x = torch.randn(X)
    y = run(model, x)
    with torch.inference_mode():
        assert same(fused(x), fused(x))
        assert torch.equal(fused(x), y)
        assert program(fused) is not None
    with torch.no_grad():
        compiled = torch.compile(fused, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), y)
        exported = torch.export.export(fused, (x,)).module()
        torch.testing.assert_close(exported(x), y)
        traced = torch.jit.trace(fused, (x,), check_trace=False)
        torch.testing.assert_close(traced(x), y)
        symbolic = fx.symbolic_trace(fused)
        torch.testing.assert_close(symbolic(x), y)
        assert same(torch.func.functional_call(fused, dict(model.named_parameters()), x), y)
        torch.testing.assert_close(torch.vmap(fused)(x[None])[0], y)


def test_restore(net):
    _model, fused = net
    assert "forward" in vars(fused)
    plain = restore(fused)
    assert "forward" not in vars(plain)
    assert "forward" in vars(fused)
    restore(fused, inplace=True)
    assert "forward" not in vars(fused)
    outer = nn.Sequential(pair(toy_networks.small_vgg(8))[1])
    assert not any("forward" in vars(module) for module in restore(outer).modules())


def test_threads_share_a_network(net):
    model, fused = net
    inputs = [torch.randn(X) for _ in range(4)]
    expected = [run(model, x) for x in inputs]
    assert not wrong(lambda i: same(run(fused, inputs[i]), expected[i]), inputs=4, times=20)
