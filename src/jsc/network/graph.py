"""The lowered form of a network: operations over channels-last maps.

A `Value` is a map of N x H x W pixels with C channels. It may be a part of another one (`whole`):
a run of its channels, of its rows and columns, every `step`-th of them; or the same pixels counted
otherwise, as a view of 56 x 56 pixels as 3136 in a row is. Reading a part costs nothing, and an
operation whose output is a part writes straight into its place, which is what a concatenation
becomes.

An `Operation` reads maps (`inputs`) and writes one (`out`). What else it needs stands in its
fields; weights are constants, made from the model's state by a recipe (`constants.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jsc.network.constants import Constant


@dataclass(eq=False)
class Value:
    """A map of `shape` (N, H, W, C); a 2-dimensional tensor (N, C) is a map of one pixel each.

    whole, first   the map that this one is a part of, and where in it the part begins: (h, w, c)
    step           rows and columns of `whole` from one of this map to the next
    recounted      it is all pixels of `whole`, in their order: N, H and W alone are others
    tensor         a map that is a tensor of the caller's or of torch's: an input, output or result
    bf16           a map that holds memory has numbers of bfloat16 (bf16_maps.py), not of float32
    planar         it lies plane by plane, channel after channel: what a linear layer reads
    """

    shape: tuple[int, int, int, int]
    whole: Value | None = None
    first: tuple[int, int, int] = (0, 0, 0)
    step: tuple[int, int] = (1, 1)
    recounted: bool = False
    tensor: TensorRef | None = None
    bf16: bool = False
    planar: bool = False

    @property
    def C(self) -> int:
        return self.shape[3]

    @property
    def pixels(self) -> int:
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def root(self) -> Value:
        """The map that holds the memory."""
        return self if self.whole is None else self.whole.root

    @property
    def held(self) -> Value:
        """The map that an operation makes which writes to this one."""
        return self.whole if self.recounted and self.whole is not None else self

    @property
    def in_a_row(self) -> bool:
        """Does pixel follow pixel in memory at equal steps, across rows and images?"""
        at = self
        while at.whole is not None:
            if not at.recounted and at.shape[:3] != at.whole.shape[:3]:
                return False
            at = at.whole
        _, H, W, C = at.shape
        planar = at.planar or (at.tensor is not None and at.tensor.planar)
        return not planar or C == 1 or H * W == 1

    def recount(self, pixels: tuple[int, int, int]) -> Value:
        """The same pixels as N x H x W others; they have to be `in_a_row`."""
        if self.shape[:3] == pixels:
            return self
        base = self.held
        return base if base.shape[:3] == pixels else Value((*pixels, self.C), base, recounted=True)

    def part(self, channels: tuple[int, int]) -> Value:
        """Channels first, ... first + count - 1."""
        N, H, W, _ = self.shape
        return Value((N, H, W, channels[1]), self, (0, 0, channels[0]))


@dataclass(eq=False)
class TensorRef:
    """A tensor that exists only while a call runs: `index` of the call's tensors, its layout.

    `shape` is torch's, of any rank; `planar` maps have one plane a channel, as torch's contiguous.
    Torch's results are `kept` as torch lays them out where nothing native reads them.
    """

    index: int
    shape: tuple[int, ...]
    planar: bool
    kept: bool = False


@dataclass(frozen=True)
class Activation:
    kind: str = "none"
    a: float = 0.0
    b: float = 0.0

    def __str__(self) -> str:
        infinite = float("inf")
        if self.kind != "clamp":
            return self.kind
        return {(0.0, infinite): "relu", (0.0, 6.0): "relu6"}.get((self.a, self.b), "clamp")


IDENTITY = Activation()


@dataclass(eq=False)
class Operation:
    inputs: list[Value]
    out: Value
    layer: str = ""  # the path of the module that it came from
    # Memory that it has while it runs.
    workspace: Value | None = field(default=None, kw_only=True)

    @property
    def kind(self) -> str:
        return type(self).__name__.lower()


@dataclass(eq=False)
class Activated(Operation):
    """An operation that can store act(x)."""

    act: Activation = IDENTITY


@dataclass(eq=False)
class Convolution(Activated):
    """out = act(scale conv(inputs[0], weight) + shift + inputs[1]); the residual inputs[1] may be
    missing.

    `padding` is that above and to the left; what hangs over below and to the right follows from
    `out`. Of siblings that became one (`siblings.py`), `filters` has how many each had, and
    `first_name` is the name of the first. `exact` ones, which are no convolutions of the model (a
    mean over channels), keep float32's bits at every precision; `linear` ones, linear layers of
    every pixel, have the precision of those.
    """

    weight: Constant | None = None
    scale: Constant | None = None
    shift: Constant | None = None
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    filters: tuple[int, ...] = ()
    first_name: str = ""
    exact: bool = False
    linear: bool = False

    @property
    def residual(self) -> Value | None:
        return self.inputs[1] if len(self.inputs) > 1 else None

    @property
    def name(self) -> str:
        """By which a choice of a method is kept: that of the weight."""
        assert self.weight is not None
        return self.first_name or str(self.weight.key)

    @property
    def depthwise(self) -> bool:
        return self.groups == self.inputs[0].C == self.out.C and self.groups > 1

    @property
    def macs(self) -> int:
        taps = self.kernel[0] * self.kernel[1]
        return self.out.pixels * self.out.C * self.inputs[0].C // self.groups * taps


@dataclass(eq=False)
class Linear(Activated):
    """out[n, k] = act(sum(weight[k, i] in[n, i]) + shift[k]), i over pixels and channels."""

    weight: Constant | None = None
    shift: Constant | None = None

    @property
    def macs(self) -> int:
        N, H, W, C = self.inputs[0].shape
        return N * H * W * C * self.out.C


@dataclass(eq=False)
class Pool(Activated):
    mode: str = "max"  # or "average"
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    count_padding: bool = False
    divisor: int = 0  # instead of the count


@dataclass(eq=False)
class AdaptivePool(Activated):
    mode: str = "average"


@dataclass(eq=False)
class Elementwise(Activated):
    """out = act(op(inputs[0], b)); b is inputs[1], `vector` (one for each channel), `scalar`."""

    op: str = "add"
    vector: Constant | None = None
    scalar: float = 0.0


@dataclass(eq=False)
class Affine(Activated):
    """out = act(scale[c] x + shift[c]): batch-norm on its own."""

    scale: Constant | None = None
    shift: Constant | None = None


@dataclass(eq=False)
class Lrn(Operation):
    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0


@dataclass(eq=False)
class Softmax(Operation):
    pass


@dataclass(eq=False)
class LayerNorm(Operation):
    weight: Constant | None = None
    shift: Constant | None = None
    eps: float = 1e-5


@dataclass(eq=False)
class GroupNorm(Activated):
    groups: int = 1
    weight: Constant | None = None
    shift: Constant | None = None
    eps: float = 1e-5


@dataclass(eq=False)
class Resize(Operation):
    mode: str = "nearest"
    align_corners: bool = False
    scales: tuple[float, float] = (0.0, 0.0)  # as given to torch; 0: from the sizes


@dataclass(eq=False)
class Copy(Operation):
    """out = inputs[0] between two layouts, with a border around it that has the value `fill`, or
    what torch's other modes of padding say.

    `order` says for each output channel which input channel it is, -1 for `fill`.
    """

    border: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, left, bottom, right
    mode: str = "constant"  # reflect, replicate, circular
    fill: float = 0.0
    order: tuple[int, ...] | None = None


@dataclass(eq=False)
class TorchCall(Operation):
    """Torch's own operator on tensors: `arguments` has Values, TensorRefs and plain Python values.

    It writes `results`; `out` is the first of them that a native operation reads.
    """

    target: Any = None
    arguments: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    results: list[TensorRef | None] = field(default_factory=list)
    reason: str = ""

    def tensor_arguments(self) -> list[TensorRef]:
        found: list[TensorRef] = []

        def walk(a: Any) -> None:
            if isinstance(a, TensorRef):
                found.append(a)
            elif isinstance(a, (list, tuple)):
                for v in a:
                    walk(v)

        walk([*self.arguments, *self.options.values()])
        return found


@dataclass(eq=False)
class Graph:
    """Operations in an order in which they can run.

    inputs    the tensors that the caller gives, in order
    outputs   what the caller gets, in order, as tensors
    tensors   how many tensors a call has: inputs, outputs and results of torch's operators
    """

    operations: list[Operation]
    inputs: list[TensorRef]
    outputs: list[Any]
    tensors: int = 0

    def readers(self) -> dict[Value, list[Operation]]:
        """The operations that read a map or a part of it, by the map that holds the memory."""
        found: dict[Value, list[Operation]] = {}
        for operation in self.operations:
            for value in operation.inputs:
                found.setdefault(value.root, []).append(operation)
        return found


def numel(shape: Sequence[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
