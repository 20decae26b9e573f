"""The plan of CPO and CPS column by column, padding and all: slow, and plainly the definition."""

from __future__ import annotations

from typing import NamedTuple

from jsc._geometry import ConvGeometry


class Plan(NamedTuple):
    column: list[int]
    kernel_column: list[int]
    rank: list[int]
    ptr_first: list[int]
    ptr_last: list[int]


def windows(j: int, g: ConvGeometry) -> list[tuple[int, int]]:
    """The windows s that read padded column j = s Sw + c Dw, ascending, with their c."""
    reads = ((j - c * g.Dw, c) for c in reversed(range(g.Kw)))
    return [(r // g.Sw, c) for r, c in reads if r >= 0 and r % g.Sw == 0 and r // g.Sw < g.Ow]


def plan(g: ConvGeometry) -> Plan:
    read = [(j, windows(j, g)) for j in range(g.W + 2 * g.Pw)]
    read = [(j, found) for j, found in read if found]
    patterns = max((len(found) for _, found in read), default=0)
    edge = [w[0][0] for _, w in read if len(w) == 1]
    made = Plan([], [], [], [], [])
    for p in range(1, patterns + 1):
        base, ends = len(made.column), [len(made.column)]
        for s in range(g.Ow):
            group = [
                (j - g.Pw, w[0][1])
                for j, w in read
                if len(w) == p and w[0][0] == s and 0 <= j - g.Pw < g.W
            ]
            made.column.extend(j for j, _ in group)
            made.kernel_column.extend(c for _, c in group)
            made.rank.extend(range(len(group)))
            ends.append(len(made.column))
        if p == 1 and patterns > 1 and set(edge) <= {0, g.Ow - 1}:
            ends = [ends[0], ends[1], ends[-1]]
        made.ptr_first.extend([base] * len(ends))
        made.ptr_last.extend(ends)
    return made
