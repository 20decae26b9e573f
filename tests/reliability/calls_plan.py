"""Of tuning: plans, and networks that they are applied to."""

from __future__ import annotations

import dataclasses
import random
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

import jsc
from tests.reliability.arguments import METHODS, Arguments, Call, some, sparse
from tests.reliability.values import hostile


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()


def a_plan() -> jsc.Plan:
    """Made once, without measuring."""
    if not _PLAN:
        sample = torch.ones(1, 3, 8, 8)
        plan = jsc.tune(network(), sample, repeats=1, budget_s=0.1, progress=False)
        # On a busy machine nothing was measured, and other methods need a dense time beside them.
        layers = (
            dataclasses.replace(x, times_ms={"dense": 1.0, **x.times_ms}) for x in plan.layers
        )
        plan = dataclasses.replace(plan, layers=tuple(layers))
        _PLAN.append(plan.override({"0": "dense", "2": "dense"}))
    return _PLAN[0]


_PLAN: list[jsc.Plan] = []


def tune_arguments(r: random.Random) -> Arguments:
    own = some(r, methods=r.choice([None, ["cpc"], ("mec", "cpo")]), min_gain=r.choice([1.0, 1.5]))
    x = sparse(r, r.choice([0, 1]), 3, r.randint(5, 9), 8)
    return {
        "model": network(),
        "sample": x,
        "repeats": 1,
        "budget_s": 0.05,
        "progress": False,
        **own,
    }


def apply_arguments(r: random.Random) -> Arguments:
    own = some(r, inplace=True, on_mismatch=r.choice(["error", "warn", "dense"]))
    methods = {name: r.choice(METHODS) for name in ("0", "2") if r.random() < 0.5}
    plan = a_plan().override(methods)
    return {"model": network(), "plan": plan, "x": sparse(r, 1, 3, r.randint(5, 9), 8), **own}


def applied(x: Any, **arguments: Any) -> Any:
    made = jsc.apply(**arguments)
    with torch.no_grad():
        found = [made(x), made(x)]
    jsc.restore(made)
    return found


def document(r: random.Random) -> Arguments:
    found = a_plan().to_dict()
    part = r.choice(["", "layers", "environment"])
    if not part:
        return found
    key = r.choice(sorted(found["layers"][0] if part == "layers" else found["environment"]))
    return {"document": found, "part": part, "key": key, "value": hostile(r, None)}


def from_dict(
    document: Any = None, part: Any = "", key: Any = "", value: Any = None, **whole: Any
) -> Any:
    document = document if isinstance(document, dict) else whole
    if isinstance(key, str) and part in ("layers", "environment") and part in document:
        inner = document[part] if part == "environment" else document[part][0]
        inner = {**inner, key: value}
        document = {**document, part: inner if part == "environment" else [inner]}
    plan = jsc.Plan.from_dict(document)
    str(plan), plan.to_markdown(), plan.to_dict(), plan.gain, plan.chosen
    with tempfile.TemporaryDirectory() as folder:
        plan.save(Path(folder) / "plan.json")
        return jsc.Plan.load(Path(folder) / "plan.json").to_dict() == plan.to_dict()


CALLS = [
    Call("tune", tune_arguments, jsc.tune, 0.05),
    Call("apply, restore", apply_arguments, applied, 0.5),
    Call("Plan.from_dict, save, load", document, from_dict),
    Call(
        "Plan.override",
        lambda r: {"methods": {"0": r.choice(METHODS)}},
        lambda methods: a_plan().override(methods),
        0.5,
    ),
    Call("Plan.load", lambda r: {"path": "no such file"}, jsc.Plan.load, 0.2),
]
