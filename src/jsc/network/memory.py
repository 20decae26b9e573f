"""When operations run, and where their maps lie.

Stages: an operation runs one stage after the last of those whose output it reads; operations of a
stage are independent, and the team shares out all of their tasks together. Torch's operators
stand between segments of stages.

Memory: a map lives from the stage that first writes to it to the stage that last reads it. Maps
that live at a time never overlap; the largest are placed first, each at the lowest place that is
free (greedy by size: Y. Pisarchyk and J. Lee, arXiv:2001.03288).
"""

from __future__ import annotations

from dataclasses import dataclass

from jsc.network.graph import Graph, Operation, TorchCall, Value, numel

ALIGNMENT = 16  # floats: 64 bytes
SLACK = 16  # floats behind each map that a full vector may read


@dataclass
class Segment:
    """Stages of native operations, or one of torch's."""

    stages: list[list[Operation]]
    torch: TorchCall | None = None

    def groups(self) -> list[list[Operation]]:
        """What runs at a time, torch's operator being alone."""
        return self.stages if self.torch is None else [[self.torch]]


@dataclass
class Memory:
    offsets: dict[Value, int]  # of maps that hold memory, in floats
    size: int  # floats of the arena
    total: int  # floats of all maps together


def schedule(graph: Graph) -> list[Segment]:
    """Native operations as early as possible, torch's when nothing else can run."""
    waiting = list(graph.operations)
    writers = _writers(graph)
    segments: list[Segment] = []
    done: set[Operation] = set()

    order = {o: i for i, o in enumerate(graph.operations)}
    needs = {o: _needs(o, writers, order) for o in graph.operations}
    while waiting:
        level: dict[Operation, int] = {}
        for operation in waiting:
            if isinstance(operation, TorchCall):
                continue
            before = needs[operation]
            if all(w in done or w in level for w in before):
                level[operation] = max((level[w] + 1 for w in before if w in level), default=0)
        if level:
            stages: list[list[Operation]] = [[] for _ in range(max(level.values()) + 1)]
            for operation, stage in level.items():
                stages[stage].append(operation)
            segments.append(Segment(stages))
            done |= level.keys()
        else:
            call = next(
                o for o in waiting if isinstance(o, TorchCall) and done.issuperset(needs[o])
            )
            segments.append(Segment([], call))
            done.add(call)
        waiting = [o for o in waiting if o not in done]
    return segments


def _writers(graph: Graph) -> dict[object, list[Operation]]:
    """Operations by the map or tensor that they write to."""
    found: dict[object, list[Operation]] = {}
    for operation in graph.operations:
        if isinstance(operation, TorchCall):
            for ref in operation.results:
                if ref is not None:
                    found.setdefault(ref.index, []).append(operation)
        else:
            found.setdefault(operation.out.root, []).append(operation)
    return found


def _needs(
    operation: Operation, writers: dict[object, list[Operation]], order: dict[Operation, int]
) -> list[Operation]:
    """The operations that write what this one reads, of those before it in the graph."""
    found: list[Operation] = []
    for value in operation.inputs:
        root = value.root
        key = root if root.tensor is None else root.tensor.index
        for writer in writers.get(key, []):
            if order[writer] < order[operation] and _overlap(writer, value):
                found.append(writer)
    if isinstance(operation, TorchCall):
        for ref in operation.tensor_arguments():
            found += writers.get(ref.index, [])
    return found


def _overlap(writer: Operation, value: Value) -> bool:
    """Does it write channels that `value` has?"""
    if isinstance(writer, TorchCall):
        return True
    a, b = channels(writer.out), channels(value)
    return a[0] < b[1] and b[0] < a[1]


def channels(value: Value) -> tuple[int, int]:
    """The channels of the root map that a map has: first, end."""
    first, at = 0, value
    while at.whole is not None:
        first += at.first[2]
        at = at.whole
    return first, first + value.C


def plan(graph: Graph, segments: list[Segment]) -> Memory:
    """Places every map that is no tensor of the caller's or of torch's."""
    life: dict[Value, list[int]] = {}
    time = 0
    for segment in segments:
        for stage in segment.groups():
            for operation in stage:
                values = list(operation.inputs)
                if not isinstance(operation, TorchCall):
                    values.append(operation.out)
                if operation.workspace is not None:
                    values.append(operation.workspace)
                for value in values:
                    root = value.root
                    if root.tensor is None:
                        span = life.setdefault(root, [time, time])
                        span[1] = time
            time += 1
    for output in graph.outputs:
        kept = getattr(output, "value", None)
        if kept is not None and kept.root in life:
            life[kept.root][1] = time
    offsets: dict[Value, int] = {}
    sizes = {v: -(-(_floats(v) + SLACK) // ALIGNMENT) * ALIGNMENT for v in life}
    for value in sorted(life, key=lambda v: -sizes[v]):
        begin, end = life[value]
        taken = sorted(
            (offsets[o], offsets[o] + sizes[o])
            for o in offsets
            if life[o][0] <= end and begin <= life[o][1]
        )
        at = 0
        for first, last in taken:
            if at + sizes[value] <= first:
                break
            at = max(at, last)
        offsets[value] = at
    size = max((offsets[v] + sizes[v] for v in offsets), default=0)
    return Memory(offsets, size, sum(sizes.values()))


def _floats(value: Value) -> int:
    """Of the memory that a map takes."""
    return -(-numel(value.shape) // 2) if value.bf16 else numel(value.shape)
