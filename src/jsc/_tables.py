"""Tables of strings as text of at most 120 columns, and as HTML for notebooks."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape

WIDTH = 120
LEAST = 16  # columns for the last cell of a row


def folded(text: str, width: int = WIDTH, hang: str = "") -> list[str]:
    """Lines of at most `width` columns; a name is cut behind a dot where it can be."""
    lines = textwrap.wrap(text, width, subsequent_indent=hang, break_on_hyphens=False)
    if any(len(word) > width for word in text.split()):
        lines = textwrap.wrap(text.replace(".", ". "), width, break_on_hyphens=False)
        lines = [line.replace(". ", ".") for line in lines]
    return lines or [""]


def aligned(
    rows: Sequence[Sequence[str]], left: Collection[int], widest: Mapping[int, int]
) -> list[list[str]]:
    """The lines of each row. Cells of `left` columns are flushed left, other cells right. The last
    column takes the room that is left and is folded; so are, at their widths, those of `widest`
    columns where that would leave it none."""
    last = len(rows[0]) - 1
    widths = [max(len(row[i]) for row in rows) for i in range(last + 1)]
    if sum(widths[:last]) + 2 * last + LEAST > WIDTH:
        widths = [min(width, widest.get(i, width)) for i, width in enumerate(widths)]
    room = WIDTH - sum(widths[:last]) - 2 * last
    widths[last] = min(widths[last], max(LEAST, room))
    return [_lines(row, widths, left) for row in rows]


def _lines(row: Sequence[str], widths: Sequence[int], left: Collection[int]) -> list[str]:
    cells = [folded(cell, width) for cell, width in zip(row, widths, strict=True)]
    lines = []
    for number in range(max(map(len, cells))):
        parts = [cell[number] if number < len(cell) else "" for cell in cells]
        padded = [
            part.ljust(width) if i in left else part.rjust(width)
            for i, (part, width) in enumerate(zip(parts, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return lines


def html(rows: Sequence[Sequence[str]], left: Collection[int]) -> str:
    """A table whose first row is the head; nothing in a cell is taken for HTML."""

    def line(tag: str, row: Sequence[str]) -> str:
        cells = (
            f'<{tag} style="text-align:{"left" if i in left else "right"}">{escape(cell)}</{tag}>'
            for i, cell in enumerate(row)
        )
        return f"<tr>{''.join(cells)}</tr>"

    head, *body = rows
    return "\n".join(["<table>", line("th", head), *(line("td", row) for row in body), "</table>"])


def paragraphs(lines: Iterable[str]) -> str:
    return "\n".join(f"<p>{escape(line)}</p>" for line in lines)
