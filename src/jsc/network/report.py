"""What a compiled network does, in words: its summary, and where its time goes."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from jsc import _config
from jsc._kernels.network.program import Walk
from jsc.network.graph import Activated, Convolution, Linear, Operation, TorchCall

if TYPE_CHECKING:
    from jsc.network.accuracy import Accuracy
    from jsc.network.program import NetworkProgram


@dataclass(frozen=True)
class Row:
    """An operation: the module it came from, what it is, its time in seconds; for a convolution,
    the part of its input that is not zero."""

    layer: str
    what: str
    method: str
    seconds: float
    density: float | None = None


@dataclass(frozen=True)
class Profile:
    rows: list[Row]

    @property
    def seconds(self) -> float:
        return sum(row.seconds for row in self.rows)

    def __str__(self) -> str:
        total = self.seconds or 1.0
        lines = [f"{HEADER} {'us':>9}"]
        lines += [f"{_line(r, total)} {1e6 * r.seconds:9.1f}" for r in self.rows]
        return "\n".join([*lines, f"{'in all':<{len(HEADER)}} {1e6 * total:9.1f}"])


HEADER = f"{'layer':<32} {'operation':<44} {'method':<12} {'density':>7} {'% time':>6}"


def _line(row: Row, total: float) -> str:
    density = "" if row.density is None else f"{row.density:.2f}"
    text = f"{row.layer[-32:] or '-':<32} {row.what:<44} {row.method:<12} {density:>7}"
    return f"{text} {100 * row.seconds / total:6.1f}" if total else text.rstrip()


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
    density: dict[Operation, float] = {}

    def run(operation: Operation, call: object) -> None:
        if isinstance(operation, Convolution):
            x = program.map_view(operation.inputs[0])
            density[operation] = (x != 0).sum().item() / x.numel()
        for _ in range(repeats):
            start = time.perf_counter()
            call()  # type: ignore[operator]
            times[operation].append(time.perf_counter() - start)

    program.walk_singly(tensors, run)
    rows = [
        Row(o.layer, describe(o), program.method(o), sorted(t)[len(t) // 2], density.get(o))
        for o, t in times.items()
        if t
    ]
    return Profile(rows)


@dataclass(frozen=True)
class Coverage:
    """How many operations run natively, and which of torch's operators stand between them."""

    convolutions: int
    linears: int
    native: int
    torch: dict[str, int]
    reasons: dict[str, str]  # of the first one of each

    @property
    def share(self) -> float:
        everything = self.native + sum(self.torch.values())
        return self.native / everything if everything else 1.0


def coverage(program: NetworkProgram) -> Coverage:
    operations = program.graph.operations
    calls = [o for o in operations if isinstance(o, TorchCall)]
    names = [str(o.target).removeprefix("aten.").removesuffix(".default") for o in calls]
    return Coverage(
        sum(isinstance(o, Convolution) for o in operations),
        sum(isinstance(o, Linear) for o in operations),
        len(operations) - len(calls),
        dict(Counter(names).most_common()),
        dict(reversed([*zip(names, (o.reason for o in calls), strict=True)])),
    )


def warn_of_little_gain(name: str, program: NetworkProgram) -> None:
    """One warning where most of a network runs in torch, or where nothing heavy is native."""
    found = coverage(program)
    heavy = found.convolutions + found.linears
    if heavy and found.share >= FEW:
        return
    if not heavy:
        what = "no convolution and no linear layer of it runs natively"
    else:
        what = f"{100 * (1 - found.share):.0f} % of its operations run in torch"
    most = ", ".join(f"{n} x {o} ({found.reasons[o]})" for o, n in [*found.torch.items()][:3])
    warnings.warn(
        f"jsc.compile: little is gained on {name}: {what}"
        f"{f'; most often {most}' if most else ''}. print(net) names them all",
        RuntimeWarning,
        stacklevel=3,
    )


FEW = 0.5  # of the operations: with fewer native ones than that, a warning says so


def summary(
    name: str, program: NetworkProgram, accuracy: Accuracy | None, measured: Profile | None
) -> str:
    """All operations in order; density and share of time where they were measured."""
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
    rows = [Row(o.layer, describe(o), program.method(o), 0.0) for o in operations]
    if measured is not None:
        rows = measured.rows
    total = measured.seconds if measured is not None else 0.0
    lines += [f"  {HEADER}", *(f"  {_line(row, total)}" for row in rows)]
    for call in torch_calls:
        lines.append(f"  in torch: {call.layer or '-'} {call.target}: {call.reason}")
    return "\n".join(lines)
