"""A prepared call (`SparseConv2d._prepared`) must notice everything that its result depends on."""

import warnings

import pytest
import torch
from concurrent_calls import wrong
from torch.nn import functional as F
from torch.nn.utils import parametrize
from training_ways import integers, take

import jsc
from jsc.nn.sparse_conv import SIZES


def dense(module, x):
    return F.conv2d(x, module.weight, module.bias, module.stride, module.padding, module.dilation)


def sparse_map(*shape, dtype=torch.float32):
    return (torch.randint(-4, 5, shape).to(dtype)).relu()


@pytest.fixture(params=["cpc", "cps", "mec"])
def module(request):
    """Integers, so that every right answer is exact; prepared for (2, 5, 9, 11)."""
    made = jsc.nn.SparseConv2d(5, 6, 3, padding=1, method=request.param).requires_grad_(False)
    for parameter in made.parameters():
        parameter.copy_(torch.randint(-3, 4, parameter.shape))
    x = sparse_map(2, 5, 9, 11)
    made(x)
    assert made._prepared is not None
    assert torch.equal(made(x), dense(made, x))
    return made


def replace_weight(module):
    module.weight = torch.nn.Parameter(module.weight * 2, requires_grad=False)


CHANGES = {
    "weight in place": lambda m: m.weight.mul_(2),
    "weight replaced": replace_weight,
    "bias in place": lambda m: m.bias.add_(1),
    "bias replaced": lambda m: setattr(m, "bias", torch.nn.Parameter(m.bias + 1, False)),
    "bias removed": lambda m: setattr(m, "bias", None),
    "state loaded": lambda m: m.load_state_dict({k: v + 1 for k, v in m.state_dict().items()}),
    "stride": lambda m: setattr(m, "stride", (2, 1)),
    "padding": lambda m: setattr(m, "padding", (0, 2)),
    "dilation": lambda m: setattr(m, "dilation", (2, 2)),
    "method": lambda m: setattr(m, "method", "im2col"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_of_the_module_are_seen(module, change):
    CHANGES[change](module)
    x = sparse_map(2, 5, 9, 11)
    for _ in range(2):  # unprepared, then prepared anew
        assert torch.equal(module(x), dense(module, x))


@pytest.mark.parametrize("shape", [(1, 5, 9, 11), (2, 5, 3, 4), (0, 5, 9, 11), (2, 5, 11, 9)])
def test_other_sizes(module, shape):
    x = sparse_map(*shape)
    for _ in range(2):
        assert torch.equal(module(x), dense(module, x))


def test_other_strides_and_types(module):
    x = sparse_map(2, 5, 9, 11)
    expected = dense(module, x)
    last = x.contiguous(memory_format=torch.channels_last)
    sliced = torch.stack([x, x], -1)[..., 0]
    for given in (last, x, sliced, x.expand(2, -1, -1, -1), last):
        y = module(given)
        assert torch.equal(y, expected)
        plain = torch.conv2d(given, module.weight, module.bias, padding=1)
        assert y.is_contiguous() == plain.is_contiguous()
    module.double()
    assert torch.equal(module(x.double()), expected.double())


def test_a_change_of_the_whole_weight_is_seen_that_torch_does_not_count(module):
    version, x = module.weight._version, sparse_map(2, 5, 9, 11)
    for change in (
        lambda: module.weight.data.mul_(2),
        lambda: module.weight.detach().numpy().__imul__(-1),
        lambda: module.bias.detach().numpy().__iadd__(1),
    ):
        change()
        for _ in range(2):
            assert torch.equal(module(x), dense(module, x))
    assert module.weight._version == version


def test_other_memory_of_the_same_parameter_is_seen(module):
    x, data = sparse_map(2, 5, 9, 11), module.weight.data
    for memory in (data.transpose(2, 3), torch._neg_view(data), data.flip(0), data[:, :, :2]):
        module.weight.data = memory
        for _ in range(2):
            assert torch.equal(module(x), dense(module, x))
    module.weight.data, module.bias.data = data[:3], module.bias.data[:3]
    assert torch.equal(module(x), dense(module, x))


def test_single_elements_written_past_torch_need_repack(module):
    x = sparse_map(2, 5, 9, 11)
    module.weight.data[0, 0, 0, 0] += 1
    module.repack()
    assert torch.equal(module(x), dense(module, x))


def test_calls_of_many_sizes_keep_few_of_them(module):
    for size in range(3, 40):
        x = sparse_map(1, 5, size, 4)
        assert torch.equal(module(x), dense(module, x))
    assert 1 <= len(module._prepared) <= SIZES


def test_autocast_and_traces_are_torchs(module):
    x = sparse_map(2, 5, 9, 11)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert module(x).dtype == torch.bfloat16
    assert module(x).dtype == torch.float32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(module, x)
    module.weight.mul_(2)
    assert torch.equal(traced(x), dense(module, x))


def test_ensembles_by_vmap(module):
    x = sparse_map(2, 5, 9, 11)
    many = {k: torch.stack([v, 2 * v]) for k, v in module.named_parameters()}
    both = torch.vmap(lambda p: torch.func.functional_call(module, p, (x,)))(many)
    assert torch.equal(both, torch.stack([dense(module, x), 2 * dense(module, x)]))


def test_gradients_are_recorded_when_wanted(module):
    x = sparse_map(2, 5, 9, 11).requires_grad_()
    module(x).sum().backward()
    assert x.grad is not None
    module.weight.requires_grad_()
    module(x.detach()).sum().backward()
    assert module.weight.grad is not None
    with torch.no_grad():
        assert not module(x).requires_grad


def test_outputs_do_not_share_memory(module):
    first, second = (sparse_map(2, 5, 9, 11) for _ in range(2))
    y = module(first)
    kept = y.clone()
    module(second)
    assert torch.equal(y, kept)


def test_nan_after_preparation(module):
    x = sparse_map(2, 5, 9, 11)
    x[0, 1, 4, 5] = float("nan")
    assert torch.equal(module(x).isnan(), dense(module, x).isnan())
    module.weight[0, 0, 0, 0] = float("inf")
    x = sparse_map(2, 5, 9, 11)
    assert torch.equal(module(x).isnan(), dense(module, x).isnan())


def test_two_threads_share_a_module(module):
    inputs = [sparse_map(2, 5, 9, 11) for _ in range(4)]
    expected = [dense(module, x) for x in inputs]
    assert not wrong(lambda i: torch.equal(module(inputs[i]), expected[i]), inputs=4, times=50)


def test_compiled_after_preparation(module):
    x = sparse_map(2, 5, 9, 11)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert torch.equal(compiled(x), dense(module, x))
    assert torch.equal(module(x), dense(module, x))


class Doubled(torch.nn.Module):
    def forward(self, weight):
        return 2 * weight


class OwnForward(torch.nn.Conv2d):
    def forward(self, input):
        return super().forward(input) + 1


def test_from_dense_refuses_what_it_cannot_be():
    conv = torch.nn.Conv2d(5, 6, 3)
    parametrize.register_parametrization(conv, "weight", Doubled())
    for given in (conv, OwnForward(5, 6, 3), torch.nn.ConvTranspose2d(5, 6, 3)):
        with pytest.raises(TypeError, match=f"Conv2d itself, got {type(given).__name__}"):
            jsc.nn.SparseConv2d.from_dense(given)


def test_to_dense_of_a_parametrized_layer(module):
    parametrize.register_parametrization(module, "weight", Doubled())
    plain, x = module.to_dense(), sparse_map(2, 5, 9, 11)
    assert isinstance(plain, torch.nn.Conv2d)
    assert not isinstance(plain, jsc.nn.SparseConv2d)
    assert plain.state_dict().keys() == module.state_dict().keys()
    assert torch.equal(plain(x), dense(module, x))
    module.parametrizations.weight.original.add_(1)
    assert torch.equal(plain(x), module(x))


def test_a_profiler_does_not_change_what_trains(monkeypatch):
    taken = take(monkeypatch, ("sweep", "output"), "sweep")
    layer, x = jsc.nn.SparseConv2d(4, 5, 3, padding=1), integers(2, 4, 6, 6)
    plain = layer(x)
    with torch.autograd.profiler.profile():
        profiled = layer(x)
        called = jsc.functional.conv2d(x, layer.weight, layer.bias, padding=1)
        (profiled.square().sum() + called.sum()).backward()
    assert torch.equal(profiled, plain)
    assert taken == [("sweep", "output")] * 2
