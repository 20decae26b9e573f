"""What the demo prints: accuracies, tables, times, one closing line."""

from __future__ import annotations

from typing import Any

from torch import Tensor

CHANNELS = ("Y (brightness)", "Cb, Cr (colour)")


def heading(number: int, text: str) -> None:
    print(f"\n{number}. {text}")


def _grid(table: Tensor) -> list[str]:
    return [" ".join(f"{step:5.2f}" for step in row) for row in table.tolist()]


def print_tables(before: Tensor, after: Tensor) -> None:
    """The (2, 8, 8) tables side by side: rows are vertical frequencies."""
    for name, old, new in zip(CHANNELS, before, after, strict=True):
        left, right = _grid(old), _grid(new)
        print(f"   {name + ': from the sensitivity':<{len(left[0])}}     after training")
        for a, b in zip(left, right, strict=True):
            print(f"   {a}     {b}")
        change = float((new - old).abs().max())
        print(f"   largest change {change:.2f}, mean step {old.mean():.2f} -> {new.mean():.2f}\n")


def print_times(times: dict[str, float]) -> None:
    print("\n   " + ", ".join(f"{name} {ms:.2f} ms" for name, ms in times.items()))


def closing_line(figures: dict[str, Any]) -> str:
    """The result in one line."""
    plain, jpeg = figures["plain"]["accuracy"][-1], figures["jpeg"]["accuracy"][-1]
    times = figures["compiled"]
    gain = min(times["torch"], times["torch, channels-last"]) / times["jsc.compile"]
    return (
        f"Done in {figures['seconds']:.0f} s: accuracy {100 * plain:.1f} % plain, "
        f"{100 * jpeg:.1f} % with the trained JPEG layer; compiled network {gain:.2f}x as fast "
        "as torch, "
        f"{100 * figures['agreement']:.1f} % of its predictions the same."
    )
