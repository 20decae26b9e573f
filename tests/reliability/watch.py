"""Run numbered cases in processes of their own and watch them: a signal, a hang or a forbidden
exception of one case is a line in the report, and the next case runs in a fresh process.

A case is made from (seed, number) alone, so any of them can be run again by its number.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
HANG = 10.0  # seconds of the processor for one case, which may wait five times as long for it
PREPARING, LEAVING = -1, -2  # instead of a number: what a worker does before and after its cases
PATIENCE = {PREPARING: 600.0, LEAVING: 60.0}  # imports take long where many wait for the processor
MEMORY = 4 << 30  # bytes beside those of the process when it starts
TICK = 0.1


@dataclass
class Worker:
    """A process that runs the cases of `numbers`, and where it writes what it does."""

    process: subprocess.Popen[bytes]
    numbers: range
    folder: Path
    index: int = PREPARING  # or the case that it runs
    since: float = 0.0  # on the clock
    spent: float = 0.0  # of the processor, when it began that

    def now(self) -> int:
        text = (self.folder / "now").read_text()
        return int(text) if text.strip() else PREPARING

    def cpu(self) -> float:
        """Seconds of the processor that it has spent, all threads together."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            return self.spent
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def hangs(self) -> str:
        """That it does, or nothing."""
        waited = time.monotonic() - self.since
        if self.index in PATIENCE:
            late = waited > PATIENCE[self.index]
        else:
            late = waited > HANG and (waited > 6 * HANG or self.cpu() - self.spent > HANG)
        return f"hangs for {waited:.0f} s" if late else ""

    def stop(self, tell: bool) -> None:
        if self.process.poll() is None:
            if tell:
                self.process.send_signal(signal.SIGUSR1)  # write where it is
                time.sleep(5 * TICK)
            self.process.kill()
            self.process.wait()


@dataclass
class Report:
    """What a run found."""

    cases: int = 0
    raised: int = 0  # of the cases: ended in one of the exceptions that are allowed
    failures: list[str] = field(default_factory=list)

    def add(self, worker: Worker) -> None:
        """A worker's own account: a line for each failure, and now and then its numbers so far."""
        counts = [0, 0]
        for line in (worker.folder / "found").read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # the last one may be cut
                entry = json.loads(line)
                if "failure" in entry:
                    self.failures.append(entry["failure"])
                else:
                    counts = [entry["cases"], entry["raised"]]
        self.cases += counts[0]
        self.raised += counts[1]

    def __str__(self) -> str:
        refused = f"{self.raised} of them refused in words"
        return f"{self.cases} cases, {refused}, {len(self.failures)} failures"


def run(
    module: str,
    describe: Callable[[int, int], str],
    *,
    seed: int,
    cases: int,
    seconds: float = float("inf"),
    jobs: int = 1,
) -> Report:
    """Run `cases` cases of `module` (as many of them as `seconds` allow)."""
    report, end = Report(), time.monotonic() + seconds
    workers: list[Worker] = []
    with tempfile.TemporaryDirectory() as base:
        try:
            for first in range(min(jobs, cases)):
                numbers = range(first, cases, jobs)
                workers.append(_started(module, seed, numbers, Path(base) / str(first)))
            while workers:
                time.sleep(TICK)
                for worker in list(workers):
                    now, ended = worker.now(), worker.process.poll()
                    if now != worker.index:
                        worker.index, worker.since, worker.spent = (
                            now,
                            time.monotonic(),
                            worker.cpu(),
                        )
                    over = time.monotonic() > end
                    what = _ending(ended) if ended else worker.hangs()
                    if ended is None and not what and not over:
                        continue
                    worker.stop(bool(what))
                    workers.remove(worker)
                    report.add(worker)
                    if not what:
                        continue
                    text = describe(seed, now) if now >= 0 else "before or after all cases"
                    errors = (worker.folder / "stderr").read_text(errors="replace")[-3000:]
                    report.failures.append(f"case {now} (seed {seed}): {what}: {text}\n{errors}")
                    left = worker.numbers[worker.numbers.index(now) + 1 :] if now >= 0 else ()
                    if left and not over:
                        folder = worker.folder.with_name(f"{worker.folder.name}-{now}")
                        workers.append(_started(module, seed, left, folder))
        finally:
            for worker in workers:
                worker.stop(False)
    return report


def _started(module: str, seed: int, numbers: range, folder: Path) -> Worker:
    folder.mkdir()
    for name in ("now", "found"):
        (folder / name).touch()
    command = [sys.executable, "-m", module, "--seed", str(seed), "--worker"]
    command += [str(n) for n in (numbers.start, numbers.stop, numbers.step)] + [str(folder)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_WAIT_POLICY": "passive"}
    with open(folder / "stderr", "wb") as errors:
        process = subprocess.Popen(command, env=environment, cwd=folder, stderr=errors)
    return Worker(process, numbers, folder, since=time.monotonic())


def _ending(code: int) -> str:
    return f"ends by {signal.Signals(-code).name}" if code < 0 else f"ends with exit code {code}"


def work(
    one: Callable[[int, int], tuple[bool, str]],
    prepare: Callable[[], None],
    seed: int,
    numbers: range,
    to: Path,
) -> None:
    """The worker: `one(seed, number)` gives (an exception was raised, what is wrong with it)."""
    warnings.simplefilter("ignore")
    prepare()
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    _limit_memory()
    cases = raised = 0
    with open(to / "now", "r+b", buffering=0) as now, open(to / "found", "a") as found:
        for number in numbers:
            now.seek(0)
            now.write(b"%12d" % number)
            refused, wrong = one(seed, number)
            cases, raised = cases + 1, raised + refused
            if wrong:
                found.write(json.dumps({"failure": f"case {number} (seed {seed}): {wrong}"}) + "\n")
            if cases % 100 == 0 or wrong or number == numbers[-1]:
                found.write(json.dumps({"cases": cases, "raised": raised}) + "\n")
                found.flush()
        now.seek(0)
        now.write(b"%12d" % LEAVING)


def _limit_memory() -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.RLIM_INFINITY))


def main(
    module: str,
    one: Callable[[int, int], tuple[bool, str]],
    describe: Callable[[int, int], str],
    prepare: Callable[[], None] = lambda: None,
    *,
    cases: int,
    words: str,
) -> int:
    """The command line that all harnesses of this kind share."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=words)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this time")
    parser.add_argument("--cases", "--calls", type=int, default=cases, help=f"default {cases}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="run one case here, unwatched")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        *numbers, folder = options.worker
        work(one, prepare, options.seed, range(*map(int, numbers)), Path(folder))
        return 0
    if options.only is not None:
        print(describe(options.seed, options.only))
        refused, wrong = one(options.seed, options.only)
        print(wrong or ("refused in words" if refused else "no exception"))
        return 1 if wrong else 0
    start = time.monotonic()
    report = run(
        module, describe,
        seed=options.seed, cases=options.cases, seconds=options.seconds, jobs=options.jobs,
    )  # fmt: skip
    for failure in report.failures:
        print(failure)
        number = failure.split()[1]
        print(f"    again: python -m {module} --seed {options.seed} --only {number}")
    print(f"{module}: {report} in {time.monotonic() - start:.0f} s")
    return 1 if report.failures else 0
