"""The demo in one figure: accuracy, tables before and after, times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from jsc.cli.demo.report import CHANNELS
from jsc.cli.extras import need
from jsc.jpeg.plots import save_figure

BLUE, ORANGE, GREY = "#2f6db3", "#d9772b", "#9aa0a6"


def _accuracy(axes: Any, figures: dict[str, Any]) -> None:
    for key, label, colour in (("plain", "plain", GREY), ("jpeg", "with JPEG layer", BLUE)):
        values = [100 * value for value in figures[key]["accuracy"]]
        epochs = range(1, len(values) + 1)
        label = f"{label}: {values[-1]:.1f} %"
        axes.plot(epochs, values, "o-", color=colour, label=label, markersize=4)
    axes.set(title="Accuracy on test images", xlabel="epoch", ylabel="%", ylim=(0, 102))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="lower right", frameon=False)
    axes.grid(axis="y", alpha=0.3)


def _table(axes: Any, table: Tensor, title: str, scale: tuple[float, float]) -> Any:
    image = axes.imshow(table.tolist(), cmap="viridis", vmin=scale[0], vmax=scale[1])
    middle = (scale[0] + scale[1]) / 2
    for i, row in enumerate(table.tolist()):
        for j, step in enumerate(row):
            ink = "black" if step > middle else "white"
            axes.text(j, i, f"{step:.1f}", ha="center", va="center", fontsize=6.5, color=ink)
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])
    return image


def _times(axes: Any, times: dict[str, float]) -> None:
    rows, values = list(range(len(times))), list(times.values())
    colours = [ORANGE if name == "jsc.compile" else GREY for name in times]
    axes.barh(rows, values, 0.6, color=colours)
    for y, value in zip(rows, values, strict=True):
        axes.text(value, y, f" {value:.2f}", va="center", fontsize=9)
    axes.set_yticks(rows, [name.replace(", ", ",\n") for name in times])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.2 * max(values))
    gain = min(values[:-1]) / values[-1]
    axes.set(title=f"Compiled network: {gain:.2f}x as fast", xlabel="ms per batch")


def draw(path: Path, figures: dict[str, Any], before: Tensor, after: Tensor) -> None:
    """Draw everything into one file; the suffix says which format."""
    need("matplotlib", "matplotlib", "plots", "--plot")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # no pyplot: no display, no global state

    figure = Figure(figsize=(15, 6.8), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 4, width_ratios=(1.35, 1, 1, 1.45))
    _accuracy(figure.add_subplot(grid[:, 0]), figures)
    scale = (
        min(float(before.min()), float(after.min())),
        max(float(before.max()), float(after.max())),
    )
    maps = []
    for row, name in enumerate(CHANNELS):
        for column, (table, when) in enumerate(((before, "before"), (after, "after training"))):
            axes = figure.add_subplot(grid[row, 1 + column])
            image = _table(axes, table[row], f"{name}, {when}", scale)
            axes.set_ylabel("" if column else "vertical frequency", fontsize=8)
            axes.set_xlabel("horizontal frequency" if row else "", fontsize=8)
            maps.append(axes)
    bar = figure.colorbar(image, ax=maps, orientation="horizontal", fraction=0.04, pad=0.02)
    bar.set_label("quantisation step, grey levels")
    _times(figure.add_subplot(grid[:, 3]), figures["compiled"])
    figure.suptitle(f"A JPEG layer trained with its network, then compiled: {figures['task']}")
    save_figure(figure, path)
