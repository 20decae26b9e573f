"""JPEG files (`jsc.jpeg.load`, `jsc.jpeg.read_tables`), damaged; a picture is pixels and tables of
the right kind or a ValueError."""

from __future__ import annotations

import functools
import io
import random

import torch

import jsc
from tests.reliability.damage import flipped, in_words, overwritten, spliced

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
        refused = in_words(error)
    try:
        pixels = jsc.jpeg.load(io.BytesIO(data))
        assert pixels.dtype == torch.uint8, pixels.dtype
        assert pixels.ndim == 3, pixels.shape
        assert pixels.shape[0] in (1, 3), pixels.shape
        int(pixels[:, ::7].sum())
    except ValueError as error:
        refused = in_words(error)
    return refused
