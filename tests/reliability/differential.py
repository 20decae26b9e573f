"""Every method against float64, over random geometries, layouts, instruction sets and threads.

    python -m tests.reliability.differential --cases 10000 --seed 0
    python -m tests.reliability.differential --seed 0 --first 1234 --cases 1    a failure again

A case is a convolution and an input of some layout. Small integers have to be bit for bit those of
torch; otherwise the error of each output is held against gamma_n (|w| conv |x| + |bias|), with
n = C / groups Kh Kw + 1 the number of roundings, and the largest error against torch's own largest.
Results for different numbers of threads have to be the same bits, those of the library's matrix
products excepted. Exit status 1 where anything fails.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

import jsc
from jsc import _config
from jsc import methods as ops
from jsc._kernels import cpu
from jsc.reference import winograd

CHANNELS = (1, 2, 3, 4, 8, 16, 31, 32, 33, 48, 63, 64, 65, 130)
FILTERS = (1, 2, 7, 8, 16, 17, 31, 32, 33, 64, 70)
LAYOUTS = (
    "contiguous", "channels_last", "sliced", "columns apart", "unaligned", "unaligned pixels",
    "transposed", "one image for all", "one channel for all", "one pixel for all", "negated",
)  # fmt: skip
DENSITIES = (0.0, 0.05, 0.2, 0.5, 0.9, 1.0)
THREADS = (1, 2, 3)
ONLY_FLOAT32 = ("winograd", "amx")  # torch's own convolution otherwise
LIBRARY = ("dense", "im2col", "mec")  # bits of their products may depend on threads


@dataclass(frozen=True)
class Case:
    index: int
    shape: tuple[int, int, int, int]
    filters: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    layout: str
    density: float
    dtype: torch.dtype
    bias: bool
    integer: bool
    module: bool  # called as a module, which prepares calls, or as a function

    @property
    def steps(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]:
        return self.stride, self.padding, self.dilation, self.groups


def draw(seed: int, index: int) -> Case:
    pick = random.Random(f"{seed} {index}")

    def both(low: int, high: int) -> tuple[int, int]:
        return pick.randint(low, high), pick.randint(low, high)

    def size(axis: int) -> int:
        least = max(1, dilation[axis] * (kernel[axis] - 1) + 1 - 2 * padding[axis])
        return 0 if pick.random() < 0.01 else least + pick.choice((0, 0, 1, 2, 5, 9, 14))

    kernel = pick.choice(((1, 1), (3, 3), both(1, 7), both(1, 7)))
    stride = pick.choice(((1, 1), (2, 2), both(1, 4)))
    dilation = pick.choice(((1, 1), (1, 1), both(1, 3)))
    padding = pick.choice(((0, 0), (1, 1), both(0, 4), both(0, 8)))
    groups = pick.choice((1, 1, 1, 1, 2, 3))
    channels = 0 if pick.random() < 0.01 else pick.choice(CHANNELS[: 8 if groups > 1 else None])
    images = pick.choice((0, 1, 1, 1, 2, 2, 3)) if pick.random() < 0.3 else pick.randint(1, 2)
    filters = pick.choice(FILTERS[: 6 if groups > 1 else None]) * groups
    height, width, layout = size(0), size(1), pick.choice(LAYOUTS)
    if 1 in (height, width) and layout in ("channels_last", "unaligned pixels"):
        dilation = (1, 1)  # torch 2.13 crashes on some dilated ones, with a bias, in oneDNN
    return Case(
        index, (images, channels * groups, height, width), filters, kernel, stride, padding,
        dilation, groups, layout, pick.choice(DENSITIES),
        pick.choice((torch.float32, torch.float32, torch.float32, torch.float64)),
        pick.random() < 0.5, pick.random() < 0.5, channels > 0 and pick.random() < 0.5,
    )  # fmt: skip


def laid_out(case: Case, fill: Callable[..., Tensor]) -> Tensor:
    """An input of the case's shape and layout."""
    N, C, H, W = case.shape
    match case.layout:
        case "channels_last":
            return fill(N, C, H, W).contiguous(memory_format=torch.channels_last)
        case "sliced":
            return fill(N, C + 2, H + 3, W + 1)[:, 1 : C + 1, 2 : H + 2, :W]
        case "columns apart":
            return fill(N, C, H, 2 * W + 1)[..., 1::2][..., :W]
        case "unaligned":
            return fill(N * C * H * W + 1)[1:].view(N, C, H, W)
        case "unaligned pixels":
            return fill(N * C * H * W + 3)[3:].view(N, H, W, C).permute(0, 3, 1, 2)
        case "transposed":
            return fill(N, C, W, H).transpose(2, 3)
        case "one image for all":
            return fill(1, C, H, W).expand(N, C, H, W)
        case "one channel for all":
            return fill(N, 1, H, W).expand(N, C, H, W)
        case "one pixel for all":
            return fill(N, C, 1, 1).expand(N, C, H, W)
        case "negated":
            return torch._neg_view(fill(N, C, H, W))
    return fill(N, C, H, W)


