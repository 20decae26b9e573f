"""From operations to instructions: maps become addresses, weights packed constants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from jsc._kernels.network.program import Program
from jsc.network import convolutions
from jsc.network.blocking import pixels_of_a_task
from jsc.network.constants import Constant, Store
from jsc.network.graph import (
    Activation,
    AdaptivePool,
    Affine,
    Convolution,
    Copy,
    Elementwise,
    GroupNorm,
    LayerNorm,
    Linear,
    Lrn,
    Operation,
    Pool,
    Resize,
    Softmax,
    Value,
)
from jsc.network.memory import Memory
from jsc.network.methods import Methods

FEW_ROWS = 4  # of a linear layer
ARENA = 0  # the region; those of the call's tensors follow
ACTIVATIONS = (
    "none", "clamp", "leaky", "elu", "sigmoid", "silu", "hard_sigmoid", "hard_swish", "tanh",
    "gelu", "gelu_tanh", "threshold",
    "abs", "exp", "log", "sqrt", "rsqrt", "reciprocal", "softplus", "mish",
)  # fmt: skip
NOWHERE = dict.fromkeys(
    ("region", "offset", "N", "H", "W", "C", "image", "row", "pixel", "channel", "bf16"), 0
)


class Emitter:
    """Makes the instructions of one program."""

    def __init__(
        self,
        program: Program,
        memory: Memory,
        store: Store,
        methods: Methods,
    ):
        self.program = program
        self.memory = memory
        self.store = store
        self.methods = methods
        self.precision = methods.precision
        self.lanes = methods.lanes
        self.kept: list[Tensor] = []

    def emit(self, operation: Operation) -> int:
        """The index of the operation's instruction."""
        return EMIT[type(operation)](self, operation)

    def place(self, value: Value) -> dict[str, int]:
        """Where a map lies: the fields of the struct Map."""
        chain = [value]
        while chain[-1].whole is not None:
            chain.append(chain[-1].whole)
        root = chain.pop()
        N, H, W, C = root.shape
        if root.tensor is not None:
            region, offset = 1 + root.tensor.index, 0
            planar = root.tensor.planar
        else:
            # In numbers of the map, of which there are two to a float.
            region, planar = ARENA, root.planar
            offset = self.memory.offsets[root] * (2 if root.bf16 else 1)
        image, row, pixel, channel = (
            (C * H * W, W, 1, H * W) if planar else (H * W * C, W * C, C, 1)
        )
        for part in reversed(chain):
            if part.recounted:
                pixel = pixel if W > 1 else row if H > 1 else image
                N, H, W, C = part.shape
                row, image = W * pixel, H * W * pixel
                continue
            N, H, W, C = part.shape
            h, w, c = part.first
            offset += h * row + w * pixel + c * channel
            row, pixel = row * part.step[0], pixel * part.step[1]
        N, H, W, C = value.shape
        return {
            "region": region, "offset": offset, "N": N, "H": H, "W": W, "C": C,
            "image": image, "row": row, "pixel": pixel, "channel": channel,
            "bf16": int(root.bf16),
        }  # fmt: skip

    def address(self, constant: Constant | None) -> int:
        """Of a constant as float32; 0 for none."""
        if constant is None:
            return 0
        return self.raw(constant.then("float32", lambda t: t.float()))

    def vector(self, constant: Constant | None, count: int) -> int:
        """The address of one number for each channel. A damaged file may say of another vector that
        it is this one."""
        if constant is not None and self.store.value(constant).numel() != count:
            raise ValueError(f"a vector must have {count} numbers, one for each channel")
        return self.address(constant)

    def raw(self, constant: Constant) -> int:
        """The address of a constant as it is."""
        return self.tensor(constant).data_ptr()

    def tensor(self, constant: Constant) -> Tensor:
        """A constant's numbers, which the program keeps."""
        self.kept.append(self.store.tensor(constant))
        return self.kept[-1]

    def activation(self, act: Activation) -> dict[str, Any]:
        return {"kind": ACTIVATIONS.index(act.kind), "a": act.a, "b": act.b}

    def epilogue(self, operation: Convolution) -> dict[str, Any]:
        residual = operation.residual
        return {
            "shift": self.vector(operation.shift, operation.out.C),
            "has_residual": int(residual is not None),
            "residual": NOWHERE if residual is None else self.place(residual),
            "act": self.activation(operation.act),
        }

    def maps(self, operation: Operation) -> dict[str, Any]:
        return {"x": self.place(operation.inputs[0]), "out": self.place(operation.out)}

    def convolution(self, conv: Convolution, choice: str) -> int:
        return convolutions.emit(self, conv, choice)

    def geometry(self, conv: Convolution | Pool) -> dict[str, Any]:
        (Kh, Kw), (Sh, Sw), (Ph, Pw), (Dh, Dw) = (
            conv.kernel,
            conv.stride,
            conv.padding,
            conv.dilation,
        )
        fields: dict[str, Any] = {
            **self.maps(conv),
            "Kh": Kh, "Kw": Kw, "Sh": Sh, "Sw": Sw, "Ph": Ph, "Pw": Pw, "Dh": Dh, "Dw": Dw,
        }  # fmt: skip
        if isinstance(conv, Convolution):
            fields |= {"groups": conv.groups, "epilogue": self.epilogue(conv)}
        return fields


def convolution(e: Emitter, op: Convolution) -> int:
    return e.convolution(op, e.methods.of(op))


