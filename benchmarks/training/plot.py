"""The figures of `accuracy` and `robustness`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def accuracies(path: Path, main: Sequence[Row], controls: Sequence[Row]) -> None:
    """Left: accuracy of each pair, a dot a run, a line a mean. Right: gain of each control."""
    pyplot = _pyplot()
    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(12.5, 4.6), gridspec_kw={"width_ratios": (1.1, 1)}
    )
    pairs = list(dict.fromkeys((row["set"], row["architecture"]) for row in main))
    arms = list(dict.fromkeys(row["arm"] for row in main))
    for row in main:
        at = pairs.index((row["set"], row["architecture"]))
        at += 0.3 * (arms.index(row["arm"]) - (len(arms) - 1) / 2)
        colour = f"C{arms.index(row['arm'])}"
        values = row["accuracy"]
        left.plot([at] * len(values), values, "o", color=colour, alpha=0.6, markersize=5)
        left.hlines(np.mean(values), at - 0.12, at + 0.12, color=colour, linewidth=2.5)
    for i, arm in enumerate(arms):
        left.plot([], [], "o-", color=f"C{i}", label=arm)
    left.set_xticks(range(len(pairs)), [f"{s}\n{a}" for s, a in pairs], fontsize=7.5)
    left.set_ylabel("test accuracy after the last epoch, %")
    left.legend()
    left.grid(axis="y", alpha=0.3)

    shown = [row for row in controls if row["gain"] and row["arm"] != "standard"]
    for i, row in enumerate(shown):
        colour = "C1" if row["arm"] == "jpeg-dl" else "0.6"
        right.barh(i, np.mean(row["gain"]), color=colour, alpha=0.8)
        right.plot(row["gain"], [i] * len(row["gain"]), "k.", markersize=5)
    right.set_yticks(range(len(shown)), [row["arm"] for row in shown], fontsize=8)
    right.invert_yaxis()
    right.axvline(0, color="black", linewidth=1)
    right.set_xlabel("gain over standard, points; dots are seeds")
    if shown:
        right.set_title(f"{shown[0]['set']}, {shown[0]['architecture']}", fontsize=10)
    right.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def attacked(path: Path, rows: Sequence[Row], epsilons: Sequence[int], worst: str) -> None:
    """A panel per set and architecture: accuracy against epsilon, mean over seeds."""
    pyplot = _pyplot()
    pairs = list(dict.fromkeys((row["set"], row["architecture"]) for row in rows))
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    styles = {"white box": "-", "BPDA": "--", "transfer": ":"}
    columns = len(pairs) * len(arms)
    figure, axes = pyplot.subplots(
        1, columns, figsize=(4.2 * columns, 4.2), sharey=True, squeeze=False
    )
    panels = [(*pair, arm) for pair in pairs for arm in arms]
    for axis, panel in zip(axes[0], panels, strict=True):
        mine = [r for r in rows if (r["set"], r["architecture"], r["arm"]) == panel]
        clean = np.mean([row["clean"] for row in mine])
        for name in mine[0]["attacked"]:
            values = np.mean([row["attacked"][name] for row in mine], 0)
            kind, _, way = name.partition(", ")
            colour = {"FGSM": "C0", "PGD-5": "C1", "PGD-20": "C3"}.get(kind, "black")
            axis.plot(
                [0, *epsilons], [clean, *values], styles.get(way, "-"), color=colour, label=name,
                linewidth=2.5 if name == worst else 1.4, marker=".",
            )  # fmt: skip
        axis.set(title=", ".join(panel), xlabel="epsilon, 1/255", ylim=(0, None))
        axis.legend(fontsize=7)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("accuracy, %")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
