"""Some thousands of the cases of `fuzz` and `mutate`, always the same; their modules run more."""

from __future__ import annotations

import pytest

from tests.reliability import fuzz, mutate, watch

pytest.importorskip("PIL.Image")


def test_hostile_calls():
    report = watch.run(fuzz.MODULE, fuzz.describe, seed=20, cases=2000, jobs=2)
    assert not report.failures, "\n".join(report.failures)
    assert report.cases == 2000
    assert 500 < report.raised < 1900  # neither all refused nor all swallowed


def test_damaged_files():
    report = watch.run(mutate.MODULE, mutate.describe, seed=20, cases=2000, jobs=2)
    assert not report.failures, "\n".join(report.failures)
    assert report.cases == 2000
    assert 500 < report.raised < 1900


@pytest.mark.parametrize(
    ("module", "lines"),
    [
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "ends by SIGSEGV"),
        ("import time\ntime.sleep(1000)", "hangs for"),
        ("raise KeyError(1)", "KeyError"),
        ("bytearray(6 << 30)", "MemoryError"),
    ],
    ids=["signal", "hang", "exception", "memory"],
)
def test_the_watch_sees_what_goes_wrong(module, lines, tmp_path, monkeypatch):
    """Case 2 of five goes wrong; the others are run all the same."""
    body = "\n".join(f"    {line}" for line in module.splitlines())
    (tmp_path / "spoiled.py").write_text(
        "import sys\nfrom tests.reliability import watch\n"
        f"def call():\n{body}\n"
        "def one(seed, number):\n    try:\n        if number == 2: call()\n"
        "    except Exception as error:\n        return True, type(error).__name__\n"
        "    return number == 3, ''\n"
        "watch.main('spoiled', one, str, cases=5, words='')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(watch, "HANG", 0.5)
    report = watch.run("spoiled", lambda seed, number: "the call", seed=0, cases=5, jobs=1)
    assert len(report.failures) == 1, report.failures
    assert report.failures[0].startswith("case 2 (seed 0)")
    assert lines in report.failures[0]
