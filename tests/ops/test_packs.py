"""Packed weights live as long as their weight, and as long as it does not change."""

import gc

import pytest
import torch

import jsc
from jsc.ops import packs


@pytest.fixture
def counted(monkeypatch):
    """Counts how often weights are laid out."""
    counts = []
    original = jsc.methods.convolve.pack

    def pack(weight, g, method):
        counts.append(method)
        return original(weight, g, method)

    monkeypatch.setattr(jsc.methods.convolve, "pack", pack)
    return counts


def layer():
    return jsc.nn.SparseConv2d(3, 4, 3).eval().requires_grad_(False)


def test_weights_are_laid_out_once(counted):
    module = layer()
    for size in (5, 6, 7, 6):
        module(torch.rand(1, 3, size, size))
        module(torch.rand(3, size, size))
    assert len(counted) == 1


def test_compiled_and_exported_modules_lay_weights_out_once(counted):
    module, x = layer(), torch.rand(1, 3, 6, 6)
    expected = module.to_dense()(x)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    exported = torch.export.export(module, (x,)).module()
    for run in (compiled, exported):
        counted.clear()
        packs.forget(module.weight)
        for _ in range(4):
            torch.testing.assert_close(run(x), expected)
        assert len(counted) == 1
    module.weight.data.mul_(2)
    module.bias.data.mul_(2)
    torch.testing.assert_close(compiled(x), 2 * expected)


def test_the_function_lays_out_anew(counted):
    x, w = torch.rand(1, 3, 6, 6), torch.rand(4, 3, 3, 3)
    for _ in range(3):
        jsc.functional.conv2d(x, w, method="cpc")
    assert len(counted) == 3


@pytest.mark.parametrize(
    "event",
    [
        lambda m: m.train().eval(),
        lambda m: m.load_state_dict(m.state_dict()),
        lambda m: m.float(),
        lambda m: m.repack(),
        lambda m: m.requires_grad_()(torch.rand(1, 3, 5, 5)) is m.requires_grad_(False),
    ],
    ids=["mode", "load_state_dict", "_apply", "repack", "recorded forward"],
)
def test_what_ends_a_pack(counted, event):
    module, x = layer(), torch.rand(1, 3, 6, 6)
    module(x)
    event(module)
    counted.clear()
    module(x)
    assert len(counted) == 1


def test_nothing_outlives_the_weight():
    module = layer()
    module(torch.rand(1, 3, 6, 6))
    place = packs._place(module.weight)
    assert place in packs._held
    del module
    gc.collect()
    assert place not in packs._held


def test_parameters_can_be_swapped():
    module, x = layer(), torch.rand(1, 3, 6, 6)
    module(x)
    other = torch.nn.Parameter(2 * module.weight, requires_grad=False)
    torch.utils.swap_tensors(module.weight, other)
    torch.testing.assert_close(module(x), module.to_dense()(x))


def test_few_packs_of_one_weight():
    module, x = layer(), torch.rand(1, 3, 30, 30)
    for step in range(1, 9):
        module.stride = (step, step)
        torch.testing.assert_close(module(x), module.to_dense()(x))
    assert len(packs._held[packs._place(module.weight)].made) == packs.KEPT
