"""Applying a plan and restoring the model: shared parameters, hooks, mismatches."""

import copy
import logging
import os
import pickle
import subprocess
import sys
import warnings
from dataclasses import replace

import pytest
import torch
from fake_times import QUICK, Nested, methods_of
from torch import nn
from torch.nn.utils import parametrizations, prune

from jsc import _config, methods
from jsc.nn import SparseConv2d
from jsc.tuning import PlanError, PlanWarning, apply, restore, tune


def test_apply_shares_parameters_and_structure(model, sample, plan):
    fast = apply(model.eval(), plan)
    assert isinstance(fast.body[0], SparseConv2d)
    assert fast.body[0].method == "cpc"
    assert fast.again is fast.body[0]
    assert fast.kept_in_a_list[0] is fast.body[0]
    assert type(model.body[0]) is nn.Conv2d
    assert type(fast.unused) is nn.Conv2d
    shared = zip(model.parameters(), fast.parameters(), strict=True)
    assert all(a is b for a, b in shared)
    assert list(model.state_dict()) == list(fast.state_dict())
    assert fast.body[1].running_mean is model.body[1].running_mean
    with torch.no_grad():
        torch.testing.assert_close(fast(sample), model(sample), rtol=1e-4, atol=1e-5)


def test_applied_models_train_pickle_and_copy(model, sample, plan):
    fast = apply(model, plan)
    fast(sample).sum().backward()
    assert model.stem.weight.grad is not None
    for again in (pickle.loads(pickle.dumps(fast)), copy.deepcopy(fast)):
        assert again.body[0].method == "cpc"
        assert again.again is again.body[0]
        assert again.stem.weight is not fast.stem.weight
        fast.eval(), again.eval()
        with torch.no_grad():
            assert torch.equal(again(sample), fast(sample))


def test_hooks_are_kept(model, sample, plan):
    seen = []
    model.body[0].register_forward_hook(lambda module, *_: seen.append(type(module)))
    apply(model, plan)(sample)
    assert seen == [SparseConv2d, SparseConv2d]


def test_in_place(model, plan):
    conv = model.body[0]
    assert apply(model, plan, inplace=True) is model
    assert model.body[0] is conv
    assert isinstance(conv, SparseConv2d)


def test_restore(model, sample, plan):
    before = {name: dict(module.__dict__) for name, module in model.named_modules()}
    fast = apply(model, plan)
    plain = restore(fast)
    assert isinstance(fast.body[0], SparseConv2d)
    assert [type(m) for m in plain.modules()] == [type(m) for m in model.modules()]
    assert all(a is b for a, b in zip(plain.parameters(), model.parameters(), strict=True))
    for name, module in plain.named_modules():
        assert set(module.__dict__) == set(before[name])
    assert restore(fast, inplace=True) is fast
    assert type(fast.body[0]) is nn.Conv2d


def test_tuning_a_tuned_model_starts_from_the_plain_one(model, sample, plan):
    fast = apply(model, plan)
    again = tune(fast, sample, **QUICK)
    assert methods_of(again) == methods_of(plan)
    assert isinstance(fast.body[0], SparseConv2d)
    dense = again.override({"body.0": "dense"})
    assert type(apply(fast, dense).body[0]) is nn.Conv2d


def test_mismatches(model, plan):
    other = Nested()
    other.body[0] = nn.Conv2d(16, 8, 3)
    with pytest.raises(PlanError, match=r"body\.0: weight is \(8, 16, 3, 3\)"):
        apply(other, plan, inplace=True)
    assert not any(isinstance(m, SparseConv2d) for m in other.modules())
    with pytest.warns(PlanWarning, match="stay dense"):
        fast = apply(other, plan, on_mismatch="warn")
    assert type(fast.body[0]) is nn.Conv2d
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        apply(other, plan, on_mismatch="dense")
    with pytest.raises(PlanError, match="no such layer"):
        apply(nn.Sequential(), plan)
    with pytest.raises(ValueError, match="on_mismatch"):
        apply(model, plan, on_mismatch="ignore")
    with pytest.raises(TypeError, match=r"jsc\.Plan"):
        apply(model, "plan.json")


@pytest.mark.parametrize("wrong", [5, None, "model", nn.Conv2d, {}])
def test_what_is_no_model(wrong, plan):
    with pytest.raises(TypeError, match=r"model must be an nn\.Module"):
        apply(wrong, plan)
    with pytest.raises(TypeError, match=r"model must be an nn\.Module"):
        restore(wrong)


def test_other_environment_warns(model, plan):
    elsewhere = replace(plan, environment=replace(plan.environment, threads=99))
    with pytest.warns(PlanWarning, match="threads 99, here"):
        apply(model, elsewhere)
    switch = torch.backends.mkldnn.conv
    before, switch.fp32_precision = switch.fp32_precision, "bf16"
    try:
        with pytest.warns(PlanWarning, match="precision ieee, here bf16"):
            apply(model, plan)
    finally:
        switch.fp32_precision = before


