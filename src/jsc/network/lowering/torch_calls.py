"""Operators that run in torch, between native parts: their arguments are tensors of the call, or
views of our maps; their results are tensors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx

from jsc.network.graph import Operation, TensorRef, TorchCall, Value
from jsc.network.lowering.entries import Entry, Lowering, Opaque, Parameter, Split, native_form

aten = torch.ops.aten


def torch_call(low: Lowering, node: fx.Node, reason: str) -> Any:
    """Adds the operator of the node; its results, as maps where they can be read natively."""
    values: list[Value] = []

    def argument(a: Any) -> Any:
        if isinstance(a, fx.Node):
            return low.as_argument(low.env[a], values)
        if isinstance(a, (list, tuple)):
            return type(a)(argument(v) for v in a)
        return a

    args = tuple(argument(a) for a in node.args)
    options = {k: argument(v) for k, v in node.kwargs.items()}
    value = node.meta.get("val")
    several = isinstance(value, (list, tuple))
    made: list[Any] = list(value) if isinstance(value, (list, tuple)) else [value]
    refs = [
        low.new_tensor(tuple(m.shape), planar=True) if isinstance(m, Tensor) else None for m in made
    ]
    out = Value((0, 0, 0, 0))
    target = _whatever_the_layout(node)
    low.operations.append(TorchCall(values, out, low.layer, target, args, options, refs, reason))
    entries = [
        None if r is None else _result(low, r, m.dtype) for r, m in zip(refs, made, strict=True)
    ]
    return tuple(entries) if several else entries[0]


def constant_result(low: Lowering, parameter: Parameter) -> Opaque:
    """A constant as a result of the network: a copy of it."""
    ref = low.new_tensor(parameter.shape, planar=True)
    call = TorchCall([], Value((0, 0, 0, 0)), "", aten.clone.default, (parameter,), {}, [ref],
                     "a result that no input changes")  # fmt: skip
    low.operations.append(call)
    return Opaque(ref)


def split_result(low: Lowering, split: Split) -> Opaque:
    """A view with the channels in two dimensions as a result of the network: a copy of it."""
    ref = low.new_tensor(split.shape, planar=True)
    values: list[Value] = []
    options = {"memory_format": torch.contiguous_format}
    call = TorchCall(values, Value((0, 0, 0, 0)), "", aten.clone.default,
                     (low.as_argument(split, values),), options, [ref],
                     "a result with channels in two dimensions")  # fmt: skip
    low.operations.append(call)
    return Opaque(ref)


def keep_layouts(operations: Iterable[Operation], outputs: Iterable[Any]) -> None:
    """What torch makes for torch alone stays as torch lays it out."""
    read = {v.root.tensor.index for o in operations for v in o.inputs if v.root.tensor is not None}
    for output in outputs:
        if isinstance(output, Entry) and output.value.root.tensor is not None:
            read.add(output.value.root.tensor.index)
    for operation in operations:
        if isinstance(operation, TorchCall):
            for ref in operation.results:
                if ref is not None:
                    ref.kept = ref.index not in read


def _result(low: Lowering, ref: TensorRef, dtype: torch.dtype) -> Any:
    form = native_form(ref.shape, dtype)
    if form is None:
        return Opaque(ref)
    ref.planar = False  # the call lays it out channels-last, if a native operation reads it
    return low.from_tensor(ref, form)


def _whatever_the_layout(node: fx.Node) -> Any:
    """The operator, or one that does the same to a tensor of other strides than export saw."""
    if node.target in (aten.view.default, aten._unsafe_view.default):
        return aten.reshape.default
    if node.target is not aten.as_strided.default:
        return node.target
    seen = node.args[0].meta["val"]  # type: ignore[union-attr]
    shape, strides = tuple(seen.shape), tuple(seen.stride())

    def as_strided(x: Tensor, *args: Any, **options: Any) -> Tensor:
        laid = torch.empty_strided(shape, strides, dtype=x.dtype).copy_(x)
        return torch.as_strided(laid, *args, **options)

    return as_strided
