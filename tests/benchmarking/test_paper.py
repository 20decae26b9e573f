"""The paper's page: sizes against closed formulas, claims and targets computed from rows."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import jsc
from benchmarks import __main__ as command_line
from benchmarks.common.harness import WrongResult
from benchmarks.convolution import claims, memory, paper
from benchmarks.inputs import workloads


@given(
    kernel=st.sampled_from([(1, 1), (3, 3), (1, 7), (7, 1), (5, 5), (2, 3)]),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    stride=st.integers(1, 3),
    density=st.sampled_from([0.0, 0.2, 1.0]),
)
def test_no_format_is_larger_than_its_closed_formula(kernel, size, stride, density):
    layer = workloads.conv(3, 1, kernel, stride)
    if size[0] + 2 * layer.padding[0] < kernel[0] or size[1] + 2 * layer.padding[1] < kernel[1]:
        return
    x = torch.rand(2, 3, *size) * (torch.rand(2, 3, *size) < density)
    bounds, sizes = memory.formulas(layer, x), memory.footprint(layer, x)
    for name in memory.RATIOS:
        assert sizes[name].elements <= bounds[name]
        if stride == 1:
            assert sizes[name].elements == bounds[name]
    assert sizes["CPS packed"].elements <= sizes["CPS"].elements <= sizes["CPO"].elements


def test_a_format_that_is_too_large_is_refused(monkeypatch):
    encode = jsc.formats.CPO.encode

    def wasteful(*arguments):
        made = encode(*arguments)
        return SimpleNamespace(elements=made.elements + 1, nbytes=0, compression_ratio=0)

    monkeypatch.setattr(jsc.formats.CPO, "encode", wasteful)
    with pytest.raises(WrongResult, match="closed formula"):
        memory.footprint(workloads.conv(2, 1, (3, 3)), torch.rand(1, 2, 6, 6))


SIZES = {"im2col": 900, "MEC": 300, "CPO": 120, "CPS": 100, "CPS packed": 90, "CPC": 50}


def row(
    source: str, name: str, times: dict[str, tuple[float, float]], **more: object
) -> claims.Row:
    base = {
        "source": source, "name": name, "layer": "3x3 8-8@8", "threads": 1, "pointwise": False,
        "stride": 1, "density": 0.5, "sizes": SIZES, "times": times,
    }  # fmt: skip
    return {**base, **more}


def test_what_is_chosen_is_not_what_is_reported():
    """Selection sees the first median, every figure the second."""
    lucky = row("n", "a", {"im2col": (4, 4), "cpo": (1, 8), "cps": (2, 2), "cpc": (1, 1)})
    assert claims.selection(lucky) == "cpo"
    assert claims.saving(lucky, "cpo", "im2col") == -100
    assert claims.selection({**lucky, "pointwise": True}) == "im2col"
    assert claims.selection(lucky, ("cpc",)) == "cpc"


@pytest.fixture
def rows():
    def times(*taken):
        names = ("dense", "im2col", "mec", "cpo", "cps", "cpc")
        return {n: (t, t) for n, t in zip(names, taken, strict=True) if t is not None}

    return [
        row("n", "a", times(3, 10, 5, 3, 2, 1)),
        row("n", "b", times(3, 10, 5, 11, 12, 2), density=0.9),
        row("n", "c", times(3, 5, None, None, None, 4), pointwise=True),
        row("random", "d", times(3, 10, 8, 6, 7, 2), id="7"),
    ]


def test_networks_are_summed_with_the_selection(rows):
    (found,) = claims.network_table(rows)
    assert (found["non-pointwise"], found["chosen"]) == (2, 1)
    assert (found["im2col ms"], found["selected ms"]) == (25, 17)
    assert found["saved %"] == pytest.approx(32)
    assert found["CR"] == 2700 / 1900
    assert found["torch dense ms"] == 9
    assert found["best of dense and CPC ms"] == 6


def test_claims_are_those_of_the_rows(rows):
    shown = {line["claim"]: line for line in claims.claims(rows)}
    assert list(shown) == list(claims.PAPER)
    assert shown["time saved over im2col where chosen"]["real, 1 thread"] == (
        "mean 80 %, up to 80 %"
    )
    assert shown["time saved over im2col where chosen"]["random, 1 thread"] == (
        "mean 40 %, up to 40 %"
    )
    assert shown["CR: elements of im2col / stored"]["real, 1 thread"] == "mean 9, up to 9"
    assert shown["elements of MEC / stored"]["real, 1 thread"] == "mean 3, up to 3"
    share = shown["chosen, of the non-pointwise layers"]
    assert share["real, 1 thread"] == "1 of 2 (50 %); networks 50 %"
    assert share["random, 1 thread"] == "1 of 1 (100 %)"


def test_targets_are_met_or_not_by_the_rows(rows):
    met = {(line["target"][:30], line["inputs"]): line["met"] for line in claims.targets(rows)}
    no = "**no**"
    assert met["mean time saved over im2col wh", "real"] == "yes"
    assert met["mean time saved over im2col wh", "random"] == no
    assert met["mean time saved over MEC where", "real"] == "yes"
    assert met["mean time saved over MEC where", "random"] == no
    assert met["chosen for ≥ 75 % of the non-p", "real"] == "yes"
    assert met["network: ≥ 30 % of the convolu", "real"] == "yes"
    slow = [{**r, "times": {**r["times"], "im2col": (0.5, 0.5)}} for r in rows]
    lines = claims.targets(slow)
    assert {line["CPO / CPS"] for line in lines if "where chosen" in line["target"]} == {
        "never chosen"
    }
    assert {line["met"] for line in lines if "saved" in line["target"]} == {no}


def test_the_page_has_every_layer_method_and_figure(tmp_path):
    pytest.importorskip("matplotlib")
    given = ["conv", "--paper", "--quick", "--threads", "1", "--densities", ".2"]
    assert command_line.main([*given, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "paper.json").read_text())
    for line in found["rows"]:
        assert set(line["times"]) == {"dense", *paper.METHODS, "encode cpo", "encode cps"}
    page, layers = (tmp_path / f"{name}.md" for name in ("paper", "paper_layers"))
    assert "| claim | paper | random, 1 thread |" in page.read_text()
    assert "at other densities" in layers.read_text()
    assert str(tmp_path) not in page.read_text()
    assert {p.name for p in tmp_path.glob("*.png")} == {"paper_saving.png", "paper_ratio.png"}
    (tmp_path / "paper_ratio.png").unlink()
    assert command_line.main(["plots", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "paper_ratio.png").exists()
