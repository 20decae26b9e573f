"""What documents say can be run: the examples of docstrings and the README's program."""

from __future__ import annotations

import doctest
import importlib
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import jsc
import jsc.network.backend
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
     "jpeg.files", "jpeg.groups", "jpeg.plots", "nn.fat_relu", "nn.jpeg", "nn.random_jpeg",
     "tuning.sparsify"],
)  # fmt: skip
def test_docstring_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"jsc.{name}")
    names = {"jsc": jsc, "torch": torch, "network": small_network()}
    failed, _ = doctest.testmod(module, extraglobs=names, optionflags=doctest.ELLIPSIS)
    assert failed == 0


# Warnings are errors in the README's programs; its small network may get a jsc.PlanWarning.
BEFORE = """
import warnings
warnings.simplefilter("error")
warnings.filterwarnings("ignore", "torch alone takes")
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
    assert len([line for line in program.splitlines() if line and line[0] != "#"]) <= 15
    for call in ("fast(batch)", "net(batch)"):
        (line,) = [line for line in program.splitlines() if call in line]
        before = program[: program.index(line)].rstrip().splitlines()[-1]
        assert before == "with torch.inference_mode():"
        assert line.startswith("    ")


PAGES = sorted((ROOT / "docs").glob("*.md")) + sorted((ROOT / "docs" / "howto").glob("*.md"))
RUN = [page for page in PAGES if ">>>" in page.read_text()]


@pytest.fixture
def _backend():
    """The name "jsc" of torch.compile, also where the installed metadata are older than it."""
    assert 'jsc = "jsc.network.backend:backend"' in (ROOT / "pyproject.toml").read_text()
    if "jsc" not in torch._dynamo.list_backends():
        torch._dynamo.register_backend(jsc.network.backend.backend, name="jsc")


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
@pytest.mark.usefixtures("_backend")
@pytest.mark.filterwarnings("ignore:torch alone takes:jsc.PlanWarning")
def test_the_code_of_pages(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert failed == 0
    assert tried >= 3


def test_all_python_on_pages_is_run():
    """A block of Python without prompts would be shown and never tried."""
    for page in PAGES:
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
            assert block.startswith(">>> "), page
            assert block.endswith("\n\n"), f"{page}: a blank line ends the output"


def test_every_public_name_is_in_the_reference():
    text = (ROOT / "docs" / "reference.md").read_text()
    shown = set()
    for module, body in re.findall(r"currentmodule:: (\S+)\n(.*?)```", text, re.DOTALL):
        shown |= {f"{module}.{name}" for name in re.findall(r"(?m)^   (\w[\w.]*)$", body)}
    spaces = (jsc, jsc.nn, jsc.functional, jsc.jpeg, jsc.formats)
    public = {
        f"{space.__name__}.{name}"
        for space in spaces
        for name, value in vars(space).items()
        if not name.startswith("_") and callable(value)
    }
    assert public - shown == set()
    for name in shown:
        module, attribute = name.rpartition(".")[::2]
        assert hasattr(importlib.import_module(module), attribute), name


def test_the_readmes_commands_exist():
    text = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([a-z-]+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for name in re.findall(r"python -m benchmarks ([a-z_]+)", text):
        assert name in BENCHMARKS, name
    for link in re.findall(r"\]\(([^):]+)\)", text):
        assert (ROOT / link).exists(), link


def test_docstrings_in_the_style_of_the_house():
    """Equations, errors, values of arguments and sources become what Sphinx can read."""
    script = runpy.run_path(str(ROOT / "docs" / "docstrings.py"))
    lines = ["Summary.", "", "    y = x", "", "Raises", "------", "TypeError, ValueError  if not."]
    assert script["converted"](lines) == [
        "Summary.", "", "::", "", "    y = x", "",
        "Raises", "------", "* :exc:`TypeError`, :exc:`ValueError` if not.", "",
    ]  # fmt: skip
    lines = ["Parameters", "----------", "a : str", '    "x"  one', '    "y"  two', "      lines"]
    assert script["converted"](lines)[3:] == [
        "", '    * ``"x"``: one', '    * ``"y"``: two', "      lines",
    ]  # fmt: skip
