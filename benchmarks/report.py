"""What a benchmark prints and keeps: tables in Markdown, every number in JSON, and the machine."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import jsc
from jsc import _config

RESULTS = Path(__file__).parent / "results"
LOAD = os.getloadavg()[0]  # before the benchmark adds its own


def parser(name: str, text: str) -> argparse.ArgumentParser:
    """The options all benchmarks share."""
    options = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=text)
    options.add_argument("--quick", action="store_true", help="few small cases, a few seconds")
    options.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N")
    options.add_argument("--rounds", type=int, default=11, help="samples per method (median taken)")
    options.add_argument("--data", type=Path, metavar="DIR", help="real networks and images")
    options.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="results folder")
    return options


def command(name: str, arguments: Sequence[str]) -> str:
    """The command line that made a result, without this machine's folders."""
    words, hide = [], False
    for word in arguments:
        key, equals, _ = word.partition("=")
        takes_path = key in ("--data", "--out")
        words.append(f"{key}=DIR" if takes_path and equals else "DIR" if hide else word)
        hide = takes_path and not equals
    return " ".join(["python -m benchmarks", name, *words])


def environment() -> dict[str, Any]:
    """The machine and versions a result belongs to."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "isa": _config.isa_name(),
        "torch isa": torch.backends.cpu.get_cpu_capability(),
        "openmp": _openmp_runtimes(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "jsc": jsc.__version__,
        "revision": _revision(),
        "load before": round(LOAD, 2),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _openmp_runtimes() -> list[str]:
    # Two runtimes in one process would fight for the cores: a result has to show that.
    try:
        maps = Path("/proc/self/maps").read_text().split()
    except OSError:
        return []
    libraries = {Path(word).name for word in maps if word.startswith("/")}
    return sorted(name for name in libraries if name.startswith(("libgomp", "libomp", "libiomp")))


def _revision() -> str:
    def git(*words: str) -> str:
        folder = Path(__file__).parent
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        revision = git("rev-parse", "--short", "HEAD")
        changed = git("status", "--porcelain", "-uno")
    except OSError:
        return ""
    return revision + ("+changes" if changed else "")


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
    out: Path,
    name: str,
    made_by: str,
    text: str,
    sections: dict[str, str],
    data: dict[str, Any] | None = None,
    *,
    timed: bool = True,
) -> None:
    """Print a result and keep it: `out/name.md` for people, `out/name.json` with every number (not
    without `data`). What is not `timed` does not depend on how busy the machine was."""
    machine = environment()
    words = "; ".join(f"{key} {_words(value)}" for key, value in machine.items())
    parts = [f"# {name}", text.strip(), f"`{made_by}`", f"Machine: {words}."]
    if timed and LOAD > 0.5:
        parts.append(f"**Not for quoting:** the machine was busy before the run (load {LOAD:.1f}).")
    parts += [f"## {title}\n\n{body}" for title, body in sections.items() if body]
    markdown = "\n\n".join(parts) + "\n"
    print(markdown)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.md").write_text(markdown)
    if data is None:
        return
    kept = {"command": made_by, "environment": machine, **data}
    (out / f"{name}.json").write_text(compact(kept))


SHORT = (",", ":")  # json separators


def compact(data: dict[str, Any]) -> str:
    """JSON with six digits a number and a line for each item of the lists at the top."""
    lines = []
    for key, value in data.items():
        text = json.dumps(_rounded(value), separators=SHORT)
        if isinstance(value, list) and value:
            text = (
                "[\n"
                + ",\n".join(f"  {json.dumps(_rounded(row), separators=SHORT)}" for row in value)
                + "\n ]"
            )
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


def _words(value: Any) -> str:
    return "+".join(value) if isinstance(value, list) else str(value)


def progress(items: Iterable[Any], text: str) -> Iterator[Any]:
    """A progress bar over `items` where tqdm is installed."""
    items = list(items)
    try:
        from tqdm import tqdm
    except ImportError:
        yield from items
    else:
        yield from tqdm(items, desc=text, leave=False, disable=None)
