"""The figure of `robustness`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import figures
from benchmarks.common.report import Figure
from benchmarks.jpeg.protocol import statistics
from benchmarks.jpeg.protocol.models import ARMS, MAIN, RECIPES
from benchmarks.jpeg.protocol.statistics import WORST, Row
from benchmarks.jpeg.protocol.suite import FOUR, PAPER

COLUMNS = {
    "FGSM": "FGSM, white box", "PGD-5": "PGD-5, white box", WORST: "worst of all attacks",
}  # fmt: skip


def attacked(folder: Path, rows: Sequence[Row]) -> list[Figure]:
    """Accuracy against epsilon: a row for each network, a column for each attack, a line for each
    arm (mean over seeds)."""
    if not rows:
        return []
    networks = list(dict.fromkeys(row["network"] for row in rows))
    figure, axes = figures.subplots(
        len(networks), len(COLUMNS), figsize=(11, 0.6 + 3.1 * len(networks)),
        sharex=True, sharey="row", squeeze=False,
    )  # fmt: skip
    for line, network in zip(axes, networks, strict=True):
        for axis, (attack, title) in zip(line, COLUMNS.items(), strict=True):
            main = [row for arm in MAIN for row in statistics.of(rows, network, arm)]
            images = statistics.size(main, attack, FOUR) or None  # the same of the arms compared
            for k, arm in enumerate(ARMS):
                mine = statistics.of(rows, network, arm)
                epsilons = FOUR if attack == WORST else PAPER  # restarts are made at few
                found = {e: statistics.accuracy(mine, attack, e, images) for e in epsilons}
                points = {e: value[0] for e, value in found.items() if value is not None}
                if mine and attack != WORST:
                    points = {0.0: sum(row["clean"] for row in mine) / len(mine), **points}
                if points:
                    axis.plot(list(points), list(points.values()), ".-", color=f"C{k}", label=arm)
            axis.set_title(f"{RECIPES[network].name}: {title}", fontsize=9)
            axis.grid(alpha=0.3)
        line[0].set_ylabel("accuracy, %")
        line[0].set_ylim(0, 100)
    axes[0][0].legend(fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("epsilon, 1/255")
    figure.tight_layout()
    figures.save(figure, folder / "robustness.png")
    return [Figure("robustness.png", "Accuracy under attack against epsilon")]
