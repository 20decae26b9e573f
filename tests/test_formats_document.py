"""docs/formats.md and its picture show what jsc.formats makes."""

from __future__ import annotations

import ast
import doctest
import re
import runpy
from pathlib import Path

import pytest
import torch

from jsc.formats import CPC, CPO, CPS

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "formats.md"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "scripts" / "draw_formats.py"))


def test_the_arrays_of_the_document():
    failed, tried = doctest.testfile(str(DOCUMENT), module_relative=False)
    assert failed == 0
    assert tried >= 12


def test_the_document_and_the_picture_have_one_map(script):
    text = DOCUMENT.read_text()
    (rows,) = re.findall(r"torch\.tensor\((\[.*?\n\.\.\. \])\)", text, re.DOTALL)
    assert ast.literal_eval(rows.replace("...", "")) == script["MAP"]
    for link in re.findall(r"\]\(([^):]+)\)", text):
        assert (DOCUMENT.parent / link).exists() or link.endswith("results/paper.md"), link


def test_the_picture_is_that_of_the_script(script):
    assert (ROOT / "docs" / "formats.svg").read_text() == script["picture"](), (
        "run python scripts/draw_formats.py"
    )


def test_the_pictures_entries_are_the_maps(script):
    made = CPO.encode(torch.tensor(script["MAP"]).float()[None, None], script["KERNEL"])
    entries = list(script["entries"](made))
    assert {(e.row, e.column): e.value for e in entries} == {
        (i, j): v for i, row in enumerate(script["MAP"]) for j, v in enumerate(row) if v
    }
    assert [e.index for e in entries] == made.IN.tolist()


@pytest.mark.parametrize(("kind", "most"), [(CPO, 2 / 3), (CPS, 7 / 8), (CPC, 31 / 32)])
def test_smaller_than_the_map_up_to_the_stated_density(kind, most):
    """On a map large enough for pointers not to matter; (1 - rho)^4 / 2 is little at 7/8."""
    for density, smaller in ((most - 0.02, True), (most + 0.02, False)):
        x = torch.rand(1, 64, 150, 150) * (torch.rand(1, 64, 150, 150) < density)
        assert (kind.encode(x, 3).nbytes < x.nbytes) is smaller


@pytest.mark.parametrize(("density", "smallest"), [(0.04, CPS), (0.12, CPC)])
def test_cpc_is_the_smallest_from_the_stated_density_on(density, smallest):
    x = torch.rand(1, 64, 150, 150) * (torch.rand(1, 64, 150, 150) < density)
    sizes = {kind: kind.encode(x, 3).nbytes for kind in (CPO, CPS, CPC)}
    assert min(sizes, key=sizes.__getitem__) is smallest
