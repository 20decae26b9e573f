"""Hostile calls: every public callable with right arguments of which up to three are replaced by
wrong values, under the modes of torch in which calls are made.

    python -m tests.reliability.fuzz --seconds 60 --seed 0

A call is wrong if it ends by a signal, takes longer than 10 s, asks for more than 4 GiB without
being asked to, or raises anything but TypeError, ValueError (PlanError is one) or RuntimeError with
a sentence. A file that cannot be opened may be an OSError.
"""

from __future__ import annotations

import contextlib
import importlib
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from tests.reliability import watch
from tests.reliability.arguments import Call
from tests.reliability.calls import CALLS
from tests.reliability.values import hostile, shown

MODULE = "tests.reliability.fuzz"
ALLOWED = (TypeError, ValueError, RuntimeError)
NOT_ALLOWED = (RecursionError,)  # although it is one of these
FILES = (
    "jpeg.load",
    "jpeg.read_tables",
    "jpeg.plot_tables",
    "Plan.load",
    "load",
    "CompiledNetwork.save",
)  # may find none
LARGE = (
    1 << 28
)  # bytes of a tensor, or a number, from which on a refusal for memory is to be expected
CIRCUMSTANCES = (
    "",
    "",
    "",
    "",
    "no_grad",
    "inference_mode",
    "autocast",
    "vmap",
    "backward",
    "twice",
)


class Case:
    """The call of a number: what is called, with what, in which circumstances."""

    def __init__(self, seed: int, number: int) -> None:
        r = random.Random(f"{seed}:{number}")
        torch.manual_seed(r.getrandbits(32))
        self.call: Call = r.choices(CALLS, [call.weight for call in CALLS])[0]
        self.arguments = self.call.good(r)
        for name in r.sample(
            sorted(self.arguments), min(len(self.arguments), r.choice([0, 1, 1, 2, 3]))
        ):
            self.arguments[name] = _spoiled(r, self.arguments[name])
        self.circumstances = r.choice(CIRCUMSTANCES)
        self.threads = r.choice([1, 2, 3])

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={shown(value)}" for name, value in self.arguments.items())
        where = f" [{self.circumstances}]" if self.circumstances else ""
        return f"{self.call.name}({arguments}){where}"

    def run(self) -> None:
        torch.set_num_threads(self.threads)
        run: Callable[[], Any] = lambda: self.call.run(**self.arguments)  # noqa: E731
        with _within(self.circumstances):
            if self.circumstances == "vmap":
                run = _mapped(self.call.run, self.arguments)
            found = [run() for _ in range(2 if self.circumstances == "twice" else 1)]
            total = sum(map(_read, _tensors(found)))
            if (
                self.circumstances == "backward"
                and isinstance(total, Tensor)
                and total.requires_grad
            ):
                total.backward()

    def asks_for_much(self) -> bool:
        """Whether memory may run out: tensors of gigabytes, numbers that are sizes."""
        return any(
            value.numel() * value.element_size() > LARGE
            if isinstance(value, Tensor) and value.layout == torch.strided
            else isinstance(value, bytes)  # for torch a sequence of sizes
            or (isinstance(value, (int, float)) and abs(value) >= 1 << 14)
            for value in _flat(self.arguments)
        )


def _spoiled(r: random.Random, good: Any) -> Any:
    if isinstance(good, list) and good and r.random() < 0.8:  # of inputs, batches
        spoiled = list(good)
        at = r.randrange(len(good))
        spoiled[at] = hostile(r, good[at])
        return spoiled
    return hostile(r, good)


@contextlib.contextmanager
def _within(circumstances: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if circumstances == "no_grad":
            stack.enter_context(torch.no_grad())
        elif circumstances == "inference_mode":
            stack.enter_context(torch.inference_mode())
        elif circumstances == "autocast":
            stack.enter_context(torch.autocast("cpu", dtype=torch.bfloat16))
        yield


def _mapped(run: Callable[..., Any], arguments: dict[str, Any]) -> Callable[[], Any]:
    """The call under `torch.vmap` over the first tensor, which gets an axis for it."""
    name = next((n for n, v in arguments.items() if isinstance(v, Tensor)), None)
    if name is None:
        return lambda: run(**arguments)
    rest = {n: v for n, v in arguments.items() if n != name}
    return lambda: torch.vmap(lambda x: run(**{name: x}, **rest))(
        torch.stack([arguments[name]] * 2)
    )


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for entry in value:
            yield from _flat(entry)
    else:
        yield value


def _tensors(value: Any) -> Iterator[Tensor]:
    return (v for v in _flat(value) if isinstance(v, Tensor))


def _read(found: Tensor) -> Tensor:
    """Read every number of a result (memory that is not there shows here)."""
    return found.sum() if found.is_floating_point() or found.is_complex() else found.double().sum()


def one(seed: int, number: int) -> tuple[bool, str]:
    """Whether the call was refused, and what is wrong with how."""
    case = Case(seed, number)
    try:
        case.run()
    except Exception as error:
        wrong = judge(error, case)
        return True, f"{wrong}: {case}" if wrong else ""
    return False, ""


def judge(error: Exception, case: Case) -> str:
    message = str(error)
    kind = f"{type(error).__name__} ({message[:200]})"
    memory = isinstance(error, MemoryError) or "allocate memory" in message
    if memory:
        return "" if case.asks_for_much() else f"{kind} although nothing large was asked for"
    if isinstance(error, OSError) and case.call.name in FILES:
        return ""
    if not isinstance(error, ALLOWED) or isinstance(error, NOT_ALLOWED):
        same = case.call.twin and type(error) is type(_raised(case.call.twin, case.arguments))
        return "" if same else f"{kind} is none of the exceptions that are allowed"
    if len(message.split()) < 2:
        return f"{kind} has no sentence"
    return ""


def _raised(run: Callable[..., Any], arguments: dict[str, Any]) -> Exception | None:
    try:
        run(**arguments)
    except Exception as error:
        return error
    return None


def prepare() -> None:
    """What torch imports when it is first needed takes seconds, and is no call's fault."""
    importlib.import_module("torch._dynamo")
    for call in CALLS:
        with contextlib.suppress(*ALLOWED, OSError):
            call.run(**call.good(random.Random(0)))
    torch.vmap(lambda x: x[[0]])(torch.zeros(2, 3, device="meta"))


def describe(seed: int, number: int) -> str:
    return str(Case(seed, number))


if __name__ == "__main__":
    sys.exit(watch.main(MODULE, one, describe, prepare, cases=200_000, words="Call jsc hostilely."))
