"""What a compiled network does, in words: its summary, and where its time goes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from jsc import _config
from jsc._kernels.network.program import Walk
from jsc.network.graph import Activated, Convolution, Operation, TorchCall

if TYPE_CHECKING:
    from jsc.network.accuracy import Accuracy
    from jsc.network.program import NetworkProgram


@dataclass(frozen=True)
class Row:
    """An operation: the module it came from, what it is, its time in seconds."""

    layer: str
    what: str
    method: str
    seconds: float


@dataclass(frozen=True)
class Profile:
    rows: list[Row]

    @property
    def seconds(self) -> float:
        return sum(row.seconds for row in self.rows)

    def __str__(self) -> str:
        total = self.seconds or 1.0
        lines = [f"{'layer':<32} {'operation':<44} {'method':<16} {'us':>9} {'%':>5}"]
        lines += [
            f"{r.layer[-32:]:<32} {r.what:<44} {r.method:<16} {1e6 * r.seconds:9.1f} "
            f"{100 * r.seconds / total:5.1f}"
            for r in self.rows
        ]
        return "\n".join([*lines, f"{'':<32} {'in all':<44} {'':<16} {1e6 * total:9.1f}"])


def describe(operation: Operation) -> str:
    """An operation in a few words."""
    if isinstance(operation, TorchCall):
        return f"torch {operation.target}"
    N, H, W, C = operation.out.shape
    text = operation.kind
    if isinstance(operation, Convolution):
        kernel = f"{operation.kernel[0]}x{operation.kernel[1]}"
        stride = "" if operation.stride == (1, 1) else f"/{operation.stride[0]}"
        groups = "" if operation.groups == 1 else f" groups {operation.groups}"
        text = f"conv {kernel}{stride}{groups} {operation.inputs[0].C}->{C}"
        text += " + bn" if operation.scale else ""
        text += " + add" if operation.residual else ""
    if isinstance(operation, Activated) and operation.act.kind != "none":
        text += f" + {operation.act}"
    return f"{text} @{H}x{W}" + (f" x{N}" if N > 1 else "")


def profile(program: NetworkProgram, tensors: list[Tensor], repeats: int) -> Profile:
    """Each operation `repeats` times in its place, on what its predecessors wrote; medians."""
    times: dict[Operation, list[float]] = {o: [] for o in program.graph.operations}

    def run(operation: Operation, call: object) -> None:
        for _ in range(repeats):
            start = time.perf_counter()
            call()  # type: ignore[operator]
            times[operation].append(time.perf_counter() - start)

    program.walk_singly(tensors, run)
    rows = [
        Row(o.layer, describe(o), program.method(o), sorted(t)[len(t) // 2])
        for o, t in times.items()
        if t
    ]
    return Profile(rows)


def summary(name: str, program: NetworkProgram, accuracy: Accuracy | None) -> str:
    operations = program.graph.operations
    torch_calls = [o for o in operations if isinstance(o, TorchCall)]
    walks = sum(isinstance(step, Walk) for step in program.steps)
    stages = sum(step.stages for step in program.steps if isinstance(step, Walk))
    memory = program.memory
    lines = [
        f"CompiledNetwork({name}): {len(operations)} operations in {walks} native "
        f"{'part' if walks == 1 else 'parts'} of {stages} stages, {_config.ISA_NAMES[program.isa]}",
        f"  memory of a call: {memory.size * 4 / 1e6:.1f} MB for maps of "
        f"{memory.total * 4 / 1e6:.1f} MB",
    ]
    if accuracy is not None:
        lines.append(f"  {accuracy}")
    for operation in operations:
        lines.append(
            f"  {operation.layer or '-':<32} {describe(operation):<48} {program.method(operation)}"
        )
    for call in torch_calls:
        lines.append(f"  in torch: {call.layer or '-'} {call.target}: {call.reason}")
    return "\n".join(lines)
