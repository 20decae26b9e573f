"""The figures of `accuracy` and `robustness_small`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import figures
from benchmarks.common.report import Figure

Row = dict[str, Any]


def accuracies(
    folder: Path, name: str, main: Sequence[Row], controls: Sequence[Row]
) -> list[Figure]:
    """`name`.png. Left: accuracy of each pair, a dot a run, a line a mean. Right: gain of each
    control."""
    figure, (left, right) = figures.subplots(
        1, 2, figsize=(14, 5.2), gridspec_kw={"width_ratios": (1.7, 1)}
    )
    pairs = list(dict.fromkeys((row["set"], row["architecture"]) for row in main))
    variants = list(dict.fromkeys(row["variant"] for row in main))
    for row in main:
        at = pairs.index((row["set"], row["architecture"]))
        at += (variants.index(row["variant"]) - (len(variants) - 1) / 2) * 0.75 / len(variants)
        colour = f"C{variants.index(row['variant'])}"
        values = row["accuracy"]
        left.plot([at] * len(values), values, "o", color=colour, alpha=0.6, markersize=4)
        left.hlines(np.mean(values), at - 0.07, at + 0.07, color=colour, linewidth=2.5)
    for i, variant in enumerate(variants):
        left.plot([], [], "o-", color=f"C{i}", label=variant)
    left.set_xticks(range(len(pairs)), [f"{s}\n{a}" for s, a in pairs], fontsize=7.5)
    left.tick_params(axis="x", rotation=60)
    left.set_ylabel("test accuracy after the last epoch, %")
    left.legend()
    left.grid(axis="y", alpha=0.3)

    shown = [row for row in controls if row["gain"] and row["variant"] != "standard"]
    for i, row in enumerate(shown):
        colour = "C1" if row["variant"] == "jpeg-dl" else "0.6"
        right.barh(i, np.mean(row["gain"]), color=colour, alpha=0.8)
        right.plot(row["gain"], [i] * len(row["gain"]), "k.", markersize=5)
    right.set_yticks(range(len(shown)), [row["variant"] for row in shown], fontsize=8)
    right.invert_yaxis()
    right.axvline(0, color="black", linewidth=1)
    right.set_xlabel("gain over standard, points; dots are seeds")
    if shown:
        right.set_title(f"{shown[0]['set']}, {shown[0]['architecture']}", fontsize=10)
    right.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    figures.save(figure, folder / f"{name}.png")
    return [Figure(f"{name}.png", "Test accuracy of each pair, and gain of each control")]


def attacked(
    folder: Path, rows: Sequence[Row], epsilons: Sequence[int], worst: str
) -> list[Figure]:
    """Accuracy against epsilon, mean over seeds: a panel per variant, then the worst of all."""
    panels = list(dict.fromkeys((r["set"], r["architecture"], r["variant"]) for r in rows))
    figure, axes = figures.subplots(
        1, len(panels) + 1, figsize=(3.9 * (len(panels) + 1), 4.2), sharey=True, squeeze=False
    )
    last = axes[0][-1]
    kinds: dict[str, str] = {}
    for axis, panel in zip(axes[0], panels, strict=False):
        mine = [r for r in rows if (r["set"], r["architecture"], r["variant"]) == panel]
        clean = np.mean([row["clean"] for row in mine])
        for name in mine[0]["attacked"]:
            values = [clean, *np.mean([row["attacked"][name] for row in mine], 0)]
            if name == worst:
                last.plot([0, *epsilons], values, ".-", label=", ".join(panel))
                continue
            kind, _, way = name.partition(", ")
            colour = kinds.setdefault(kind, f"C{len(kinds)}")
            style = {"white box": "-", "BPDA": "--"}.get(way, ":")
            axis.plot([0, *epsilons], values, style, color=colour, label=name, marker=".")
        axis.set(title=", ".join(panel))
    last.set(title=f"{worst} of all attacks", ylim=(0, 100))
    for axis in axes[0]:
        axis.set(xlabel="epsilon, 1/255", xticks=[0, *epsilons])
        axis.legend(fontsize=6.5, loc="best", handlelength=3)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("accuracy, %")
    figure.tight_layout()
    figures.save(figure, folder / "robustness_small.png")
    return [Figure("robustness_small.png", "Accuracy under attack against epsilon")]
