"""Plans (`jsc.Plan.load`), damaged; a plan is what was saved or a PlanError."""

from __future__ import annotations

import functools
import json
import random
import tempfile
from pathlib import Path

import jsc
from jsc.tuning.plan import strict_json
from tests.reliability.calls_plan import a_plan
from tests.reliability.damage import JSON_VALUES, flipped, in_words, overwritten, spliced
from tests.reliability.damaged_pictures import pictures


@functools.cache
def plan_text() -> str:
    return strict_json.dumps(a_plan().to_dict())


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


def check_plan(data: bytes) -> bool:
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        file.write(data)
        file.flush()
        try:
            plan = jsc.Plan.load(file.name)
        except jsc.PlanError as error:
            return in_words(error)
        said = json.loads(data)
        del said["checksum"]
        assert plan.to_dict() == said, "it is not what the file says"
        again = Path(file.name)
        str(plan), plan.to_markdown()
        plan.save(again)
        assert jsc.Plan.load(again).to_dict() == plan.to_dict()
    return False
