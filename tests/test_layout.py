"""The architecture as tests: who may import whom, one stem for a kernel family, short lines."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
from pathlib import Path

import pytest

import jsc

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "jsc"
HOUSE = runpy.run_path(str(ROOT / "scripts" / "draw_house.py"))
FILES = HOUSE["files"]()

# Each package and the packages it may import (docs/design.md). Single files may be imported by all.
ALLOWED: dict[str, set[str]] = {
    "_kernels": set(),
    "ops": {"_kernels"},
    "formats": {"ops"},
    "methods": {"ops", "formats"},
    "functional": {"methods", "ops"},
    "jpeg": {"functional"},
    "nn": {"functional", "methods", "ops", "jpeg"},
    "network": {"_kernels", "ops"},
    "tuning": {"nn", "methods"},
    "cli": {"nn", "methods", "functional", "jpeg", "network", "tuning", "_kernels"},
    "reference": set(),  # the tests alone import it
}
SINGLE = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
OF_SINGLE = {"_config": {"_kernels"}, "_installation": {"_kernels"}}


def public(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", FILES, ids=public)
def test_imports_run_one_way(path):
    """`jsc` itself, which imports every package, may not be imported by one."""
    name = HOUSE["package"](path)
    if name == "__init__":
        return
    allowed = {"cli"} if name == "__main__" else OF_SINGLE.get(name) or ALLOWED.get(name, set())
    assert HOUSE["imported"](path) <= allowed | SINGLE | {name}


def test_no_rooms_import_each_other_and_no_permission_is_unused():
    assert set(ALLOWED) == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    levels = HOUSE["levels"](ALLOWED)  # ValueError if they go round in a circle
    assert levels["_kernels"] == 0
    for name, found in HOUSE["imports"]().items():
        assert found - SINGLE == ALLOWED.get(name, found - SINGLE), name
    with pytest.raises(ValueError, match="circle: functional -> jpeg -> functional"):
        HOUSE["levels"]({"functional": {"jpeg"}, "jpeg": {"functional"}})


def test_the_picture_is_that_of_the_imports():
    assert (ROOT / "docs" / "house.svg").read_text() == HOUSE["picture"](), (
        "run `python scripts/draw_house.py`"
    )


def test_no_name_is_a_function_and_a_package():
    for name in ("compile", "tune", "apply", "restore"):
        assert callable(getattr(jsc, name))
        assert not (PACKAGE / name).exists()
        assert not (PACKAGE / f"{name}.py").exists()


def test_only_ops_registers_operators():
    assert {HOUSE["package"](p) for p in FILES if "torch.library" in p.read_text()} <= {"ops"}


def test_kernels_know_no_torch_and_no_thread_count():
    for path in (PACKAGE / "_kernels").rglob("*"):
        if path.suffix in (".pyx", ".pxd", ".h"):
            text = path.read_text()
            assert "import torch" not in text, path
            assert "omp_set" not in text, path


# ---- one stem: kernel, header, operator, test and benchmark --------------------------------------

FAMILIES = sorted((PACKAGE / "_kernels").rglob("*.pyx"))
# What the rest of the package calls something else, and why.
OPERATORS = {
    "columns": "column_conv",  # one kernel for the streams of cpo and of cps
    "forward": "cpc",  # the family's folder says which
    "gradient": "cpc_grad",
    "cpu": None,  # asked by _config, which is no operator
    "fingerprint": None,  # asked by ops/packs.py
    "program": None,  # called by jsc.network
}
TESTS = {"forward": "cpc", "gradient": "cpc_grad", "cpu": None, "program": "network_*"}
BENCHMARKS = {  # the command, where the stem is none of its methods or of its name
    "columns": "paper", "lowering": "paper", "amx": "conv", "forward": "conv",
    "gradient": "train", "winograd": "train", "dct": "jpeg", "quant": "jpeg",
    "program": "networks", "contrast": "jpeg",
    "cpu": None, "fingerprint": None,  # they take no time of their own: part of each call in conv
}  # fmt: skip


@pytest.mark.parametrize("path", FAMILIES, ids=lambda p: p.stem)
def test_a_family_has_one_stem_everywhere(path):
    stem = path.stem
    assert path.with_suffix(".pyi").exists(), "a stub beside each kernel module"
    table = (PACKAGE / "_kernels" / "__init__.py").read_text()
    (line,) = re.findall(rf"^    {stem} .*$", table, re.MULTILINE)
    header = line.split()[-1]
    assert (PACKAGE / "_kernels" / header).exists(), "the table names the header"
    operator = OPERATORS.get(stem, stem)
    assert operator is None or (PACKAGE / "ops" / f"{operator}.py").exists()
    test = TESTS.get(stem, stem)
    assert test is None or list((ROOT / "tests" / "kernels").rglob(f"test_{test}.py"))
    benchmark = BENCHMARKS.get(stem, stem)
    assert benchmark is None or (ROOT / "benchmarks" / "results" / f"{benchmark}.md").exists()


def test_each_room_has_its_tests():
    """tests/ has the folders of src/jsc: kernels for _kernels."""
    for name in ALLOWED:
        folder = ROOT / "tests" / name.removeprefix("_")
        assert list(folder.glob("test_*.py")), folder


# ---- length --------------------------------------------------------------------------------------


def tracked() -> list[Path]:
    """Every text that git tracks; without git, as in an sdist, every text of these folders."""
    try:
        run = ["git", "ls-files", "-z"]
        listed = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        paths = [ROOT / name for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        folders = ("src", "tests", "benchmarks", "docs", "scripts")
        paths = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    kinds = (".py", ".pyx", ".pxd", ".pyi", ".h", ".cpp", ".md", ".sh", ".toml", ".yaml", ".cff")
    return [p for p in paths if (p.suffix in kinds or p.name == "Makefile") and p.is_file()]


def too_long(path: Path) -> list[int]:
    """Numbers of lines of more than 110 columns. Rows of tables, links, commands and pictures in
    Markdown cannot be broken."""
    whole = ("|", "`python", "![", "[") if path.suffix == ".md" else ()
    return [
        number
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > 110 and not line.startswith(whole or ("\0",))
    ]


def test_no_line_is_longer_than_110_columns():
    found = {str(path.relative_to(ROOT)): too_long(path) for path in tracked()}
    assert not {name: numbers for name, numbers in found.items() if numbers}


def test_files_can_be_read_in_one_sitting():
    sizes = {
        p: len(p.read_text().splitlines())
        for p in (ROOT / "src").rglob("*")
        if p.suffix in (".py", ".pyx", ".h")
    }
    assert not {str(p.relative_to(ROOT)): n for p, n in sizes.items() if n > 350}
    assert sorted(sizes.values())[len(sizes) // 2] <= 150


def test_every_module_says_what_it_is():
    assert not [
        public(path) for path in FILES if not ast.get_docstring(ast.parse(path.read_text()))
    ]
