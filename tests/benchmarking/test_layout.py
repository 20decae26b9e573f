"""The folder of benchmarks: commands, who may import whom, and what is tracked."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import benchmarks
from benchmarks import __main__ as command_line

FOLDER = Path(benchmarks.__file__).parent
# Each room, and the rooms it may import besides itself (benchmarks/__init__.py).
ROOMS = {
    "common": set(),
    "inputs": {"common"},
    "peers": {"common", "inputs"},
    "convolution": {"common", "inputs", "peers"},
    "networks": {"common", "inputs", "peers"},
    "jpeg": {"common", "inputs", "peers", "networks"},
}
FILES = [path for room in ROOMS for path in sorted((FOLDER / room).rglob("*.py"))]


def test_the_package_is_not_a_folder_of_tests():
    assert (FOLDER.parent / "pyproject.toml").exists()


def test_every_folder_is_a_known_room():
    packages = {path.parent.name for path in FOLDER.glob("*/__init__.py")}
    assert packages == set(ROOMS)


@pytest.mark.parametrize("name", command_line.BENCHMARKS)
def test_a_command_is_a_module_of_its_name(name):
    module, text = command_line.BENCHMARKS[name]
    assert module.split(".")[-1] == name
    assert callable(importlib.import_module(f"benchmarks.{module}").main)
    assert text


def test_commands_are_listed(capsys):
    assert command_line.main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in command_line.BENCHMARKS)
    assert command_line.main(["bounds"]) == 2


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_rooms_import_one_way(path):
    room = path.relative_to(FOLDER).parts[0]
    imported = {
        node.module.split(".")[1]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("benchmarks.")
    }
    assert imported <= ROOMS[room] | {room}


def test_files_can_be_read_in_one_sitting():
    texts = {path: path.read_text().splitlines() for path in FOLDER.rglob("*.py")}
    assert not [str(path) for path, lines in texts.items() if len(lines) > 300]
    texts |= {path: path.read_text().splitlines() for path in FOLDER.rglob("*.cpp")}
    assert not [str(path) for path, lines in texts.items() if any(len(x) > 110 for x in lines)]


@pytest.mark.parametrize("name", [n for n in command_line.BENCHMARKS if n != "plots"])
def test_every_benchmark_has_one_short_page_with_a_figure(name):
    """`plots` draws the figures of the others."""
    page = (FOLDER / "results" / f"{name}.md").read_text()
    assert page.startswith(f"# {name}\n")
    assert len(page.splitlines()) <= 300
    assert "## Figures\n\n![" in page


def test_results_are_pages_and_figures_below_a_megabyte():
    files = list((FOLDER / "results").iterdir())
    assert {path.suffix for path in files} == {".md", ".png"}
    assert not [path.name for path in files if path.stem.endswith("_layers")]
    assert sum(path.stat().st_size for path in files) < 1e6
    pages = "".join(path.read_text() for path in files if path.suffix == ".md")
    assert all(f"]({path.name})" in pages for path in files if path.suffix == ".png")
