"""The page of `robustness`: tables, and what they say, in words made from the numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.common import report
from benchmarks.jpeg.protocol import statistics
from benchmarks.jpeg.protocol.models import ARMS, RECIPES
from benchmarks.jpeg.protocol.statistics import STANDARD, STRONGEST, WORST, Gain, Row
from benchmarks.jpeg.protocol.suite import BUDGETS, FOUR, PAPER

CLAIMS = {"FGSM": 15.0, "PGD-5": 6.0}  # points, the largest that the paper reports
JPEG_DL = "authors"
SEEDS = 3  # of a complete page
NOISE = 1.0  # per cent of images; less is no sign of masked gradients


def sections(rows: Sequence[Row]) -> dict[str, str]:
    return {
        "The claim": claims(rows),
        "Do the layers mask gradients?": masking(rows),
        "What a sceptical reader would write": sceptic(rows),
        "Gain over standard in points, with 95 % intervals": gains(rows),
        "Accuracy in per cent under the paper's attacks": protocol(rows),
        "Accuracy in per cent under stronger attacks": stronger(rows),
        "Training": training(rows),
        "Budget": budget(rows),
    }


def groups(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(network, arm), in the order of `RECIPES` and `ARMS`."""
    there = {(row["network"], row["arm"]) for row in rows}
    return [(n, a) for n in RECIPES for a in ARMS if (n, a) in there]


def common(rows: Sequence[Row], network: str, arm: str, attack: str) -> tuple[float, ...]:
    """The paper's epsilons at which the arm and the standard network met `attack`, on every seed
    that has any of them."""
    mine = [*statistics.of(rows, network, arm), *statistics.of(rows, network, STANDARD)]
    met = [set(row["held"].get(attack, {})) for row in mine]
    met = [found for found in met if found]
    return tuple(e for e in PAPER if met and all(e in found for found in met))


def claims(rows: Sequence[Row]) -> str:
    """The paper's two figures beside ours, and what the worst of all attacks leaves of them."""
    lines = []
    for network, arm in groups(rows):
        if arm != JPEG_DL:
            continue
        line = f"- {RECIPES[network].name}."
        for attack, claimed in CLAIMS.items():
            epsilons = common(rows, network, arm, attack)
            gain = statistics.gain(rows, network, arm, attack, epsilons)
            if gain is None or not epsilons:
                continue
            each = {e: statistics.gain(rows, network, arm, attack, (e,)) for e in epsilons}
            at = max(epsilons, key=lambda e, each=each: each[e].mean)
            line += (
                f" {attack}: {gain} points in the mean over {len(epsilons)} epsilons, at most "
                f"{each[at]} (at {at:.2g}/255); the paper has up to +{claimed:.0f}: "
                f"**{verdict(gain, each[at], claimed)}**."
            )
        found = {e: statistics.gain(rows, network, arm, WORST, (e,)) for e in FOUR}
        left = ", ".join(f"{gain} at {e:.0f}/255" for e, gain in found.items() if gain)
        lines.append(f"{line} Worst of all attacks: {left}.")
    return "\n".join(lines)


def verdict(gain: Gain, largest: Gain, claimed: float) -> str:
    """Of a mean gain over epsilons, and of the largest at one of them."""
    if gain.sign > 0 and largest.mean >= claimed / 2:
        return "reproduced"
    if gain.sign > 0 or largest.sign > 0:
        return "reproduced in part"
    return "not reproduced" if gain.sign == 0 else "not reproduced, the sign is the other"


def masking(rows: Sequence[Row]) -> str:
    """The signs of masked gradients of Athalye et al. (ICML 2018) and Carlini et al. (2019)."""
    lines = []
    for network, arm in groups(rows):
        if arm == STANDARD:
            continue
        mine = statistics.of(rows, network, arm)
        found = [text for text in signs(rows, network, mine) if text]
        present = [text for text, is_sign in found if is_sign]
        absent = [text for text, is_sign in found if not is_sign]
        if not found:
            continue
        line = f"- {RECIPES[network].name}, {arm}: "
        line += f"**masked gradients**: {'; '.join(present)}." if present else "no sign of them."
        lines.append(line + (f" What is no sign: {'; '.join(absent)}." if absent else ""))
    return "\n".join(lines)


