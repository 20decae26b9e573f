"""What all benchmarks share: wrong results are refused, pages and figures are kept."""

import json

import numpy as np
import pytest
import torch

from benchmarks.common import allocation, figures, harness, machine, report
from benchmarks.convolution import plots

# harness


def test_a_wrong_result_is_not_timed():
    right = torch.arange(6.0)
    wrong = right.clone()
    wrong[3] += 1e-2
    calls = []

    def counted():
        calls.append(1)
        return wrong

    with pytest.raises(harness.WrongResult, match="bad: error"):
        harness.compare({"good": lambda: right, "bad": counted}, right.double(), 1e-4)
    assert len(calls) == 1


@pytest.mark.parametrize(
    "result", [torch.full((3,), float("nan")), torch.zeros(3, 1), torch.full((3,), float("inf"))]
)
def test_nan_inf_and_wrong_shapes_are_wrong_results(result):
    with pytest.raises(harness.WrongResult):
        harness.check("method", result, torch.ones(3), 1e-4)


def test_a_zero_reference_is_reached_by_zero_only():
    assert harness.check("method", torch.zeros(3), torch.zeros(3), 1e-4) == 0
    with pytest.raises(harness.WrongResult):
        harness.check("method", torch.full((3,), 1e-30), torch.zeros(3), 1e-4)


def test_methods_run_in_turn_and_take_turns_to_begin():
    order = []
    runs = {name: (lambda name=name: order.append(name)) for name in "ab"}
    times = harness.interleave(runs, rounds=3, sample_seconds=0)
    assert "".join(order[4:]) == "aabbbbaaaabb"  # each first once untimed
    assert all(len(timing.samples) == 3 for timing in times.values())


def test_ratio_is_that_of_the_medians():
    slow = harness.Timing(np.array([2.0, 4.0, 6.0]))
    fast = harness.Timing(np.array([1.0, 1.0, 2.0]))
    ratio = harness.Ratio.of(slow, fast)
    assert ratio.value == 4.0
    assert ratio.low == 2.5
    assert ratio.high == 3.5
    assert slow.half(0) == 4.0
    assert slow.half(1) == 4.0


def test_saved_and_peak_bytes():
    x = torch.rand(1000, requires_grad=True)
    assert allocation.saved_bytes(lambda: x.exp(), [x]) == 4000
    assert allocation.saved_bytes(lambda: x * x, [x]) == 0
    assert allocation.peak_bytes(lambda: (x.detach() + 1).exp()) == 8000


def test_commands_are_kept_without_folders():
    given = ["--quick", "--data", "/a/b", "--out=/c", "--threads", "1"]
    kept = report.command("conv", given)
    assert kept == "python -m benchmarks conv --quick --data DIR --out=DIR --threads 1"
    spaced = report.command("accuracy", ["--variants", "local contrast"])
    assert spaced == "python -m benchmarks accuracy --variants 'local contrast'"


# what is kept


def written(monkeypatch, tmp_path, *given, load=0.0):
    """A page with a figure and rows, written with the given options."""
    monkeypatch.setattr(machine, "LOAD", load)
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    report.RESULTS.mkdir(exist_ok=True)
    options = report.parse(report.parser("toy", "text"), ["--out", str(tmp_path / "out"), *given])
    (options.out / "toy.png").write_bytes(b"drawn")
    report.write(
        options, "What was asked.", {"Summary": "| 1 |", "Empty": ""},
        layers={"Every layer": "| 2 |"}, data={"rows": [{"ms": 1 / 3}]},
        figures=[report.Figure("toy.png", "A figure", "It shows something.")],
    )  # fmt: skip
    return options.out


def test_a_page_is_short_and_rows_lie_beside_it(tmp_path, monkeypatch):
    out = written(monkeypatch, tmp_path)
    page, layers = ((out / name).read_text() for name in ("toy.md", "toy_layers.md"))
    assert page.index("What was asked.") < page.index("Machine: cpu") < page.index("| 1 |")
    assert "![A figure](toy.png)\n\nIt shows something." in page
    assert "Empty" not in page
    assert "| 2 |" not in page
    assert "| 2 |" in layers
    assert json.loads((out / "toy.json").read_text())["rows"] == [{"ms": 0.333333}]
    assert not list(report.RESULTS.iterdir())


def test_only_page_and_figures_are_published(tmp_path, monkeypatch):
    out = written(monkeypatch, tmp_path, "--publish")
    assert {path.name for path in report.RESULTS.iterdir()} == {"toy.md", "toy.png"}
    assert (report.RESULTS / "toy.md").read_text() == (out / "toy.md").read_text()


def test_times_of_a_busy_machine_are_not_for_quoting(tmp_path, monkeypatch):
    out = written(monkeypatch, tmp_path, load=3.0)
    assert "Not for quoting" in (out / "toy.md").read_text()
    with pytest.raises(SystemExit):
        written(monkeypatch, tmp_path, "--publish", load=3.0)
    with pytest.raises(SystemExit):
        written(monkeypatch, tmp_path, "--publish", "--quick")
    assert not list(report.RESULTS.iterdir())


def test_progress_gives_the_items_and_says_how_far(monkeypatch, capsys):
    monkeypatch.setattr("jsc._progress.EVERY", 0.0)
    assert list(report.progress(iter("ab"), "layers")) == ["a", "b"]
    assert capsys.readouterr().err == "layers 1/2\nlayers 2/2\n"


def test_curves_have_at_most_eight_colours_and_no_two_look_alike():
    looks = plots.looks_of([f"layer {i}" for i in range(30)])
    assert len({look["color"] for look in looks.values()}) == 8
    assert len({tuple(look.values()) for look in looks.values()}) == 30


def test_figures_are_kept_with_a_palette(tmp_path):
    pytest.importorskip("matplotlib")
    from PIL import Image

    def draw(folder):
        figure, axis = figures.subplots()
        axis.plot([0, 1], [0, 1])
        figures.save(figure, folder / "line.png")
        return [report.Figure("line.png", "A line")]

    (found,) = figures.drawn(draw, tmp_path)
    with Image.open(tmp_path / found.file) as picture:
        assert picture.mode == "P"


def test_without_matplotlib_there_is_no_figure(capsys):
    def draw():
        raise ImportError

    assert figures.drawn(draw) == []
    assert "no figure" in capsys.readouterr().out
