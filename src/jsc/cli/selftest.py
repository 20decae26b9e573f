"""A second's worth of kernels against their definitions, on every instruction set."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from jsc import _config
from jsc._kernels import cpu
from jsc.functional import block_dct, conv2d
from jsc.methods import available

Case = tuple[str, Callable[[], Tensor], Tensor, float]  # name, kernel, right answer, tolerance


def _dct_case() -> Case:
    x = torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(0)).float()
    t, u = torch.arange(8.0, dtype=torch.float64), torch.arange(8.0, dtype=torch.float64)[:, None]
    basis = torch.cos((2 * t + 1) * u * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    blocks = x.double().view(1, 3, 8, 8, 8, 8).transpose(3, 4)
    return "block_dct", lambda: block_dct(x), (basis @ blocks @ basis.T).float(), 1e-3


def _conv_cases() -> Iterator[Case]:
    """Small whole numbers: every sum is exact, so a method is right only if every bit is."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-4, 5, (2, 16, 20, 20), generator=generator).float().relu_()
    weight = torch.randint(-4, 5, (32, 16, 3, 3), generator=generator).float()
    bias = torch.arange(32.0)
    expected = F.conv2d(x, weight, bias, padding=1)
    for method in available():
        if method != "dense":
            run = lambda method=method: conv2d(x, weight, bias, padding=1, method=method)  # noqa: E731
            yield f"conv2d {method}", run, expected, 0.0


def self_test() -> list[dict[str, Any]]:
    """One entry per kernel and instruction set: `error` is empty when the result is right."""
    results = []
    for isa in _config.ISA_NAMES[: cpu.supported_isa() + 1]:
        with _config.use_isa(isa), torch.no_grad():
            results += [_test(isa, *case) for case in (_dct_case(), *_conv_cases())]
    return results


def _test(
    isa: str, name: str, run: Callable[[], Tensor], expected: Tensor, tolerance: float
) -> dict[str, Any]:
    error, seconds = "", []
    try:
        for _ in range(5):
            start = time.perf_counter()
            result = run()
            seconds.append(time.perf_counter() - start)
        difference = float((result - expected).abs().max())
        if not difference <= tolerance:
            error = f"wrong by {difference:.1e}"
    except Exception as failure:  # whatever it is, the doctor reports it
        error = f"{type(failure).__name__}: {failure}"
    return {"kernel": name, "isa": isa, "ms": 1e3 * min(seconds, default=0.0), "error": error}
