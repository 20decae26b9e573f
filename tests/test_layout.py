"""The architecture as tests: who may import whom, and one stem for a kernel family everywhere."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import jsc

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "jsc"
FILES = sorted(PACKAGE.rglob("*.py"))

# Each layer and the layers it may import (docs/design.md). Leaves may be imported by all.
LEAVES = {"_checks", "_extras", "_files", "_geometry", "_config", "_progress", "_share"}
ALLOWED: dict[str, set[str]] = {
    "_checks": set(),
    "_extras": set(),
    "_files": set(),
    "_geometry": set(),
    "_progress": set(),
    "_share": set(),
    "_config": {"_kernels"},
    "_kernels": set(),
    "ops": {"_kernels", "reference"},  # second derivatives go through the reference
    "reference": set(),
    "functional": {"methods", "ops", "reference", "jpeg"},
    "formats": {"ops"},
    "jpeg": {"functional", "reference"},
    "methods": {"ops", "formats"},
    "nn": {"functional", "methods", "ops", "jpeg"},
    "fusing": {"nn", "methods", "ops"},
    "network": {"_kernels"},
    "tuning": {"nn", "methods", "fusing", "jsc"},
    "cli": {
        "nn",
        "methods",
        "functional",
        "ops",
        "formats",
        "jpeg",
        "tuning",
        "reference",
        "_kernels",
        "jsc",
    },
    "__main__": {"cli"},
}


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_layers(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {
                [*alias.name.split("."), "jsc"][1]
                for alias in node.names
                if alias.name.split(".")[0] == "jsc"
            }
        elif (
            isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "jsc"
        ):
            parts = node.module.split(".")
            if len(parts) > 1:
                found.add(parts[1])
            else:
                found |= {
                    a.name
                    if (PACKAGE / a.name).is_dir() or (PACKAGE / f"{a.name}.py").exists()
                    else "jsc"
                    for a in node.names
                }
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    name = layer(path)
    if name == "__init__":
        return
    assert imported_layers(path) <= ALLOWED[name] | LEAVES | {name}


def test_no_name_is_a_function_and_a_package():
    for name in ("optimize", "tune", "apply", "restore"):
        assert callable(getattr(jsc, name))
        assert not (PACKAGE / name).exists()
        assert not (PACKAGE / f"{name}.py").exists()


def test_only_ops_registers_operators():
    assert {layer(p) for p in FILES if "torch.library" in p.read_text()} <= {"ops"}


def test_kernels_know_no_torch_and_no_thread_count():
    for path in (PACKAGE / "_kernels").rglob("*"):
        if path.suffix in (".pyx", ".pxd", ".h"):
            text = path.read_text()
            assert "import torch" not in text, path
            assert "omp_set" not in text, path


@pytest.mark.parametrize("path", sorted((PACKAGE / "_kernels").glob("*.pyx")), ids=lambda p: p.stem)
def test_a_family_has_one_stem_everywhere(path):
    assert path.with_suffix(".pyi").exists(), "a stub beside each kernel module"
    assert f"    {path.stem} " in (PACKAGE / "_kernels" / "__init__.py").read_text(), (
        "a line in the table of families"
    )


def test_files_can_be_read_in_one_sitting():
    sizes = {
        p: len(p.read_text().splitlines())
        for p in (ROOT / "src").rglob("*")
        if p.suffix in (".py", ".pyx", ".h")
    }
    assert not {str(p.relative_to(ROOT)): n for p, n in sizes.items() if n > 350}
    assert sorted(sizes.values())[len(sizes) // 2] <= 150
