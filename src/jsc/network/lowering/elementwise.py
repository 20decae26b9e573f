"""Arithmetic of maps with maps, vectors and numbers, and activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

from jsc.network.constants import Constant
from jsc.network.graph import Activation, Elementwise, Value
from jsc.network.lowering.entries import Entry, Lowering, Parameter, Unsupported, out_shape

INFINITE = float("inf")
Function = Callable[..., Any]


def activation(make: Callable[..., Activation]) -> Function:
    def function(low: Lowering, node: fx.Node, x: Any, *args: Any, **options: Any) -> Entry:
        entry = low.native(x)
        act = make(*args, **options)
        out_shape(node)
        out = Value(entry.value.shape)
        copied = Elementwise([entry.value], out, op="identity", act=act)
        return Entry(low.emit(copied), entry.form)

    return function


def clamp(low: Any = None, high: Any = None) -> Activation:
    if not all(v is None or isinstance(v, (int, float)) for v in (low, high)):
        raise Unsupported("clamp with tensors")
    a = -INFINITE if low is None else float(low)
    b = INFINITE if high is None else float(high)
    if a > b:
        raise Unsupported("clamp with min > max")
    return Activation("clamp", a, b)


def elu(alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Activation:
    if scale != 1 or input_scale != 1:
        raise Unsupported("elu with scales")
    return Activation("elu", float(alpha))


def gelu(*, approximate: str = "none") -> Activation:
    return Activation("gelu" if approximate == "none" else "gelu_tanh")


def plain(kind: str) -> Callable[[], Activation]:
    return lambda: Activation(kind)


ACTIVATIONS: dict[str, Callable[..., Activation]] = {
    "relu.default": lambda: Activation("clamp", 0.0, INFINITE),
    "hardtanh.default": lambda low=-1.0, high=1.0: clamp(low, high),
    "relu6.default": lambda: Activation("clamp", 0.0, 6.0),
    "clamp.default": clamp,
    "clamp_min.default": lambda low: clamp(low, None),
    "clamp_max.default": lambda high: clamp(None, high),
    "leaky_relu.default": lambda slope=0.01: Activation("leaky", float(slope)),
    "elu.default": elu,
    "sigmoid.default": plain("sigmoid"),
    "silu.default": plain("silu"),
    "hardsigmoid.default": plain("hard_sigmoid"),
    "hardswish.default": plain("hard_swish"),
    "tanh.default": plain("tanh"),
    "gelu.default": gelu,
    "threshold.default": lambda above, value: Activation("threshold", float(above), float(value)),
}


def arithmetic(op: str, commutes: bool) -> Function:
    def function(low: Lowering, node: fx.Node, a: Any, b: Any, *, alpha: Any = 1) -> Entry:
        if alpha != 1:
            raise Unsupported("alpha is not 1")
        shape = out_shape(node)
        if not isinstance(a, Entry) and commutes:
            a, b = b, a
        if isinstance(a, Entry) and isinstance(b, Entry) and commutes and a.shape != shape:
            a, b = b, a
        entry = low.native(a)
        if entry.shape != shape:
            raise Unsupported(f"broadcasts {entry.shape} to {shape}")
        out = Value(entry.value.shape)
        common: dict[str, Any] = {"op": op}
        if isinstance(b, (int, float)) and not isinstance(b, bool):
            made = Elementwise([entry.value], out, scalar=float(b), **common)
        elif isinstance(b, Parameter):
            made = Elementwise([entry.value], out, vector=_vector(b, entry), **common)
        else:
            other = low.native(b)
            if other.form != entry.form or not _broadcasts(other.value, entry.value):
                raise Unsupported(f"broadcasts {other.shape} to {shape}")
            if entry.value.root is other.value.root and entry.form == "flat":
                raise Unsupported("views of one map")
            made = Elementwise([entry.value, other.value], out, **common)
        return Entry(low.emit(made), entry.form)

    return function


def _broadcasts(b: Value, a: Value) -> bool:
    """The same size, one pixel for all, or one channel for all."""
    if b.shape == a.shape:
        return True
    (bN, bH, bW, bC), (N, H, W, C) = b.shape, a.shape
    return bN == N and ((bH, bW, bC) == (1, 1, C) or (bH, bW, bC) == (H, W, 1))


def _vector(b: Parameter, entry: Entry) -> Constant:
    """A parameter as a number for each channel."""
    if str(b.meta.dtype) != "torch.float32":
        raise Unsupported(f"{b.name} is {b.meta.dtype}")
    C = entry.value.C
    if b.meta.numel() == 1:
        return b.constant.then(("expand", C), lambda t: t.reshape(1).expand(C))
    rank = len(entry.shape)
    shape = (1,) * (rank - len(b.shape)) + b.shape
    axis = {"nchw": 1, "nc": 1, "nhwc": 3, "nlc": 2}.get(entry.form)
    if axis is None or len(shape) != rank or shape[axis] != C or b.meta.numel() != C:
        raise Unsupported(f"broadcasts {b.shape} to {entry.shape}")
    return b.constant.then("vector", lambda t: t.reshape(-1))


TABLE: dict[str, Function] = {
    **{name: activation(make) for name, make in ACTIVATIONS.items()},
    "add.Tensor": arithmetic("add", True),
    "mul.Tensor": arithmetic("mul", True),
    "sub.Tensor": arithmetic("sub", False),
    "div.Tensor": arithmetic("div", False),
    "maximum.default": arithmetic("max", True),
    "minimum.default": arithmetic("min", True),
    "add.Scalar": arithmetic("add", True),
    "mul.Scalar": arithmetic("mul", True),
    "sub.Scalar": arithmetic("sub", False),
    "div.Scalar": arithmetic("div", False),
}
