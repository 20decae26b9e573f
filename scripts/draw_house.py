"""docs/house.svg: the packages of src/jsc and which of them imports which, drawn from the imports.

python scripts/draw_house.py [FILE]

`tests/test_layout.py` reads the imports by the functions of this file, too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable
from pathlib import Path
from xml.sax.saxutils import escape

PACKAGE = Path(__file__).parents[1] / "src" / "jsc"
ENTRANCE = ("__init__", "__main__")  # they only open the door
WIDTH, MARGIN, ROOF, FLOOR, CELLAR = 1120, 28, 96, 62, 74
WALL = WIDTH - MARGIN  # right wall of the house
LINES = 740  # here the lines of imports begin
INK, GREY, RULE = "#1f2430", "#6b7280", "#c9ced6"
COLOURS = (240, 168, 96), (95, 191, 168), (110, 130, 225)  # of the top, the middle, the bottom


# ---- reading ------------------------------------------------------------------------------------


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def package(path: Path) -> str:
    """The folder of src/jsc that a file is in, or the file's own name."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The packages that a file imports from, wherever in the file it does so. "jsc" is the package
    itself, which imports all packages."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            names = [parts] if len(parts) > 1 else [[*parts, alias.name] for alias in node.names]
        else:
            continue
        found |= {(name[1] if len(name) > 1 else "jsc") for name in names if name[0] == "jsc"}
    known = {package(file) for file in files()}
    return {name if name in known else "jsc" for name in found}


def imports() -> dict[str, set[str]]:
    """For each package the other packages that its files import from."""
    found: dict[str, set[str]] = {}
    for path in files():
        found.setdefault(package(path), set()).update(imported(path) - {package(path)})
    return found


def levels(graph: dict[str, set[str]]) -> dict[str, int]:
    """How many floors each package has below it; ValueError if imports go in a circle."""
    found: dict[str, int] = {}

    def level(name: str, above: tuple[str, ...]) -> int:
        if name in above:
            raise ValueError(f"imports in a circle: {' -> '.join((*above, name))}")
        if name not in found:
            below = [level(other, (*above, name)) for other in sorted(graph[name])]
            found[name] = 1 + max(below, default=-1)
        return found[name]

    for name in sorted(graph):
        level(name, ())
    return found


def sentence(name: str) -> str:
    """What a package says of itself: the first sentence of its docstring."""
    text = ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text())) or ""
    return " ".join(text.split("\n\n")[0].split()).split(". ")[0].rstrip(".").replace("`", "")


def modules(name: str) -> list[str]:
    """The public modules of a package; of compiled ones the families."""
    compiled = {path.stem for path in (PACKAGE / name).rglob("*.pyx")}
    python = {path.stem for path in (PACKAGE / name).glob("*.py")}
    packages = {path.parent.name for path in (PACKAGE / name).glob("*/__init__.py")}
    return sorted(compiled or {m for m in python | packages if not m.startswith("_")})


# ---- drawing ------------------------------------------------------------------------------------


def text(x: float, y: float, words: str, size: float, colour: str = INK, weight: int = 400) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" fill="{colour}" '
        f'font-weight="{weight}">{escape(words)}</text>'
    )


def box(x: float, y: float, width: float, height: float, fill: str, stroke: str = "none") -> str:
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4" '
        f'fill="{fill}" stroke="{stroke}"/>'
    )


def colour(share: float, strength: float) -> str:
    """From the top to the bottom of the house, mixed with white."""
    half = min(int(2 * share), 1)
    part = 2 * share - half
    mixed = (a + (b - a) * part for a, b in zip(COLOURS[half], COLOURS[half + 1], strict=True))
    return "#" + "".join(f"{round(255 + (c - 255) * strength):02x}" for c in mixed)


def fitted(words: str, size: float, width: float) -> str:
    """Words that fit on a line, else those before the last colon, or as many as fit; a letter is
    about half as wide as high."""
    most = int(width / (0.53 * size))
    if len(words) <= most:
        return words
    head, colon, _ = words[:most].rpartition(": ")
    return head if colon else words[: most - 1].rsplit(" ", 1)[0] + " …"


