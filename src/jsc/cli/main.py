"""Arguments, errors and exit codes of `python -m jsc`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from jsc._files import write_bytes
from jsc._version import __version__
from jsc.cli import benchmark, demo, doctor, tables, tune
from jsc.cli.extras import MissingExtraError, need
from jsc.network import CompileError

COMMANDS = {"benchmark": benchmark, "demo": demo, "doctor": doctor, "tables": tables, "tune": tune}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jsc",
        description="Trainable JPEG layer and sparse-activation convolutions for PyTorch on CPUs.",
        epilog="Exit codes: 0 all right, 1 something is wrong, 2 wrong use or missing input.",
    )
    parser.add_argument("--version", action="version", version=f"jsc {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=module.HELP,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(sub)
        sub.add_argument(
            "--threads", type=_positive, metavar="N", help="threads (default: torch's)"
        )
        sub.add_argument("--json", type=Path, metavar="FILE", help="write every figure as JSON")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 4096:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 4096, got {text!r}")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    options = _parser().parse_args(arguments)
    threads = torch.get_num_threads()
    try:
        _check_outputs(options)
        if options.threads:
            torch.set_num_threads(options.threads)
        code, figures = COMMANDS[options.command].run(options)
        if options.json:
            _write_json(options.json, figures)
        return code
    except (
        MissingExtraError, CompileError, ImportError, ValueError, TypeError, OSError,
    ) as error:  # fmt: skip
        print(f"python -m jsc {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        torch.set_num_threads(threads)


def _check_outputs(options: argparse.Namespace) -> None:
    """Refuse what could not be written before the work, which would be lost."""
    for name in ("json", "out", "plot", "export"):
        path = getattr(options, name, None)
        if path is not None and not path.parent.is_dir():
            raise FileNotFoundError(f"--{name}: there is no folder {path.parent}; make it first")
        if path is not None and path.is_dir():
            raise IsADirectoryError(f"--{name}: {path} is a folder; give the name of a file")
    if getattr(options, "plot", None) is not None:
        need("matplotlib", "matplotlib", "plots", "--plot")


def _write_json(path: Path, figures: dict[str, Any]) -> None:
    write_bytes(path, (json.dumps(figures, indent=1, allow_nan=False) + "\n").encode())
