"""Threads alive at the end of the interpreter, signals, and objects that end while in use."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.reliability import life
from tests.reliability.life import START, environment, finishes, python

slow = pytest.mark.slow  # each of these is a process of its own, which imports torch first


AT_THE_END = """
import threading, itertools
expected, started = life.work(), threading.Barrier(5)
def serve():
    started.wait()
    for _ in {turns}: life.work()
for _ in range(4): threading.Thread(target=serve, daemon={daemon}).start()
started.wait(); print('done', flush=True)"""


@slow
def test_threads_alive_at_the_end():
    finishes(python(START + AT_THE_END.format(turns="range(20)", daemon=False)))


def test_daemons_alive_at_the_end():
    """Before Python 3.14 a daemon that comes out of native code then is unwound, and C++ that must
    not throw ends the process: torch's own calls do so in every second run. It is the only thing
    that may happen here as well; our kernels are C and let themselves be unwound."""
    run = python(START + AT_THE_END.format(turns="itertools.count()", daemon=True))
    assert run.stdout == "done\n"
    if run.returncode:
        assert sys.version_info < (3, 14)
        assert run.returncode == -signal.SIGABRT
        # Two threads may end it at a time: one of them says "recursively".
        ended = run.stderr.splitlines()
        assert "terminate called without an active exception" in ended, run.stderr
        assert all(line.startswith("terminate called") for line in ended), run.stderr


KERNEL_AT_THE_END = """
import itertools, threading, numpy
from jsc._kernels.jpeg import dct
started = threading.Barrier(5)
def serve():
    x, z = numpy.ones((1, 64, 64), 'f4'), numpy.empty((1, 8, 8, 64), 'f4')
    started.wait()
    for _ in itertools.count(): dct.forward(x, z, 0, 2)
for _ in range(4): threading.Thread(target=serve, daemon=True).start()
started.wait(); print('done', flush=True)"""


def test_daemons_in_a_kernel_at_the_end():
    finishes(python(START + KERNEL_AT_THE_END))


SIGNALS = """
import signal
x, calls = life.integers(1, 32, 8, 8).relu(), 0
layers = [life.layer('cpc'), life.layer('cps')]
expected = [module(x) for module in layers]
def handler(*_):
    global calls
    calls += 1
    layers[1].repack()
    assert torch.equal(layers[1](x), expected[1])
    signal.setitimer(signal.ITIMER_REAL, 1e-4)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 1e-4)
while calls < 3000:
    layers[0].repack()
    assert torch.equal(layers[0](x), expected[0])
signal.signal(signal.SIGALRM, signal.SIG_IGN)
print('done')"""


def test_calls_in_a_signal_handler():
    """It runs in the middle of another call, and must not wait for that one."""
    finishes(python(START + SIGNALS))


@slow
def test_calls_at_the_end():
    """From `atexit`, and from a finaliser when most of Python is gone."""
    finishes(
        python(
            START
            + """
import atexit
module, x = life.layer('cpc'), life.integers(1, 32, 20, 20).relu()
expected = module(x)
class Last:
    def __init__(self): self.held = module, x, expected, torch.equal
    def __del__(self):
        module, x, expected, equal = self.held
        print('done' if equal(module(x), expected) else 'wrong', flush=True)
last = Last()
atexit.register(lambda: life.same_work(life.work()))"""
        )
    )


def test_modules_deleted_while_they_are_called():
    finishes(
        python(
            START
            + """
import gc, threading
x = life.integers(1, 32, 24, 24).relu()
for method in life.METHODS:
    for _ in range(8):
        held = [life.layer(method)]
        expected, started, wrong = held[0](x), threading.Barrier(5), []
        def call():
            module = held[0]
            started.wait()
            for i in range(5):
                out = module(x)
                wrong.append(not torch.equal(out, expected))
        threads = [threading.Thread(target=call) for _ in range(4)]
        [t.start() for t in threads]
        started.wait(); held.clear(); gc.collect()
        [t.join() for t in threads]
        assert len(wrong) == 20 and not any(wrong)
print('done')"""
        )
    )


def test_parameters_replaced_while_they_are_read():
    """Only the call itself still holds the old weights, and what was laid out for them."""
    finishes(
        python(
            START
            + """
import threading
x = life.integers(1, 32, 24, 24).relu()
for method in life.METHODS:
    module, stop = life.layer(method), threading.Event()
    old = module.weight.detach().clone()
    expected = module(x)
    def replace():
        while not stop.is_set():
            module.weight = torch.nn.Parameter(old.clone(), requires_grad=False)
    thread = threading.Thread(target=replace); thread.start()
    right = [torch.equal(module(x), expected) for _ in range(200)]
    stop.set(); thread.join()
    assert all(right), method
print('done')"""
        )
    )


def test_calls_inside_a_parallel_region():
    """A parallel region of torch, or of a library that calls back: no threads within threads."""
    finishes(
        python(
            START
            + """
import ctypes, threadpoolctl
(path,) = {p['filepath'] for p in threadpoolctl.threadpool_info() if p['user_api'] == 'openmp'}
expected, done = life.work(), []
@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def body(_):
    life.same_work(expected)
    done.append(1)
ctypes.CDLL(path).GOMP_parallel(body, None, 3, 0)
life.same_work(expected)
print('done' if len(done) == 3 else done)"""
        )
    )


def test_an_interrupt_of_tune_leaves_the_model_as_it_was():
    code = (
        START
        + """
import signal, sys, jsc
from tests.reliability.networks import Net
# What is started in the background of a shell inherits that interrupts are ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.manual_seed(0)
model, x = Net(64), torch.rand(4, 3, 64, 64)
model.train(); model.stem.eval()
def state():
    return [(name, type(m), m.training, sorted(vars(m)), len(m._forward_pre_hooks),
             len(m._forward_hooks),
             [(k, id(v), v._version) for k, v in m._parameters.items() if v is not None],
             [(k, id(v), v.tolist()) for k, v in m._buffers.items() if v is not None])
            for name, m in model.named_modules()]
before, random, threads = state(), torch.random.get_rng_state(), torch.get_num_threads()
print('ready', flush=True)
try:
    while True: jsc.tune(model, x, budget_s=30, progress=False)
except KeyboardInterrupt:
    pass
assert state() == before
assert torch.get_num_threads() == threads and torch.is_grad_enabled()
life.same_work(life.work())
model(x); print('done')"""
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], text=True, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):  # the tuning goes on as long as it is let
            process.wait(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=life.LIMIT)
        assert (process.returncode, out) == (0, "done\n"), err
    finally:
        process.kill()  # one that does not end would run on after the tests
