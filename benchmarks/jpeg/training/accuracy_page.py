"""The tables and sentences of `accuracy`."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.common import report
from benchmarks.common.intervals import Gain, bits, half_width, interval
from benchmarks.jpeg.training import runs as store
from benchmarks.jpeg.training.variants import MAIN, VARIANTS, name_of

Record = dict[str, Any]
Run = tuple[str, str, str, int]  # set, architecture, variant, seed
SIMPLER = tuple(variant for variant in MAIN if variant not in ("standard", "jpeg-dl"))
CONTROL_PAIR = ("flower_photos5", "resnet")
PILOT_SEED = 100  # seeds from here on served to choose recipes


def mean_std(values: list[float]) -> str:
    deviation = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{deviation}"


def summary(found: list[tuple[Run, Record]]) -> list[Record]:
    """One row per set, architecture and variant; gains over "standard" of the same seeds."""
    records = dict(found)
    groups: dict[tuple[str, str, str], dict[int, Record]] = {}
    for (*group, seed), record in found:
        groups.setdefault(tuple(group), {})[seed] = record  # type: ignore[arg-type]
    rows = []
    for (name, architecture, variant), by_seed in groups.items():
        row: Record = {
            "set": name, "architecture": architecture, "variant": variant, "seeds": list(by_seed),
            "accuracy": [record["accuracy"] for record in by_seed.values()],
        }  # fmt: skip
        paired = {s: records.get((name, architecture, "standard", s)) for s in by_seed}
        row["gain"] = [
            by_seed[s]["accuracy"] - base["accuracy"] for s, base in paired.items() if base
        ]
        row["interval"] = interval_of([(by_seed[s], base) for s, base in paired.items() if base])
        for key in ("hard accuracy", "bpp", "saturated"):
            row[key] = [record[key] for record in by_seed.values() if key in record]
        rows.append(row)
    return rows


def interval_of(pairs: list[tuple[Record, Record]]) -> Gain | None:
    """The gain of one run of each pair over the other, image by image."""
    if not pairs:
        return None
    return interval([bits(a["right"]).astype(float) - bits(b["right"]) for a, b in pairs])


def ahead(row: Record) -> bool:
    """Is the gain beyond its interval, of two seeds or more?"""
    gain = row["interval"]
    return gain is not None and gain.count > 1 and gain.sign > 0


def main_table(rows: list[Record]) -> str:
    by_group = {(r["set"], r["architecture"], r["variant"]): r for r in rows}
    lines = []
    for (*pair, variant), ours in by_group.items():
        if variant != "jpeg-dl" or not ours["gain"]:
            continue
        standard = by_group[(*pair, "standard")]
        others = {v: by_group.get((*pair, v)) for v in SIMPLER}
        lines.append({
            "set": pair[0], "architecture": pair[1], "seeds": len(ours["gain"]),
            "standard, %": mean_std(standard["accuracy"]), "JPEG-DL, %": mean_std(ours["accuracy"]),
            "gain, points": str(ours["interval"]),
            "by seed": " ".join(f"{g:+.1f}" for g in ours["gain"]),
            "beyond its interval": "yes" if ahead(ours) else "no",
            **{f"{v}, points": str(row["interval"]) if row else None for v, row in others.items()},
        })  # fmt: skip
    return report.table(lines) if lines else ""


def words(rows: list[Record]) -> str:
    """Where JPEG-DL and the simpler front ends are ahead of standard training."""
    lines = []
    for variant in ("jpeg-dl", *SIMPLER):
        mine = [row for row in rows if row["variant"] == variant and row["gain"]]
        for beyond, text in ((True, "ahead beyond the interval"), (False, "not so")):
            pairs = [
                f"{row['set']} {row['architecture']} ({row['interval']})"
                for row in mine
                if ahead(row) is beyond
            ]
            lines += [f"- {variant}, {text}: {', '.join(pairs)}."] if pairs else []
    lines += [f"- {sentence}" for sentence in sceptic(rows)]
    lines += ranking(rows)
    return "\n".join(lines)


def ranking(rows: list[Record]) -> list[str]:
    """The front ends of the pair of controls by their mean gain over the seeds that all have."""
    by_seed = {
        row["variant"]: dict(zip(row["seeds"], row["gain"], strict=False))
        for row in rows
        if (row["set"], row["architecture"]) == CONTROL_PAIR and row["gain"]
    }
    by_seed.pop("standard", None)
    shared = sorted(set.intersection(*map(set, by_seed.values()))) if by_seed else []
    if len(by_seed) < 2 or not shared:
        return []
    gains = {v: float(np.mean([found[s] for s in shared])) for v, found in by_seed.items()}
    ranked = sorted(gains, key=gains.__getitem__, reverse=True)
    seeds = f"seed{'s' if len(shared) > 1 else ''} {', '.join(map(str, shared))}"
    listed = ", ".join(f"{variant} {gains[variant]:+.1f}" for variant in ranked)
    return [f"- Mean gains on {' '.join(CONTROL_PAIR)}, {seeds}: {listed}."]


def sceptic(rows: list[Record]) -> list[str]:
    """What a sceptical reader would write of pairs that have JPEG-DL and a simpler front end."""
    gains: dict[str, dict[tuple[str, str], dict[int, float]]] = {}
    for row in rows:
        if row["gain"]:
            pairs = gains.setdefault(row["variant"], {})
            pairs[row["set"], row["architecture"]] = dict(
                zip(row["seeds"], row["gain"], strict=False)
            )
    found = [
        against(variant, gains["jpeg-dl"], gains[variant])
        for variant in SIMPLER
        if "jpeg-dl" in gains and gains["jpeg-dl"].keys() & gains.get(variant, {}).keys()
    ]
    if not found:
        return []
    return [
        "**What a sceptical reader would write:** in the mean over all pairs, of seeds that both "
        f"have, {'; '.join(found)}. Sets and networks are small, and no better recipe of the "
        "standard network was looked for."
    ]


def against(
    variant: str,
    ours: dict[tuple[str, str], dict[int, float]],
    theirs: dict[tuple[str, str], dict[int, float]],
) -> str:
    """Gains of JPEG-DL and of `variant`, and how far apart they are."""
    means = []
    for pair in ours.keys() & theirs.keys():
        if seeds := ours[pair].keys() & theirs[pair].keys():
            means.append([np.mean([run[pair][s] for s in seeds]) for run in (ours, theirs)])
    first, second = np.transpose(means)
    ahead_by = first - second
    ours_mean, their_mean = (round(float(v.mean()), 1) + 0.0 for v in (first, second))  # no -0
    half = half_width(ahead_by)
    beyond = "" if half is None else f" ± {half:.1f}"
    return (
        f"jpeg-dl gains {ours_mean:+.1f} and {variant} {their_mean:+.1f} ({len(means)} "
        f"pairs; {ahead_by.mean():+.1f}{beyond} apart, jpeg-dl the better in "
        f"{int((ahead_by > 0).sum())})"
    )


def control_table(rows: list[Record]) -> str:
    lines = []
    for row in rows:
        lines.append({
            "set": row["set"], "architecture": row["architecture"], "variant": row["variant"],
            "what": VARIANTS[row["variant"]].text, "seeds": len(row["accuracy"]),
            "accuracy, %": mean_std(row["accuracy"]),
            "gain, points": str(row["interval"])
            if row["gain"] and row["variant"] != "standard" else None,
            "hard quantizer, %": mean_std(row["hard accuracy"]) if row["hard accuracy"] else None,
            "bpp": mean_std(row["bpp"]) if row["bpp"] else None,
            "saturated, %": mean_std([100 * s for s in row["saturated"]])
            if row["saturated"] else None,
        })  # fmt: skip
    return report.table(lines) if lines else ""


def pilots(kept: store.Runs) -> list[Record]:
    """Runs of seed `PILOT_SEED` and up, which no other table uses."""
    lines = []
    for record in kept.found.values():
        config = record["config"]
        variant = name_of(config["recipe"])
        if config["seed"] >= PILOT_SEED and variant is not None:
            lines.append({
                "set": config["set"], "architecture": config["architecture"],
                "epochs": config["epochs"], "seed": config["seed"], "variant": variant,
                "what": VARIANTS[variant].text, "accuracy, %": round(record["accuracy"], 1),
            })  # fmt: skip
    lines.sort(key=lambda line: [str(line[key]) for key in ("set", "architecture", "epochs")])
    return lines


def budget_table(found: list[tuple[Run, Record]]) -> str:
    """What a run costs, from those whose processor time was taken."""
    lines: dict[tuple[str, str], Record] = {}
    for (name, architecture, _, _), record in found:
        config = record["config"]
        line = lines.setdefault((name, architecture), {
            "set": name, "architecture": architecture, "training images": config["images"][0],
            "test images": config["images"][1], "side": config["side"], "epochs": config["epochs"],
            "core seconds a run": [],
        })  # fmt: skip
        if "cpu seconds" in record:
            line["core seconds a run"].append(record["cpu seconds"])
    for line in lines.values():
        taken = line["core seconds a run"]
        line["core seconds a run"] = f"{np.median(taken):.0f}" if taken else None
    return report.table(list(lines.values())) if lines else ""
