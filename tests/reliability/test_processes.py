"""Forks, new processes and the workers of data loaders."""

from __future__ import annotations

import multiprocessing

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import jsc
from tests.reliability import life
from tests.reliability.life import START, finishes, integers, layer, python

slow = pytest.mark.slow  # each of these is a process of its own, which imports torch first


FORK = """
import os
def child(function):
    pid = os.fork()
    if pid == 0:
        status = 9
        try:
            function(); status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


@pytest.mark.parametrize(
    "warm", [pytest.param(True, id="warm"), pytest.param(False, id="cold", marks=slow)]
)
def test_forked_children_and_grandchildren(warm):
    first = "expected = life.work()\n" if warm else "expected = None\n"
    finishes(
        python(
            START + FORK + first + "def grow():\n"
            "    found = life.work()\n"
            "    assert expected is None or all(map(torch.equal, found, expected))\n"
            "    child(lambda: life.same_work(found))\n"
            "for _ in range(3): child(grow)\n"
            "life.same_work(life.work()); print('done')"
        )
    )


@slow
def test_forks_while_threads_call():
    finishes(
        python(
            START + FORK + "import threading\n"
            "expected, stop = life.work(), threading.Event()\n"
            "def serve():\n"
            "    while not stop.is_set(): life.same_work(expected)\n"
            "threads = [threading.Thread(target=serve) for _ in range(3)]\n"
            "[t.start() for t in threads]\n"
            "for _ in range(10): child(lambda: life.same_work(expected))\n"
            "stop.set(); [t.join() for t in threads]; print('done')",
            "-W", "ignore::DeprecationWarning",
        )
    )  # fmt: skip


FORKS = """
import sys, threading
sys.setswitchinterval(1e-6)
x, stop = life.integers(1, 32, 8, 8).relu(), threading.Event()
layers = [life.layer('cpc') for _ in range(4)]
expected = layers[0](x)
def serve(module):
    while not stop.is_set(): module.repack(); module(x)
threads = [threading.Thread(target=serve, args=(module,)) for module in layers[:3]]
[t.start() for t in threads]
def call(): assert torch.equal(layers[3](x), expected)
try:
    for _ in range(150): child(call)
finally:
    stop.set(); [t.join() for t in threads]
print('done')"""


def test_forks_while_threads_lay_weights_out():
    """What a fork finds locked stays locked in the child, where no thread is left to unlock it."""
    finishes(python(START + FORK + FORKS, "-W", "ignore::DeprecationWarning"))


PLANS = """
import threading, jsc
stop, whole = threading.Event(), torch.rand(60, 3, 12, 12)
model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
net = jsc.compile(model, whole[:2], budget=0, check=False)
with torch.no_grad(): expected = [net(whole[:n]) for n in (2, 50)]
def serve():
    with torch.no_grad():
        while not stop.is_set():
            for n in range(3, 40): net(whole[:n])
threads = [threading.Thread(target=serve) for _ in range(2)]
[t.start() for t in threads]
def call():
    with torch.no_grad():
        assert torch.equal(net(whole[:2]), expected[0])
        assert torch.equal(net(whole[:50]), expected[1])
try:
    for _ in range(10): child(call)
finally:
    stop.set(); [t.join() for t in threads]
print('done')"""


@slow
def test_forks_while_threads_plan_a_compiled_network():
    """A child plans another size, whoever held the network's lock when it was forked."""
    finishes(python(START + FORK + PLANS, "-W", "ignore::DeprecationWarning"))


@slow
@pytest.mark.parametrize("how", ["spawn", "forkserver"])
def test_new_processes(how):
    child = torch.multiprocessing.get_context(how).Process(
        target=life.same_work, args=(life.work(),)
    )
    child.start()
    child.join(life.LIMIT)
    assert child.exitcode == 0


class Images(Dataset):
    """A sample is an image behind the JPEG layer, and a map behind a convolution."""

    def __init__(self):
        self.layer, self.conv = jsc.nn.JPEG.from_quality(30), layer("cpc")

    def __len__(self):
        return 6

    def __getitem__(self, i):
        with torch.no_grad():
            x = integers(1, 32, 16, 16, seed=i).relu()
            return self.layer(life.image(i))[0], self.conv(x)[0]


@pytest.mark.parametrize(
    ("workers", "how"),
    [
        (0, None),
        (2, "fork"),
        pytest.param(2, "spawn", marks=slow),
        pytest.param(2, "forkserver", marks=slow),
    ],
)
def test_data_loader(workers, how):
    dataset = Images()
    expected = [dataset[i] for i in range(len(dataset))]
    loader = DataLoader(
        dataset, batch_size=2, num_workers=workers, multiprocessing_context=how,
        timeout=life.LIMIT if workers else 0,
    )  # fmt: skip
    found = [pair for batch in loader for pair in zip(*batch, strict=True)]
    assert len(found) == len(expected)
    for pair, right in zip(found, expected, strict=True):
        assert all(map(torch.equal, pair, right))


@slow
def test_pool_of_processes():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply_async(life.same_work, (life.work(),)).get(life.LIMIT) is None
