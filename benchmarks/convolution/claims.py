"""The convolution paper's claims and our targets, computed from the rows of `paper`.

A row is one layer on one number of threads: `times` holds two medians in ms for each method, that
of the rounds to choose on and that of the rounds to report, `sizes` the elements of each storage.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.common.harness import geometric_mean

Row = dict[str, Any]
OURS = ("cpo", "cps")  # what the paper's selection has besides im2col
RANDOM, SWEEP = "random", "sweep"  # sources of rows that are no network

# The abstract of arXiv 2104.08314. Its tables, networks, machine and thread counts were not at
# hand, so that the columns beside it are for orientation.
PAPER = {
    "time saved over im2col where chosen": "up to 63 % (average of a layer)",
    "CR: elements of im2col / stored": "up to 26",
    "time saved over parallel MEC where chosen": "28 % in some layers",
    "elements of MEC / stored": "9.2 in some layers",
    "chosen, of the non-pointwise layers": "up to 56 % of a network's",
    "network: time saved": "up to 9 % (whole inference)",
    "network: CR": "up to 10",
}


def is_real(row: Row) -> bool:
    return row["source"] not in (RANDOM, SWEEP)


def ms(row: Row, method: str) -> float:
    """The reported time of a method, which is not the time it was chosen by."""
    return row["times"][method][1]


def selection(row: Row, ours: Sequence[str] = OURS) -> str:
    """What offline selection takes: the fastest of im2col and `ours`; im2col for 1x1, as there."""
    if row["pointwise"]:
        return "im2col"
    return min(("im2col", *ours), key=lambda method: row["times"][method][0])


def saving(row: Row, method: str, over: str) -> float:
    """Percent of the time of `over` that `method` saves."""
    return 100 * (1 - ms(row, method) / ms(row, over))


def stored(row: Row, method: str) -> int:
    """Elements in the paper's measure."""
    return row["sizes"][{"im2col": "im2col", "mec": "MEC"}.get(method, method.upper())]


def chosen(rows: Iterable[Row], ours: Sequence[str]) -> list[Row]:
    return [row for row in rows if selection(row, ours) in ours]


def savings(rows: Iterable[Row], ours: Sequence[str], over: str) -> list[float]:
    """Savings over another method, of the layers where one of `ours` is chosen."""
    return [saving(r, selection(r, ours), over) for r in chosen(rows, ours) if over in r["times"]]


def smallest(row: Row, ours: Sequence[str]) -> int:
    return max(1, min(stored(row, method) for method in ours))


def network_table(rows: Iterable[Row], ours: Sequence[str] = OURS) -> list[Row]:
    """Each network on each number of threads: all convolutions by im2col, and as selected."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        if is_real(row):
            groups.setdefault((row["source"], row["threads"]), []).append(row)
    found = []
    for (network, threads), group in groups.items():
        taken = [selection(row, ours) for row in group]
        before = sum(ms(row, "im2col") for row in group)
        after = sum(ms(row, method) for row, method in zip(group, taken, strict=True))
        kept = sum(stored(row, method) for row, method in zip(group, taken, strict=True))
        best = [min(("dense", "cpc"), key=lambda m: row["times"][m][0]) for row in group]
        found.append({
            "network": network, "threads": threads, "convolutions": len(group),
            "non-pointwise": sum(not row["pointwise"] for row in group),
            "chosen": sum(method in ours for method in taken),
            "im2col ms": before, "selected ms": after, "saved %": 100 * (1 - after / before),
            "CR": sum(stored(row, "im2col") for row in group) / kept,
            "torch dense ms": sum(ms(row, "dense") for row in group),
            "best of dense and CPC ms": sum(map(ms, group, best)),
        })  # fmt: skip
    return found


def scopes(rows: Sequence[Row]) -> dict[tuple[str, int], list[Row]]:
    """Non-pointwise layers by what their input is and the number of threads."""
    found: dict[tuple[str, int], list[Row]] = {}
    for threads in dict.fromkeys(row["threads"] for row in rows):
        for name, wanted in (("random", True), ("real", False)):
            group = [
                row for row in rows
                if row["threads"] == threads and not row["pointwise"]
                and row["source"] != SWEEP and (row["source"] == RANDOM) == wanted
            ]  # fmt: skip
            if group:
                found[name, threads] = group
    return dict(sorted(found.items()))


def _percent(values: Sequence[float]) -> str:
    return f"mean {np.mean(values):.0f} %, up to {max(values):.0f} %" if values else "never chosen"


def _ratio(values: Sequence[float]) -> str:
    return f"mean {geometric_mean(list(values)):.3g}, up to {max(values):.3g}"


def _range(values: Sequence[float], unit: str = "") -> str:
    ends = list(dict.fromkeys(f"{value:.3g}" for value in (min(values), max(values))))
    return " to ".join(ends) + unit


def claims(rows: Sequence[Row], ours: Sequence[str] = OURS) -> list[Row]:
    """The abstract's claims, and the same figures of `ours`."""
    lines = {claim: {"claim": claim, "paper": paper} for claim, paper in PAPER.items()}
    keys = list(PAPER)
    networks = network_table(rows, ours)
    for (scope, threads), group in scopes(rows).items():
        figures = [
            _percent(savings(group, ours, "im2col")),
            _ratio([stored(row, "im2col") / smallest(row, ours) for row in group]),
            _percent(savings(group, ours, "mec")),
            _ratio([stored(row, "mec") / smallest(row, ours) for row in group]),
        ]
        taken = len(chosen(group, ours))
        share = f"{taken} of {len(group)} ({100 * taken / len(group):.0f} %)"
        mine = [line for line in networks if line["threads"] == threads] if scope == "real" else []
        if mine:
            parts = [100 * line["chosen"] / max(1, line["non-pointwise"]) for line in mine]
            share += f"; networks {_range(parts, ' %')}"
            figures += [share, _range([line["saved %"] for line in mine], " %")]
            figures += [_range([line["CR"] for line in mine])]
        else:
            figures += [share]
        for key, figure in zip(keys, figures, strict=False):
            lines[key][f"{scope}, {threads} thread{'s' * (threads > 1)}"] = figure
    return list(lines.values())


