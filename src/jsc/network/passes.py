"""Passes over the lowered graph, in the order in which `simplify` runs them.

Each takes the graph and changes it in place. Any but `gather_inputs` may be left out without
changing what the network computes, except for rounding (`fuse`, `merge_siblings`).
"""

from __future__ import annotations

from collections.abc import Callable

from jsc.network.choices import STEM_CHANNELS, reads_images
from jsc.network.constants import Constant
from jsc.network.graph import (
    IDENTITY,
    Activated,
    Affine,
    Convolution,
    Copy,
    Elementwise,
    Graph,
    Linear,
    Operation,
    Pool,
    TorchCall,
    Value,
)
from jsc.network.lowering.entries import Entry, Opaque
from jsc.network.siblings import merge_siblings


def simplify(graph: Graph, precision: str) -> None:
    drop_dead(graph)
    fold_padding(graph)
    fuse(graph)
    place_parts(graph)
    merge_siblings(graph, wanted(graph))
    widen_stems(graph, precision)
    drop_dead(graph)
    gather_inputs(graph)


def wanted(graph: Graph) -> set[Value]:
    """The maps that the caller gets."""
    return {o.value.root for o in graph.outputs if isinstance(o, Entry)}


def drop_dead(graph: Graph) -> None:
    """Removes operations whose results nobody reads."""
    needed = wanted(graph)
    tensors = {o.ref.index for o in graph.outputs if isinstance(o, Opaque)}
    tensors |= {value.tensor.index for value in needed if value.tensor is not None}
    kept: list[Operation] = []
    for operation in reversed(graph.operations):
        if isinstance(operation, TorchCall):
            refs = {r.index for r in operation.results if r is not None}
            if not refs & tensors:
                continue
            tensors |= {a.index for a in operation.tensor_arguments()}
        elif operation.out.root not in needed:
            continue
        for value in operation.inputs:
            needed.add(value.root)
            if value.root.tensor is not None:
                tensors.add(value.root.tensor.index)
        kept.append(operation)
    graph.operations = kept[::-1]


def fold_padding(graph: Graph) -> None:
    """A border of zeros belongs to the convolution that alone reads it, one of -inf to the
    max-pool."""
    readers, results = graph.readers(), wanted(graph)
    for copy in [o for o in graph.operations if isinstance(o, Copy)]:
        plain = copy.order is None and copy.mode == "constant"
        if copy.border == (0, 0, 0, 0) or not plain or copy.out.root in results:
            continue
        users = readers.get(copy.out, [])
        top, left = copy.border[:2]
        if (
            len(users) != 1
            or users[0].inputs[0] is not copy.out
            or users[0].inputs.count(copy.out) > 1
        ):
            continue
        (user,) = users
        # What hangs over is worth nothing to both, so the kernels see it below and to the right.
        zeros = isinstance(user, Convolution) and copy.fill == 0
        smallest = isinstance(user, Pool) and user.mode == "max" and copy.fill == -float("inf")
        if isinstance(user, (Convolution, Pool)) and (zeros or smallest):
            user.padding = (user.padding[0] + top, user.padding[1] + left)
            user.inputs[0] = copy.inputs[0]
            graph.operations.remove(copy)


