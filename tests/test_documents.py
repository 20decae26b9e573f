"""What documents say can be run: the examples of docstrings and the README's program."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest
import torch

import jsc
from benchmarks.__main__ import BENCHMARKS

ROOT = Path(__file__).parents[1]


def small_network() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.ReLU(),
        torch.nn.Conv2d(32, 32, 3, padding=1), torch.nn.ReLU(),
    )  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["functional.conv", "functional.dct", "functional.jpeg", "functional.quant", "functional.rate",
     "jpeg.files", "jpeg.plots", "nn.jpeg"],
)  # fmt: skip
def test_docstring_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"jsc.{name}")
    names = {"jsc": jsc, "torch": torch, "network": small_network()}
    failed, _ = doctest.testmod(module, extraglobs=names, optionflags=doctest.ELLIPSIS)
    assert failed == 0


@pytest.mark.filterwarnings("ignore:torch alone takes:jsc.PlanWarning")  # it may be, on this net
def test_the_readmes_program_runs():
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len([line for line in program.splitlines() if line and line[0] != "#"]) <= 12
    exec(program, {"network": small_network(), "batch": torch.rand(2, 3, 32, 32)})


def test_the_readmes_commands_exist():
    text = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([a-z-]+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for name in re.findall(r"python -m benchmarks ([a-z]+)", text):
        assert name in BENCHMARKS, name
    for link in re.findall(r"\]\(([^):]+)\)", text):
        assert (ROOT / link).exists(), link
