"""Figures from the numbers of `conv`, `conv --paper` and `memory`.

Those of time show the saving over the baseline against density, with the line where nothing is
saved. Those of size show the compression ratio, and bytes over those of the dense tensor. The
benchmarks draw their own; `plots` draws them again from the JSON files in `--out`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import figures, report
from benchmarks.common.report import Figure

Row = dict[str, Any]
Curves = dict[str, list[tuple[float, float]]]

SIZES = {
    "compression ratio": (
        "memory_ratio.png",
        "Compression ratio against density",
        "im2col / stored elements",
    ),
    "of dense": (
        "memory_of_dense.png",
        "Bytes over those of the dense tensor against density",
        "bytes / dense bytes",
    ),
}
PAPER = {
    "saving": (
        "Time saved over im2col against density",
        "Lines: the layers of the paper's list at several densities, stars: at the authors' own, "
        "dots: the non-pointwise layers of the networks. Under the dashed line im2col is faster; "
        "points below −100 % are drawn at the edge.",
    ),
    "ratio": (
        "Compression ratio against density",
        "Elements of im2col for each element stored, in the paper's count; under the dashed line "
        "the format is larger than im2col's matrix.",
    ),
}


def conv_figures(folder: Path, rows: list[Row], threads: Sequence[int]) -> list[Figure]:
    """One figure for each number of threads, of the random activations; none without them."""
    made = []
    for count in threads:
        panels = savings(rows, "dense", count)
        if panels:
            file = f"conv_saving_over_dense_{count}.png"
            draw(folder / file, panels, "time saved over dense, %", 0.0)
            words = f"{count} thread{'s' * (count > 1)}"
            made.append(Figure(file, f"Time saved over dense against density, {words}"))
    return made


def memory_figures(folder: Path, rows: list[Row]) -> list[Figure]:
    for quantity, (file, _, label) in SIZES.items():
        draw(folder / file, sizes(rows, quantity), label, 1.0, True)
    return [Figure(file, title) for file, title, _ in SIZES.values()]


def savings(rows: list[Row], baseline: str, threads: int) -> dict[str, Curves]:
    """method -> layer -> (density, saving in % of the baseline's time)."""
    base: dict[tuple, float] = {}
    mine = [row for row in rows if row["threads"] == threads and "network" not in row]
    for row in mine:
        if row["method"] == baseline:
            base[row["layer"], row["density"]] = row["ms"]
    found: dict[str, Curves] = defaultdict(lambda: defaultdict(list))
    for row in mine:
        before = base.get((row["layer"], row["density"]))
        if before and row["method"] not in (baseline, "dense"):
            saving = 100 * (1 - row["ms"] / before)
            found[row["method"]][row["layer"]].append((row["density"], saving))
    return found


def sizes(rows: list[Row], quantity: str) -> dict[str, Curves]:
    """format -> layer -> (density, quantity)."""
    found: dict[str, Curves] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if "id" in row:
            for key in ("MEC", "CPO", "CPS", "CPC"):
                found[key][row["layer"]].append((row["density"], row[key][quantity]))
    return found


COLOURS = [f"C{i}" for i in range(10) if i not in (7, 8)]  # not grey, which is for dots, and olive
STYLES = ("-", "--", ":", "-.")


def looks_of(layers: Sequence[str]) -> dict[str, dict[str, str]]:
    """Colour and style of each layer's curve: eight colours, which nobody takes for one another,
    and when they are used up another style of line."""
    return {
        layer: {
            "color": COLOURS[i % len(COLOURS)],
            "linestyle": STYLES[i // len(COLOURS) % len(STYLES)],
        }
        for i, layer in enumerate(layers)
    }


def draw(
    path: Path, panels: dict[str, Curves], label: str, break_even: float, logarithmic: bool = False
) -> None:
    """One panel for each method or format, one curve for each layer."""
    figure, axes = figures.subplots(
        1, len(panels), figsize=(3.6 * len(panels) + 2.4, 3.8), sharey=True, squeeze=False
    )
    looks = looks_of(sorted({layer for curves in panels.values() for layer in curves}))
    for axis, (title, curves) in zip(axes[0], panels.items(), strict=True):
        for layer, points in sorted(curves.items()):
            x, y = zip(*sorted(points), strict=True)
            axis.plot(x, y, marker=".", label=layer, **looks[layer])
        axis.axhline(break_even, color="black", linewidth=1, linestyle="--")
        axis.set(title=title, xlabel="density", yscale="log" if logarithmic else "linear")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel(label)
    handles = {h.get_label(): h for a in axes[0] for h in a.get_lines()[:-1]}
    figure.legend(handles.values(), handles.keys(), loc="center right", fontsize=7)
    figure.tight_layout(rect=(0, 0, 1 - 1.7 / figure.get_figwidth(), 1))
    figures.save(figure, path)


def paper_figures(folder: Path, rows: list[Row]) -> list[Figure]:
    """The figures of `conv --paper`: time saved over im2col, and the compression ratio."""
    swept = [row for row in rows if row["source"] == "sweep"]
    authors = [row for row in rows if row["source"] == "random"]
    real = [row for row in rows if row["source"] not in ("sweep", "random")]
    threads = list(dict.fromkeys(row["threads"] for row in rows))

    def saved(method: str) -> Callable[[Row], float | None]:
        def value(row: Row) -> float | None:
            if method not in row["times"] or row["pointwise"]:
                return None
            return max(-100.0, 100 * (1 - row["times"][method][1] / row["times"]["im2col"][1]))

        return value

    def ratio(key: str) -> Callable[[Row], float | None]:
        return lambda row: row["sizes"]["im2col"] / max(1, row["sizes"][key])

    savings = [
        [(f"{m.upper()}, {t} thread{'s' * (t > 1)}", saved(m), t) for m in ("cpo", "cps", "cpc")]
        for t in threads
    ]
    names = ("MEC", "CPO", "CPS", "CPS packed", "CPC")
    ratios = [[(name, ratio(name), threads[0]) for name in names]]
    groups = {"lines": swept, "stars": authors, "dots": real}
    made = [Figure(f"paper_{name}.png", *words) for name, words in PAPER.items()]
    paths = [folder / figure.file for figure in made]
    _draw_panels(paths[0], groups, savings, "time saved over im2col, %", 0.0, (-105, 100))
    _draw_panels(paths[1], groups, ratios, "elements of im2col / stored", 1.0, None)
    return made


def _draw_panels(
    path: Path,
    groups: dict[str, list[Row]],
    panels: list[list[tuple[str, Callable[[Row], float | None], int]]],
    label: str,
    break_even: float,
    limits: tuple[float, float] | None,
) -> None:
    """A panel is (title, quantity of a row, threads). Without limits the scale is logarithmic."""
    wide = len(panels[0])
    figure, axes = figures.subplots(
        len(panels), wide, figsize=(2.9 * wide + 1.9, 3.1 * len(panels) + 0.2),
        sharex=True, sharey=True, squeeze=False,
    )  # fmt: skip
    layers = list(dict.fromkeys(row["layer"] for row in groups["lines"]))
    looks = looks_of(layers)
    for line, row_of_axes in zip(panels, axes, strict=True):
        for (title, quantity, threads), axis in zip(line, row_of_axes, strict=True):
            mine = {
                kind: [
                    (row, row["density"], value)
                    for row in rows
                    if row["threads"] == threads and (value := quantity(row)) is not None
                ]
                for kind, rows in groups.items()
            }
            for pointwise, face in ((True, "none"), (False, "0.55")):
                dots = [(x, y) for row, x, y in mine["dots"] if row["pointwise"] is pointwise]
                if dots:
                    axis.scatter(
                        *zip(*dots, strict=True), s=12, c=face, edgecolors="0.55", linewidths=0.7,
                        label="networks, 1x1" if pointwise else "networks", zorder=1,
                    )  # fmt: skip
            for layer in layers:
                points = sorted((x, y) for row, x, y in mine["lines"] if row["layer"] == layer)
                if points:
                    axis.plot(*zip(*points, strict=True), lw=1.4, label=layer, **looks[layer])
            for row, x, y in mine["stars"]:
                colour = looks.get(row["layer"], {"color": "black"})["color"]
                axis.plot(x, y, "*", ms=9, color=colour, mec="white", mew=0.6, zorder=3)
            axis.plot([], [], "*k", ms=9, label="at the authors' density")
            axis.axhline(break_even, color="black", lw=1, ls="--", zorder=2)
            axis.set_title(title, fontsize=10)
            axis.set_yscale("log" if limits is None else "linear")
            axis.set_xlim(-0.02, 1.03)
            axis.grid(alpha=0.3, lw=0.6)
            if limits:
                axis.set_ylim(*limits)
            else:
                axis.yaxis.set_major_formatter("{x:g}")
        row_of_axes[0].set_ylabel(label)
    for axis in axes[-1]:
        axis.set_xlabel("density of the input")
    handles = {
        name: handle
        for axis in axes.flat
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.tight_layout(rect=(0, 0, 1 - 1.75 / figure.get_figwidth(), 1))
    figure.legend(
        handles.values(), handles.keys(), loc="center right", fontsize=8, frameon=False,
        borderaxespad=0.3,
    )  # fmt: skip
    figures.save(figure, path)


def read(folder: Path, name: str) -> list[Row]:
    path = folder / f"{name}.json"
    return json.loads(path.read_text())["rows"] if path.exists() else []


def main(arguments: list[str]) -> None:
    options = report.parse(report.parser("plots", __doc__, timed=False), arguments)
    made = conv_figures(options.out, read(options.out, "conv"), options.threads)
    if paper := read(options.out, "paper"):
        made += paper_figures(options.out, paper)
    if memory := read(options.out, "memory"):
        made += memory_figures(options.out, memory)
    if not made:
        raise SystemExit(f"no results of conv or memory in {options.out.name}: run these first")
    print("\n".join(figure.file for figure in made))
    if options.publish:
        report.publish(options, [figure.file for figure in made])
