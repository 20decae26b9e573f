"""Show the quantisation tables of a JPEG file, of a trained layer, or of libjpeg's quality scale;
draw them, and export them for other programs.

  python -m jsc tables photo.jpg
  python -m jsc tables model.pt --plot tables.png --export tables.txt
  python -m jsc tables --quality 75 --export tables.json

FILE is a JPEG; or a .pt or .safetensors file with the state_dict of a model that has one
jsc.nn.JPEG, or with nothing but tables (2, 8, 8). Of several rounds, (K, 2, 8, 8), these are the
last one's, whose multiples the coefficients end on.

--export writes whole numbers from 1 to 255: .json as lists, .txt as cjpeg reads them:
cjpeg -qtables tables.txt -sample 1x1 image.ppm > image.jpg
(of three tables with -qslots 0,1,2, or Cr gets the table of Cb)"""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jsc._files import write_bytes
from jsc.cli.states import load_state
from jsc.jpeg import plot_tables, quality_tables, read_tables
from jsc.jpeg.plots import NAMES

HELP = "show, draw and export quantisation tables"
JPEGS = {".jpg", ".jpeg", ".jpe", ".jfif"}
STATES = {".pt", ".pth", ".safetensors"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="JPEG or state_dict")
    parser.add_argument("--quality", type=int, metavar="Q", help="libjpeg's tables, 1 to 100")
    parser.add_argument("--key", metavar="NAME", help="which entry of a state_dict, if several fit")
    parser.add_argument(
        "--export", type=Path, metavar="OUT", help="write them: .json, .txt (cjpeg)"
    )
    parser.add_argument("--plot", type=Path, metavar="OUT", help="draw them: .png, .pdf, .svg")


def run(options: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    """Print the tables, then write what was asked for."""
    if (options.file is None) == (options.quality is None):
        raise ValueError("give either FILE or --quality Q")
    if options.export and options.export.suffix not in EXPORTS:
        raise ValueError(f"--export must end in .json or .txt, got {options.export.name}")
    if options.key and (options.file is None or options.file.suffix.lower() in JPEGS):
        raise ValueError("--key names an entry of a state_dict, which neither a JPEG nor Q has")
    if options.quality is not None:
        tables, source = quality_tables(options.quality), f"quality {options.quality}"
    else:
        tables, source = _read(options.file, options.key), options.file.name
    if options.export and not bool(tables.isfinite().all()):
        raise ValueError(
            f"no file can hold the tables of {source}, which have NaN or infinity: has training "
            "diverged?"
        )
    whole = tables.round().clamp(1, 255).long()
    print(f"{source}: quantisation steps, rows are vertical frequencies\n")
    for name, table in zip(NAMES[len(tables)], tables, strict=True):
        print(f"{name}\n{_grid(table)}\n")
    if not torch.equal(whole.double(), tables.double()):
        print("A baseline JPEG file holds them rounded, from 1 to 255.")
    if options.export:
        write_bytes(options.export, EXPORTS[options.export.suffix](whole, source).encode())
        print(f"Written: {options.export}")
        if options.export.suffix == ".txt":
            slots = " -qslots 0,1,2" if len(whole) == 3 else ""
            file = shlex.quote(str(options.export))
            print(f"For cjpeg: cjpeg -qtables {file}{slots} -sample 1x1 image.ppm > image.jpg")
    if options.plot:
        plot_tables(tables, options.plot, title=source)
        print(f"Drawn: {options.plot}")
    return 0, {"source": source, "tables": tables.tolist()}


def _grid(table: Tensor) -> str:
    whole = torch.equal(table.double(), table.double().round())
    cells = [[f"{step:.0f}" if whole else f"{step:.2f}" for step in row] for row in table.tolist()]
    width = max(len(cell) for row in cells for cell in row)
    return "\n".join("  " + " ".join(cell.rjust(width) for cell in row) for row in cells)


def _read(path: Path, key: str | None) -> Tensor:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if path.suffix.lower() in JPEGS:
        return read_tables(path)
    if path.suffix not in STATES:
        raise ValueError(
            f"{path.name} is neither a JPEG ({', '.join(sorted(JPEGS))}) nor a state_dict "
            f"({', '.join(sorted(STATES))})"
        )
    return _from_state(load_state(path), path.name, key)


def _from_state(state: Any, name: str, key: str | None) -> Tensor:
    if isinstance(state, Tensor):
        state = {"tables": state}
    found = {
        k: v.detach().reshape(-1, 2, 8, 8)[-1]
        for k, v in (state.items() if isinstance(state, dict) else ())
        if isinstance(v, Tensor)
        and v.ndim in (3, 4)
        and tuple(v.shape[-3:]) == (2, 8, 8)
        and len(v)
        if k == key or (key is None and k.rpartition(".")[2] == "tables")
    }
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        raise ValueError(
            f"{name} has no entry {key or 'tables'!r} of shape (2, 8, 8) or (K, 2, 8, 8)"
        )
    raise ValueError(f"{name} has several tables; choose one with --key: {', '.join(found)}")


def _json(tables: Tensor, source: str) -> str:
    rows = [", ".join(str(row) for row in table.tolist()) for table in tables]
    named = zip(NAMES[len(tables)], rows, strict=True)
    body = ",\n".join(f" {json.dumps(n)}: [{r}]".replace("], [", "],\n  [") for n, r in named)
    return "{\n" + body + "\n}\n"


def _cjpeg(tables: Tensor, source: str) -> str:
    parts = [f"# {source}\n" if source.isprintable() else ""]
    for name, table in zip(NAMES[len(tables)], tables, strict=True):
        parts.append(f"# {name}\n{_grid(table)}\n")
    return "".join(parts)


EXPORTS = {".json": _json, ".txt": _cjpeg}
