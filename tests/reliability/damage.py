"""Damage that is done to files of every kind, and how a refusal has to look."""

from __future__ import annotations

import random

import jsc
from jsc.network.saving import FileError

# In place of a value of a document: what JSON allows and few expect, and what it does not allow.
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


def in_words(error: Exception, *allowed: type[Exception]) -> bool:
    assert len(str(error).split()) >= 3, repr(error)
    assert type(error) in (allowed or (ValueError, jsc.PlanError, FileError)), repr(error)
    return True
