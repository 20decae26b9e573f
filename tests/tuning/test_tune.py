"""Tuning: right choices, and a model that is left as it was."""

import copy
import time

import pytest
import torch
from fake_times import QUICK, clock, measure_module, methods_of
from torch import nn

from jsc import _precision
from jsc.nn import SparseConv2d
from jsc.tuning import Plan, apply, tune
from jsc.tuning.capture import find_layers
from jsc.tuning.timing import Times, interleaved


class ByName(nn.Module):
    """Takes keyword arguments, gives a dict."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3)

    def forward(self, *, image, scale):
        return {"out": self.conv(input=image.relu()) * scale}


def test_entries(model, sample):
    plan = tune(model, sample, **QUICK)
    layers = {layer.name: layer for layer in plan.layers}
    assert list(layers) == ["stem", "body.0", "depthwise", "unused"]
    assert layers["body.0"].aliases == ("again",)
    assert layers["body.0"].calls == 2
    assert layers["stem"].input_shape == (2, 3, 12, 12)
    assert layers["stem"].density == 1.0
    assert 0.2 < layers["body.0"].density < 0.8
    assert layers["unused"].reason == "dense: the sample does not reach it"
    assert layers["unused"].calls == 0
    stem = layers["stem"].memory
    assert stem["dense"] == 4 * 2 * 3 * 144
    assert stem["im2col"] == 9 * stem["dense"]
    assert stem["cpc"] == stem["dense"] + 8 * 2 * 144
    nonzeros = layers["body.0"].density * layers["body.0"].dense_bytes / 4
    assert 4 * nonzeros <= layers["body.0"].memory["cpo"] < layers["body.0"].memory["im2col"]
    assert plan.tuned_ms <= plan.dense_ms
    assert all(x.gain >= plan.min_gain for x in plan.chosen)


def test_fastest_method_is_chosen(model, sample, monkeypatch, no_promise):
    clock(monkeypatch, {"dense": 2.0, "cpc": 1.0, "cps": 1.5})
    plan = tune(model, sample, **QUICK)
    assert methods_of(plan)["body.0"] == "cpc"
    body = plan.layers[1]
    assert (body.dense_ms, body.chosen_ms) == (4.0, 2.0)  # the sum over two calls
    assert body.reason.startswith("cpc 2.00x at density 0.")
    assert body.max_error < 1e-5
    assert body.chosen_bytes == body.memory["cpc"]


def test_min_gain_keeps_dense(model, sample, monkeypatch, no_promise):
    clock(monkeypatch, {"dense": 2.0, "cpc": 1.95})
    plan = tune(model, sample, min_gain=1.05, **QUICK)
    assert not plan.chosen
    assert plan.layers[0].reason == "dense: first layer, input is not sparse (cpc 1.03x)"
    assert plan.layers[1].reason == "dense: best sparse cpc 1.03x"


def test_wrong_method_is_refused(model, sample, monkeypatch, no_promise):
    right = SparseConv2d.forward

    def wrong(self, x):
        return right(self, x) * (1.001 if self.method == "cpc" else 1)

    monkeypatch.setattr(SparseConv2d, "forward", wrong)
    clock(monkeypatch, {"dense": 2.0, "cpc": 1.0})
    plan = tune(model, sample, methods=["cpc"], **QUICK)
    assert not plan.chosen
    assert "wrong" in plan.layers[1].reason


def test_times_are_taken_in_turn_and_slow_functions_are_left_out():
    order = []
    candidates = {name: lambda name=name: order.append(name) for name in ("dense", "fast")}
    candidates["slow"] = lambda: (order.append("slow"), time.sleep(0.01))
    times = interleaved(candidates, 5, 10.0)
    assert set(times) == set(candidates)
    assert order.count("slow") == 1
    assert order.count("dense") == order.count("fast") == 5
    assert order[0] != order[3]  # each round starts with another one
    assert times["slow"].median >= 10
    assert Times(2.0, 1.0).gain_over(Times(3.0, 1.1)) == pytest.approx(1.1)


def test_time_budget_stops_after_three_rounds():
    count = []
    interleaved({"dense": lambda: count.append(1)}, 100, 0.0)
    assert len(count) == 3


def test_filter(model, sample, monkeypatch, no_promise):
    clock(monkeypatch, {"dense": 2.0, "cpc": 1.0})
    plan = tune(model, sample, filter_fn=lambda module, name: name != "body.0", **QUICK)
    assert methods_of(plan)["body.0"] == "dense"
    assert "filter_fn" in plan.layers[1].reason


def test_model_is_left_as_it_was(model, sample):
    model.train()
    model.body[1].eval()
    model.stem.weight.grad = torch.ones_like(model.stem.weight)
    seen = []
    model.stem.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    state = copy.deepcopy(model.state_dict())
    types = [type(module) for module in model.modules()]
    random = torch.random.get_rng_state()
    tune(model, sample, **QUICK)
    assert model.training
    assert model.stem.training
    assert not model.body[1].training
    assert torch.equal(random, torch.random.get_rng_state())
    assert seen  # the user's own hook ran, without gradients, and is the only one left
    assert not any(seen)
    assert len(model.stem._forward_hooks) == 1
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert torch.equal(model.stem.weight.grad, torch.ones_like(model.stem.weight))
    assert [type(module) for module in model.modules()] == types
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_hooks_and_mode_are_restored_after_an_error(model):
    model.train()
    with pytest.raises(RuntimeError):
        tune(model, torch.rand(2, 5, 12, 12), **QUICK)
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_keyword_sample():
    image = torch.randn(2, 16, 8, 8)
    plan = tune(ByName(), {"image": image, "scale": 2.0}, **QUICK)
    assert plan.layers[0].density == pytest.approx(float((image > 0).float().mean()))


def test_positional_and_keyword_arguments():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(16, 16, 3)

        def forward(self, images, x, *, scale):
            return self.conv(images[0] + x) * scale

    x = torch.randn(1, 16, 8, 8)
    plan = tune(Both(), ([x], x), kwargs={"scale": 2.0}, **QUICK)
    assert plan.layers[0].calls == 1


def test_positional_sample_and_a_model_that_is_one_convolution(monkeypatch, no_promise):
    clock(monkeypatch, {"dense": 2.0, "cpc": 1.0})
    conv, x = nn.Conv2d(16, 16, 3), torch.randn(1, 16, 8, 8).relu()
    plan = tune(conv, (x,), **QUICK)
    assert plan.layers[0].name == ""
    fast = apply(conv, plan)
    assert isinstance(fast, SparseConv2d)
    torch.testing.assert_close(fast(x), conv(x))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_layers_are_measured_in_the_format_they_get(memory_format, monkeypatch):
    formats = []
    forward = nn.Conv2d.forward

    def spy(self, x):
        if self.weight.is_contiguous():  # not torch's own way with everything channels-last
            formats.append(x.is_contiguous(memory_format=memory_format))
        return forward(self, x)

    monkeypatch.setattr(nn.Conv2d, "forward", spy)
    x = torch.rand(2, 16, 8, 8).to(memory_format=memory_format)
    tune(nn.Sequential(nn.Conv2d(16, 16, 3)), x, methods=[], **QUICK)
    assert formats
    assert all(formats)


def test_a_layer_that_gets_an_empty_map_at_times(sample):
    class Proposals(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3)

        def forward(self, x):
            y = self.conv(x).relu()
            return self.head(y), self.head(y[:0])

    plan = tune(Proposals(), sample, **QUICK)
    assert plan.layers[1].calls == 2
    assert "empty map" in plan.layers[1].reason


def test_the_filter_gets_the_users_own_modules(model, sample):
    seen = {}
    tune(model, sample, filter_fn=lambda module, name: seen.update({name: module}) or True, **QUICK)
    assert all(model.get_submodule(name) is module for name, module in seen.items())
    assert {"stem", "body.0", "again"} <= set(seen)


def test_subclasses_and_computed_weights_stay_dense(sample):
    class Own(nn.Conv2d):
        pass

    model = nn.Sequential(
        Own(3, 16, 3),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(16, 16, 3)),
        nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(16, 4, 3).double().float(),
    )
    plan = tune(model, sample, **QUICK)
    reasons = [layer.reason for layer in plan.layers]
    assert reasons[0] == "dense: Own has a forward of its own"
    assert "ParametrizedConv2d" in reasons[1]
    apply(model, plan)(sample)


def test_non_finite_activations_do_not_break_tuning(model, sample):
    sample[0, 0, 0, 0] = float("nan")
    sample[1, 0, 0, 0] = float("inf")
    tune(model, sample, **QUICK)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sample": "photo"}, TypeError, "sample must be a tensor"),
        ({"model": 3}, TypeError, "model must be an nn.Module"),
        ({"methods": ["magic"]}, ValueError, "unknown method 'magic'"),
        ({"min_gain": 0.5}, ValueError, "min_gain >= 1"),
        ({"min_gain": float("nan")}, ValueError, "min_gain >= 1"),
        ({"repeats": 0}, ValueError, "repeats >= 1"),
        ({"budget_s": 0}, ValueError, "budget_s > 0"),
        ({"max_error": -1}, ValueError, "max_error >= 0"),
        ({"budget_s": -(10**400)}, ValueError, "budget_s > 0"),
        ({"budget_s": "10"}, TypeError, "budget_s must be a number, got str"),
        ({"repeats": 2.5}, TypeError, "repeats must be an int, got float"),
        ({"methods": "cpc"}, TypeError, "a list of names, got 'cpc'"),
        ({"methods": 3}, TypeError, "a list of names, got '3'"),
        ({"methods": [10**5000]}, ValueError, "unknown method"),
        ({"max_error": float("nan")}, ValueError, "max_error >= 0"),
        ({"sample": torch.empty(1, 3, 8, 8, device="meta")}, ValueError, "meta"),
        ({"sample": torch.empty(0, 3, 8, 8)}, ValueError, "sample is empty"),
        ({"sample": [torch.rand(1, 3, 8, 8)]}, TypeError, "make it a tuple"),
        ({"sample": []}, TypeError, "make it a tuple"),
        ({"sample": ()}, TypeError, "sample must be a tensor"),
        ({"kwargs": 3}, TypeError, "kwargs must be a dict"),
    ],
)
def test_arguments(model, sample, arguments, error, message):
    with pytest.raises(error, match=message):
        tune(**{"model": model, "sample": sample, **QUICK, **arguments})


@pytest.mark.parametrize("budget_s", [10**400, float("inf")])
def test_as_long_as_it_takes(budget_s):
    x = torch.randn(1, 3, 6, 6)
    plan = tune(nn.Conv2d(3, 4, 3), x, **{**QUICK, "budget_s": budget_s})
    assert set(plan.layers[0].times_ms) >= {"dense", "cpc"}


def test_find_layers_keeps_every_name(model):
    assert [layer.names for layer in find_layers(model)][1] == ["body.0", "again"]


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        return self.conv(x) + 0 * self.calls


def test_buffers_that_the_forward_writes_are_not_the_users(sample):
    model = Counting()
    tune(model, sample, **QUICK)
    assert model.calls == 0


@pytest.mark.parametrize("precision", ["ieee", "tf32", "bf16"])
def test_errors_are_allowed_that_the_permitted_precision_makes(precision, monkeypatch):
    """Of 576 products, and of one, whose factors are rounded."""
    monkeypatch.setattr(_precision, "of_convolutions", lambda: precision)
    for channels, kernel in ((64, 3), (1, 1)):
        conv = nn.Conv2d(channels, 8, kernel, bias=False).requires_grad_(False)
        x = torch.rand(2, channels, 9, 9)
        right = torch.conv2d(x.double(), conv.weight.double())
        for word in _precision.PIECES:
            factors = _precision.rounded(x, word), _precision.rounded(conv.weight, word)
            off = (torch.conv2d(*(t.double() for t in factors)) - right).abs()
            allowed = bool((off <= measure_module._allowed_error(conv, x)).all())
            fewer = list(_precision.PIECES).index(word) > list(_precision.PIECES).index(precision)
            assert allowed or fewer
            assert not (allowed and fewer and channels == 1)


def test_reasons_are_one_printable_line(sample, monkeypatch, tmp_path):
    def refuse(conv, method):
        raise RuntimeError("no\nroom\x1b[31m \t here" + " and there" * 200)

    monkeypatch.setattr(SparseConv2d, "from_dense", refuse)
    plan = tune(nn.Sequential(nn.Conv2d(3, 4, 3)), sample, methods=["cpc"], **QUICK)
    assert plan.layers[0].reason.startswith("dense: no room[31m here and there")
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
