"""What documents say can be run: the examples of docstrings and the README's program."""

from __future__ import annotations

import doctest
import importlib
import re
import subprocess
import sys
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
     "jpeg.files", "jpeg.groups", "jpeg.plots", "nn.jpeg", "nn.random_jpeg"],
)  # fmt: skip
def test_docstring_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"jsc.{name}")
    names = {"jsc": jsc, "torch": torch, "network": small_network()}
    failed, _ = doctest.testmod(module, extraglobs=names, optionflags=doctest.ELLIPSIS)
    assert failed == 0


# What the README's programs take for granted; this small network may get a jsc.PlanWarning.
BEFORE = """
import torch, warnings
warnings.simplefilter("error")
warnings.filterwarnings("ignore", "torch alone takes")
network = torch.nn.Sequential(
    torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.ReLU(),
    torch.nn.Conv2d(32, 32, 3, padding=1), torch.nn.ReLU(),
)
batch = torch.rand(2, 3, 32, 32)
"""


def programs() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_readmes_programs_run_as_they_are_printed(tmp_path):
    """All of them, in order, in a process of their own; and its ways of marking a program are
    those that this test sees."""
    text = (ROOT / "README.md").read_text()
    assert len(re.findall(r"^ *```\s*\w*py", text, re.MULTILINE)) == len(programs()) >= 2
    assert ">>>" not in text
    file = tmp_path / "readme.py"
    file.write_text("\n".join([BEFORE, *programs()]))
    done = subprocess.run(
        [sys.executable, str(file)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert jsc.__version__ in done.stdout


def test_the_readmes_program_is_short_and_shows_inference():
    program = programs()[0]
    assert len([line for line in program.splitlines() if line and line[0] != "#"]) <= 12
    for call in ("fast(batch)", "net(batch)"):
        (line,) = [line for line in program.splitlines() if call in line]
        before = program[: program.index(line)].rstrip().splitlines()[-1]
        assert before == "with torch.inference_mode():"
        assert line.startswith("    ")


def test_the_readmes_commands_exist():
    text = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([a-z-]+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for name in re.findall(r"python -m benchmarks ([a-z]+)", text):
        assert name in BENCHMARKS, name
    for link in re.findall(r"\]\(([^):]+)\)", text):
        assert (ROOT / link).exists(), link
