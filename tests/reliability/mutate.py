"""Damaged and hostile files: plans (`jsc.Plan.load`), compiled networks (`jsc.load`) and JPEG files
(`jsc.jpeg.load`, `jsc.jpeg.read_tables`), mutated.

    python -m tests.reliability.mutate --cases 100000

Each is read as what it says or refused with a ValueError in words, in bounded memory and time.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable

from tests.reliability import watch
from tests.reliability.damaged_networks import check_network, mutated_network, network_file
from tests.reliability.damaged_pictures import check_picture, mutated_picture, pictures
from tests.reliability.damaged_plans import check_plan, mutated_plan, plan_text

MODULE = "tests.reliability.mutate"


def case(seed: int, number: int) -> tuple[Callable[[bytes], bool], bytes]:
    r = random.Random(f"{seed}:{number}")
    kind = r.random()
    if kind < 0.3:
        return check_plan, mutated_plan(r)
    if kind < 0.6:
        return check_network, mutated_network(r)
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
    for check, data in (
        (check_picture, pictures()[0]), (check_plan, plan_text().encode()),
        (check_network, network_file()),
    ):  # fmt: skip
        assert not check(data)


if __name__ == "__main__":
    sys.exit(watch.main(MODULE, one, describe, prepare, cases=100_000, words="Load damaged files."))