def dots(x: float, rows: Iterable[float], fill: str) -> list[str]:
    return [
        f'<circle cx="{x:g}" cy="{y:g}" r="6" fill="{fill}" stroke="white" stroke-width="1.5"/>'
        for y in rows
    ]


def picture() -> str:
    graph = imports()
    packages = {name for name in graph if (PACKAGE / name).is_dir()}
    shared = sorted(set(graph) - packages - set(ENTRANCE))
    house = {name: graph[name] & packages for name in packages}
    reached = set().union(*house.values())
    shed = sorted(name for name in packages if name not in reached and not house[name])
    height = levels(house)
    order = sorted(packages - set(shed), key=lambda name: (-height[name], name))
    top = {name: MARGIN + ROOF + FLOOR * i for i, name in enumerate(order)}
    ground = MARGIN + ROOF + FLOOR * len(order)
    out = [
        f'<path d="M {MARGIN} {MARGIN + ROOF - 6} L {WIDTH / 2:g} {MARGIN - 14} '
        f'L {WALL} {MARGIN + ROOF - 6} Z" fill="#f3efe9" stroke="{RULE}"/>',
        f'<g text-anchor="middle">{text(WIDTH / 2, MARGIN + 46, "jsc", 22, INK, 700)}'
        + text(WIDTH / 2, MARGIN + 72, "a package imports those below in which its line has a dot,"
               " and none above", 13, GREY) + "</g>",
    ]  # fmt: skip
    width = LINES - MARGIN - 134
    step = (WALL - LINES - 20) / max(len(order) - 1, 1)
    for i, name in enumerate(order):
        share, y = i / max(len(order) - 1, 1), top[name]
        out += [
            box(MARGIN, y, WALL - MARGIN, FLOOR - 6, colour(share, 0.16), colour(share, 0.45)),
            text(MARGIN + 16, y + 23, name, 16, INK, 700),
            text(MARGIN + 122, y + 23, fitted(sentence(name), 13, width), 13),
            text(MARGIN + 122, y + 43, fitted(" · ".join(modules(name)), 12, width), 12, GREY),
        ]  # fmt: skip
    for i, name in enumerate(order):
        share, x = i / max(len(order) - 1, 1), LINES + step * i
        middle = {other: top[other] + (FLOOR - 6) / 2 for other in (name, *house[name])}
        line, low = colour(share, 1.0), max(middle.values())
        out += [
            f'<line x1="{x:g}" y1="{middle[name]:g}" x2="{x:g}" y2="{low:g}" stroke="{line}" '
            'stroke-width="2.5"/>',
            box(x - 8, middle[name] - 8, 16, 16, line, "white"),
            *dots(x, (middle[other] for other in sorted(house[name])), line),
        ]
    half = (WALL - MARGIN) * (0.68 if shed else 1.0)
    out += [
        box(MARGIN, ground, half, CELLAR - 14, "#eceef1", RULE),
        text(MARGIN + 16, ground + 24, "shared", 14, INK, 700),
        text(MARGIN + 122, ground + 24, "single files that every package may use", 13),
        text(MARGIN + 122, ground + 44, " · ".join(shared), 12, GREY),
    ]
    if shed:
        x = MARGIN + half + 14
        out += [
            box(x, ground, WALL - x, CELLAR - 14, "#f7f7f4", RULE),
            text(x + 16, ground + 24, ", ".join(shed), 14, INK, 700),
            text(x + 16, ground + 44, "for the tests alone", 12, GREY),
        ]
    tall = ground + CELLAR + 6
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {tall}" width="{WIDTH}" '
        f"height=\"{tall}\" font-family=\"system-ui,-apple-system,'Segoe UI','DejaVu Sans',"
        'sans-serif">'
    )
    return "\n".join(
        [head, f'<rect width="{WIDTH}" height="{tall}" fill="white"/>', *out, "</svg>\n"]
    )


if __name__ == "__main__":
    default = Path(__file__).parents[1] / "docs" / "house.svg"
    Path(sys.argv[1] if len(sys.argv) > 1 else default).write_text(picture())
