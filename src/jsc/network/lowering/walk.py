"""From ATen operators to operations over channels-last maps.

Each operator that has a native form has a function in one of the tables (`convolving`,
`elementwise`, `phases`, `pooling`, `shapes`), under its name. A function that meets arguments it
cannot do raises `Unsupported` with the reason, and the operator runs in torch between two native
parts.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

from torch import fx

from jsc.network import constants
from jsc.network.captured import Captured, Placeholder
from jsc.network.constants import Constant
from jsc.network.errors import CompileError
from jsc.network.graph import Graph
from jsc.network.lowering import convolving, elementwise, phases, pooling, shapes, torch_calls
from jsc.network.lowering.entries import (
    Lowering,
    Opaque,
    Parameter,
    Split,
    Unsupported,
    native_form,
)
from jsc.network.lowering.folding import fold

TABLE = {
    **convolving.TABLE, **elementwise.TABLE, **phases.TABLE, **pooling.TABLE, **shapes.TABLE,
}  # fmt: skip


def lower(captured: Captured, channels_last: tuple[bool, ...]) -> Graph:
    """The graph of a captured network that has its sizes.

    `channels_last` says of each tensor that the caller gives whether it lies so, its other layouts
    being made contiguous by the call.
    """
    low = Lowering()
    placeholders = iter(captured.placeholders)
    layouts = iter(channels_last)
    output: tuple[Any, ...] = ()
    for node in captured.graph.nodes:
        if node.op == "placeholder":
            placeholder = next(placeholders)
            if placeholder.kind == "value":
                low.env[node] = placeholder.value
            elif placeholder.kind == "input":
                low.env[node] = _input(low, node, next(layouts))
            else:
                low.env[node] = _parameter(captured, node, placeholder)
        elif node.op == "output":
            output = node.args[0]
        elif node.op == "call_function":
            _call(low, node)
        else:
            raise CompileError(
                f"the model's graph has a part of kind {node.op} ({node.target}), such as "
                "torch.cond makes; compile the parts around it"
            )
    outputs = [_output(low, value) for value in output]
    torch_calls.keep_layouts(low.operations, outputs)
    return Graph(low.operations, low.inputs, outputs, len(low.tensors))


def _parameter(captured: Captured, node: fx.Node, placeholder: Placeholder) -> Parameter:
    """A tensor of the state by its name; one that the forward made, by its value. In a file its
    name begins with the graph's number."""
    name = placeholder.name
    if placeholder.kind == "made":
        value = captured.state[name]
        constant = Constant(("made", name, id(value)), lambda _: value)
        name = name.rpartition(":")[2]
    else:
        constant = constants.of(name)
    return Parameter(constant, node.meta["val"], name)


def _input(low: Lowering, node: fx.Node, channels_last: bool) -> Any:
    value = node.meta["val"]
    ref = low.new_tensor(tuple(value.shape), planar=not channels_last)
    low.inputs.append(ref)
    form = native_form(tuple(value.shape), value.dtype)
    if form is None or form == "nlc":
        return Opaque(ref)
    return low.from_tensor(ref, form)


def _call(low: Lowering, node: fx.Node) -> None:
    if node.target is operator.getitem:
        source = low.env[node.args[0]]  # type: ignore[index]
        low.env[node] = source[node.args[1]]
        return
    if isinstance(node.meta.get("val"), (bool, int, float)):  # a size, or computed from sizes
        low.env[node] = node.meta["val"]
        return
    low.layer = module_path(node)
    folded = fold(low, node)
    if folded is not None:
        low.env[node] = folded
        return
    name = str(node.target).removeprefix("aten.")
    function = TABLE.get(name)
    operations, tensors = len(low.operations), len(low.tensors)
    try:
        if function is None:
            raise Unsupported("no native form")
        args = [low.lookup(a) for a in node.args]
        options = {k: low.lookup(v) for k, v in node.kwargs.items()}
        _require_signature(function, low, node, args, options)
        low.env[node] = function(low, node, *args, **options)
    except Unsupported as reason:
        del low.operations[operations:], low.tensors[tensors:]
        low.env[node] = torch_calls.torch_call(low, node, str(reason))


def _require_signature(
    function: Callable[..., Any], low: Lowering, node: fx.Node, args: Any, options: Any
) -> None:
    """A native form has no argument that it would ignore, such as another dtype of a sum."""
    try:
        inspect.signature(function).bind(low, node, *args, **options)
    except TypeError as error:
        raise Unsupported(str(error)) from None


def _output(low: Lowering, value: Any) -> Any:
    made = low.env[value] if isinstance(value, fx.Node) else value
    if isinstance(made, Split):
        return torch_calls.split_result(low, made)
    return torch_calls.constant_result(low, made) if isinstance(made, Parameter) else made


def module_path(node: fx.Node) -> str:
    """The path of the innermost module that the node came from."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    path = paths[-1] if paths else ""
    return path.removeprefix("L['self'].").removeprefix("L['self']")
