"""The page of `sparsity`: tables, the sentences that follow from them, and the figure."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.common import figures, report
from benchmarks.common.report import Figure
from benchmarks.networks.sparsity_times import WAYS

Row = dict[str, Any]
NO_TIMES = (
    "They were not taken, because the machine was busy. The same command without `--no-times` "
    "takes them, of the runs that are kept."
)
ALLOWED = 1.0  # points of validation accuracy that the quoted arm may lose


def baseline(rows: list[Row], network: str) -> Row:
    """The fine-tuned ReLU network."""
    return next(r for r in rows if r["network"] == network and r["arm"] == "ReLU" and r["epochs"])


def chosen(rows: list[Row], network: str) -> Row:
    """The sparsest arm that loses at most a point on validation images to the baseline."""
    least = baseline(rows, network)["validation"] - ALLOWED
    mine = [r for r in rows if r["network"] == network and r["epochs"]]
    return min((r for r in mine if r["validation"] >= least), key=lambda r: r["density"])


def accuracies(rows: list[Row]) -> str:
    return report.table([
        {
            "network": r["network"], "arm": r["arm"], "epochs": r["epochs"],
            "density": round(r["density"], 3), "validation, %": f"{r['validation']:.1f}",
            "test, %": f"{r['test']:.1f}",
            "against ReLU, points": f"{r['test'] - baseline(rows, r['network'])['test']:+.1f}",
            "core seconds": round(r["cpu seconds"]) if r["epochs"] else None,
        }
        for r in sorted(rows, key=lambda r: (r["network"], -r["density"]))
    ])  # fmt: skip


def timed(rows: list[Row]) -> str:
    lines = []
    for r in sorted(rows, key=lambda r: (r["network"], -r["density"])):
        if "times" not in r:
            continue
        line = {"network": r["network"], "arm": r["arm"], "density": round(r["density"], 3)}
        line |= {f"{way}, ms": f"{r['times'][way]['ms']:.3f}" for way in WAYS}
        for way in ("cpc", "tuned", "compiled"):
            line[f"gain of {way}"] = spread(r["times"][way]["gain"])
        lines.append(line)
    return report.table(lines) if lines else ""


def spread(ratio: list[float]) -> str:
    value, low, high = ratio
    return f"{value:.2f} ({low:.2f}–{high:.2f})"


def words(rows: list[Row]) -> str:
    lines = []
    for network in dict.fromkeys(r["network"] for r in rows):
        base, best = baseline(rows, network), chosen(rows, network)
        given = next(
            r for r in rows if r["network"] == network and r["kind"].startswith("ReLU, not")
        )
        lines.append(
            f"- {network}: fine-tuning alone takes the accuracy from {given['test']:.1f} to "
            f"{base['test']:.1f} % and the density from {given['density']:.2f} to "
            f"{base['density']:.2f}."
        )
        if best is base:
            lines.append(
                f"- No arm loses at most {ALLOWED:g} point on validation images: every zero made "
                "on purpose costs accuracy at this budget."
            )
        else:
            lines.append(
                f"- The sparsest arm within {ALLOWED:g} point on validation images is "
                f"{best['arm']}: density {best['density']:.2f}, test accuracy {best['test']:.1f} % "
                f"({best['test'] - base['test']:+.1f} points)."
            )
        if "times" in best:
            lines += sceptic(rows, network, base, best)
        else:
            fewer = 100 * (1 - best["density"] / base["density"])
            lines.append(
                "- **What a sceptical reader would write:** the price is known, "
                f"{base['test'] - best['test']:.1f} points of test accuracy for {fewer:.0f} % "
                "fewer multiply-adds at this short budget, and whether time is gained is not."
            )
    return "\n".join(lines)


def sceptic(rows: list[Row], network: str, base: Row, best: Row) -> list[str]:
    """What a sceptical reader would write: is any arm faster than ReLU, both compiled?"""

    def ms(row: Row, *ways: str) -> float:
        return min(float(row["times"][way]["ms"]) for way in ways)

    live = ("cpc", "tuned")
    times = [r for r in rows if r["network"] == network and "times" in r]
    sparsest = min(times, key=lambda r: r["density"])
    lines = [
        f"- Live, {best['arm']} takes {ms(best, *live):.3f} ms an image: "
        f"{ms(base, *live) / ms(best, *live):.2f} times as fast as the ReLU network run so, "
        f"{ms(best, 'torch') / ms(best, *live):.2f} times as fast as torch.",
        f"- Compiled, from density {base['density']:.2f} to {sparsest['density']:.2f} it goes "
        f"{spread(sparsest['times']['compiled']['gain'])} times as fast.",
    ]
    faster = [
        f"{r['arm']} by {gain[0]:.2f} times for {base['test'] - r['test']:.1f} points of accuracy"
        for r in times
        if (gain := r["times"]["compiled"]["gain"])[1] > 1
    ]
    verdict = (
        f"compiled, only these are faster than the plain ReLUs: {', '.join(faster)}"
        if faster
        else "compiled, no arm is faster than the plain ReLUs beyond the spread of the rounds, "
        "whatever accuracy it gives up"
    )
    return [
        *lines,
        f"- **What a sceptical reader would write:** on this processor, {verdict} (plain: "
        f"{ms(base, 'compiled'):.3f} ms an image; the fastest live "
        f"{min(ms(r, *live) for r in times):.3f}).",
    ]


def draw(rows: list[Row], folder: Path) -> list[Figure]:
    """Left: test accuracy against density. Right: time of each way against density."""
    figure, (left, right) = figures.subplots(1, 2, figsize=(12, 4.6))
    network = rows[0]["network"]
    mine = [r for r in rows if r["network"] == network]
    for i, kind in enumerate(dict.fromkeys(r["kind"] for r in mine)):
        some = sorted((r for r in mine if r["kind"] == kind), key=lambda r: r["density"])
        style = "o-" if "not" not in kind else "o:"
        x, y = [r["density"] for r in some], [r["test"] for r in some]
        left.plot(x, y, style, color=f"C{i}", label=kind, markersize=5)
    left.axhline(baseline(rows, network)["test"], color="0.6", linewidth=1, linestyle="--")
    left.set(xlabel="density of the activations (of multiply-adds)", ylabel="test accuracy, %")
    left.set_title(f"{network}: accuracy", fontsize=10)
    left.legend(fontsize=8)
    timed_rows = sorted((r for r in mine if "times" in r), key=lambda r: r["density"])
    for i, way in enumerate(WAYS if timed_rows else ()):
        x = [r["density"] for r in timed_rows]
        y = [r["times"][way]["ms"] for r in timed_rows]
        low, high = zip(*(r["times"][way]["quartiles"] for r in timed_rows), strict=True)
        right.plot(x, y, "o-", color=f"C{i}", label=way, markersize=4)
        right.fill_between(x, low, high, color=f"C{i}", alpha=0.2, linewidth=0)
    right.set(xlabel="density of the activations", ylabel="ms an image, one thread")
    right.set_title(f"{network}: time; bands are quartiles", fontsize=10)
    if timed_rows:
        right.set_ylim(bottom=0)
        right.legend(fontsize=8)
    right.set_visible(bool(timed_rows))
    for axis in (left, right):
        axis.set_xlim(left=0)
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figures.save(figure, folder / "sparsity.png")
    return [Figure("sparsity.png", "Accuracy and time against the density of the activations")]


def write(options: argparse.Namespace, text: str, rows: list[Row], pilots: list[Row]) -> None:
    sections = {
        "In words": words(rows),
        "Accuracy against density": accuracies(rows),
        f"Time of an image in a batch of {options.batch}, one thread": timed(rows) or NO_TIMES,
        "Pilots of the learning rate": report.table(pilots) if pilots else "",
    }
    drawn = figures.drawn(draw, rows, options.out)
    report.write(options, text, sections, data={"rows": rows, "pilots": pilots}, figures=drawn)
