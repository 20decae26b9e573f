"""Heat maps of quantisation tables."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from jsc import _checks
from jsc._extras import need
from jsc._files import write_bytes

NAMES = {1: ("Y",), 2: ("Y", "Cb, Cr"), 3: ("Y", "Cb", "Cr")}


def plot_tables(
    tables: Tensor, target: str | PathLike[str] | Sequence[Any] | Any, *, title: str = ""
) -> None:
    """Draw tables as heat maps, every step written into its cell.

    Parameters
    ----------
    tables : Tensor, (T, 8, 8) with T from 1 to 3, integers or not
    target : path of an image file (.png, .pdf, .svg), or one matplotlib Axes a table
    title : str, optional
        Of the file's figure.

    Raises
    ------
    TypeError, ValueError  if tables or Axes do not fit.
    MissingExtraError  without matplotlib.

    Examples
    --------
    >>> jsc.jpeg.plot_tables(jsc.jpeg.quality_tables(75), "tables.png")
    """
    _checks.require_tensor(tables, "tables")
    if tables.ndim != 3 or tuple(tables.shape[1:]) != (8, 8) or len(tables) not in NAMES:
        raise ValueError(f"tables must be (2, 8, 8), or 1 or 3 of them; got {tuple(tables.shape)}")
    need("matplotlib", "matplotlib", "plots", "plot_tables")
    if not isinstance(target, (str, PathLike)):
        if isinstance(target, np.ndarray):  # what pyplot.subplots gives
            target = target.ravel().tolist()
        _draw(tables, list(target) if isinstance(target, Sequence) else [target])
        return
    save_figure(_figure(tables, title).figure, target)


def save_figure(figure: Any, target: str | PathLike[str]) -> None:
    """A matplotlib figure as the suffix of `target` says, PNG without one; the file is written
    whole or not at all."""
    path = Path(target)
    path = path if path.suffix else path.with_name(f"{path.name}.png")
    drawn = BytesIO()
    figure.savefig(drawn, format=path.suffix[1:].lower(), dpi=130)
    write_bytes(path, drawn.getvalue())


def pixels_of_tables(tables: Tensor, title: str) -> np.ndarray:
    """The figure of :func:`plot_tables` as (H, W, 3) uint8."""
    need("matplotlib", "matplotlib", "plots", "log_tables")
    canvas = _figure(tables, title)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def _figure(tables: Tensor, title: str) -> Any:
    """The canvas of a figure with one table beside the other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # no pyplot: no display, no global state

    figure = Figure(figsize=(4.6 * len(tables) + 0.4, 4.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    _draw(tables, list(figure.subplots(1, len(tables), squeeze=False)[0]))
    figure.suptitle(title)
    return canvas


def _draw(tables: Tensor, axes: Sequence[Any]) -> None:
    from matplotlib.axes import Axes
    from matplotlib.colors import LogNorm

    if not all(isinstance(axis, Axes) for axis in axes):
        raise TypeError(
            "target must be the path of an image file, or matplotlib Axes, "
            f"got {_checks.shown(axes)}"
        )
    if len(axes) != len(tables):
        raise ValueError(f"expected {len(tables)} Axes, one a table, got {len(axes)}")
    if tables.is_complex():
        raise TypeError(f"tables must be real, got {tables.dtype}")
    tables = tables.detach().cpu().double()
    if not bool(((tables >= 0) & tables.isfinite()).all()):
        raise ValueError("tables must be finite and not negative")
    whole = bool((tables == tables.round()).all())
    low, high = float(tables.clamp(min=1e-5).min()), float(tables.max())
    # steps are ratios: logarithmic, and the same colours in all tables
    norm = LogNorm(low, max(high, 1.01 * low))
    for table, name, axis in zip(tables, NAMES[len(tables)], axes, strict=True):
        image = axis.imshow(table.clamp(min=low).tolist(), cmap="viridis", norm=norm)
        for i, row in enumerate(table.tolist()):
            for j, step in enumerate(row):
                ink = "black" if norm(max(step, low)) > 0.55 else "white"
                text = f"{step:.0f}" if whole else f"{step:.3g}"
                axis.text(j, i, text, ha="center", va="center", fontsize=8, color=ink)
        axis.set(title=name, xlabel="horizontal frequency", ylabel="vertical frequency")
        axis.set_xticks(range(8))
        axis.set_yticks(range(8))
        axis.tick_params(length=0, labelsize=8)
    bar = axes[0].figure.colorbar(image, ax=list(axes), fraction=0.05, pad=0.02)
    ticks = [t for t in (0.01, 0.1, 1, 2, 5, 10, 20, 50, 100, 200) if low <= t <= high]
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.minorticks_off()
    bar.set_label("quantisation step, grey levels")
