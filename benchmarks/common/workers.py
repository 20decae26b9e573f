"""Methods in processes of their own, timed in turn.

    with Workers(threads=2) as workers:
        made = workers["torch"].make(build, *arguments)    # build(*arguments) -> (run, about)
        times = take_turns({"torch": workers["torch"].sample}, rounds=9)

Runtimes keep threads, which wait in a loop for some time after each call, and two libraries in one
process may share one pool of OpenMP threads that each would set up in another way. In a process of
its own a runtime is as its users have it.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.harness import timed

Run = Callable[[], Tensor]


@dataclass(frozen=True)
class Made:
    result: Tensor
    about: Any


def _serve(connection: Connection, threads: int) -> None:
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    run: Run | None = None
    while True:
        try:
            task, *arguments = connection.recv()
        except EOFError:
            return
        try:
            if task == "make":
                run = None  # the one before it goes first
                build, *rest = arguments
                run, about = build(*rest)
                connection.send((run().numpy(), about))
            elif task == "sample":
                assert run is not None
                connection.send(timed(run, *arguments))
        except Exception as error:
            connection.send(RuntimeError(f"{type(error).__name__}: {error}"))


class Worker:
    """A process that holds one method at a time; `environment` is added to that of this one."""

    def __init__(self, threads: int, environment: Mapping[str, str] | None = None):
        context = multiprocessing.get_context("spawn")
        self._connection, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, threads), daemon=True)
        before = dict(os.environ)
        os.environ.update(environment or {})
        try:
            self._process.start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        there.close()

    def _ask(self, *message: Any) -> Any:
        self._connection.send(message)
        answer = self._connection.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def make(self, build: Callable[..., tuple[Run, Any]], *arguments: Any) -> Made:
        """`build(*arguments)` there, in place of what the process held; all can be pickled."""
        result, about = self._ask("make", build, *arguments)
        return Made(torch.from_numpy(result), about)

    def sample(self, count: int) -> float:
        """Seconds a call: see `timed`."""
        return float(self._ask("sample", count))

    def close(self) -> None:
        self._connection.close()
        self._process.join()


class Workers:
    """One process for each name, started when the name first comes and used again."""

    def __init__(self, threads: int):
        self.threads = threads
        self._all: dict[str, Worker] = {}

    def __getitem__(self, name: str) -> Worker:
        if name not in self._all:
            self._all[name] = Worker(self.threads)
        return self._all[name]

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._all.values():
            worker.close()
