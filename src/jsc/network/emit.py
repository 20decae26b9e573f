"""From operations to instructions: maps become addresses, weights packed constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from jsc._kernels.cpc.forward import tile_columns
from jsc._kernels.network.program import Program
from jsc.network import packing
from jsc.network.blocking import band_rows_of, blocking, sparse_band_rows, vectors_of
from jsc.network.choices import CPC, TILES, Choice, candidates, tiles_of_a_task
from jsc.network.constants import Constant, Store
from jsc.network.graph import (
    Activation,
    AdaptivePool,
    Affine,
    Convolution,
    Copy,
    Elementwise,
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
from jsc.ops import cpc

ARENA = 0  # the region; those of the call's tensors follow
ACTIVATIONS = (
    "none", "clamp", "leaky", "elu", "sigmoid", "silu", "hard_sigmoid", "hard_swish", "tanh",
    "gelu", "gelu_tanh", "threshold",
)  # fmt: skip
NOWHERE = dict.fromkeys(
    ("region", "offset", "N", "H", "W", "C", "image", "row", "pixel", "channel"), 0
)


class Emitter:
    """Makes the instructions of one program."""

    def __init__(
        self, program: Program, memory: Memory, store: Store, choices: Mapping[str, Choice]
    ):
        self.program = program
        self.memory = memory
        self.store = store
        self.choices = choices
        self.lanes = (4, 8, 16)[program.isa]
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
            region, offset, planar = ARENA, self.memory.offsets[root], False
        image, row, pixel, channel = (
            (C * H * W, W, 1, H * W) if planar else (H * W * C, W * C, C, 1)
        )
        for part in reversed(chain):
            h, w, c = part.first
            offset += h * row + w * pixel + c * channel
            row, pixel = row * part.step[0], pixel * part.step[1]
        N, H, W, C = value.shape
        return {
            "region": region, "offset": offset, "N": N, "H": H, "W": W, "C": C,
            "image": image, "row": row, "pixel": pixel, "channel": channel,
        }  # fmt: skip

    def address(self, constant: Constant | None) -> int:
        """Of a constant as float32; 0 for none."""
        if constant is None:
            return 0
        tensor = self.store.tensor(constant.then("float32", lambda t: t.float()))
        self.kept.append(tensor)
        return tensor.data_ptr()

    def activation(self, act: Activation) -> dict[str, Any]:
        return {"kind": ACTIVATIONS.index(act.kind), "a": act.a, "b": act.b}

    def epilogue(self, operation: Convolution) -> dict[str, Any]:
        residual = operation.residual
        return {
            "shift": self.address(operation.shift),
            "has_residual": int(residual is not None),
            "residual": NOWHERE if residual is None else self.place(residual),
            "act": self.activation(operation.act),
        }

    def weight(self, conv: Convolution) -> Constant:
        """Weights with the scale of a batch-norm in them: float64, rounded when they are packed."""
        weight, scale = conv.weight, conv.scale
        assert weight is not None
        if scale is None:
            return weight
        factor = scale
        return Constant(
            ("scaled", weight.key, factor.key),
            lambda s: weight.recipe(s).double() * factor.recipe(s).double()[:, None, None, None],
        )

    def maps(self, operation: Operation) -> dict[str, Any]:
        return {"x": self.place(operation.inputs[0]), "out": self.place(operation.out)}

    def choice(self, conv: Convolution) -> Choice:
        """The method chosen for a convolution, the rule's where there is none that fits it."""
        options = self.options(conv)
        chosen = self.choices.get(conv.name)
        return chosen if chosen in options else options[0]

    def options(self, conv: Convolution) -> list[Choice]:
        """The ways to do a convolution with its weights, the rule's own first."""
        found = candidates(conv, self.lanes)
        if CPC in found and not self.store.is_finite(self.weight(conv)):
            found.remove(CPC)
        return found

    def convolution(self, conv: Convolution, choice: Choice) -> int:
        if choice.method == "depthwise":
            return self.depthwise(conv)
        if choice.method == "grouped":
            return self.grouped(conv)
        if choice.method == "cpc":
            return self.sparse(conv)
        if choice.method in TILES:
            return self.winograd(conv, TILES[choice.method])
        return self.direct(conv)

    def winograd(self, conv: Convolution, tile: tuple[int, int]) -> int:
        vectors = vectors_of(conv.out.C, self.lanes)
        weight = self.weight(conv)
        packed = weight.then(
            ("winograd", tile, self.lanes, vectors),
            lambda w: packing.winograd(w, tile, self.lanes, vectors),
        )
        plain = weight.then(("filters", self.lanes), lambda w: packing.plain(w, self.lanes))
        fields = {
            **self.maps(conv), "Ph": conv.padding[0], "Pw": conv.padding[1],
            "mv": tile[0], "mh": tile[1], "vectors": vectors,
            "tiles": tiles_of_a_task(conv, tile, self.lanes),
            "weight": self.address(packed), "plain": self.address(plain),
            "epilogue": self.epilogue(conv),
        }  # fmt: skip
        return int(self.program.add_winograd(fields))

    def direct(self, conv: Convolution) -> int:
        cut = blocking(conv, self.lanes)
        key = ("direct", conv.groups, self.lanes, cut.vectors, cut.chunk)
        packed = self.weight(conv).then(
            key, lambda w: packing.direct(w, conv.groups, self.lanes, cut.vectors, cut.chunk)
        )
        fields = {**self.geometry(conv), **cut.fields(), "weight": self.address(packed)}
        return int(self.program.add_convolution(fields))

    def depthwise(self, conv: Convolution) -> int:
        packed = self.weight(conv).then(
            ("depthwise", self.lanes), lambda w: packing.depthwise(w, self.lanes)
        )
        fields = self.geometry(conv)
        del fields["groups"]
        return int(self.program.add_depthwise({**fields, "weight": self.address(packed)}))

    def grouped(self, conv: Convolution) -> int:
        filters = conv.out.C // conv.groups
        width = self.lanes if filters >= self.lanes else self.lanes // 2
        most = 2 if width == self.lanes and filters >= 2 * width else 1
        packed = self.weight(conv).then(
            ("grouped", conv.groups, width, most),
            lambda w: packing.grouped(w, conv.groups, width, most),
        )
        fields = {
            **self.maps(conv), "Kh": conv.kernel[0], "S": conv.stride[0], "Ph": conv.padding[0],
            "Pw": conv.padding[1], "Dh": conv.dilation[0], "groups": conv.groups, "width": width,
            "band_rows": band_rows_of(conv), "weight": self.address(packed),
            "epilogue": self.epilogue(conv),
        }  # fmt: skip
        return int(self.program.add_grouped(fields))

    def sparse(self, conv: Convolution) -> int:
        Kw, Sw, Dw = conv.kernel[1], conv.stride[1], conv.dilation[1]
        vectors = cpc.vectors_of(conv.out.C, Kw, Sw, Dw, self.lanes)
        block = vectors * self.lanes
        weight = self.weight(conv)
        self.store.keep_finite(weight)
        packed = weight.then(("cpc", block), lambda w: cpc.pack_blocks(w.float(), block))
        columns = tile_columns(Kw, Sw, Dw, conv.out.shape[2])
        assert conv.workspace is not None
        fields = {
            **self.geometry(conv), "masks": self.memory.offsets[conv.workspace],
            "vectors": vectors, "block": block, "columns": columns,
            "band_rows": sparse_band_rows(conv, block, columns), "weight": self.address(packed),
        }  # fmt: skip
        del fields["groups"]
        return int(self.program.add_sparse(fields))

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
    return e.convolution(op, e.choice(op))


