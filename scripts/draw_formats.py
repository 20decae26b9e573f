"""docs/formats.svg: a small map in CPO, CPS and CPC, drawn from the arrays that jsc.formats makes.

python scripts/draw_formats.py [FILE]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import torch

from jsc.formats import CPC, CPO, CPS

MAP = [
    [0, 0, 1, 0, 0, 0],
    [2, 0, 3, 0, 0, 4],
    [0, 5, 6, 0, 0, 0],
    [0, 0, 7, 0, 8, 0],
    [9, 0, 0, 1, 0, 2],
    [0, 0, 0, 0, 3, 0],
    [0, 4, 0, 5, 0, 0],
    [0, 0, 0, 6, 0, 0],
]
KERNEL = 3
WIDTH, HEIGHT = 1060, 740
LEFT, RIGHT = 62, 372  # where the map and where the arrays begin
CELL, TALL = 34, 32  # of the map; height of a cell of an array
STEP = 42  # width of a cell of an array
INK, GREY, RULE = "#1f2430", "#6b7280", "#c9ced6"
STRONG = {1: "#f0a860", 2: "#5fbfa8", 3: "#8e9be6"}  # by the windows that read a column
PALE = {1: "#fdf0e2", 2: "#e6f5f1", 3: "#ebedfb"}


class Entry(NamedTuple):
    """A value of CPO, with what Ptr and IN say about it."""

    value: float
    index: int
    pattern: int
    window: int
    row: int
    column: int


def entries(made: CPO) -> Iterator[Entry]:
    at = 0
    for pattern, windows, ptr in pointers(made):
        for window, begin, end in zip(windows, ptr, ptr[1:], strict=False):
            for _ in range(begin, end):
                index = int(made.IN[at])
                row, c = divmod(index, made.geometry.Kw)
                yield Entry(float(made.DA[at]), index, pattern, window, row, window + c)
                at += 1


def pointers(made: CPO | CPS) -> Iterator[tuple[int, list[int], list[int]]]:
    """(pattern, its windows, its part of Ptr): the first one keeps its two windows only."""
    g, row, at = made.geometry, made.Ptr[0].tolist(), 0
    for pattern in range(1, min(g.Kw, g.Ow) + 1):
        windows = [0, g.Ow - 1] if pattern == 1 else list(range(g.Ow))
        yield pattern, windows, row[at : at + len(windows) + 1]
        at += len(windows) + 1


class Drawing:
    def __init__(self) -> None:
        self.parts: list[str] = []

    def box(self, x: float, y: float, w: float, h: float, fill: str, stroke: str = "white") -> None:
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="{3 if h > 11 else 1}" '
            f'fill="{fill}" stroke="{stroke}"/>'
        )

    def bit(self, x: float, y: float, w: float, h: float, is_set: bool, fill: str) -> None:
        self.box(x, y, w, h, fill if is_set else "white", fill if is_set else RULE)

    def text(
        self, x: float, y: float, words: object, size: float = 13, anchor: str = "middle",
        fill: str = INK, weight: int = 400,
    ) -> None:  # fmt: skip
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}" '
            f'fill="{fill}" font-weight="{weight}">{escape(str(words))}</text>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, stroke: str = RULE) -> None:
        self.parts.append(f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}" stroke="{stroke}"/>')

    def cell(self, x: float, y: float, words: object, fill: str, wide: float = STEP) -> None:
        self.box(x, y, wide, TALL, fill)
        self.text(x + wide / 2, y + TALL / 2 + 5, words, 14)

    def heading(self, x: float, y: float, name: str, words: str) -> None:
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="17" fill="{INK}"><tspan font-weight="700">'
            f'{escape(name)}</tspan><tspan dx="10" font-size="13.5" fill="{GREY}">{escape(words)}'
            "</tspan></text>"
        )

    def label(self, y: float, words: str) -> None:
        self.text(RIGHT - 10, y + TALL / 2 + 5, words, 14, "end", weight=600)

    def svg(self) -> str:
        font = "font-family=\"system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif\""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'width="{WIDTH}" height="{HEIGHT}" {font}>'
        )
        paper = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
        return "\n".join([head, paper, *self.parts, "</svg>\n"])


def draw_map(to: Drawing, made: CPO) -> None:
    g, top = made.geometry, 84
    pattern = {entry.column: entry.pattern for entry in entries(made)}
    stored = {(entry.row, entry.column): entry.value for entry in entries(made)}
    to.heading(LEFT - 34, 38, "The map", f"{g.H} × {g.W}, kernel {g.Kh} × {g.Kw}")
    to.text(LEFT - 8, top - 10, "row", 11, "end", GREY)
    for j in range(g.W):
        x = LEFT + j * CELL
        to.text(x + CELL / 2, top - 10, j, 12, fill=GREY)
        for i in range(g.H):
            value = stored.get((i, j))
            colours = PALE if value is None else STRONG
            to.box(x, top + i * CELL, CELL, CELL, colours[pattern[j]])
            if value is not None:
                to.text(x + CELL / 2, top + i * CELL + CELL / 2 + 5, f"{value:g}", 15)
    for i in range(g.H):
        to.text(LEFT - 8, top + i * CELL + CELL / 2 + 4, i, 12, "end", GREY)
    right, bottom = LEFT + g.W * CELL, top + g.H * CELL
    for k in range(0, g.H, 4):
        y, end = top + k * CELL + 5, top + min(k + 4, g.H) * CELL - 5
        to.line(right + 8, y, right + 8, end, GREY)
        to.text(right + 14, (y + end) / 2 + 4, f"set {k // 4}", 12, "start", GREY)

    for s in range(g.Ow):
        y = bottom + 12 + 17 * s
        to.box(LEFT + s * CELL + 2, y, g.Kw * CELL - 4, 12, "#e5e7eb")
        to.text(LEFT + (s + g.Kw / 2) * CELL, y + 10, f"window {s}", 10)
    y = bottom + 12 + 17 * g.Ow + 22
    to.text(LEFT - 34, y, "A column's colour is its pattern:", 12.5, "start", weight=600)
    for n, p in enumerate(sorted(set(pattern.values()))):
        of = ", ".join(str(j) for j in sorted(pattern) if pattern[j] == p)
        to.box(LEFT - 34, y + 10 + 21 * n, 15, 15, STRONG[p])
        words = f"read by {p} window{'s' * (p > 1)}: columns {of}"
        to.text(LEFT - 12, y + 22 + 21 * n, words, 12.5, "start")


def draw_sizes(to: Drawing, cpo: CPO, cps: CPS) -> None:
    g, y = cpo.geometry, 560
    sizes = {
        "im2col": g.Oh * g.Ow * g.Kh * g.Kw, "MEC": g.H * g.Ow * g.Kw, "the map itself": g.H * g.W,
        "CPO": cpo.elements, "CPS": cps.packed_elements,
    }  # fmt: skip
    to.text(LEFT - 34, y, "Elements of this map in each storage", 12.5, "start", weight=600)
    for n, (name, size) in enumerate(sizes.items()):
        at, wide = y + 12 + 24 * n, 150 * size / max(sizes.values())
        to.text(LEFT + 56, at + 13, name, 12.5, "end")
        to.box(LEFT + 64, at, wide, 18, "#9aa3af" if name not in ("CPO", "CPS") else STRONG[3])
        to.text(LEFT + 64 + wide + 6, at + 13, size, 12.5, "start")


def draw_cpo(to: Drawing, made: CPO) -> None:
    values = list(entries(made))
    to.heading(RIGHT - 44, 38, "CPO", "every non-zero once: by pattern, then window, then column")
    for column, group in groupby(enumerate(values), key=lambda item: item[1].column):
        places = [place for place, _ in group]
        x, end = RIGHT + places[0] * STEP, RIGHT + (places[-1] + 1) * STEP
        to.text((x + end) / 2, 66, f"column {column}", 12, fill=GREY)
        to.line(x + 4, 73, end - 4, 73, GREY)
    for place, entry in enumerate(values):
        x = RIGHT + place * STEP
        to.cell(x, 80, f"{entry.value:g}", STRONG[entry.pattern])
        to.cell(x, 80 + TALL, entry.index, PALE[entry.pattern])
        c = entry.column - entry.window
        to.text(x + STEP / 2, 80 + 2 * TALL + 15, f"{entry.row}·{KERNEL}+{c}", 10, fill=GREY)
    to.label(80, "DA")
    to.label(80 + TALL, "IN")
    explained = "IN = row · Kw + kernel column in the leftmost window that reads the value"
    to.text(RIGHT, 80 + 2 * TALL + 36, explained, 12.5, "start", GREY)

    x, y = float(RIGHT), 228
    for pattern, windows, ptr in pointers(made):
        for place, count in enumerate(ptr):
            to.cell(x, y, count, PALE[pattern])
            if place < len(windows):
                to.text(x + STEP, y - 7, f"w{windows[place]}", 11, fill=GREY)
            x += STEP
        x += 12
    to.label(y, "Ptr")
    explained = "from one entry to the next: the values of the pattern whose leftmost window is w"
    to.text(RIGHT, y + TALL + 19, explained, 12.5, "start", GREY)


def draw_cps(to: Drawing, made: CPS, cpo: CPO) -> None:
    values, top, at = list(entries(cpo)), 356, 0
    words = "one index word for up to four non-zeros of a set of rows; DA and Ptr as in CPO"
    to.heading(RIGHT - 44, top - 28, "CPS", words)
    for word in made.IN.tolist():
        number, mask = divmod(word, 16)
        count = bin(mask).count("1")
        x, wide, pattern = RIGHT + at * STEP, count * STEP, values[at].pattern
        to.box(x, top, wide, 72, PALE[pattern])
        for r in range(4):
            set_bit = bool(mask >> r & 1)
            to.bit(x + wide / 2 - 6, top + 7 + 10.5 * r, 12, 8.5, set_bit, STRONG[pattern])
        to.text(x + wide / 2, top + 65, f"set {number}", 11.5)
        to.text(x + wide / 2, top + 88, word, 13)
        for n in range(count):
            to.cell(x + n * STEP, top + 98, f"{float(made.DA[at + n]):g}", STRONG[pattern])
        at += count
    to.label(top + 20, "IN")
    to.text(RIGHT - 10, top + 88, "as stored", 11, "end", GREY)
    to.label(top + 98, "DA")
    explained = "IN = set · 16 + pattern of the four rows, row 0 of the set in the lowest bit"
    to.text(RIGHT, top + 98 + TALL + 19, explained, 12.5, "start", GREY)


def draw_cpc(to: Drawing, made: CPC) -> None:
    top, at, channels = 582, 0, made.geometry.C
    words = f"the same numbers as a row of {made.geometry.W} pixels with {channels} channels each"
    to.heading(RIGHT - 44, top - 28, "CPC", words)
    for pixel, word in enumerate(made.masks.flatten().tolist()):
        count = bin(word).count("1")
        x, wide = RIGHT + at * STEP, count * STEP
        to.text(x + wide / 2, top + 4, f"pixel {pixel}", 12, fill=GREY)
        to.box(x, top + 12, wide, 48, "#f1f3f5")
        for c in range(channels):
            left = x + wide / 2 + (c - channels / 2) * 9.5
            to.bit(left, top + 19, 8, 11, bool(word >> c & 1), "#5b6472")
        to.text(x + wide / 2, top + 51, word, 13)
        for n in range(count):
            to.cell(x + n * STEP, top + 66, f"{float(made.DA[at + n]):g}", "#cfd5dc")
        at += count
    to.label(top + 20, "masks")
    to.label(top + 66, "DA")
    explained = "one 64-bit mask a pixel, channel 0 in the lowest bit; non-zeros channel by channel"
    to.text(RIGHT, top + 66 + TALL + 19, explained, 12.5, "start", GREY)
    offsets = ", ".join(str(int(o)) for o in made.offsets)
    explained = f"offsets [{offsets}]: where each row of pixels begins in DA"
    to.text(RIGHT, top + 66 + TALL + 38, explained, 12.5, "start", GREY)


def picture() -> str:
    x = torch.tensor(MAP, dtype=torch.float32)
    cpo, cps = CPO.encode(x[None, None], KERNEL), CPS.encode(x[None, None], KERNEL)
    cpc = CPC.encode(x[None, :, None], 1)  # rows become channels
    to = Drawing()
    draw_map(to, cpo)
    draw_sizes(to, cpo, cps)
    draw_cpo(to, cpo)
    draw_cps(to, cps, cpo)
    draw_cpc(to, cpc)
    for y in (303, 526):
        to.line(RIGHT - 44, y, WIDTH - 24, y)
    return to.svg()


if __name__ == "__main__":
    default = Path(__file__).parents[1] / "docs" / "formats.svg"
    Path(sys.argv[1] if len(sys.argv) > 1 else default).write_text(picture())
