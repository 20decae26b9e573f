"""Forks, workers, threads at the end of the interpreter, interrupts, environments, no memory."""

from __future__ import annotations

import hashlib
import multiprocessing
import signal
import subprocess
import sys

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import jsc
from tests.reliability import life
from tests.reliability.life import METHODS, environment, integers, layer, python

START = "import torch\nfrom tests.reliability import life\ntorch.set_num_threads(2)\n"
slow = pytest.mark.slow  # each of these is a process of its own, which imports torch first


def finishes(run, printed="done"):
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == printed.split(), run.stderr
    for word in ("Fatal", "Exception", "terminate called", "Segmentation"):
        assert word not in run.stderr, run.stderr


# Forks and other processes.

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


# Threads, and the end of the interpreter.


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
        assert run.stderr.startswith("terminate called without an active exception"), run.stderr


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
import sys, jsc
from tests.reliability.networks import Net
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
    assert process.stdout.readline() == "ready\n"
    with pytest.raises(subprocess.TimeoutExpired):  # the tuning goes on for as long as it is let
        process.wait(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=life.LIMIT)
    assert (process.returncode, out) == (0, "done\n"), err


# Environments.


QUICK_ENVIRONMENTS = [
    {"OMP_NUM_THREADS": "999"},
    {"OMP_NUM_THREADS": "abc"},
    {"OMP_THREAD_LIMIT": "1"},
    {"MALLOC_PERTURB_": "165", "PYTHONMALLOC": "debug"},  # new memory is not zero
]
ENVIRONMENTS = [
    {"OMP_NUM_THREADS": None},
    {"OMP_NUM_THREADS": "1"},
    {"OMP_NUM_THREADS": "64"},
    {"OMP_NUM_THREADS": "0"},
    {"OMP_NUM_THREADS": "2,3"},
    {"OMP_DYNAMIC": "true", "OMP_MAX_ACTIVE_LEVELS": "3"},
    {"OMP_WAIT_POLICY": "active", "OMP_PROC_BIND": "true"},
    {"MKL_NUM_THREADS": "1"},
    {"JSC_ISA": "base"},
    {"PYTHONOPTIMIZE": "2", "PYTHONHASHSEED": "1"},
]


def digests():
    """Of what is exact on every instruction set, and of the JPEG layer's result."""
    results = life.work()
    exact = b"".join(r.numpy().tobytes() for r in results[:-3])
    return [hashlib.sha256(part).hexdigest() for part in (exact, results[-3].numpy().tobytes())]


@pytest.mark.parametrize(
    "changes",
    [*QUICK_ENVIRONMENTS, *(pytest.param(c, marks=slow) for c in ENVIRONMENTS)],
    ids=lambda changes: ",".join(f"{k}={v}" for k, v in changes.items()),
)
def test_environments(changes):
    """The same bits: of integers, and of the JPEG layer where the instruction set is the same."""
    run = python("from tests.reliability import test_life\nprint(*test_life.digests())", **changes)
    assert run.returncode == 0, run.stderr
    count = 1 if "JSC_ISA" in changes else 2
    assert run.stdout.split()[:count] == digests()[:count]


@slow
@pytest.mark.parametrize(
    "order",
    [
        "import torch, jsc",
        "import jsc, torch",
        "import numpy, jsc",
        "import jsc._kernels.cpc.forward, torch",
    ],
)
def test_orders_of_imports(order):
    finishes(python(f"{order}\nfrom tests.reliability import life\nlife.work(); print('done')"))


@slow
def test_warnings_as_errors_and_developer_mode():
    finishes(python(f"{START}life.work(); print('done')", "-W", "error", "-X", "dev"))


# No memory.


NO_MEMORY = """
import resource
expected = life.work()
small = life.integers(1, 32, 24, 24).relu()
large = torch.zeros(1).expand(1, 32, 3000, 3000)  # its output alone has 1.7 GB
_, hard = resource.getrlimit(resource.RLIMIT_AS)
for method in life.METHODS:
    module = life.layer(method)
    right = module(small)
    pages = int(open('/proc/self/statm').read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 200 * 2**20, hard))
    for _ in range(3):
        try:
            module(large)
        except (RuntimeError, MemoryError) as error:
            assert str(error), type(error)
            print(method)
        assert torch.equal(module(small), right)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
life.same_work(expected); print('done')"""


def test_no_memory_is_an_error_and_nothing_else():
    """The address space has no room for the result or the scratch; afterwards all is as before."""
    refused = " ".join(method for method in METHODS for _ in range(3))
    finishes(python(START + NO_MEMORY), f"{refused} done")
