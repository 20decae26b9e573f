"""What a compiled network does, in words: its summary, and where its time goes."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from jsc import _config, _tables
from jsc._kernels.network.program import Walk
from jsc._precision import Precision
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


# Within 120 columns, also indented and with a column of times; names keep their ends.
LAYER, WHAT = 28, 50
HEADER = f"{'layer':<{LAYER}} {'operation':<{WHAT}} {'method':<12} {'density':>7} {'% time':>6}"


def _line(row: Row, total: float) -> str:
    density = "" if row.density is None else f"{row.density:.2f}"
    what = row.what if len(row.what) <= WHAT else row.what[: WHAT - 3] + "..."
    text = f"{row.layer[-LAYER:] or '-':<{LAYER}} {what:<{WHAT}} {row.method:<12} {density:>7}"
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
        filters = "+".join(map(str, operation.filters or (C,)))
        text = f"conv {kernel}{stride}{groups} {operation.inputs[0].C}->{filters}"
        text += " + bn" if operation.scale else ""
        text += " + add" if operation.residual else ""
    if isinstance(operation, Activated) and operation.act.kind != "none":
        text += f" + {operation.act}"
    return f"{text} @{H}x{W}" + (f" x{N}" if N > 1 else "")


def profile(program: NetworkProgram, tensors: list[Tensor], repeats: int) -> Profile:
    """Each operation `repeats` times in its place, on what its predecessors wrote; medians, times
    the parts of the batch."""
    times: dict[Operation, list[float]] = {o: [] for o in program.graph.operations}
    density: dict[Operation, float] = {}

    def run(operation: Operation, call: object) -> None:
        if isinstance(operation, Convolution):
            density[operation] = program.density(operation)
        for _ in range(repeats):
            start = time.perf_counter()
            call()  # type: ignore[operator]
            times[operation].append(time.perf_counter() - start)

    program.walk_singly(tensors, run)
    parts = len(program.starts)
    rows = [
        Row(o.layer, describe(o), program.method(o), parts * sorted(t)[len(t) // 2], density.get(o))
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


@dataclass(frozen=True)
class Summary:
    """What a compiled network is: some lines, its operations, and what of it runs in torch."""

    head: list[str]
    rows: list[Row]
    seconds: float  # of all operations; 0 where they were not measured
    torch: list[str]

    def __str__(self) -> str:
        first, *rest = self.head
        lines = [first, *(f"  {line}" for line in rest)]
        if self.rows:
            lines += [f"  {HEADER}", *(f"  {_line(row, self.seconds)}" for row in self.rows)]
        for line in self.torch:
            lines += [f"  {part}" for part in _tables.folded(line, _tables.WIDTH - 2, "  ")]
        return "\n".join(lines)

    def html(self) -> str:
        """For notebooks."""
        table = [["layer", "operation", "method", "density", "% time"]]
        for row in self.rows:
            density = "" if row.density is None else f"{row.density:.2f}"
            share = f"{100 * row.seconds / self.seconds:.1f}" if self.seconds else ""
            table.append([row.layer or "-", row.what, row.method, density, share])
        parts = [_tables.paragraphs(self.head)]
        parts += [_tables.html(table, left=(0, 1, 2))] if self.rows else []
        return "\n".join([*parts, _tables.paragraphs(self.torch)])


def summary(
    name: str,
    program: NetworkProgram | None,
    accuracy: Accuracy | None,
    measured: Profile | None,
) -> Summary:
    """All operations in order; density and share of time where they were measured."""
    if program is None:
        return Summary([f"CompiledNetwork({name}), not called yet"], [], 0.0, [])
    operations = program.graph.operations
    walks = sum(isinstance(step, Walk) for step in program.steps)
    stages = sum(step.stages for step in program.steps if isinstance(step, Walk))
    memory, precision = program.memory, program.methods.precision
    isa = _config.ISA_NAMES[program.isa]
    exactness = "" if precision == Precision() else f", precision {precision}"
    head = [
        f"CompiledNetwork({name}): {len(operations)} operations in {walks} native "
        f"{'part' if walks == 1 else 'parts'} of {stages} stages, {isa}{exactness}",
        f"memory of a call: {memory.size * 4 / 1e6:.1f} MB for maps of "
        f"{memory.total * 4 / 1e6:.1f} MB",
    ]
    if len(program.starts) > 1:
        head.append(f"the batch goes through it in {len(program.starts)} parts of {program.images}")
    if accuracy is not None:
        head.append(str(accuracy))
    rows = [Row(o.layer, describe(o), program.method(o), 0.0) for o in operations]
    if measured is not None:
        rows = measured.rows
    in_torch = [
        f"in torch: {o.layer or '-'} {o.target}: {o.reason}"
        for o in operations
        if isinstance(o, TorchCall)
    ]
    return Summary(head, rows, measured.seconds if measured is not None else 0.0, in_torch)
