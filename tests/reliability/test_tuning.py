"""Tuning among other threads, and interrupted: it changes nothing for anybody else."""

from __future__ import annotations

import copy
import io
import math
import os
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from fake_times import QUICK, Nested, timing_module
from random_networks import randomise
from torch import nn

from benchmarks.inputs import architectures
from jsc.tuning import apply, capture, restore, tune

pytestmark = pytest.mark.filterwarnings("ignore:torch alone takes:jsc.PlanWarning")
THREADS = 6


@pytest.fixture(autouse=True)
def often():
    """Threads take turns as often as Python lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


class Serving:
    """Threads that call a function all the time; what they saw other than True."""

    def __init__(self, right):
        self.calls, self.wrong = 0, Counter()
        self._right, self._stop = right, threading.Event()
        self._threads = [threading.Thread(target=self._serve) for _ in range(THREADS)]

    def _serve(self):
        while not self._stop.is_set():
            try:
                seen = self._right()
            except BaseException as error:
                seen = f"{type(error).__name__}: {error}"
            self.calls += 1
            if seen is not True:
                self.wrong[str(seen)] += 1

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()


def cpc_everywhere(model, sample):
    plan = tune(model, sample, methods=[], **QUICK)
    layers = tuple(  # on a busy machine nothing was measured, and a method needs a dense time
        layer
        if layer.groups > 1
        else replace(layer, method="cpc", times_ms={"dense": 1.0, **layer.times_ms})
        for layer in plan.layers
    )
    return replace(plan, layers=layers)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return randomise(architectures.resnet(10))


X = (2, 3, 16, 16)


class Watching(nn.Module):
    """Notes, whenever it runs, whether anything of torch's or Python's own has been replaced."""

    seen: ClassVar[Counter] = Counter()

    def __init__(self):
        super().__init__()
        self.conv, self.tail = nn.Conv2d(3, 16, 3), nn.Sequential(nn.Conv2d(16, 8, 3), nn.ReLU())
        self.scale = nn.Parameter(torch.ones(16, 1, 1))

    def forward(self, x):
        now = (nn.Module.__call__, nn.Module.__getattr__, math.sqrt, nn.Conv2d.forward, torch.relu)
        Watching.seen[type(x).__name__, now == UNTOUCHED] += 1
        return self.tail(torch.relu(self.conv(x) * self.scale * math.sqrt(4)))


UNTOUCHED = (nn.Module.__call__, nn.Module.__getattr__, math.sqrt, nn.Conv2d.forward, torch.relu)


def test_nothing_global_is_patched():
    Watching.seen.clear()
    model, x = Watching().eval(), torch.rand(X)
    fast = apply(model, cpc_everywhere(model, x))
    tune(model, x, **QUICK)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-5)
    assert set(Watching.seen) == {("Tensor", True)}


def test_plain_modules_in_other_threads_while_tuning(network):
    """Not even one call is wrong."""
    other = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
    x, small = torch.rand(X), torch.rand(1, 3, 8, 8)
    plan = cpc_everywhere(network, x)
    expected = other(small)
    with Serving(lambda: torch.equal(other(small), expected)) as serving:
        for _ in range(20):
            apply(network, plan)
        tune(network, x, **QUICK)
    assert serving.calls > 100
    assert not serving.wrong


@torch.no_grad()
def test_a_tuned_network_from_a_file_called_by_all_at_once(network):
    x = torch.rand(X)
    file = io.BytesIO()
    fast = apply(network, cpc_everywhere(network, x))
    torch.save(fast, file)
    expected = fast(x)
    found = Counter()
    for _ in range(12):
        file.seek(0)
        served = torch.load(file, weights_only=False)
        start = threading.Barrier(8)

        def request(served=served, start=start):
            start.wait()
            with torch.no_grad():
                for _ in range(3):
                    try:
                        found[torch.equal(served(x), expected)] += 1
                    except BaseException as error:
                        found[f"{type(error).__name__}: {error}"] += 1

        threads = [threading.Thread(target=request) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {True: 12 * 8 * 3}


def state(model):
    """All of a model's Python side: flags, hooks, classes, attributes."""
    return [
        (name, type(m), m.training, {k: dict(v) if isinstance(v, dict) else v
                                     for k, v in vars(m).items()})
        for name, m in model.named_modules()
    ]  # fmt: skip


