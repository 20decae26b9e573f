"""Views, slices, concatenation and padding: mostly there is nothing to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import fx

from jsc.network.graph import Copy, Value
from jsc.network.lowering.entries import (
    CHANNELS_LAST,
    CHANNELS_SECOND,
    Entry,
    Lowering,
    Opaque,
    Split,
    Unsupported,
    map_shape,
    out_shape,
)

AXES = {"nchw": "NCHW", "nhwc": "NHWC", "nc": "NC", "ncl": "NCW", "nlc": "NWC"}  # by form


def same(low: Lowering, node: fx.Node, x: Any, *rest: Any, **options: Any) -> Any:
    """Nothing: in a functional graph a copy is as good as the tensor."""
    return x


def dropout(low: Lowering, node: fx.Node, x: Any, p: float = 0.5, train: bool = False) -> Any:
    if train and p:
        raise Unsupported("it is random")
    return x


def clone(low: Lowering, node: fx.Node, x: Any, *rest: Any, **options: Any) -> Any:
    """A map that is a result is copied then, as it is wanted; other tensors are copied here."""
    if isinstance(x, Opaque):
        raise Unsupported("a copy")
    if isinstance(x, Entry) and options.get("memory_format") == torch.channels_last:
        return replace(x, last=True)
    return x


def view(low: Lowering, node: fx.Node, x: Any, size: Any) -> Any:
    shape = out_shape(node)
    if isinstance(x, Split):
        N, H, W, C = x.entry.value.shape
        if shape != (N, C, H, W):
            raise Unsupported(f"a view of {x.shape} as {shape}")
        if not x.exchanged:
            return x.entry
        per = C // x.groups
        order = tuple((c % x.groups) * per + c // x.groups for c in range(C))
        return Entry(low.emit(Copy([x.entry.value], Value((N, H, W, C)), order=order)), "nchw")
    entry = low.native(x)
    if entry.shape == shape:
        return entry
    N, H, W, C = entry.value.shape
    if entry.form in (*CHANNELS_SECOND, "flat"):
        if shape == (N, C * H * W):
            return Entry(entry.value, "nc" if H * W == 1 else "flat")
        if shape[:2] == (N, C) and len(shape) in (3, 4):
            return low.recounted(entry, "ncl" if len(shape) == 3 else "nchw", shape)
        if len(shape) == 5 and shape[0] == N and shape[3:] == (H, W):
            return Split(Entry(entry.value, "nchw"), shape[1], False)
    if entry.form in CHANNELS_LAST and shape[-1] == C and len(shape) in (2, 3, 4):
        return low.recounted(entry, {2: "nc", 3: "nlc", 4: "nhwc"}[len(shape)], shape)
    raise Unsupported(f"a view of {entry.shape} as {shape}")


def permute(low: Lowering, node: fx.Node, x: Any, dims: Any) -> Any:
    order = tuple(dims)
    if isinstance(x, Split):
        if order != (0, 2, 1, 3, 4):
            raise Unsupported(f"a permutation {order}")
        return Split(x.entry, x.groups, not x.exchanged)
    entry = low.native(x)
    if order == tuple(range(len(order))):
        return entry
    if entry.form == "nchw" and order == (0, 2, 3, 1):
        return Entry(entry.value, "nhwc")
    if entry.form == "nhwc" and order == (0, 3, 1, 2):
        return Entry(entry.value, "nchw")
    if entry.form in ("ncl", "nlc") and order == (0, 2, 1):
        return Entry(entry.value, "ncl" if entry.form == "nlc" else "nlc")
    raise Unsupported(f"a permutation {order} of {entry.shape}")


def transpose(low: Lowering, node: fx.Node, x: Any, a: int, b: int) -> Any:
    rank = len(node.meta["val"].shape)
    order = list(range(rank))
    order[a], order[b] = order[b], order[a]
    return permute(low, node, x, order)


def squeeze(low: Lowering, node: fx.Node, x: Any, *rest: Any) -> Any:
    return view(low, node, x, None)


def flatten(low: Lowering, node: fx.Node, x: Any, *rest: Any) -> Any:
    return view(low, node, x, None)


def slice_(
    low: Lowering, node: fx.Node, x: Any, dim: int = 0, start: Any = None, end: Any = None,
    step: int = 1,
) -> Entry:  # fmt: skip
    entry = low.native(x, *CHANNELS_SECOND, *CHANNELS_LAST)
    shape = out_shape(node)
    if shape == entry.shape:
        return entry
    start = start or 0
    size = entry.shape[dim]
    start = min(max(start + size if start < 0 else start, 0), size)
    axis = AXES[entry.form][dim]
    if axis == "C" and step == 1:
        return Entry(entry.value.part((start, shape[dim])), entry.form)
    if axis in ("H", "W"):
        first = (start, 0, 0) if axis == "H" else (0, start, 0)
        steps = (step, 1) if axis == "H" else (1, step)
        new = map_shape(shape, entry.form)
        return Entry(Value(new, entry.value, first, steps), entry.form)
    raise Unsupported(f"a slice of dimension {dim}")


def split(low: Lowering, node: fx.Node, x: Any, sizes: Any, dim: int = 0) -> Any:
    entry = low.native(x, *CHANNELS_SECOND, *CHANNELS_LAST)
    made = [tuple(m.shape) for m in node.meta["val"]]
    axis = AXES[entry.form][dim % len(entry.shape)]
    if axis != "C" or any(m[dim] == 0 for m in made):
        raise Unsupported(f"a split of dimension {dim}")
    parts, start = [], 0
    for shape in made:
        parts.append(Entry(entry.value.part((start, shape[dim])), entry.form))
        start += shape[dim]
    return tuple(parts)


def cat(low: Lowering, node: fx.Node, parts: Any, dim: int = 0) -> Entry:
    entries = [low.native(p, *CHANNELS_SECOND, "nhwc", "nlc") for p in parts]
    shape = out_shape(node)
    form = entries[0].form
    rank = len(shape)
    channels = 1 if form in CHANNELS_SECOND else rank - 1
    if dim % rank != channels or any(e.form != form for e in entries):
        raise Unsupported(f"a concatenation of dimension {dim}")
    whole = Value(map_shape(shape, form))
    first = 0
    for entry in entries:
        part = whole.part((first, entry.value.C))
        low.emit(Copy([entry.value], part))  # gone where the producer can write there: passes.py
        first += entry.value.C
    return Entry(whole, form)


def pad(
    low: Lowering, node: fx.Node, x: Any, pads: Any, mode: Any = 0.0, value: Any = None
) -> Entry:
    entry = x if isinstance(x, Entry) and x.form == "nchw" else low.row(x)
    if isinstance(mode, str):
        fill = 0.0 if value is None else float(value)
    else:
        mode, fill = "constant", float(mode or 0.0)
    if entry.form == "ncl":
        pads = [*pads[:2], 0, 0, *pads[2:]]
    pads = [*pads, *[0] * (6 - len(pads))]
    left, right, top, bottom, before, after = pads[:6]
    if len(pads) > 6 or min(pads) < 0:
        raise Unsupported("padding that crops, or of the batch")
    C = entry.value.C
    out = Value(map_shape(out_shape(node), entry.form))
    order = None
    if before or after:
        if mode != "constant":
            raise Unsupported(f"padding of channels of mode {mode}")
        order = (*[-1] * before, *range(C), *[-1] * after)
    border = (top, left, bottom, right)
    made = Copy([entry.value], out, border=border, mode=mode, fill=fill, order=order)
    return Entry(low.emit(made), entry.form)


def pad_by(mode: str) -> Any:
    return lambda low, node, x, pads: pad(low, node, x, pads, mode)


BROADCASTING = ("add.Tensor", "mul.Tensor", "sub.Tensor", "div.Tensor")


def expand(low: Lowering, node: fx.Node, x: Any, size: Any, *, implicit: bool = False) -> Entry:
    """Nothing, where all who read it would broadcast it themselves."""
    entry = low.native(x)
    shape = out_shape(node)
    if entry.shape == shape:
        return entry
    for user in node.users:
        others: list[Any] = [a for a in user.args if a is not node]
        name = str(user.target).removeprefix("aten.")
        if name not in BROADCASTING or len(others) != 1 or len(entry.shape) != len(shape):
            raise Unsupported("an expansion that is more than a broadcast operand")
        (other,) = others
        full = isinstance(other, fx.Node) and "expand" not in str(other.target)
        if not full or tuple(other.meta["val"].shape) != tuple(user.meta["val"].shape):
            raise Unsupported("an expansion that decides the size of its result")
    return entry


def unsqueeze(low: Lowering, node: fx.Node, x: Any, dim: int) -> Any:
    return view(low, node, x, None)


TABLE = {
    **dict.fromkeys(
        [
            "alias.default", "detach.default", "contiguous.default",
        ],
        same,
    ),
    **dict.fromkeys(["dropout.default", "feature_dropout.default"], dropout),
    **dict.fromkeys(["clone.default", "lift_fresh_copy.default"], clone),
    "view.default": view,
    "reshape.default": view,
    "_unsafe_view.default": view,
    "flatten.using_ints": flatten,
    "squeeze.dim": squeeze,
    "squeeze.dims": squeeze,
    "squeeze.default": squeeze,
    "unsqueeze.default": unsqueeze,
    "expand.default": expand,
    "permute.default": permute,
    "transpose.int": transpose,
    "t.default": lambda low, node, x: transpose(low, node, x, 0, 1),
    "slice.Tensor": slice_,
    "split.Tensor": split,
    "split_with_sizes.default": split,
    "chunk.default": split,
    "cat.default": cat,
    "constant_pad_nd.default": pad,
    "pad.default": pad,
    "reflection_pad2d.default": pad_by("reflect"),
    "replication_pad2d.default": pad_by("replicate"),
    "reflection_pad1d.default": pad_by("reflect"),
    "replication_pad1d.default": pad_by("replicate"),
}  # fmt: skip
