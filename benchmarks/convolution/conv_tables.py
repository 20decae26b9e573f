"""The tables of `conv`, from its rows: one for each layer, number of threads and method."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from benchmarks.common import report
from benchmarks.common.harness import geometric_mean
from benchmarks.convolution import targets

Row = dict[str, Any]
GROUP = ("method", "batch", "threads", "class")


def means(rows: list[Row]) -> list[Row]:
    """Geometric mean of the figures of each class of layers; random inputs also by density."""
    groups: dict[tuple, list[Row]] = defaultdict(list)
    for row in rows:
        if row["method"] != "dense":
            density = "real" if "network" in row else f"{row['density']:.1f}"
            groups[(*(row[name] for name in GROUP), density)].append(row)
    figures = ("ratio", "efficiency", "share")
    return [
        {**dict(zip((*GROUP, "density"), key, strict=True)), "layers": len(group)}
        | {name: geometric_mean([max(row[name], 1e-9) for row in group]) for name in figures}
        for key, group in sorted(groups.items())
    ]


def means_table(means: list[Row], figure: str) -> str:
    """`figure` of every class of layers, densities side by side: "0.5 (3)" has three layers."""
    lines: dict[tuple, Row] = {}
    layers: dict[tuple, Row] = defaultdict(dict)
    for mean in means:
        key = tuple(mean[name] for name in GROUP)
        lines.setdefault(key, dict(zip(GROUP, key, strict=True)))[mean["density"]] = mean[figure]
        kind = "real" if mean["density"] == "real" else "random"
        layers[key][kind] = mean["layers"]
    densities = sorted({mean["density"] for mean in means}, reverse=True)
    densities.sort(key=lambda density: density == "real")
    shown = []
    for key, line in lines.items():
        counts = {f"layers, {kind}": layers[key].get(kind) for kind in ("random", "real")}
        shown.append({**{name: line[name] for name in GROUP}, **counts, **line})
    kinds = [f"layers, {k}" for k in ("random", "real") if any(k in n for n in layers.values())]
    return report.table(shown, [*GROUP, *kinds, *densities])


def sums(rows: list[Row]) -> list[Row]:
    """Per network: all convolutions dense, and each with the best of dense and sparse."""
    layers: dict[tuple, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if "network" in row:
            key = row["network"], row["batch"], row["threads"]
            layers[key][row["name"]].append(row)
    found = []
    for (network, batch, threads), by_name in layers.items():
        dense = [next(r for r in group if r["method"] == "dense") for group in by_name.values()]
        best = [min(group, key=lambda r: r["halves"][0]) for group in by_name.values()]
        before, after = (sum(r["halves"][1] for r in chosen) for chosen in (dense, best))
        found.append({
            "network": network, "batch": batch, "threads": threads, "convolutions": len(dense),
            "sparse chosen": sum(r["method"] != "dense" for r in best),
            "dense ms": before, "best ms": after, "ratio": before / after,
        })  # fmt: skip
    return found


def losses(rows: list[Row]) -> list[Row]:
    """How many layers each method makes slower than torch's best, and the worst of them."""
    groups: dict[tuple, list[Row]] = defaultdict(list)
    for row in rows:
        if row["method"] != "dense":
            inputs = "real" if "network" in row else "random"
            groups[row["method"], inputs, row["batch"], row["threads"]].append(row)
    found = []
    for (method, inputs, batch, threads), group in sorted(groups.items()):
        worst = min(group, key=lambda row: row["ratio"])
        found.append({
            "method": method, "inputs": inputs, "batch": batch, "threads": threads,
            "layers": len(group), "slower": sum(row["ratio"] < 1 for row in group),
            "least ratio": round(worst["ratio"], 2), "of": worst["layer"],
            "at density": round(worst["density"], 2),
        })  # fmt: skip
    return found


def layer_table(rows: list[Row]) -> str:
    shown = []
    dense: Row = {}
    for row in rows:
        if row["method"] == "dense":
            dense = row
            continue
        shown.append({
            "layer": f"{row['name']} ({row['layer']})" if "name" in row else row["layer"],
            "batch": row["batch"], "threads": row["threads"], "density": round(row["density"], 3),
            "dense ms": dense["ms"], "method": row["method"], "ms": row["ms"],
            "ratio": round(row["ratio"], 2), "quartiles": f"{row['low']:.2f}–{row['high']:.2f}",
            "efficiency": round(row["efficiency"], 2), "share": round(row["share"], 2),
        })  # fmt: skip
    return report.table(shown)


def target_tables(rows: list[Row], calls: list[Row], level: str) -> str:
    """What is wanted on the instruction set `level`, and what was measured."""
    tables = [targets.layers(rows, level)]
    if level == "avx512":  # sums and calls have a target on the widest instruction set only
        pair = [row for row in rows if row["method"] in ("dense", "cpc")]
        tables += [targets.networks(sums(pair), sums(rows)), calls]
    return "\n\n".join(report.table(lines) for lines in tables if lines)


def page(rows: list[Row], calls: list[Row], level: str, rates: dict[int, float]) -> report.Sections:
    """Sections of the page; `rates` is torch's best, multiply-adds a second by threads."""
    sections = {"Networks": report.table(sums(rows))} if sums(rows) else {}
    if found := target_tables(rows, calls, level):
        sections["Targets"] = f"{targets.__doc__}\n{found}"
    found_means = means(rows)
    sections["Ratio, geometric means by density"] = means_table(found_means, "ratio")
    sections["Share, geometric means by density"] = means_table(found_means, "share")
    sections["Losses"] = report.table(losses(rows))
    words = (f"{rate / 1e9:.1f} on {threads}" for threads, rate in rates.items())
    sections["Rate"] = (
        f"torch's best matrix product: {', '.join(words)} thread(s), in 10⁹ multiply-adds a second."
    )
    return sections


def layers(rows: list[Row]) -> report.Sections:
    """Sections with a row for each layer: random activations, then network by network."""
    sections = {}
    if random := [row for row in rows if "network" not in row]:
        sections["Random activations"] = layer_table(random)
    for network in dict.fromkeys(row["network"] for row in rows if "network" in row):
        sections[network] = layer_table([row for row in rows if row.get("network") == network])
    return sections
