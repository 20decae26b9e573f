"""Figures that are drawn without a screen and kept as small files."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.common import processes
from benchmarks.common.report import Figure

COLOURS = 256  # as many as a palette holds: no pixel is then visibly off


def subplots(*arguments: Any, **options: Any) -> tuple[Any, Any]:
    """`pyplot.subplots` without a screen; ImportError where matplotlib is not installed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(*arguments, **options)


def save(figure: Any, path: Path, dpi: int = 100) -> None:
    """Write a PNG with a palette, a third of the size of one with 24 bits a pixel, and close."""
    from matplotlib import pyplot
    from PIL import Image  # matplotlib itself needs it

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    pyplot.close(figure)
    picture = Image.open(drawn).convert("RGB")
    # This method keeps rare colours, such as those of a legend's lines.
    small = picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


def drawn(make: Callable[..., list[Figure]], *arguments: Any) -> list[Figure]:
    """What `make` draws; nothing where matplotlib is not installed, or another process draws."""
    if not processes.first():
        return []
    try:
        return make(*arguments)
    except ImportError:
        print("matplotlib is not installed: no figure (pip install matplotlib)")
        return []


def bars(
    path: Path,
    rows: Mapping[str, Mapping[str, float]],
    xlabel: str,
    *,
    stacked: bool = False,
    log: bool = False,
    line: float | None = None,
) -> None:
    """Horizontal bars: for each label of `rows` its series one below the other, or `stacked`, with
    a dashed line at `line`. Every bar that stands alone has its value beside it."""
    series = list(dict.fromkeys(name for values in rows.values() for name in values))
    height = 0.8 if stacked else 0.8 / len(series)
    figure, axis = subplots(
        figsize=(9, 1.4 + (0.34 if stacked else 0.24 * len(series)) * len(rows))
    )
    begin = dict.fromkeys(rows, 0.0)
    for k, name in enumerate(series):
        shift = 0.0 if stacked else height * (k - (len(series) - 1) / 2)
        found = [(i, label) for i, label in enumerate(rows) if name in rows[label]]
        values = [rows[label][name] for _, label in found]
        left = [begin[label] if stacked else 0.0 for _, label in found]
        places = [i + shift for i, _ in found]
        drawn = axis.barh(places, values, height, left, color=f"C{k}", label=name, zorder=2)
        if not stacked:
            axis.bar_label(drawn, fmt="{:.3g}", fontsize=7, padding=2)
        for (_, label), value in zip(found, values, strict=True):
            begin[label] += value
    axis.set_yticks(range(len(rows)), list(rows), fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel(xlabel)
    if log:
        axis.set_xscale("log")
    if line is not None:
        axis.axvline(line, color="black", linewidth=1, linestyle="--", zorder=3)
    axis.margins(0.0 if stacked else 0.08, 0.01)
    if len(series) > 1:
        axis.legend(fontsize=7.5, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axis.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    save(figure, path)
