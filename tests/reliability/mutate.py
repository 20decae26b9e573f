"""Damaged and hostile files: plans (`jsc.Plan.load`) and JPEG files (`jsc.jpeg.load`,
`jsc.jpeg.read_tables`), mutated.

    python -m tests.reliability.mutate --cases 100000

A plan is what was saved or a PlanError; a JPEG file gives pixels and tables of the right kind or a
ValueError; in bounded memory and time.
"""

from __future__ import annotations

import functools
import io
import json
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import jsc
from jsc.tuning.plan import strict_json
from tests.reliability import watch
from tests.reliability.calls_plan import a_plan

MODULE = "tests.reliability.mutate"
START, END = b"\xff\xd8", b"\xff\xd9"
FRAME = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
BOMBS = (65535, 65500, 32768, 30000)
LARGE = (13000, 8000)  # allowed, but slow


@functools.cache
def pictures() -> list[bytes]:
    """Small JPEG files of every kind that Pillow writes."""
    from PIL import Image

    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (24 * 40 * 4,), generator=generator, dtype=torch.uint8)
    made = []
    for mode, options in (
        ("RGB", {"subsampling": 0}), ("RGB", {"subsampling": 2, "optimize": True}), ("L", {}),
        ("RGB", {"progressive": True}), ("CMYK", {}), ("RGB", {"restart_marker_blocks": 2}),
        ("RGB", {"quality": 1, "comment": b"a comment"}), ("L", {"progressive": True}),
    ):  # fmt: skip
        file = io.BytesIO()
        pixels = noise.numpy().tobytes()[: 24 * 40 * len(mode)]
        Image.frombytes(mode, (40, 24), pixels).save(file, "JPEG", **options)
        made.append(file.getvalue())
    return made


def segments(data: bytes) -> list[bytes]:
    """The marker segments between the start and the first scan, then the rest."""
    found, at = [], 2
    while data[at + 1] != 0xDA:
        size = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        found.append(data[at : at + size])
        at += size
    return [*found, data[at:]]


