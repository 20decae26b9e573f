"""The options that all benchmarks share, and what a benchmark prints and keeps.

A benchmark finds three things, and each has its place:

    page    NAME.md         what was asked, command, machine, summary tables, losses, figures
    layers  NAME_layers.md  one row for each layer or pass that was timed
    data    NAME.json       every number

All of them are written to `--out`, which git ignores. With `--publish` the page and its figures are
also copied to benchmarks/results, where git keeps them; rows and numbers never are.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import machine, processes
from jsc._progress import Progress

OUT = Path("out") / "benchmarks"
RESULTS = Path(__file__).parents[1] / "results"
COLUMNS = 110
Sections = Mapping[str, str]  # title: Markdown; an empty section is left out


class Figure(NamedTuple):
    """A figure that was drawn into `--out`, as its page shows it."""

    file: str
    title: str
    text: str = ""


def parser(name: str, text: str, *, timed: bool = True) -> argparse.ArgumentParser:
    """The options all benchmarks share. What is not `timed` may be measured on a busy machine."""
    options = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=text)
    options.add_argument("--quick", action="store_true", help="few small cases, a few seconds")
    options.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N")
    options.add_argument("--rounds", type=int, default=11, help="samples per method (median taken)")
    options.add_argument("--data", type=Path, metavar="DIR", help="real networks and images")
    options.add_argument("--out", type=Path, default=OUT, metavar="DIR", help="where results go")
    options.add_argument(
        "--publish", action="store_true", help="copy page and figures to benchmarks/results"
    )
    options.set_defaults(benchmark=name, timed=timed)
    return options


def parse(options: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """The parsed options, with the `command` that they are."""
    found = options.parse_args(arguments)
    if found.publish and found.quick:
        options.error("--publish takes a measurement, and --quick is only a check")
    if found.publish and found.timed and machine.LOAD > machine.BUSY:
        options.error(f"--publish needs an idle machine, and its load is {machine.LOAD:.1f}")
    found.command = command(found.benchmark, arguments)
    found.out.mkdir(parents=True, exist_ok=True)
    return found


def command(name: str, arguments: Sequence[str]) -> str:
    """The command line that made a result, without this machine's folders."""
    words, hide = [], False
    for word in arguments:
        key, equals, _ = word.partition("=")
        takes_path = key in ("--data", "--out", "--runs")
        shown = f"{key}=DIR" if takes_path and equals else "DIR" if hide else word
        words.append(shlex.quote(shown))
        hide = takes_path and not equals
    return " ".join(["python -m benchmarks", name, *words])


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str] | None = None) -> str:
    """A Markdown table; a missing value is a dash."""
    columns = columns or list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[_cell(row.get(column)) for column in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)


def write(
    options: argparse.Namespace,
    text: str,
    page: Sections,
    *,
    layers: Sections | None = None,
    data: dict[str, Any],
    figures: Sequence[Figure] = (),
    name: str | None = None,
) -> None:
    """Print the page, and keep page, layers and data as the head of this file says.

    text    : what was asked and how, mostly the docstring of the benchmark
    page    : sections of the page, short enough to be read
    layers  : sections with one row for each layer; not tracked
    data    : every number, as values that JSON knows; not tracked
    figures : what was drawn into `options.out` before
    name    : of the files, where it is not that of the benchmark

    Of several processes the first one does so, and the others nothing.
    """
    if not processes.first():
        return
    name = name or options.benchmark
    environment = machine.environment()
    parts = [f"# {name}", text.strip(), f"`{options.command}`"]
    parts.append(f"Machine: {machine.words(environment)}.")
    if options.timed and machine.LOAD > machine.BUSY:
        busy = f"the machine was busy before the run (load {machine.LOAD:.1f})"
        parts.append(f"**Not for quoting:** {busy}.")
    parts += _shown(page)
    shown = [f"![{f.title}]({f.file})" + (f"\n\n{f.text}" if f.text else "") for f in figures]
    parts += _shown({"Figures": "\n\n".join(shown)})
    if layers:
        rows = f"`{name}_layers.md` has a row for each layer and `{name}.json` every number"
        parts.append(f"{rows}; the command writes them to its `--out`.")
    markdown = folded("\n\n".join(parts)) + "\n"
    print(markdown)
    (options.out / f"{name}.md").write_text(markdown)
    if layers:
        head = [f"# {name}, layer by layer", f"`{options.command}`"]
        (options.out / f"{name}_layers.md").write_text("\n\n".join(head + _shown(layers)) + "\n")
    kept = {"command": options.command, "environment": environment, **data}
    (options.out / f"{name}.json").write_text(compact(kept))
    if options.publish:
        publish(options, [f"{name}.md", *(figure.file for figure in figures)])


def folded(markdown: str) -> str:
    """Text with lines of at most 110 columns, but for tables, commands and pictures."""
    lines = []
    for line in markdown.split("\n"):
        if len(line) <= COLUMNS or line.startswith(("|", "`python", "![")):
            lines.append(line)
        else:
            hang = "  " if line.startswith("- ") else ""
            wrap = textwrap.TextWrapper(
                COLUMNS, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False
            )
            lines += wrap.wrap(line)
    return "\n".join(lines)


def publish(options: argparse.Namespace, files: Sequence[str]) -> None:
    """Copy a page and its figures to benchmarks/results."""
    for file in files:
        shutil.copyfile(options.out / file, RESULTS / file)


def _shown(sections: Sections) -> list[str]:
    return [f"## {title}\n\n{body}" for title, body in sections.items() if body]


SHORT = (",", ":")  # json separators


def compact(data: dict[str, Any]) -> str:
    """JSON with six digits a number and a line for each item of the lists at the top."""
    lines = []
    for key, value in data.items():
        text = json.dumps(_rounded(value), separators=SHORT)
        if isinstance(value, list) and value:
            items = (f"  {json.dumps(_rounded(row), separators=SHORT)}" for row in value)
            text = "[\n" + ",\n".join(items) + "\n ]"
        lines.append(f' "{key}": {text}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


def progress(items: Iterable[Any], text: str) -> Iterator[Any]:
    """`items` with a progress bar."""
    items = list(items)
    with Progress(text, len(items)) as bar:
        for item in items:
            yield item
            bar.step()
