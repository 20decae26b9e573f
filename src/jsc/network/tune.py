"""Which method each convolution takes: timed in its place, on what its predecessors wrote.

The operations of a program run in order on the sample. Before a convolution is passed, its
candidates run where it stands, with its own epilogue, input, output and torch's number of threads;
the fastest stays, if its error against float64 is at most twice that of torch's own float32
convolution there (of channels-last maps, of operands rounded to the program's precision). Layers of
the same shape, and about the same share of zeros, are timed once; the error is that of each layer's
own numbers. A budget that ends leaves the rest to the rule (`choices.candidates`, the first).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from jsc._precision import rounded
from jsc._progress import Progress
from jsc.network.accuracy import ALLOWED, largest_error
from jsc.network.constants import Constant
from jsc.network.graph import Convolution, Operation

if TYPE_CHECKING:
    from jsc.network.program import NetworkProgram

REPEATS = 5
DENSITIES = 8  # classes of it
CHECKED_MACS = 1 << 25  # of a layer in float64: some 10 ms
HOPELESS = 1.5  # times the fastest after two runs: not run again
GAIN = 0.97  # another method than the rule's must take at most this part of its time
SPARSE_GAIN = 0.9  # and `cpc`, whose branches are foreseen better on one sample again and again


def tune(
    program: NetworkProgram, tensors: list[Tensor], budget: float, progress: bool
) -> dict[str, str]:
    """The choices for the convolutions of `program`, by `Convolution.name`."""
    deadline = time.perf_counter() + budget
    chosen: dict[str, str] = {}
    by_shape: dict[Any, str] = {}

    def visit(operation: Operation, run: Callable[[], None]) -> None:
        if isinstance(operation, Convolution):
            options = program.methods.options(operation)
            shape = _shape(operation)
            if "cpc" in options:
                shape += (round(DENSITIES * program.density(operation)),)
            choice = by_shape.get(shape)
            if choice not in (None, options[0]) and not _is_exact(program, operation, choice):
                choice = None
            if choice is None and len(options) > 1 and time.perf_counter() < deadline:
                choice = _fastest(program, operation, options, run)
                by_shape[shape] = choice
            if choice is not None:
                chosen[operation.name] = choice
        run()
        bar.step(operation.layer)

    with Progress("compile", len(program.graph.operations), enabled=progress) as bar:
        program.walk_singly(tensors, visit, torch.get_num_threads())
    return chosen


def _shape(conv: Convolution) -> tuple[Any, ...]:
    epilogue = (conv.scale is None, conv.residual is None, conv.act)
    geometry = (conv.kernel, conv.stride, conv.padding, conv.dilation, conv.groups)
    return (conv.inputs[0].shape, conv.out.shape, geometry, epilogue, conv.exact, conv.linear)


def _fastest(
    program: NetworkProgram, conv: Convolution, options: list[str], run: Callable[[], None]
) -> str:
    functions = {options[0]: run}
    for choice in options[1:]:
        functions[choice] = program.alternative(conv, choice)
    best = dict.fromkeys(options, math.inf)
    for turn in range(REPEATS):
        for choice, function in functions.items():
            if turn >= 2 and best[choice] > HOPELESS * min(best.values()):
                continue
            start = time.perf_counter()
            function()
            best[choice] = min(best[choice], time.perf_counter() - start)
    gain = {options[0]: 1.0, "cpc": SPARSE_GAIN}
    ranked = sorted(options, key=lambda choice: best[choice] / gain.get(choice, GAIN))
    check = None
    for choice in ranked:
        if choice == options[0]:
            break
        check = check or _Check(program, conv)
        functions[choice]()
        if check.passes():
            return choice
    return options[0]


def _is_exact(program: NetworkProgram, conv: Convolution, choice: str) -> bool:
    program.alternative(conv, choice)()
    return _Check(program, conv).passes()


ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "none": lambda y, act: y,
    "clamp": lambda y, act: y.clamp(act.a, act.b),
    "leaky": lambda y, act: F.leaky_relu(y, act.a),
    "elu": lambda y, act: F.elu(y, act.a),
    "sigmoid": lambda y, act: y.sigmoid(),
    "silu": lambda y, act: F.silu(y),
    "hard_sigmoid": lambda y, act: F.hardsigmoid(y),
    "hard_swish": lambda y, act: F.hardswish(y),
    "tanh": lambda y, act: y.tanh(),
    "gelu": lambda y, act: F.gelu(y),
    "gelu_tanh": lambda y, act: F.gelu(y, approximate="tanh"),
    "threshold": lambda y, act: F.threshold(y, act.a, act.b),
    "abs": lambda y, act: y.abs(),
    "exp": lambda y, act: y.exp(),
    "log": lambda y, act: y.log(),
    "sqrt": lambda y, act: y.sqrt(),
    "rsqrt": lambda y, act: y.rsqrt(),
    "reciprocal": lambda y, act: y.reciprocal(),
    "softplus": lambda y, act: F.softplus(y),
    "mish": lambda y, act: F.mish(y),
}


class _Check:
    """Compares the first rows of a convolution's output with torch's in float64, beside torch's in
    float32 of rounded operands."""

    def __init__(self, program: NetworkProgram, conv: Convolution):
        self.program, self.conv = program, conv
        affordable = conv.out.shape[1] * CHECKED_MACS // max(1, conv.macs)
        self.rows = min(conv.out.shape[1], max(4, affordable))
        self.exact = self._compute(torch.float64)
        precision = program.methods.precision.of(conv.linear)
        self.torch_error = largest_error(self._compute(torch.float32, precision), self.exact)

    def _compute(self, dtype: torch.dtype, precision: str = "ieee") -> Tensor:
        """The first rows of the output by torch; float32 operands are rounded first."""
        conv, rows, view = self.conv, self.rows, self.program.map_view
        assert conv.weight is not None

        def numbers(constant: Constant) -> Tensor:
            return self.program.store.value(constant).to(dtype)

        (Ph, Pw), x = conv.padding, view(conv.inputs[0])
        height, width = (
            (n - 1) * step + (k - 1) * dilation + 1
            for n, k, step, dilation in zip(
                (rows, conv.out.shape[2]), conv.kernel, conv.stride, conv.dilation, strict=True
            )
        )
        x = x[:, :, : max(0, height - Ph)].to(dtype)
        _, _, H, W = x.shape
        x = F.pad(x, (Pw, width - W - Pw, Ph, height - H - Ph))
        x, weight = rounded(x, precision), rounded(numbers(conv.weight), precision)
        y = F.conv2d(x, weight, None, conv.stride, 0, conv.dilation, conv.groups)
        if conv.scale is not None:
            y = y * numbers(conv.scale)[:, None, None]
        if conv.shift is not None:
            y = y + numbers(conv.shift)[:, None, None]
        if conv.residual is not None:
            y = y + view(conv.residual)[:, :, :rows].to(dtype)
        return ACTIVATIONS[conv.act.kind](y, conv.act)

    def passes(self) -> bool:
        """Is the error of what stands in the output now at most twice torch's?"""
        out = self.program.map_view(self.conv.out)[:, :, : self.rows]
        return largest_error(out, self.exact) <= ALLOWED * self.torch_error