def test_a_model_in_use_while_it_is_tuned():
    """In training mode, as `tune` would not leave it if it touched it."""
    model, x = Nested(), torch.rand(2, 3, 12, 12)
    model.body[1].eval(), model.dropout.eval()
    before = state(model)
    expected = model(x)

    def right():
        if not torch.equal(model(x), expected):
            return "another result"
        return state(model) == before or "another state"

    with Serving(right) as serving:
        plan = tune(model, x, **QUICK)
        fast = apply(model, plan)
        restore(fast)
    assert serving.calls > 20
    assert not serving.wrong
    assert state(model) == before


def test_several_tune_the_same_model_at_once():
    model, x = Nested(), torch.rand(2, 3, 12, 12)
    before = state(model)
    options = {**QUICK, "methods": ["cpc", "mec"], "budget_s": 0.2}
    with ThreadPoolExecutor(THREADS) as pool:
        plans = list(pool.map(lambda _: tune(model, x, **options), range(THREADS)))
    assert state(model) == before
    for plan in plans:
        assert plan.max_error <= 1e-4
        assert [layer.calls for layer in plan.layers] == [1, 2, 1, 0]


def test_the_random_state_is_asked_for_by_one_at_a_time(monkeypatch):
    """torch's functions for it wait for each other for ever if garbage is collected in between."""
    inside, most, met = [], [], threading.Event()
    for name in ("get_rng_state", "set_rng_state"):
        torchs = getattr(torch.random, name)

        def watched(*arguments, torchs=torchs):
            inside.append(1)
            most.append(len(inside))
            if len(inside) > 1:
                met.set()
            met.wait(0.05)  # for another thread to come in, if it can
            inside.pop()
            return torchs(*arguments)

        monkeypatch.setattr(torch.random, name, watched)
    x, conv = torch.rand(1, 3, 8, 8), nn.Conv2d(3, 8, 3)
    options = {**QUICK, "methods": [], "budget_s": 0.01, "repeats": 1}
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda _: tune(conv, x, **options), range(THREADS)))
    assert len(most) >= 2 * THREADS
    assert max(most) == 1


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_while_another_thread_has_the_random_state():
    """The child has a lock of its own, which no thread holds."""
    held, done = threading.Event(), threading.Event()

    def hold():
        with capture._RANDOM:
            held.set()
            done.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(60)
    child = os.fork()
    if child == 0:
        os._exit(0 if capture._RANDOM.acquire(timeout=10) else 1)
    _, status = os.waitpid(child, 0)
    done.set()
    holder.join()
    assert os.waitstatus_to_exitcode(status) == 0


def test_an_interrupt_leaves_the_model_as_it_was(monkeypatch):
    """Wherever it comes: at each of the calls of the clock in turn."""
    model, x = Nested(), torch.rand(1, 3, 8, 8)
    model.body[1].eval()
    before, random = state(model), torch.random.get_rng_state()
    values = copy.deepcopy(model.state_dict())
    clock, left = timing_module.clock, [0]

    def interrupted():
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return clock()

    monkeypatch.setattr(timing_module, "clock", interrupted)
    tries, done = 0, False
    while not done:
        left[0] = 1 + 5 * tries
        try:
            tune(model, x, methods=["cpc"], **{**QUICK, "budget_s": 0.05, "repeats": 1})
            done = True
        except KeyboardInterrupt:
            tries += 1
        assert state(model) == before
        assert torch.equal(random, torch.random.get_rng_state())
        assert torch.is_grad_enabled()
    assert tries > 3
    assert all(torch.equal(value, values[key]) for key, value in model.state_dict().items())


def test_an_interrupt_inside_a_layer_leaves_the_model_as_it_was(monkeypatch):
    model, x = Nested(), torch.rand(1, 3, 8, 8)
    before = state(model)
    forward, left = nn.Conv2d._conv_forward, [0]

    def interrupted(self, *arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return forward(self, *arguments)

    monkeypatch.setattr(nn.Conv2d, "_conv_forward", interrupted)
    for calls in (0, 1, 4, 5, 10, 20):
        left[0] = calls
        with pytest.raises(KeyboardInterrupt):
            tune(model, x, methods=["cpc"], **QUICK)
        assert state(model) == before
