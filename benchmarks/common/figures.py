"""Figures that are drawn without a screen and kept as small files."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    """What `make` draws, or nothing where matplotlib is not installed."""
    try:
        return make(*arguments)
    except ImportError:
        print("matplotlib is not installed: no figure (pip install matplotlib)")
        return []