def fuse(graph: Graph) -> None:
    """Shift, residual and activation are done as what comes before them writes its result.

    convolution -> batch-norm -> add -> activation, each read by the next alone.
    """
    made = {o.out: o for o in graph.operations if not isinstance(o, TorchCall)}
    results = wanted(graph)
    count = {value: len(users) for value, users in graph.readers().items()}
    position = {o: i for i, o in enumerate(graph.operations)}

    def producer(value: Value, kinds: type | tuple[type, ...]) -> Activated | None:
        """What makes `value`, if nobody else needs it and it has no activation yet."""
        held = value.held
        operation = made.get(held)
        if not isinstance(operation, kinds) or count[held] != 1 or held in results:
            return None
        return operation if isinstance(operation, Activated) and operation.act == IDENTITY else None

    def absorb(first: Activated, second: Operation) -> None:
        first.out = second.out.recount(first.out.shape[:3])
        made[second.out] = first
        graph.operations.remove(second)
        # It runs where the second one did: its residual exists only then.
        graph.operations.remove(first)
        later = [o for o in graph.operations if position[o] < position[second]]
        graph.operations.insert(len(later), first)
        position[first] = position[second]

    for operation in list(graph.operations):
        if _into_phases(graph, operation, count, results):
            continue
        if isinstance(operation, Affine):
            conv = producer(operation.inputs[0], (Convolution, Linear))
            if isinstance(conv, Convolution) and conv.residual is None and operation.scale:
                conv.scale, conv.shift = _norm(conv, operation)
                conv.act = operation.act
                absorb(conv, operation)
        elif isinstance(operation, Elementwise):
            if operation.op == "identity" and len(operation.inputs) == 1:
                first = producer(operation.inputs[0], Activated)
                if first is not None:
                    first.act = operation.act
                    absorb(first, operation)
            elif operation.op == "add" and _two_maps(operation):
                _absorb_residual(operation, producer, position, absorb)


def _into_phases(
    graph: Graph, operation: Operation, count: dict[Value, int], results: set[Value]
) -> bool:
    """Batch-norm and activation behind the phases of a transposed convolution: each of these does
    its own pixels."""
    identity = isinstance(operation, Elementwise) and operation.op == "identity"
    if not (isinstance(operation, Affine) or identity) or len(operation.inputs) != 1:
        return False
    (value,) = operation.inputs
    phases = [o for o in graph.operations if o.out.whole is value and not o.out.recounted]
    convolutions = [o for o in phases if isinstance(o, Convolution) and o.act == IDENTITY]
    if not phases or len(convolutions) < len(phases) or value.whole is not None:
        return False
    if count[value] != 1 or value in results:
        return False
    for conv in convolutions:
        if isinstance(operation, Affine):
            conv.scale, conv.shift = _norm(conv, operation)
        conv.act = operation.act  # type: ignore[attr-defined]
        conv.out.whole = operation.out
    graph.operations.remove(operation)
    return True


def _two_maps(operation: Elementwise) -> bool:
    values = operation.inputs
    return len(values) == 2 and values[0].shape == values[1].shape and values[0] is not values[1]


def _absorb_residual(
    operation: Elementwise,
    producer: Callable[[Value, type], Activated | None],
    position: dict[Operation, int],
    absorb: Callable[[Activated, Operation], None],
) -> None:
    """The later one of two convolutions takes the other's output as its residual."""
    candidates = [producer(v, Convolution) for v in operation.inputs]
    found = [
        (position[c], i, c)
        for i, c in enumerate(candidates)
        if isinstance(c, Convolution)
        and c.residual is None
        and (c.out.shape == operation.out.shape or operation.inputs[1 - i].in_a_row)
    ]
    if not found:
        return
    _, index, conv = max(found, key=lambda each: each[0])
    conv.inputs.append(operation.inputs[1 - index].recount(conv.out.shape[:3]))
    conv.act = operation.act
    absorb(conv, operation)


def _norm(conv: Convolution, norm: Affine) -> tuple[Constant, Constant]:
    """scale (conv + bias) + shift = scale conv + (scale bias + shift)."""
    assert norm.scale is not None
    assert norm.shift is not None
    scale, shift, bias, before = norm.scale, norm.shift, conv.shift, conv.scale
    if before is not None:  # one batch-norm after another
        inner = before
        both = Constant(
            ("product", inner.key, scale.key),
            lambda s: inner.recipe(s).double() * scale.recipe(s).double(),
        )
    else:
        both = scale
    if bias is None:
        return both, shift
    moved = Constant(
        ("moved", scale.key, bias.key, shift.key),
        lambda s: scale.recipe(s).double() * bias.recipe(s).double() + shift.recipe(s).double(),
    )
    return both, moved