def targets(rows: Sequence[Row]) -> list[Row]:
    """Our own targets: what is measured, and whether it is enough. CPC stands beside, uncounted."""
    found: list[Row] = []

    def add(target: str, inputs: str, threads: Any, value: Any, met: bool, cpc: Any = None) -> None:
        found.append({
            "target": target, "inputs": inputs, "threads": threads, "CPO / CPS": value,
            "met": "yes" if met else "**no**", "CPC": cpc,
        })  # fmt: skip

    for over, least, text in (("im2col", 63, ""), ("mec", 28, "")):
        text = f"mean time saved over {over.replace('mec', 'MEC')} where chosen ≥ {least} %"
        for (scope, threads), group in scopes(rows).items():
            ours, cpc = savings(group, OURS, over), savings(group, ("cpc",), over)
            enough = bool(ours) and float(np.mean(ours)) >= least
            add(text, scope, threads, _percent(ours), enough, _percent(cpc))

    for (scope, threads), group in scopes(rows).items():
        sparse = [row for row in group if row["stride"] == 1 and row["density"] <= 0.6]
        if sparse:
            taken, cpc = len(chosen(sparse, OURS)), len(chosen(sparse, ("cpc",)))
            add(
                "chosen for ≥ 75 % of the non-pointwise stride-1 layers of density ≤ .6",
                scope, threads, f"{taken} of {len(sparse)} ({100 * taken / len(sparse):.0f} %)",
                taken >= 0.75 * len(sparse), f"{cpc} of {len(sparse)}",
            )  # fmt: skip

    for row in [row for row in rows if row.get("id") == "7" and row["source"] == RANDOM][:1]:
        whole = stored(row, "im2col")
        cpc = f"{whole / row['sizes']['CPC']:.1f}"
        for text, names in (("the paper's count", ("CPO", "CPS")), ("as stored", ("CPS packed",))):
            value = max(whole / row["sizes"][name] for name in names)
            label = f"CR of the 5x5 layer ≥ 26, {text}"
            add(label, RANDOM, None, f"{value:.1f}", value >= 26, cpc)
    largest = [r for r in rows if is_real(r) and r["layer"].startswith("5x5")]
    if largest:
        value, cpc = (
            max(stored(row, "im2col") / smallest(row, ours) for row in largest)
            for ours in (OURS, ("cpc",))
        )
        label = "CR of a 5x5 layer ≥ 26, the paper's count"
        add(label, "real", None, f"up to {value:.1f}", value >= 26, f"up to {cpc:.1f}")
    layers = len({(r["source"], r.get("id"), r.get("name"), round(r["density"], 4)) for r in rows})
    add("CR never below the closed formula", "all", None, f"{layers} layers checked", True, "too")

    for threads in dict.fromkeys(row["threads"] for row in rows):
        both = [
            [line["saved %"] for line in network_table(rows, ours) if line["threads"] == threads]
            for ours in (OURS, ("cpc",))
        ]
        if both[0]:
            text, (ours, cpc) = "network: ≥ 30 % of the convolutions' time saved", both
            enough = sum(value >= 30 for value in ours)
            value = f"{enough} of {len(ours)} networks ({_range(ours, ' %')})"
            add(text, "real", threads, value, enough == len(ours), _range(cpc, " %"))
    return found