def linear(e: Emitter, op: Linear) -> int:
    _, H, W, C = op.inputs[0].shape
    fields = {
        **e.maps(op), "inputs": H * W * C, "weight": e.address(op.weight),
        "shift": e.address(op.shift), "act": e.activation(op.act),
    }  # fmt: skip
    return int(e.program.add_linear(fields))


def pool(e: Emitter, op: Pool) -> int:
    fields = {
        **e.geometry(op), "average": int(op.mode == "average"), "divisor": op.divisor,
        "count_padding": int(op.count_padding is not None), "act": e.activation(op.act),
    }  # fmt: skip
    return int(e.program.add_pool(fields))


def adaptive_pool(e: Emitter, op: AdaptivePool) -> int:
    average = int(op.mode == "average")
    return int(
        e.program.add_adaptive_pool({**e.maps(op), "average": average, "act": e.activation(op.act)})
    )


OPERATIONS = ("identity", "add", "sub", "mul", "div", "max", "min", "affine")
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
        "scale": e.address(op.scale), "shift": e.address(op.shift), "scalar": 0.0,
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
        fields |= {"weight": e.address(op.weight), "shift": e.address(op.shift)}
    return int(e.program.add_normalise(fields))


def copy(e: Emitter, op: Copy) -> int:
    order = 0
    if op.order is not None:
        numbers = torch.tensor(op.order, dtype=torch.int32)
        e.kept.append(numbers)
        order = numbers.data_ptr()
    top, left = op.border[:2]
    fields = {**e.maps(op), "top": top, "left": left, "fill": op.fill, "order": order}
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
    Copy: copy,
    Resize: resize,
}