def flipped(r: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(r.choice([1, 1, 2, 8, 64])):
        if changed:
            changed[r.randrange(len(changed))] ^= 1 << r.randrange(8)
    return bytes(changed)


def overwritten(r: random.Random, data: bytes) -> bytes:
    at, junk = r.randrange(len(data) + 1), r.randbytes(r.choice([1, 2, 4, 32]))
    if r.random() < 0.3:
        junk = bytes([r.choice([0, 0xFF, 0x80, 0xD8, 0xDA, 0xDB])]) * len(junk)
    return data[:at] + junk + data[at + r.choice([0, len(junk)]) :]


def spliced(r: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: r.randrange(len(data) + 1)] + other[r.randrange(len(other) + 1) :]


def restructured(r: random.Random, data: bytes) -> bytes:
    """Whole segments: changed in what they say, left out, doubled, in another order."""
    parts = segments(data)
    for _ in range(r.choice([1, 1, 2])):
        at = r.randrange(len(parts))
        kind, part = parts[at][1], bytearray(parts[at])
        what = r.choice(["say", "say", "say", "drop", "double", "swap", "length"])
        if what == "say" and kind in FRAME:
            field = r.choice(["size", "size", "precision", "kind", "components", "sampling"])
            if field == "size":
                large = LARGE if r.random() < 0.02 else (*BOMBS, 0, 1)
                part[5:7] = r.choice([*large, 24]).to_bytes(2, "big")
                part[7:9] = r.choice([*large, 40]).to_bytes(2, "big")
            elif field == "precision":
                part[4] = r.choice([0, 1, 12, 16, 255])
            elif field == "kind":
                part[1] = r.choice([0xC1, 0xC3, 0xC5, 0xC9, 0xCA, 0xCF])  # arithmetic: C9, CA
            elif field == "components":
                part[9] = r.choice([0, 1, 2, 4, 5, 255])
            elif len(part) > 11:
                part[11] = r.randrange(256)
        elif what == "say" and kind == 0xDB:
            table = bytes(128) if r.random() < 0.3 else r.randbytes(128)
            wide = r.random() < 0.5
            body = bytes([part[4] & 15 | (16 if wide else 0)]) + table[: 128 if wide else 64]
            part = bytearray(b"\xff\xdb" + (len(body) + 2).to_bytes(2, "big") + body)
        elif what == "say":
            part = bytearray(flipped(r, bytes(part)))
        elif what == "drop":
            part = bytearray()
        elif what == "double":
            part = part * r.choice([2, 3, 700 if len(part) < 100 else 2])
        elif what == "length" and len(part) > 4:
            part[2:4] = r.randrange(65536).to_bytes(2, "big")
        parts[at] = bytes(part)
        if what == "swap":
            other = r.randrange(len(parts))
            parts[at], parts[other] = parts[other], parts[at]
        parts = [p for p in parts if len(p) > 1] or [END]
    return START + b"".join(parts)


def mutated_picture(r: random.Random) -> bytes:
    data = r.choice(pictures())
    for _ in range(r.choice([1, 1, 1, 2])):
        kind = r.randrange(8)
        if kind == 0:
            data = data[: r.randrange(len(data) + 1)]
        elif kind in (1, 2):
            data = flipped(r, data)
        elif kind == 3:
            data = overwritten(r, data)
        elif kind == 4:
            data = spliced(r, data, r.choice(pictures()))
        else:
            try:
                data = restructured(r, data)
            except IndexError:  # no longer made of segments
                data = flipped(r, data)
    return data


@functools.cache
def plan_text() -> str:
    return strict_json.dumps(a_plan().to_dict())


JSON_VALUES = (
    "null",
    "true",
    "0",
    "-1",
    "1.5",
    "1e999",
    "-1e999",
    "NaN",
    "Infinity",
    "9" * 400,
    "9" * 5000,
    '""',
    '"dense"',
    '"\\ud800"',
    '"\\u0000"',
    "[]",
    "{}",
    "[[]]",
    '{"a": 1}',
    "[" * 100_000,
    '{"a":' * 50_000,
    "[" * 900 + "]" * 900,
    '"' + "x" * 2000 + '"',
    "1e-400",
    "18446744073709551616",
    "[1, 2, 3]",
)


def mutated_plan(r: random.Random) -> bytes:
    text = plan_text()
    kind = r.randrange(8)
    if kind == 0:
        return text[: r.randrange(len(text))].encode()
    if kind == 1:
        return flipped(r, text.encode())
    if kind == 2:
        return overwritten(r, text.encode())
    if kind == 3:
        return spliced(r, text.encode(), r.choice([text.encode(), r.choice(pictures())]))
    # one value becomes another; the checksum is made right so that more than it is looked at
    document = json.loads(text)
    del document["checksum"]
    inner = document
    while r.random() < 0.7:
        below = [
            v
            for v in (inner.values() if isinstance(inner, dict) else inner)
            if v and isinstance(v, (dict, list))
        ]
        if not below:
            break
        inner = r.choice(below)
    key = r.choice(sorted(inner) if isinstance(inner, dict) else range(len(inner)))
    mark = "a mark that is in no plan"
    if kind == 4 and isinstance(inner, dict):
        inner[r.choice(["", "unknown", "format", "é"])] = inner[key]
    elif kind == 5:
        del inner[key]
    else:
        inner[key] = mark
    signed = strict_json.dumps(document)
    value = r.choice(JSON_VALUES)
    if kind == 7:  # right to the last, unless the value cannot be read at all
        try:
            inner[key] = json.loads(value)
            signed = strict_json.dumps(document)
        except (ValueError, RecursionError):
            pass
    if isinstance(inner, dict) and r.random() < 0.1:
        signed = signed.replace(f'"{key}":', f'"{key}": 1, "{key}":', 1)  # twice
    return signed.replace(f'"{mark}"', value).encode("utf-8", "surrogatepass")


def check_picture(data: bytes) -> bool:
    """Load it; whether it was refused. Asserts what a result must be."""
    refused = False
    try:
        tables = jsc.jpeg.read_tables(io.BytesIO(data))
        assert tables.dtype == torch.int64, tables.dtype
        assert tables.shape[1:] == (8, 8), tables.shape
        assert 1 <= len(tables) <= 3, tables.shape
        assert int(tables.min()) >= 1, tables
        assert int(tables.max()) <= 65535, tables
    except ValueError as error:
        refused = _in_words(error)
    try:
        pixels = jsc.jpeg.load(io.BytesIO(data))
        assert pixels.dtype == torch.uint8, pixels.dtype
        assert pixels.ndim == 3, pixels.shape
        assert pixels.shape[0] in (1, 3), pixels.shape
        int(pixels[:, ::7].sum())
    except ValueError as error:
        refused = _in_words(error)
    return refused


def check_plan(data: bytes) -> bool:
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        file.write(data)
        file.flush()
        try:
            plan = jsc.Plan.load(file.name)
        except jsc.PlanError as error:
            return _in_words(error)
        said = json.loads(data)
        del said["checksum"]
        assert plan.to_dict() == said, "it is not what the file says"
        again = Path(file.name)
        str(plan), plan.to_markdown()
        plan.save(again)
        assert jsc.Plan.load(again).to_dict() == plan.to_dict()
    return False


def _in_words(error: ValueError) -> bool:
    assert len(str(error).split()) >= 3, repr(error)
    assert type(error) in (ValueError, jsc.PlanError), repr(error)
    return True


def case(seed: int, number: int) -> tuple[Callable[[bytes], bool], bytes]:
    r = random.Random(f"{seed}:{number}")
    if r.random() < 0.5:
        return check_plan, mutated_plan(r)
    return check_picture, mutated_picture(r)


def one(seed: int, number: int) -> tuple[bool, str]:
    """Whether the file was refused, and what is wrong with how."""
    check, data = case(seed, number)
    try:
        return check(data), ""
    except Exception as error:
        return True, f"{type(error).__name__} ({str(error)[:300]}): {describe(seed, number)}"


def describe(seed: int, number: int) -> str:
    check, data = case(seed, number)
    return f"{check.__name__} of {len(data)} bytes: {data[:40]!r}..."


def prepare() -> None:
    arguments: Any
    for arguments in ((check_picture, pictures()[0]), (check_plan, plan_text().encode())):
        assert not arguments[0](arguments[1])


if __name__ == "__main__":
    sys.exit(watch.main(MODULE, one, describe, prepare, cases=100_000, words="Load damaged files."))
