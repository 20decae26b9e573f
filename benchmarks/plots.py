"""Figures from the JSON of `conv`, `conv --paper --densities ...` and `memory`.

Time: saving over the baseline against density, with the line where nothing is saved. Size:
compression ratio, and bytes over those of the dense tensor, against density.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks import report

Curves = dict[str, list[tuple[float, float]]]


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    path = folder / f"{name}.json"
    return json.loads(path.read_text())["rows"] if path.exists() else []


def savings(rows: list[dict[str, Any]], baseline: str, threads: int) -> dict[str, Curves]:
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


def sizes(rows: list[dict[str, Any]], quantity: str) -> dict[str, Curves]:
    """format -> layer -> (density, quantity)."""
    found: dict[str, Curves] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if "id" in row:
            for key in ("MEC", "CPO", "CPS", "CPC"):
                found[key][row["layer"]].append((row["density"], row[key][quantity]))
    return found


def draw(
    path: Path, panels: dict[str, Curves], label: str, break_even: float, logarithmic: bool = False
) -> None:
    """One panel per method or format, one curve per layer."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    layers = sorted({layer for curves in panels.values() for layer in curves})
    colours = {
        layer: pyplot.cm.turbo(i / max(1, len(layers) - 1)) for i, layer in enumerate(layers)
    }
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(3.6 * len(panels) + 2.4, 3.8), sharey=True, squeeze=False
    )
    for axis, (title, curves) in zip(axes[0], panels.items(), strict=True):
        for layer, points in sorted(curves.items()):
            axis.plot(*zip(*sorted(points), strict=True), ".-", color=colours[layer], label=layer)
        axis.axhline(break_even, color="black", linewidth=1, linestyle="--")
        axis.set(title=title, xlabel="density", yscale="log" if logarithmic else "linear")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel(label)
    handles = {h.get_label(): h for a in axes[0] for h in a.get_lines()[:-1]}
    figure.legend(handles.values(), handles.keys(), loc="center right", fontsize=7)
    figure.tight_layout(rect=(0, 0, 1 - 1.7 / figure.get_figwidth(), 1))
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main(arguments: list[str]) -> None:
    options = report.parser("plots", __doc__).parse_args(arguments)
    made = []
    for threads in options.threads:
        for name, baseline in (
            ("conv", "dense"),
            ("conv_paper", "im2col"),
            ("conv_paper", "dense"),
        ):
            panels = savings(read(options.out, name), baseline, threads)
            if panels:
                path = options.out / f"{name}_saving_over_{baseline}_{threads}.png"
                draw(path, panels, f"time saved over {baseline}, %", 0.0)
                made.append(path)
    memory = read(options.out, "memory")
    if memory:
        made += [options.out / "memory_ratio.png", options.out / "memory_of_dense.png"]
        draw(made[-2], sizes(memory, "compression ratio"), "im2col / stored elements", 1.0, True)
        draw(made[-1], sizes(memory, "of dense"), "bytes / dense bytes", 1.0, True)
    if not made:
        raise SystemExit(f"no results of conv or memory in {options.out.name}: run these first")
    print("\n".join(path.name for path in made))