def signs(rows: Sequence[Row], network: str, mine: Sequence[Row]) -> list[tuple[str, bool] | None]:
    """(what was found, whether it is a sign); None where the attacks were not made."""

    def ahead(weak: str, strong: str) -> tuple[str, bool] | None:
        """One attack leaves more than another that a network without masked gradients resists no
        less."""
        points = statistics.lead(mine, weak, strong, 1.0)
        if points is None:
            return None
        return f"{weak} leaves {points:+.1f} points more than {strong} at 1/255", points > NOISE

    def finds(blind: str) -> tuple[str, bool] | None:
        share = statistics.only(mine, blind, "PGD-5", 4.0)
        if share is None:
            return None
        text = f"{blind} breaks {share:.1f} % of images that PGD-5 leaves at 4/255"
        return text, share > NOISE

    def more_steps() -> tuple[str, bool] | None:
        standard = statistics.of(rows, network, STANDARD)
        ours, theirs = (statistics.lead(of, "PGD-5", "PGD-50", 1.0) for of in (mine, standard))
        if ours is None or theirs is None:
            return None
        text = (
            f"50 steps leave {ours:.1f} points less than 5 at 1/255, of the standard network "
            f"{theirs:.1f}"
        )
        return text, ours - theirs > NOISE

    return [
        ahead("PGD-50", "PGD-50, BPDA"),
        ahead("FGSM", "FGSM, BPDA"),
        ahead("PGD-5", "FGSM"),
        more_steps(),
        finds("Square"),
        finds("PGD-10, transfer"),
    ]


def sceptic(rows: Sequence[Row]) -> str:
    lines = []
    for network in dict.fromkeys(network for network, arm in groups(rows) if arm == JPEG_DL):
        gain = statistics.gain(rows, network, JPEG_DL, WORST, (1.0,))
        left = {
            (arm, e): statistics.accuracy(statistics.of(rows, network, arm), WORST, e)
            for arm in (STANDARD, JPEG_DL) for e in (1.0, 2.0)
        }  # fmt: skip
        if gain is None or None in left.values():
            continue
        share = {where: value[0] for where, value in left.items() if value}
        text = {
            1: "the layer makes these networks somewhat harder to attack",
            0: "the layer makes these networks neither harder nor easier to attack, as far as so "
            "few images and seeds can tell",
            -1: "the layer makes these networks easier to attack",
        }[gain.sign]
        lines.append(
            f"- {RECIPES[network].name}: {text}; of all images, "
            f"{share[JPEG_DL, 1.0]:.1f} % behind it and {share[STANDARD, 1.0]:.1f} % without it "
            f"withstand every attack at 1/255 ({gain} points), and {share[JPEG_DL, 2.0]:.1f} and "
            f"{share[STANDARD, 2.0]:.1f} % at 2/255. {use(share[JPEG_DL, 2.0])}"
        )
    return "\n".join(lines)


def use(left: float) -> str:
    if left < 10:
        return "That is no defence: an attack that no eye sees still breaks nearly all images."
    return "It is no replacement of adversarial training, which was not compared."


def gains(rows: Sequence[Row]) -> str:
    lines = []
    for network, arm in groups(rows):
        if arm == STANDARD:
            continue
        clean = clean_gain(rows, network, arm)
        for attack in ("FGSM", "PGD-5", STRONGEST, WORST):
            found = {e: statistics.gain(rows, network, arm, attack, (e,)) for e in FOUR}
            if any(found.values()):
                lines.append({
                    "network": RECIPES[network].name, "arm": arm, "attack": attack,
                    "seeds": max(gain.count for gain in found.values() if gain),
                    "images": max(gain.size for gain in found.values() if gain), "clean": clean,
                    **{f"{e:.0f}/255": gain and str(gain) for e, gain in found.items()},
                })  # fmt: skip
    if not lines:
        return ""
    note = (
        "± is the wider of two paired 95 % intervals: over seeds (Student's t; none with one seed) "
        "and over images. They leave out that all seeds share the test images and the pretrained "
        "weights."
    )
    return f"{report.table(lines)}\n\n{note}"


