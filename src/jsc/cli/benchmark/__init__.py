"""Compile a model with jsc.compile and time it beside torch: latency, throughput, error.

  python -m jsc benchmark timm:resnet18
  python -m jsc benchmark transformers:ResNetForImageClassification --size 256 --batch 4
  python -m jsc benchmark net.py:make_net --channels 1 --size 28 --json net.json

MODEL is timm:NAME, torchvision:NAME, transformers:CLASS (its default config), FILE.py:NAME or
package.module:NAME. Weights are those that the model begins with: nothing is downloaded. A file is
run as a program is: take it from people you trust.

The contenders run in turn, a call at a time, for about --seconds each. Each one's error is its
largest difference from the model in float64, over the largest output; a contender that is off by
more than 1e-2 is not timed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from jsc.cli.benchmark.contenders import contenders, exact
from jsc.cli.benchmark.measure import measure
from jsc.cli.benchmark.models import load, sample_of
from jsc.cli.tune import first_run
from jsc.network import report

HELP = "time a model compiled with jsc.compile beside torch and other runtimes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="timm:NAME, FILE.py:NAME, ... (see above)")
    parser.add_argument("--size", type=_positive, metavar="N", help="pixels a side (the model's)")
    parser.add_argument("--batch", type=_positive, default=1, metavar="N", help="images a call (1)")
    parser.add_argument("--channels", type=_positive, default=3, metavar="N", help="of images (3)")
    parser.add_argument("--images", type=Path, metavar="DIR", help="real images instead of noise")
    parser.add_argument(
        "--seconds", type=float, default=5.0, metavar="S", help="for each contender, about (5)"
    )
    parser.add_argument(
        "--budget", type=float, default=20.0, metavar="S", help="for choosing methods (20)"
    )
    parser.add_argument("--torch-compile", action="store_true", help="time torch.compile too")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number >= 1, got {text!r}")
    return int(text)


def run(options: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    """Compile, compare, time, print a table."""
    if not options.seconds >= 0:
        raise ValueError(f"--seconds must be 0 or more, got {options.seconds}")
    model, size, key = load(options.model)
    size = options.size or size
    x = sample_of(options.batch, options.channels, size, options.images)
    first_run(model, x if key is None else {key: x})
    with torch.no_grad():
        made, net = contenders(model, x, key, options.budget, options.torch_compile)
        rows = measure(made, exact(model, x, key), options.seconds, options.batch)
    program = next(reversed(net._programs.values()))
    found = report.coverage(program)
    shape = "x".join(map(str, x.shape))
    print(f"{options.model} on {shape}, {torch.get_num_threads()} threads")
    print(
        f"{found.convolutions} convolutions, {found.linears} linear layers; "
        f"{100 * found.share:.0f} % of {found.native + sum(found.torch.values())} operations native"
    )
    for name, count in found.torch.items():
        print(f"  in torch: {count} x {name} ({found.reasons[name]})")
    print(f"{'':<22} {'median ms':>10} {'p90 ms':>8} {'images/s':>9} {'speed':>6} {'error':>8}")
    base = next((r for r in rows if r["name"] == "torch channels-last"), rows[0])
    for row in rows:
        print(_line(row, base))
    wrong = [r["name"] for r in rows if r["problem"]]
    figures = {
        "model": options.model, "shape": list(x.shape), "threads": torch.get_num_threads(),
        "torch": str(torch.__version__), "images": str(options.images or ""),
        "convolutions": found.convolutions, "linears": found.linears, "native": found.native,
        "native_share": found.share, "in_torch": found.torch, "contenders": rows,
    }  # fmt: skip
    return (1 if "jsc" in wrong else 0), figures


def _line(row: dict[str, Any], base: dict[str, Any]) -> str:
    if row["problem"]:
        return f"{row['name']:<22} {row['problem']}"
    error = "" if row["error"] is None else f"{row['error']:.1e}"
    if row["median_ms"] is None:
        return f"{row['name']:<22} {'-':>10} {'-':>8} {'-':>9} {'-':>6} {error:>8}"
    speed = "" if not base["median_ms"] else f"{base['median_ms'] / row['median_ms']:.2f}x"
    return (
        f"{row['name']:<22} {row['median_ms']:10.2f} {row['p90_ms']:8.2f} "
        f"{row['images_per_s']:9.1f} {speed:>6} {error:>8}"
    )