def linear(e: Emitter, op: Linear) -> int:
    N, H, W, C = op.inputs[0].shape
    weight, bf16 = op.weight, False
    assert weight is not None
    if e.precision.linear == "bf16" and e.store.bounded(weight):
        e.store.keep_bounded(weight)
        weight = weight.then("bf16", lambda w: w.bfloat16())
        # Of a few rows the weights' way from memory is all the time. For more rows they would be
        # widened again and again: these have the same numbers, widened once.
        bf16 = N <= FEW_ROWS
    fields = {
        **e.maps(op), "inputs": H * W * C, "bf16": int(bf16),
        "weight": e.raw(weight) if bf16 else e.address(weight),
        "shift": e.address(op.shift), "act": e.activation(op.act),
    }  # fmt: skip
    return int(e.program.add_linear(fields))


def pool(e: Emitter, op: Pool) -> int:
    fields = {
        **e.geometry(op), "average": int(op.mode == "average"), "divisor": op.divisor,
        "count_padding": int(op.count_padding), "act": e.activation(op.act),
    }  # fmt: skip
    return int(e.program.add_pool(fields))


def adaptive_pool(e: Emitter, op: AdaptivePool) -> int:
    average = int(op.mode == "average")
    return int(
        e.program.add_adaptive_pool({**e.maps(op), "average": average, "act": e.activation(op.act)})
    )


OPERATIONS = ("identity", "add", "sub", "mul", "div", "max", "min", "affine", "prelu")
OPERANDS = ("none", "map", "pixel", "channel", "vector", "scalar")


def elementwise(e: Emitter, op: Elementwise) -> int:
    kind, other = "none", NOWHERE
    if len(op.inputs) > 1:
        b = op.inputs[1]
        other = e.place(b)
        kind = "map" if b.shape == op.out.shape else "pixel" if b.C == op.out.C else "channel"
    elif op.vector is not None:
        kind = "vector"
    elif op.op != "identity":
        kind = "scalar"
    fields = {
        **e.maps(op), "other": other, "op": OPERATIONS.index(op.op),
        "operand": OPERANDS.index(kind),
        "scale": e.address(op.vector), "shift": 0, "scalar": op.scalar, "act": e.activation(op.act),
    }  # fmt: skip
    return int(e.program.add_elementwise(fields))


def affine(e: Emitter, op: Affine) -> int:
    fields = {
        **e.maps(op), "other": NOWHERE, "op": OPERATIONS.index("affine"), "operand": 0,
        "scale": e.vector(op.scale, op.out.C), "shift": e.vector(op.shift, op.out.C), "scalar": 0.0,
        "act": e.activation(op.act),
    }  # fmt: skip
    return int(e.program.add_elementwise(fields))


KINDS = ("lrn", "softmax", "layer")


def normalise(e: Emitter, op: Lrn | Softmax | LayerNorm) -> int:
    fields: dict[str, Any] = {
        **e.maps(op), "kind": KINDS.index("softmax"), "size": 0, "alpha": 0.0,
        "beta": 0.0, "k": 0.0, "eps": 0.0, "weight": 0, "shift": 0,
    }  # fmt: skip
    if isinstance(op, Lrn):
        fields |= {"kind": KINDS.index("lrn"), "size": op.size}
        fields |= {"alpha": op.alpha, "beta": op.beta, "k": op.k}
    elif isinstance(op, LayerNorm):
        fields |= {"kind": KINDS.index("layer"), "eps": op.eps}
        fields |= {"weight": e.vector(op.weight, op.out.C), "shift": e.vector(op.shift, op.out.C)}
    return int(e.program.add_normalise(fields))


def group_norm(e: Emitter, op: GroupNorm) -> int:
    assert op.workspace is not None
    fields = {
        **e.maps(op), "groups": op.groups, "pixels": pixels_of_a_task(op.inputs[0]),
        "workspace": e.memory.offsets[op.workspace], "eps": op.eps,
        "weight": e.vector(op.weight, op.out.C), "shift": e.vector(op.shift, op.out.C),
        "act": e.activation(op.act),
    }  # fmt: skip
    return int(e.program.add_group_norm(fields))


BORDERS = ("constant", "reflect", "replicate", "circular")


def copy(e: Emitter, op: Copy) -> int:
    order = 0
    if op.order is not None:
        numbers = torch.tensor(op.order, dtype=torch.int32, device="cpu")
        e.kept.append(numbers)
        order = numbers.data_ptr()
    top, left = op.border[:2]
    fields = {
        **e.maps(op), "top": top, "left": left, "border": BORDERS.index(op.mode),
        "fill": op.fill, "order": order,
    }  # fmt: skip
    return int(e.program.add_copy(fields))


def resize(e: Emitter, op: Resize) -> int:
    fields = {
        **e.maps(op), "bilinear": int(op.mode == "bilinear"),
        "align_corners": int(op.align_corners),
        "scale_h": op.scales[0], "scale_w": op.scales[1],
    }  # fmt: skip
    return int(e.program.add_resize(fields))


EMIT: dict[type[Operation], Callable[[Emitter, Any], int]] = {
    Convolution: convolution,
    Linear: linear,
    Pool: pool,
    AdaptivePool: adaptive_pool,
    Elementwise: elementwise,
    Affine: affine,
    Lrn: normalise,
    Softmax: normalise,
    LayerNorm: normalise,
    GroupNorm: group_norm,
    Copy: copy,
    Resize: resize,
}