def place_parts(graph: Graph) -> None:
    """Concatenation costs nothing: who makes a map that is copied into a wider one writes it there.

    Later concatenations first: where one repeats what an earlier one had (DenseNet), the earlier
    becomes a run of channels of the later.
    """
    made = {o.out.held: o for o in graph.operations if not isinstance(o, TorchCall)}
    results = wanted(graph)
    joins: dict[Value, list[Copy]] = {}
    for operation in graph.operations:
        if not isinstance(operation, Copy) or operation.order is not None:
            continue
        if operation.out.whole is not None and operation.out.step == (1, 1):
            joins.setdefault(operation.out.whole, []).append(operation)
    for whole, copies in reversed(joins.items()):
        sources = [c.inputs[0] for c in copies]
        run = _run_of_channels(sources)
        if run is not None and whole not in results:
            whole.whole, whole.first = run
            graph.operations = [o for o in graph.operations if o not in copies]
            continue
        for copy, source in zip(copies, sources, strict=True):
            movable = source.whole is None and source.tensor is None and source in made
            if movable and source not in results and _writes_parts(made[source]):
                source.whole, source.first = copy.out.whole, copy.out.first
                graph.operations.remove(copy)


def gather_inputs(graph: Graph) -> None:
    """A linear layer reads an image as one run of numbers in the order of its weights, plane by
    plane: the image is put in that order first, which is less than the weights are."""
    for operation in [o for o in graph.operations if isinstance(o, Linear)]:
        value = operation.inputs[0]
        _, H, W, C = value.shape
        if H * W > 1 and (C > 1 or value.whole is not None):
            copied = Copy([value], Value(value.shape, planar=True), operation.layer)
            graph.operations.insert(graph.operations.index(operation), copied)
            operation.inputs[0] = copied.out


def _run_of_channels(sources: list[Value]) -> tuple[Value, tuple[int, int, int]] | None:
    """Are these maps neighbouring channels of one, in this order? Which, and from where on?"""
    whole, first = sources[0].whole, sources[0].first
    if whole is None:
        return None
    channel = first[2]
    for source in sources:
        same = (
            source.whole is whole
            and source.first == (*first[:2], channel)
            and source.step == (1, 1)
        )
        if not same or source.shape[:3] != whole.shape[:3]:
            return None
        channel += source.C
    return whole, first


def _writes_parts(operation: Operation) -> bool:
    return not isinstance(operation, Copy) or operation.order is None


def widen_stems(graph: Graph, precision: str) -> None:
    """A convolution of an image's few channels becomes one of whole windows' rows, unless there is
    a kernel for just that.

    With a border around the image, the Kw C numbers of a window's row lie side by side: a map of
    Kw C channels whose pixels overlap, and a kernel of one column.
    """
    readers = graph.readers()
    for copy in [o for o in graph.operations if isinstance(o, Copy)]:
        users = readers.get(copy.out, [])
        N, H, W, C = copy.out.shape
        plain = copy.border == (0, 0, 0, 0) and copy.order is None and copy.out.whole is None
        if not plain or C > STEM_CHANNELS or len(users) != 1 or copy.out in wanted(graph):
            continue
        (conv,) = users
        if not isinstance(conv, Convolution) or conv.groups != 1 or conv.dilation != (1, 1):
            continue
        if conv.inputs[0] is not copy.out:  # it reads a part of the image
            continue
        if conv.kernel[1] == 1 or conv.residual is not None or conv.weight is None:
            continue
        if reads_images(conv, precision):
            continue
        (Kh, Kw), (Sh, Sw), (top, left) = conv.kernel, conv.stride, conv.padding
        _, Oh, Ow, _ = conv.out.shape
        bottom = max(0, (Oh - 1) * Sh + Kh - H - top)
        right = max(0, (Ow - 1) * Sw + Kw - W - left)
        copy.border = (top, left, bottom, right)
        wide = (N, H + top + bottom, W + left + right)
        copy.out.shape = (*wide, C)
        conv.inputs[0] = Value((wide[0], wide[1], wide[2] - Kw + 1, Kw * C), copy.out)
        conv.kernel, conv.padding = (Kh, 1), (0, 0)
        conv.weight = conv.weight.then(
            "rows of windows",
            lambda w: w.permute(0, 3, 1, 2).reshape(w.shape[0], -1, w.shape[2], 1),
        )