@pytest.fixture
def tiles(plan):
    """The plan as a machine with AMX tiles would have made it."""
    return replace(
        plan,
        layers=tuple(
            replace(layer, method="amx", times_ms={**layer.times_ms, "amx": 0.5})
            if layer.method != "dense" else layer
            for layer in plan.layers
        ),
    )  # fmt: skip


def test_a_method_that_is_not_to_be_had_is_chosen_again(model, sample, tiles, monkeypatch, caplog):
    monkeypatch.setattr(type(methods.get("amx")), "available", lambda self: False)
    with caplog.at_level(logging.INFO, "jsc"):
        fast = apply(model.eval(), tiles)
    assert fast.body[0].method == "cpc"
    (record,) = [r for r in caplog.records if "chosen again" in r.message]
    assert record.levelno == logging.WARNING
    assert f"this processor ({_config.isa_name()}) cannot run" in record.message
    assert "body.0: cpc for amx" in record.message
    with torch.no_grad():
        torch.testing.assert_close(fast(sample), model(sample), rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(type(methods.get("amx")), "available", lambda self: True)
    assert apply(model, tiles).body[0].method == "amx"


@pytest.mark.parametrize("times", [{"dense": 2.0}, {"dense": 2.0, "cpc": 1.99, "mec": 0.0}])
def test_without_a_method_that_gains_it_is_dense(model, tiles, times, monkeypatch, caplog):
    monkeypatch.setattr(type(methods.get("amx")), "available", lambda self: False)
    layers = tuple(
        replace(layer, times_ms={**times, "amx": 0.5}) if layer.method == "amx" else layer
        for layer in tiles.layers
    )
    with caplog.at_level(logging.INFO, "jsc"):
        fast = apply(model, replace(tiles, layers=layers, min_gain=1.05))
    assert type(fast.body[0]) is nn.Conv2d
    assert "body.0: dense for amx" in caplog.text


ELSEWHERE = """
import logging, sys, warnings, torch, jsc
logging.basicConfig()
sys.path[:0] = sys.argv[1:2]
from fake_times import Nested
torch.manual_seed(0)
model, x = Nested().eval(), torch.rand(2, 3, 12, 12)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    fast = jsc.apply(model, jsc.Plan.load(sys.argv[2]))
assert [w.category for w in caught] == [jsc.PlanWarning], caught
torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-5)
print(fast.body[0].method)
"""


@pytest.mark.parametrize("other", _config.ISA_NAMES[: _config.isa()])
def test_a_plan_from_another_processor(tmp_path, tiles, other):
    """Kept in a file here, applied by a process that has a lower instruction set."""
    tiles.save(tmp_path / "plan.json")
    support = os.path.dirname(sys.modules[Nested.__module__].__file__)
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, support, str(tmp_path / "plan.json")],
        env={**os.environ, "JSC_ISA": other}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "cpc\n"
    assert f"({other}) cannot run are chosen again" in done.stderr


def halve(conv):
    prune.random_unstructured(conv, "weight", 0.5)


LATER = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "pruned": halve,
    "pruned twice": lambda conv: (halve(conv), halve(conv)),
    "parametrized twice": lambda conv: (
        parametrizations.orthogonal(conv),
        parametrizations.spectral_norm(conv),
    ),
}


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("change", LATER)
def test_restore_keeps_what_was_done_to_the_weights_since(change, inplace):
    model = nn.Sequential(SparseConv2d(3, 8, 3), nn.ReLU(), SparseConv2d(8, 8, 3)).eval()
    x = torch.rand(1, 3, 8, 8)
    LATER[change](model[0])
    model(x)  # a pruned layer keeps the weight it computed
    names = list(model.state_dict())
    with torch.no_grad():
        expected = model(x)
        plain = restore(model, inplace=inplace)
        assert not any(isinstance(module, SparseConv2d) for module in plain.modules())
        torch.testing.assert_close(plain(x), expected)
    assert list(plain.state_dict()) == names
    assert all(a is b for a, b in zip(plain.parameters(), model.parameters(), strict=True))
    plain(x).sum().backward()
    assert all(p.grad is not None for p in plain.parameters())
    if nn.utils.parametrize.is_parametrized(plain[0]):
        nn.utils.parametrize.remove_parametrizations(plain[0], "weight")
        assert type(plain[0]) is nn.Conv2d
        torch.testing.assert_close(plain(x), expected)


def test_restore_leaves_your_own_subclasses():
    class Own(SparseConv2d):
        def forward(self, x):
            return super().forward(x) * 2

    model = nn.Sequential(Own(3, 8, 3)).eval()
    assert type(restore(model)[0]) is Own
