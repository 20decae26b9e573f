"""The page of `dct_input`: tables, the sentences that follow from them, and the figure."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import figures, report
from benchmarks.common.report import Figure

Row = dict[str, Any]
NO_TIMES = (
    "Times were not taken, because the machine was busy. The same command without `--no-times` "
    "takes them, of the runs that are kept."
)
STAGES = ("stem", "whole")


def named(quality: int | None) -> str:
    return "as they are" if quality is None else f"quality {quality}"


def mean_std(values: list[float], sign: str = "") -> str:
    deviation = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):{sign}.1f}{deviation}"


def values(rows: list[Row], quality: int | None, kind: str, key: str = "test") -> list[float]:
    """In the order of seeds."""
    mine = [r for r in rows if (r["quality"], r["input"]) == (quality, kind)]
    return [r[key] for r in sorted(mine, key=lambda r: r["seed"])]


def gains(rows: list[Row], quality: int | None) -> list[float]:
    pairs = zip(values(rows, quality, "coefficients"), values(rows, quality, "pixels"), strict=True)
    return [ours - theirs for ours, theirs in pairs]


def accuracies(rows: list[Row], about: list[Row]) -> str:
    lines = []
    for one in about:
        quality = one["quality"]
        line = {
            "files": named(quality), "bits a pixel": round(one["bits a pixel"], 2),
            "density": round(one["density"], 3), "of Y": round(one["density of Y"], 3),
            "seeds": len(values(rows, quality, "pixels")),
        }  # fmt: skip
        for kind in ("pixels", "coefficients"):
            line[f"{kind}, test %"] = mean_std(values(rows, quality, kind))
            line[f"{kind}, validation %"] = mean_std(values(rows, quality, kind, "validation"))
        line["gain, points"] = mean_std(gains(rows, quality), "+")
        lines.append(line)
    return report.table(lines)


def reading(about: list[Row]) -> str:
    names = ("decode", "read coefficients", "decode at 1/8")
    lines = [
        {"files": named(one["quality"])} | {f"{n}, ms": milliseconds(one, n) for n in names}
        for one in about
        if "times" in one
    ]
    return report.table(lines) if lines else ""


def milliseconds(one: Row, name: str) -> str:
    low, high = one["times"]["quartiles"][name]
    return f"{one['times']['ms'][name]:.3f} ({low:.3f}–{high:.3f})"


def networks(about: list[Row]) -> str:
    lines = []
    for one in about:
        for stage in STAGES if "times" in one else ():
            for kind in ("pixels", "coefficients"):
                line = {"files": named(one["quality"]), "stage": stage, "input": kind}
                for way in ("torch", "compiled", "compiled dense", "cpc", "cpc + compiled"):
                    name = f"{kind}, {stage}, {way}"
                    known = name in one["times"]["ms"]
                    line[f"{way}, ms"] = milliseconds(one, name) if known else None
                lines.append(line)
    return report.table(lines) if lines else ""


def ratios(about: list[Row]) -> str:
    lines = [
        {"files": named(one["quality"])}
        | {name: spread(ratio) for name, ratio in one["times"]["ratios"].items()}
        for one in about
        if "times" in one
    ]
    return report.table(lines) if lines else ""


def spread(ratio: list[float]) -> str:
    value, low, high = ratio
    return f"{value:.2f} ({low:.2f}–{high:.2f})"


def words(rows: list[Row], about: list[Row]) -> str:
    lines, worse, faster, skipping = [], [], [], []
    for one in about:
        quality, name = one["quality"], f"Files {named(one['quality'])}"
        gain = gains(rows, quality)
        lines.append(
            f"- {name}: {100 * (1 - one['density']):.0f} % of the coefficients are zeros; "
            f"coefficients against pixels {mean_std(gain, '+')} points."
        )
        worse += [named(quality)] if np.mean(gain) < 0 else []
        if "times" not in one:
            continue
        found = one["times"]["ratios"]
        lines.append(
            f"- {name}, time of pixels over that of coefficients, each at its fastest: stem "
            f"{spread(found['stem'])}, whole network {spread(found['whole'])}, from file to answer "
            f"{spread(found['file to answer'])}; with an ideal reader "
            f"{spread(found['file to answer, ideal reader'])}. Skipping zeros in the first layer "
            f"gives {spread(found['stem, zeros skipped'])} over its fastest dense way."
        )
        faster += [named(quality)] if found["file to answer"][0] > 1 else []
        skipping += [named(quality)] if found["stem, zeros skipped"][1] > 1 else []
    accuracy = "coefficients "
    accuracy += f"lose accuracy in the mean ({', '.join(worse)})" if worse else "lose no accuracy"
    accuracy += f", as far as 300 test images and {len(gain)} seeds can tell"
    if any("times" in one for one in about):
        time = "from file to answer they save time "
        time += f"for files {', '.join(faster)}" if faster else "for no files, with this reader"
        time += "; their zeros make the first layer faster "
        time += f"for files {', '.join(skipping)}" if skipping else "nowhere on this processor"
        time += ". The rest of the gain is a smaller network, which pixels could have too."
    else:
        time = "whether they save time is not known before it is measured."
    lines.append(f"- **What a sceptical reader would write:** {accuracy}; {time}")
    return "\n".join(lines)


def draw(rows: list[Row], about: list[Row], folder: Path) -> list[Figure]:
    """Left: accuracy, a dot a seed. Right: from file to answer, each at its fastest."""
    figure, (left, right) = figures.subplots(1, 2, figsize=(12, 4.4))
    kinds = ("pixels", "coefficients")
    for i, one in enumerate(about):
        for k, kind in enumerate(kinds):
            found, at = values(rows, one["quality"], kind), i + 0.24 * (k - 0.5)
            left.plot([at] * len(found), found, "o", color=f"C{k}", alpha=0.7)
            left.hlines(np.mean(found), at - 0.09, at + 0.09, color=f"C{k}", linewidth=2.5)
    for k, kind in enumerate(kinds):
        left.plot([], [], "o-", color=f"C{k}", label=kind)
    left.set_xticks(
        range(len(about)),
        [f"{named(a['quality'])}\n{100 * (1 - a['density']):.0f} % zeros" for a in about],
    )
    left.set_xlim(-0.6, len(about) - 0.4)
    left.set(ylabel="test accuracy, %; dots are seeds")
    left.legend()
    left.grid(axis="y", alpha=0.3)
    labels: list[str] = []
    for one in about:
        if "times" in one:
            ms = one["times"]["ms"]
            for kind, reader in zip(kinds, ("decode", "read coefficients"), strict=True):
                # "stem" as the share of the fastest whole way
                stem = min(v for n, v in ms.items() if n.startswith(f"{kind}, stem"))
                whole = min(v for n, v in ms.items() if n.startswith(f"{kind}, whole"))
                parts = {"read": ms[reader], "stem": stem, "trunk": max(0.0, whole - stem)}
                begin = 0.0
                for c, (part, value) in enumerate(parts.items()):
                    label = part if not labels else None
                    right.barh(len(labels), value, 0.7, begin, color=f"C{c + 2}", label=label)
                    begin += value
                labels.append(f"{kind}\n{named(one['quality'])}")
    if labels:
        right.set_yticks(range(len(labels)), labels, fontsize=8)
        right.invert_yaxis()
        right.legend()
    right.set_visible(bool(labels))
    right.set(xlabel="ms an image from file to answer, one thread, each stage at its fastest")
    right.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    figures.save(figure, folder / "dct_input.png")
    return [Figure("dct_input.png", "Accuracy, and time from file to answer")]


def write(options: argparse.Namespace, text: str, rows: list[Row], about: list[Row]) -> None:
    sections = {
        "In words": words(rows, about),
        "Accuracy": accuracies(rows, about),
        "Reading a file": reading(about) or NO_TIMES,
        f"Networks, ms an image in a batch of {options.batch}, one thread": networks(about),
        "Time of pixels over time of coefficients": ratios(about),
    }
    drawn = figures.drawn(draw, rows, about, options.out)
    report.write(options, text, sections, data={"rows": rows, "files": about}, figures=drawn)