def tensors(case: Case, seed: int) -> tuple[Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(hash((seed, case.index)) % 2**40)

    def numbers(*shape: int) -> Tensor:
        if case.integer:
            return torch.randint(-8, 9, shape, generator=generator).to(case.dtype)
        return torch.randn(shape, generator=generator, dtype=case.dtype)

    def sparse(*shape: int) -> Tensor:
        return numbers(*shape) * (torch.rand(shape, generator=generator) < case.density)

    x = laid_out(case, sparse)
    w = numbers(case.filters, case.shape[1] // case.groups, *case.kernel)
    return x, w, numbers(case.filters) if case.bias else None


@dataclass
class Report:
    cases: int = 0
    calls: int = 0
    refusals: int = 0
    failures: list[str] = field(default_factory=list)
    bound: dict[str, float] = field(default_factory=dict)  # worst error / bound, by method
    torch: dict[str, float] = field(default_factory=dict)  # worst error / torch's worst

    def fail(self, what: str) -> None:
        self.failures.append(what)

    def note(self, method: str, of_bound: float, of_torch: float) -> None:
        self.bound[method] = max(self.bound.get(method, 0.0), of_bound)
        self.torch[method] = max(self.torch.get(method, 0.0), of_torch)


@dataclass(frozen=True)
class Expected:
    """What torch makes of a case, exact or with what its rounding may amount to."""

    error: Exception | None
    exact: Tensor | None = None
    size: Tensor | None = None  # |w| conv |x| + |bias|
    tile_size: Tensor | None = None  # the same for "winograd", where that can be
    dense_error: float = 0.0

    @classmethod
    def of(cls, case: Case, x: Tensor, w: Tensor, b: Tensor | None) -> Expected:
        try:
            # In NCHW: see `ConvCase.by_torch`.
            dense = F.conv2d(x.contiguous(), w, b, *case.steps)
        except RuntimeError as error:
            return cls(error)
        wide = [None if t is None else t.double() for t in (x, w, b)]
        exact = F.conv2d(*wide, *case.steps)
        if case.integer:
            return cls(None, exact)
        size = F.conv2d(*(None if t is None else t.abs() for t in wide), *case.steps)
        error = (dense.double() - exact).abs().max().item() if dense.numel() else 0.0
        able = ops.unsupported("winograd", ops.geometry(x, w, *case.steps)) is None
        tile_size = winograd.products(x, w, b, case.padding, case.groups) if able else None
        return cls(None, exact, size, tile_size, error)


def judge(case: Case, method: str, out: Tensor, expected: Expected, report: Report) -> str:
    """What is wrong with a result, or nothing."""
    assert expected.exact is not None
    if out.shape != expected.exact.shape or out.dtype != case.dtype:
        return f"{tuple(out.shape)} {out.dtype} for {tuple(expected.exact.shape)} {case.dtype}"
    if case.integer or not out.numel():
        same = torch.equal(out.double(), expected.exact)
        return "" if same else f"{int((out.double() != expected.exact).sum())} integers differ"
    size = expected.size
    if method == "winograd" and case.dtype == torch.float32:
        size = expected.tile_size
    assert size is not None
    roundings = case.shape[1] // case.groups * case.kernel[0] * case.kernel[1] + 1
    if method == "amx":  # six products and their sums for each, and what they leave out
        roundings = 6 * roundings + 4
    unit = torch.finfo(case.dtype).eps / 2
    gamma = roundings * unit / (1 - roundings * unit)
    if case.dtype == torch.float64:
        gamma *= 2  # `exact` has an error too
    error = (out.double() - expected.exact).abs()
    of_bound = (error / (gamma * size).clamp(min=1e-300)).max().item()
    if case.dtype == torch.float32:
        least = unit * expected.exact.abs().max().item()  # half a unit in the last place
        of_torch = error.max().item() / max(expected.dense_error, least, 1e-300)
        report.note(method, of_bound, of_torch)
    return "" if of_bound <= 1 else f"error {of_bound:.3g} times the bound"


def called(case: Case, method: str, x: Tensor, w: Tensor, b: Tensor | None) -> Iterator[Tensor]:
    if not case.module:
        yield jsc.functional.conv2d(x, w, b, *case.steps, method=method)
        return
    dense = torch.nn.Conv2d(
        w.shape[1] * case.groups, w.shape[0], case.kernel, *case.steps, bias=b is not None,
        dtype=case.dtype,
    )  # fmt: skip
    dense.weight.data, dense.bias = w, None if b is None else torch.nn.Parameter(b)
    layer = jsc.nn.SparseConv2d.from_dense(dense, method=method).eval()
    for _ in range(2):  # the second call is prepared
        yield layer(x)


def own_bits(case: Case, method: str) -> bool:
    """Whether the products are this package's: what goes the dense way has torch's bits."""
    depthwise = 1 < case.groups == case.shape[1]
    elsewhere = method in ONLY_FLOAT32 and case.dtype == torch.float64
    return not (method in LIBRARY or depthwise or elsewhere)


def run_case(case: Case, seed: int, methods: tuple[str, ...], report: Report) -> None:
    x, w, b = tensors(case, seed)
    expected = Expected.of(case, x, w, b)
    isas = _config.ISA_NAMES[: cpu.supported_isa() + 1]
    refused = expected.error is not None
    g = None if refused else ops.geometry(x, w, *case.steps)
    for isa in isas:
        with _config.use_isa(isa), torch.no_grad():
            for method in methods:
                able = refused or ops.unsupported(method, g) is None
                if not able and (case.module or (method == "amx" and isa != isas[-1])):
                    continue
                first = None
                for threads in THREADS:
                    torch.set_num_threads(threads)
                    wrong, out = "", None
                    try:
                        for out in called(case, method, x, w, b):
                            report.calls += 1
                            if refused or not able:
                                wrong = "a result where an error is due"
                            else:
                                wrong = wrong or judge(case, method, out, expected, report)
                    except (RuntimeError, ValueError, TypeError) as error:
                        report.refusals += 1
                        if able and not refused:
                            wrong = f"{type(error).__name__}: {error}"
                    if not wrong and out is not None and own_bits(case, method):
                        first = out if first is None else first
                        if not torch.equal(first, out):
                            wrong = "other bits than with one thread"
                    if wrong:
                        report.fail(f"{method}, {isa}, {threads} threads: {wrong}: {case}")


def run(
    cases: int, seed: int, first: int = 0, methods: tuple[str, ...] | None = None,
    until: float = float("inf"), progress: bool = False,
) -> Report:  # fmt: skip
    """`cases` of them, or as many as there is time for until the clock says `until`."""
    report, threads, work = Report(), torch.get_num_threads(), _config.SERIAL_WORK
    methods = methods or ops.available()
    _config.SERIAL_WORK = 0  # small work is shared out too
    try:
        for index in range(first, first + cases):
            if time.monotonic() > until:
                break
            run_case(draw(seed, index), seed, methods, report)
            report.cases += 1
            if progress and report.cases % 500 == 0:
                print(f"  {report.cases} cases, {len(report.failures)} failures", flush=True)
    finally:
        _config.SERIAL_WORK = work
        torch.set_num_threads(threads)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.differential")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--methods", nargs="+", choices=ops.METHODS)
    options = parser.parse_args()
    began = time.monotonic()
    methods = tuple(options.methods) if options.methods else None
    report = run(options.cases, options.seed, options.first, methods, progress=True)
    print(
        f"{report.cases} cases, {report.calls} calls and {report.refusals} refusals on "
        f"{', '.join(_config.ISA_NAMES[: cpu.supported_isa() + 1])} with {THREADS} threads in "
        f"{time.monotonic() - began:.0f} s: {len(report.failures)} failures"
    )
    for method in report.bound:
        print(
            f"  {method:7} worst error {report.bound[method]:.3f} of the bound, "
            f"{report.torch[method]:.2f} times torch's worst"
        )
    for failure in report.failures[:20]:
        print(failure)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
