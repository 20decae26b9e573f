"""Arithmetic of maps with maps, vectors and numbers, and activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

from jsc.network.constants import Constant
from jsc.network.graph import Activation, Elementwise, Value
from jsc.network.lowering.convolving import parameter
from jsc.network.lowering.entries import (
    CHANNELS_SECOND,
    Entry,
    Lowering,
    Parameter,
    Unsupported,
    out_shape,
)

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


def celu(alpha: float = 1.0) -> Activation:
    if alpha != 1:
        raise Unsupported("celu with alpha other than 1")
    return Activation("elu", 1.0)


def softplus(beta: float = 1.0, threshold: float = 20.0) -> Activation:
    if beta != 1 or threshold != 20:
        raise Unsupported("softplus with beta other than 1 or threshold other than 20")
    return Activation("softplus")


def gelu(*, approximate: str = "none") -> Activation:
    return Activation("gelu" if approximate == "none" else "gelu_tanh")


def plain(kind: str) -> Callable[[], Activation]:
    return lambda: Activation(kind)


FUNCTIONS = ("abs", "exp", "log", "sqrt", "rsqrt", "reciprocal", "mish")
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
    "celu.default": celu,
    "softplus.default": softplus,
    **{f"{kind}.default": plain(kind) for kind in FUNCTIONS},
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


def negate(low: Lowering, node: fx.Node, x: Any) -> Entry:
    return arithmetic("mul", True)(low, node, x, -1)


def subtract_from(low: Lowering, node: fx.Node, x: Any, number: Any, alpha: Any = 1) -> Entry:
    """number - x."""
    if alpha != 1:
        raise Unsupported("alpha is not 1")
    return arithmetic("add", True)(low, node, negate(low, node, x), number)


def square(low: Lowering, node: fx.Node, x: Any) -> Entry:
    return arithmetic("mul", True)(low, node, x, x)


def power(low: Lowering, node: fx.Node, x: Any, exponent: Any) -> Entry:
    """The exponents that torch too computes by other means."""
    if exponent in POWERS:
        return activation(plain(POWERS[exponent]))(low, node, x)
    if exponent == 2:
        return square(low, node, x)
    if exponent == 3:
        return arithmetic("mul", True)(low, node, square(low, node, x), x)
    raise Unsupported(f"the power of {exponent}")


POWERS = {0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}
SELU = (1.6732632423543772848170429916717, 1.0507009873554804934193349852946)


def selu(low: Lowering, node: fx.Node, x: Any) -> Entry:
    alpha, scale = SELU
    below = activation(lambda: Activation("elu", alpha))(low, node, x)
    return arithmetic("mul", True)(low, node, below, scale)


def glu(low: Lowering, node: fx.Node, x: Any, dim: int = -1) -> Entry:
    """The first half of the channels, times the sigmoid of the second."""
    entry = low.native(x, *CHANNELS_SECOND)
    if dim % len(entry.shape) != 1:
        raise Unsupported(f"glu of dimension {dim}")
    half = entry.value.C // 2
    values, gates = (Entry(entry.value.part((c, half)), entry.form) for c in (0, half))
    gates = activation(plain("sigmoid"))(low, node, gates)
    return arithmetic("mul", True)(low, node, values, gates)


def prelu(low: Lowering, node: fx.Node, x: Any, weight: Any) -> Entry:
    entry, slopes = low.native(x), parameter(weight, "weight")
    out_shape(node)
    if slopes.meta.numel() == 1:
        vector = _vector(slopes, entry)
    elif entry.form in CHANNELS_SECOND:
        vector = slopes.constant.then("vector", lambda t: t.reshape(-1))
    else:
        raise Unsupported("its channels are not the second dimension")
    made = Elementwise([entry.value], Value(entry.value.shape), op="prelu", vector=vector)
    return Entry(low.emit(made), entry.form)


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
    axis = {"nchw": 1, "nc": 1, "ncl": 1, "nhwc": 3, "nlc": 2}.get(entry.form)
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
    "rsub.Scalar": subtract_from,
    "neg.default": negate,
    "pow.Tensor_Scalar": power,
    "square.default": square,
    "selu.default": selu,
    "glu.default": glu,
    "prelu.default": prelu,
}
