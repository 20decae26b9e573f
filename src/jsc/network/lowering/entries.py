"""What the arguments of operators are while a graph is lowered.

    Entry       a map, and the form in which torch sees it
    Parameter   a tensor of the model's state
    Opaque      a tensor that only torch's operators can read
    anything else is a Python value

Forms, for a map of N x H x W pixels and C channels:

    nchw   (N, C, H, W)         nhwc   (N, H, W, C)
    nc     (N, C), H = W = 1    nlc    (N, W, C), H = 1
    flat   (N, C H W), a view of an nchw map
    ncl    (N, C, W), H = 1: what one-dimensional layers have
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from jsc.network.constants import Constant
from jsc.network.graph import Copy, Operation, TensorRef, Value, numel

CHANNELS_SECOND = ("nchw", "nc", "ncl")
CHANNELS_LAST = ("nhwc", "nc", "nlc")


class Unsupported(Exception):
    """No native form; the message is the reason."""


@dataclass(frozen=True)
class Entry:
    value: Value
    form: str
    last: bool = field(default=False, compare=False)  # wanted in channels-last memory

    @property
    def shape(self) -> tuple[int, ...]:
        N, H, W, C = self.value.shape
        if self.form == "flat":
            return (N, C * H * W)
        return {
            "nchw": (N, C, H, W), "nhwc": (N, H, W, C), "nc": (N, C), "ncl": (N, C, W),
            "nlc": (N, W, C),
        }[self.form]  # fmt: skip


@dataclass(frozen=True)
class Parameter:
    constant: Constant
    meta: Tensor
    name: str
    made: Any = None  # how it is made of others: folding.py

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.meta.shape)


@dataclass(frozen=True)
class Opaque:
    ref: TensorRef


@dataclass(frozen=True)
class ViewOf:
    """An argument of a torch operator: a map as a tensor in torch's form."""

    value: Value
    form: str
    groups: int = 0  # channels in two dimensions, (groups, C / groups)
    exchanged: bool = False  # or the other way round


class Lowering:
    """The state of a walk over a graph."""

    def __init__(self) -> None:
        self.env: dict[fx.Node, Any] = {}
        self.operations: list[Operation] = []
        self.inputs: list[TensorRef] = []
        self.tensors: list[TensorRef] = []
        self.layer = ""
        self._recounted: dict[tuple[Value, tuple[int, ...]], Value] = {}

    def new_tensor(self, shape: tuple[int, ...], planar: bool) -> TensorRef:
        ref = TensorRef(len(self.tensors), shape, planar)
        self.tensors.append(ref)
        return ref

    def from_tensor(self, ref: TensorRef, form: str) -> Entry:
        """A tensor as a map; a planar one is copied to channels-last."""
        shape = map_shape(ref.shape, form)
        value = Value(shape, tensor=ref)
        if ref.planar and form == "nchw" and shape[1] * shape[2] > 1:
            out = Value(shape)
            self.operations.append(Copy([value], out))
            value = out
        return Entry(value, form)

    def lookup(self, a: Any) -> Any:
        if isinstance(a, fx.Node):
            return self.env[a]
        if isinstance(a, (list, tuple)):
            return type(a)(self.lookup(v) for v in a)
        return a

    def emit(self, operation: Operation) -> Value:
        operation.layer = self.layer
        self.operations.append(operation)
        return operation.out

    def as_argument(self, entry: Any, values: list[Value]) -> Any:
        """For an operator that runs in torch; maps that it reads are added to `values`."""
        if isinstance(entry, Entry):
            ref = entry.value.tensor
            if ref is not None and entry.form == native_form(ref.shape, torch.float32):
                return ref
            values.append(entry.value)
            return ViewOf(entry.value, entry.form)
        if isinstance(entry, Opaque):
            return entry.ref
        if isinstance(entry, (Parameter, torch.Tensor)):
            return entry
        if isinstance(entry, (list, tuple)):
            return type(entry)(self.as_argument(v, values) for v in entry)
        if isinstance(entry, Split):
            values.append(entry.entry.value)
            return ViewOf(entry.entry.value, "nchw", entry.groups, entry.exchanged)
        return entry

    def map(self, entry: Any, *forms: str) -> Value:
        """The map of an entry that has one of the forms."""
        if not isinstance(entry, Entry) or entry.form not in forms:
            raise Unsupported(f"its input is {describe(entry)}")
        return entry.value

    def recounted(self, entry: Entry, form: str, shape: tuple[int, ...]) -> Entry:
        """The same channels of as many pixels, as a tensor of this shape; one map for each, so that
        operations that read the same are seen to."""
        value, pixels = entry.value, map_shape(shape, form)[:3]
        if form == "ncl" and value.tensor is not None and value.tensor not in self.inputs:
            # Torch made it, and what it makes in four dimensions may have its channels anywhere.
            raise Unsupported(f"a view of {entry.shape} from torch as {shape}")
        if not value.in_a_row:
            value = self.emit(Copy([value], Value(value.shape)))
        key = value.held, pixels
        if key not in self._recounted:
            self._recounted[key] = value.recount(pixels)
        return Entry(self._recounted[key], form)

    def row(self, entry: Any) -> Entry:
        """An (N, C, L) tensor as a map of one row; one of the caller's or of torch's is copied."""
        ref = entry.ref if isinstance(entry, Opaque) else None
        if isinstance(entry, Entry) and entry.form == "nlc":
            ref = entry.value.tensor
        if ref is None or len(ref.shape) != 3 or 0 in ref.shape:
            return self.native(entry, "ncl")
        as_planes = TensorRef(ref.index, ref.shape, planar=True)
        value = Value(map_shape(ref.shape, "ncl"), tensor=as_planes)
        return Entry(self.emit(Copy([value], Value(value.shape))), "ncl")

    def native(self, entry: Any, *forms: str) -> Entry:
        """An entry that has one of the forms (any, where none is named)."""
        if not isinstance(entry, Entry) or (forms and entry.form not in forms):
            raise Unsupported(f"its input is {describe(entry)}")
        return entry


