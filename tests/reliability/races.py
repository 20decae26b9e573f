"""Calls from several Python threads at once, every result compared with the right one.

    python -m tests.reliability.races --calls 1000000

runs every scenario of `scenarios` in a process of its own (a crash is a finding, and must
not hide the others) and prints a line for each: calls, wrong results, errors. Threads change hands
every microsecond of Python, so that what may happen between two lines of code does happen.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

THREADS = 8
SWITCH = 1e-6  # seconds of Python a thread has before another may run


@dataclass
class Scenario:
    """`call(rng)` makes a call and says whether its result was right. The `disturbers` run as often
    as they can in threads of their own until the calls are done. `begin` is called by one thread
    before each round of `calls_a_round` calls of each thread, at which all threads start together.
    """

    call: Callable[[random.Random], bool]
    disturbers: tuple[Callable[[random.Random], None], ...] = ()
    begin: Callable[[], None] | None = None
    calls_a_round: int | None = None  # all of them in one round


@dataclass
class Report:
    calls: int = 0
    wrong: int = 0
    disturbances: int = 0
    seconds: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        return self.calls > 0 and not self.wrong and not self.errors


def storm(scenario: Scenario, calls: int, threads: int = THREADS, seed: int = 0) -> Report:
    """About `calls` calls by `threads` threads."""
    report, lock, done = Report(), threading.Lock(), threading.Event()
    errors: collections.Counter[str] = collections.Counter()
    share = -(-calls // threads)
    a_round = min(share, scenario.calls_a_round or share)
    barrier = threading.Barrier(threads, scenario.begin)

    def worker(index: int) -> None:
        rng = random.Random(1000 * seed + index)
        made = wrong = 0
        found: collections.Counter[str] = collections.Counter()
        for _ in range(-(-share // a_round)):
            barrier.wait()
            for _ in range(a_round):
                made += 1
                try:
                    wrong += not scenario.call(rng)
                except Exception as error:
                    found[f"{type(error).__name__}: {error}"[:100]] += 1
        with lock:
            report.calls += made
            report.wrong += wrong
            errors.update(found)

    def disturber(function: Callable[[random.Random], None], index: int) -> None:
        rng = random.Random(7 + index)
        while not done.is_set():
            try:
                function(rng)
                report.disturbances += 1
            except Exception as error:
                with lock:
                    errors[f"while disturbing, {type(error).__name__}: {error}"[:100]] += 1

    callers = [threading.Thread(target=worker, args=(i,)) for i in range(threads)]
    others = [
        threading.Thread(target=disturber, args=(function, i))
        for i, function in enumerate(scenario.disturbers)
    ]
    before, start = sys.getswitchinterval(), time.perf_counter()
    sys.setswitchinterval(SWITCH)
    try:
        for thread in (*others, *callers):
            thread.start()
        for thread in callers:
            thread.join()
        done.set()
        for thread in others:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    report.seconds, report.errors = time.perf_counter() - start, dict(errors.most_common(8))
    return report


def in_a_process(name: str, calls: int, seed: int, limit: float) -> Report:
    """The same in a process of its own; a signal or a hang is an error of the report."""
    command = [sys.executable, "-X", "faulthandler", "-m", __spec__.name, "--one", name]
    try:
        run = subprocess.run(
            [*command, "--calls", str(calls), "--seed", str(seed)],
            capture_output=True, text=True, timeout=limit,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Report(errors={f"no end after {limit:.0f} s": 1})
    if run.returncode:
        last = (run.stderr.strip().splitlines() or [""])[0]
        return Report(errors={f"the process ended with {run.returncode}: {last}": 1})
    return Report(**json.loads(run.stdout.splitlines()[-1]))


def main(arguments: Iterable[str] | None = None) -> int:
    import torch

    from tests.reliability.scenarios import SCENARIOS  # which imports this module

    parser = argparse.ArgumentParser(prog="python -m tests.reliability.races")
    parser.add_argument("--calls", type=int, default=100_000, help="of all scenarios together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="scenarios whose name has this in it")
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds for a scenario")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        torch.manual_seed(options.seed)
        report = storm(SCENARIOS[options.one].make(), options.calls, seed=options.seed)
        print(json.dumps(vars(report)))
        return 0

    chosen = {name: s for name, s in SCENARIOS.items() if options.only in name}
    whole = sum(s.weight for s in chosen.values())
    total, bad = Report(), 0
    for name, scenario in chosen.items():
        calls = max(THREADS, round(options.calls * scenario.weight / whole))
        report = in_a_process(name, calls, options.seed, options.limit)
        total.calls += report.calls
        total.wrong += report.wrong
        bad += not report.clean
        verdict = f"{report.calls:9,} calls {report.wrong:6,} wrong {report.seconds:7.1f} s"
        print(f"{name:44} {verdict}", report.errors or "", flush=True)
    print(
        f"{total.calls:,} calls in {len(chosen)} scenarios: {total.wrong:,} wrong, {bad} not clean"
    )
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
