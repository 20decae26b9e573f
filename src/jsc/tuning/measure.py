"""Measure one convolution layer: every method in turn, on the activations the layer really gets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from jsc import _precision
from jsc._geometry import ConvGeometry
from jsc.methods import get, likely_fastest_first, unsupported
from jsc.nn import SparseConv2d
from jsc.tuning import memory, timing
from jsc.tuning.capture import Layer, work
from jsc.tuning.plan.plan import LayerChoice
from jsc.tuning.timing import Deadline, Times, interleaved
from jsc.typing import MethodName

# A method is timed if its first call, packing included, takes at most so many dense times,
FIRST_CALL_RATIO = 10.0
FIRST_CALL_SECONDS = 0.05  # or at most so long
# Of the precision to which torch's switch permits to round float32 operands; "ieee" rounds none.
OPERAND_EPS = {"ieee": 0.0, "tf32": 2.0**-10, "bf16": 2.0**-7}
OUT_OF_TIME = "not tried, the time was over"


@dataclass
class Measurement:
    """What its calls on the sample showed of a layer; sums run over the calls."""

    layer: Layer
    refused: str = ""  # the reason why no method but dense is tried
    input_shape: tuple[int, ...] = ()
    elements: int = 0
    nonzeros: int = 0
    times: dict[str, Times] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    candidates: dict[str, nn.Conv2d] = field(default_factory=dict)

    @property
    def density(self) -> float:
        return self.nonzeros / self.elements if self.elements else 1.0


def refusal(conv: nn.Conv2d) -> str:
    """Says why this module cannot become a `SparseConv2d`; the text is empty when it can."""
    if type(conv) is not nn.Conv2d:
        return f"{type(conv).__name__} has a forward of its own"
    if "weight" not in conv._parameters:
        return "its weight is computed by a hook"
    if conv.weight.dtype not in (torch.float32, torch.float64):
        return f"{conv.weight.dtype}; the kernels are float32 and float64"
    return ""


def geometry(conv: nn.Conv2d, x: Tensor) -> ConvGeometry:
    """The sizes of one call. An image without a batch axis counts as a batch of one; padding other
    than with zeros is done before the method sees the map."""
    n, (c, h, w) = (x.shape[0] if x.dim() == 4 else 1), x.shape[-3:]
    k, _, kh, kw = conv.weight.shape
    (sh, sw), (dh, dw) = conv.stride, conv.dilation
    if isinstance(conv.padding, str):
        same = conv.padding == "same"
        ph, pw = (dh * (kh - 1) // 2, dw * (kw - 1) // 2) if same else (0, 0)
    else:
        ph, pw = conv.padding
    if conv.padding_mode != "zeros":
        h, w, ph, pw = h + 2 * ph, w + 2 * pw, 0, 0
    return ConvGeometry(n, c, h, w, k, kh, kw, sh, sw, ph, pw, dh, dw, conv.groups)


def measure_call(
    m: Measurement,
    x: Tensor,
    methods: tuple[str, ...] | None,
    rounds: int,
    share: Deadline,
    deadline: Deadline,
    pace: dict[str, float],
) -> None:
    """Add one call: check every method's result on `x`, then time those that are right. They are
    tried in the order of `methods`; None means all of them, the likely fastest first.

    One method is begun in any case, and others that will be done within `share`, by the seconds a
    product took them at the `pace` of their last call; none after `deadline`. A method that is left
    out once is left out of the calls that follow.
    """
    conv = m.layer.conv
    g = geometry(conv, x)
    m.input_shape = m.input_shape or (g.N, g.C, g.H, g.W)
    m.elements += x.numel()
    nonzeros = int(torch.count_nonzero(x))
    m.nonzeros += nonzeros
    if methods is None:
        methods = likely_fastest_first(g, nonzeros / max(x.numel(), 1))
    if not x.numel() or deadline.over:
        _reject_all(m, methods, OUT_OF_TIME if x.numel() else "the sample gives it an empty map")
        return
    start = timing.clock()
    expected = conv.forward(x)
    trial = _Trial(m, x, g, expected, timing.clock() - start)
    for method in () if m.refused else methods:
        if method in m.rejected:
            continue
        needed = pace.get(method, 0.0) * work(conv, x)
        out_of_time = deadline.over or (trial.begun and share.left <= needed)
        why = OUT_OF_TIME if out_of_time else trial.reject(method, pace)
        if why:
            m.rejected[method] = why
            m.candidates.pop(method, None)
    timed: dict[str, Callable[[], Tensor]] = {"dense": lambda: conv.forward(x)}
    for method, candidate in m.candidates.items():
        timed[method] = lambda candidate=candidate: candidate.forward(x)  # type: ignore[misc]
    for method, times in interleaved(timed, rounds, share.left, least=1).items():
        m.times.setdefault(method, Times()).add(times)
    for method, count in memory.activation_bytes(x, g, m.candidates).items():
        m.memory[method] = m.memory.get(method, 0) + count


def _reject_all(m: Measurement, methods: tuple[str, ...], why: str) -> None:
    m.candidates.clear()
    for method in methods:
        m.rejected.setdefault(method, why)


class _Trial:
    """First calls of methods on one input, beside the dense result."""

    def __init__(
        self, m: Measurement, x: Tensor, g: ConvGeometry, expected: Tensor, seconds: float
    ) -> None:
        self.m, self.x, self.g, self.expected, self.seconds = m, x, g, expected, seconds
        self.begun = False

    @cached_property
    def allowed(self) -> Tensor:
        return _allowed_error(self.m.layer.conv, self.x)

    def reject(self, method: str, pace: dict[str, float]) -> str:
        """Why `method` is not timed on this call; empty when its result is right and its time may
        be good."""
        why = unsupported(method, self.g)
        if why:
            return why
        m, self.begun = self.m, True
        start = timing.clock()
        try:
            if method not in m.candidates:
                m.candidates[method] = SparseConv2d.from_dense(
                    m.layer.conv, method=get(method).name
                )
            result = m.candidates[method].forward(self.x)
        except (ValueError, TypeError, RuntimeError, MemoryError) as failure:
            return one_line(str(failure)) or type(failure).__name__
        seconds = timing.clock() - start
        pace[method] = seconds / work(m.layer.conv, self.x)
        if seconds > max(FIRST_CALL_SECONDS, FIRST_CALL_RATIO * self.seconds):
            return f"{method} took {1e3 * seconds:.0f} ms, dense {1e3 * self.seconds:.0f} ms"
        return self._check(method, result)

    def _check(self, method: str, result: Tensor) -> str:
        expected = self.expected
        if result.shape != expected.shape or result.dtype != expected.dtype:
            return "its result has another shape or type than the dense one"
        difference = torch.nan_to_num((result - expected).abs(), nan=math.inf)
        difference[result.isnan() & expected.isnan()] = 0  # both undefined: the same answer
        difference[result == expected] = 0  # equal infinities
        scale = float(torch.nan_to_num(expected, 0.0, 0.0, 0.0).abs().max())
        error = float(difference.max()) / scale if scale else float(difference.max())
        if bool((difference > self.allowed).any()):
            return f"its result is wrong: {error:.0e} from the dense one"
        self.m.errors[method] = max(self.m.errors.get(method, 0.0), error)
        return ""


def _allowed_error(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """2 (n + 1) eps (|w| * |x| + |b|), n = (C / groups) Kh Kw: how far apart two sums of the same n
    products can be when each is rounded in its own order (Higham, Accuracy and Stability, 3.1).
    Where torch's switch permits fewer bits, each may also have rounded the factors of a product,
    by half the eps of these bits."""
    bias = None if conv.bias is None else conv.bias.abs()
    bound = nn.Conv2d._conv_forward(conv, x.abs(), conv.weight.abs(), bias)
    n = conv.weight[0].numel()
    info = torch.finfo(bound.dtype)
    of_operands = 0.0
    if bound.dtype == torch.float32:
        of_operands = OPERAND_EPS[_precision.of_convolutions()]
    relative = 2 * ((n + 1) * info.eps + of_operands)
    return torch.nan_to_num(relative * bound, nan=math.inf) + info.tiny


def choose(m: Measurement, min_gain: float, first: bool) -> LayerChoice:
    """The fastest right method if it gains enough, and the reason in words."""
    conv = m.layer.conv
    # A method counts only if it was right on every call.
    times = {k: v for k, v in m.times.items() if k not in m.rejected}
    gains = {k: v.gain_over(times["dense"]) for k, v in times.items() if k != "dense"}
    counted = {k: v for k, v in m.memory.items() if k in m.candidates or not get(k).slow_to_count}
    best = max(gains, key=gains.__getitem__) if gains else ""
    gain = gains.get(best, 0.0)
    method: MethodName = get(best).name if gain >= min_gain else "dense"
    padding = conv.padding if isinstance(conv.padding, str) else tuple(conv.padding)
    return LayerChoice(
        name=m.layer.names[0],
        aliases=tuple(m.layer.names[1:]),
        input_shape=m.input_shape,
        weight_shape=tuple(conv.weight.shape),
        stride=tuple(conv.stride),
        padding=padding,
        dilation=tuple(conv.dilation),
        groups=conv.groups,
        calls=m.layer.calls,
        density=m.density,
        method=method,
        reason=one_line(_reason(m, method, best, gain, first)),
        times_ms={name: t.median for name, t in times.items()},
        max_error=m.errors.get(method, 0.0),
        memory=counted,
    )


def one_line(text: str) -> str:
    """A reason as plans take it: without line breaks and what cannot be printed, not too long."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())[:200]


def _reason(m: Measurement, method: str, best: str, gain: float, first: bool) -> str:
    if method != "dense":
        median = m.times["dense"].median / m.times[method].median
        return f"{method} {median:.2f}x at density {m.density:.2f}"
    if not m.layer.calls:
        return "dense: the sample does not reach it"
    if m.refused:
        return f"dense: {m.refused}"
    if not best:
        reasons = sorted(set(m.rejected.values()))
        return f"dense: {'; '.join(reasons) or 'no method to try'}"
    if m.density > 0.9:
        return f"dense: {'first layer, ' if first else ''}input is not sparse ({best} {gain:.2f}x)"
    return f"dense: best sparse {best} {gain:.2f}x"