def clean_gain(rows: Sequence[Row], network: str, arm: str) -> str:
    standard = {row["seed"]: row["clean"] for row in statistics.of(rows, network, STANDARD)}
    mine = statistics.of(rows, network, arm)
    return (
        f"{np.mean([r['clean'] - standard[r['seed']] for r in mine if r['seed'] in standard]):+.1f}"
    )


def protocol(rows: Sequence[Row]) -> str:
    return accuracies(rows, tuple(CLAIMS), PAPER)


def stronger(rows: Sequence[Row]) -> str:
    names = dict.fromkeys(name for row in rows for name in row["held"])
    return accuracies(rows, (*(name for name in names if name not in CLAIMS), WORST), FOUR)


def accuracies(rows: Sequence[Row], attacks: Sequence[str], epsilons: Sequence[float]) -> str:
    """A line for each network, arm and attack; means over the seeds that met it."""
    lines = []
    for network, arm in groups(rows):
        mine = statistics.of(rows, network, arm)
        for attack in attacks:
            images = statistics.size(mine, attack, epsilons)
            found = {e: statistics.accuracy(mine, attack, e, images) for e in epsilons}
            if any(found.values()):
                lines.append({
                    "network": RECIPES[network].name, "arm": arm, "attack": attack,
                    "images": images,
                    "seeds": "–".join(map(str, sorted({v[1] for v in found.values() if v}))),
                    **{f"{e:.3g}/255": v and f"{v[0]:.1f}" for e, v in found.items()},
                })  # fmt: skip
    return report.table(lines) if lines else ""


def training(rows: Sequence[Row]) -> str:
    lines = []
    for network, arm in groups(rows):
        mine, recipe = statistics.of(rows, network, arm), RECIPES[network]
        tried = ", ".join(f"{rate:g}" for rate in recipe.rates)
        lines.append({
            "network": recipe.name, "arm": arm, "seeds": len(mine), "epochs": recipe.epochs,
            "rate": f"{mine[0]['rate']:g} of {tried}",
            "validation, %": f"{np.mean([row['validation'] for row in mine]):.1f}",
            "test, %": f"{np.mean([row['clean'] for row in mine]):.1f}",
            "core seconds a run": f"{np.median([row['core seconds'] for row in mine]):.0f}",
        })  # fmt: skip
    return report.table(lines) if lines else ""


def budget(rows: Sequence[Row]) -> str:
    """What a complete page takes, and how much of it is there."""
    lines = []
    for network, recipe in RECIPES.items():
        b = BUDGETS[network]
        made = [row for row in rows if row["network"] == network]
        left = [
            f"{arm} with {count} of {SEEDS} seeds"
            for arm in ARMS if (count := len(statistics.of(made, network, arm))) < SEEDS
        ]  # fmt: skip
        met = {
            arm: max(
                (statistics.reach(row) for row in statistics.of(made, network, arm)), default=0
            )
            for arm in ARMS
        }
        left += [
            f"{arm} with {met[arm]} of {b.heavy} images under the stronger attacks"
            for arm in ARMS if statistics.of(made, network, arm) and met[arm] < b.heavy
        ]  # fmt: skip
        lines.append(
            f"- {recipe.name}, complete: {SEEDS} seeds; the first {b.images} test images for FGSM "
            f"and PGD-5, the first {b.heavy} for PGD-50, BPDA with 50 steps and transfer, the "
            f"first {b.square} for Square with {b.queries} queries an image. "
            + (f"**Not complete**: {', '.join(left)}." if made else "**Not begun**.")
            * bool(left)
        )
    return "\n".join(lines)
