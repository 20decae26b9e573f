"""Methods that are timed in processes of their own."""

import os

import pytest
import torch

from benchmarks.common.harness import take_turns
from benchmarks.common.workers import Workers


def adds(number):
    return lambda: torch.full((3,), float(number)), {
        "threads": torch.get_num_threads(), "process": os.getpid(),
    }  # fmt: skip


def fails():
    raise ValueError("no such model")


def test_workers_hold_one_method_each_and_take_turns():
    with Workers(threads=1) as workers:
        made = {name: workers[name].make(adds, i) for i, name in enumerate(("a", "b"))}
        assert [one.result[0].item() for one in made.values()] == [0, 1]
        assert len({os.getpid(), *(one.about["process"] for one in made.values())}) == 3
        again = workers["a"].make(adds, 7)
        assert again.result.tolist() == [7, 7, 7]
        assert again.about == made["a"].about | {"threads": 1}  # in the same process
        times = take_turns({name: workers[name].sample for name in made}, 3, 1e-4)
        assert all(len(t.samples) == 3 and (t.samples > 0).all() for t in times.values())


def test_what_fails_there_is_raised_here_and_the_process_goes_on():
    with Workers(threads=1) as workers:
        with pytest.raises(RuntimeError, match="ValueError: no such model"):
            workers["a"].make(fails)
        assert workers["a"].make(adds, 2).result.tolist() == [2, 2, 2]
