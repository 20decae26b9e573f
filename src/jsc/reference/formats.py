"""The obvious encoders and decoders of one channel, in plain Python: lists in, lists out.

A stream is a list of patterns, each a list of (window, column, kernel column); see `patterns`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jsc._geometry import ConvGeometry


def patterns(g: ConvGeometry) -> list[list[tuple[int, int, int]]]:
    """For p = 1, 2, ... the padded columns that exactly p windows read, as (leftmost window s,
    column j, kernel column c with j = s Sw + c Dw), ordered by window, then column."""
    found: dict[int, list[tuple[int, int, int]]] = {}
    for j in range(g.W + 2 * g.Pw):
        reads = [(s, j, c) for s in range(g.Ow) for c in range(g.Kw) if j == s * g.Sw + c * g.Dw]
        if reads:
            found.setdefault(len(reads), []).append(reads[0])
    return [sorted(found.get(p, [])) for p in range(1, max(found, default=0) + 1)]


@dataclass
class Stream:
    """Ptr by pattern, each with Ow + 1 entries; IN and DA of all patterns one after the other."""

    Ptr: list[list[int]]
    IN: list[int]
    DA: list[float]


def nonzeros(rows: list[list[float]], j: int, g: ConvGeometry) -> list[int]:
    """The rows (without padding) where padded column j is not zero."""
    if not 0 <= j - g.Pw < g.W:
        return []
    return [i for i, row in enumerate(rows) if row[j - g.Pw] != 0]


def cpo_encode(channel: Tensor, g: ConvGeometry) -> Stream:
    stream, values = Stream([], [], []), channel.tolist()
    for pattern in patterns(g):
        counts = [0] * g.Ow
        for s, j, c in pattern:
            rows = nonzeros(values, j, g)
            counts[s] += len(rows)
            stream.IN += [(i + g.Ph) * g.Kw + c for i in rows]
            stream.DA += [values[i][j - g.Pw] for i in rows]
        stream.Ptr.append([sum(counts[:s]) for s in range(g.Ow + 1)])
    return stream


def cpo_decode(stream: Stream, g: ConvGeometry) -> Tensor:
    channel = torch.zeros(g.H, g.W, dtype=torch.float64)
    base = 0
    for ptr in stream.Ptr:
        for s in range(g.Ow):
            for n in range(base + ptr[s], base + ptr[s + 1]):
                i, c = divmod(stream.IN[n], g.Kw)
                channel[i - g.Ph, s * g.Sw + c * g.Dw - g.Pw] = stream.DA[n]
        base += ptr[-1]
    return channel


def cps_encode(channel: Tensor, g: ConvGeometry, *, packed: bool = True) -> Stream:
    """packed: one word (set << 4 | pattern) per set of four rows, sets numbered through the columns
    that share pattern and leftmost window. Otherwise the paper's words of absolute positions j H +
    i,
    with ~position of the set before a pattern so that the stream can be decoded."""
    stream, values = cpo_encode(channel, g), channel.tolist()
    stream.IN = []
    sets = -(-g.H // 4)
    for pattern in patterns(g):
        for s, j, _ in pattern:
            rows = nonzeros(values, j, g)
            rank = [
                column for window, column, _ in pattern if window == s and 0 <= column - g.Pw < g.W
            ]
            for k in range(sets):
                inside = [i - 4 * k for i in rows if i // 4 == k]
                mask, top = sum(2**r for r in inside), (j - g.Pw) * g.H + 4 * k
                if packed and inside:
                    stream.IN.append((rank.index(j) * sets + k) << 4 | mask)
                elif not packed:
                    stream.IN += [~top, mask] if len(inside) > 2 else [top + r for r in inside]
    return stream


def cps_decode(stream: Stream, g: ConvGeometry) -> Tensor:
    """The map of a packed stream."""
    channel = torch.zeros(g.H, g.W, dtype=torch.float64)
    sets = -(-g.H // 4)
    words, values = iter(stream.IN), iter(stream.DA)
    for pattern, ptr in zip(patterns(g), stream.Ptr, strict=True):
        for s in range(g.Ow):
            group = [j - g.Pw for window, j, _ in pattern if window == s and 0 <= j - g.Pw < g.W]
            left = ptr[s + 1] - ptr[s]
            while left:
                word = next(words)
                rank, k = divmod(word >> 4, sets)
                for r in (r for r in range(4) if word >> r & 1):
                    channel[4 * k + r, group[rank]] = next(values)
                    left -= 1
    return channel