@dataclass(frozen=True)
class Split:
    """A view with the channels in two dimensions, (N, G, C / G, H, W), exchanged or not: on the way
    to a channel shuffle."""

    entry: Entry
    groups: int
    exchanged: bool

    @property
    def shape(self) -> tuple[int, ...]:
        N, H, W, C = self.entry.value.shape
        two = (self.groups, C // self.groups)
        return (N, *(two[::-1] if self.exchanged else two), H, W)


def describe(entry: Any) -> str:
    if isinstance(entry, (Entry, Split)):
        return f"a tensor of shape {entry.shape}"
    if isinstance(entry, Opaque):
        return f"a tensor of shape {entry.ref.shape} from torch"
    if isinstance(entry, Parameter):
        return f"the parameter {entry.name}"
    return repr(entry)


def map_shape(shape: tuple[int, ...], form: str) -> tuple[int, int, int, int]:
    if form == "nchw":
        return (shape[0], shape[2], shape[3], shape[1])
    if form == "nhwc":
        return (shape[0], shape[1], shape[2], shape[3])
    if form == "nc":
        return (shape[0], 1, 1, shape[1])
    if form == "nlc":
        return (shape[0], 1, shape[1], shape[2])
    if form == "ncl":
        return (shape[0], 1, shape[2], shape[1])
    raise AssertionError(form)


def native_form(shape: tuple[int, ...], dtype: torch.dtype) -> str | None:
    """The form in which a tensor of the caller's or of torch's can be a map, if it can."""
    if dtype != torch.float32 or 0 in shape:
        return None
    return {4: "nchw", 2: "nc", 3: "nlc"}.get(len(shape))


def out_shape(node: fx.Node) -> tuple[int, ...]:
    meta = node.meta["val"]
    if not isinstance(meta, torch.Tensor) or meta.dtype != torch.float32:
        raise Unsupported("its output is not float32")
    if numel(meta.shape) == 0:
        raise Unsupported("its output has no elements")
    return tuple(meta.shape)


def pair(v: Any) -> tuple[int, int]:
    if isinstance(v, int):
        return v, v
    v = tuple(v)
    return (v[0], v[0]) if len(v) == 1 else (v[0], v[1])
