"""A second's worth of kernels against their definitions, on every instruction set."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jsc import _config
from jsc._kernels import cpu
from jsc.functional import block_dct, conv2d, jpeg, local_contrast
from jsc.methods import available
from jsc.network import compile as compile_network

Case = tuple[str, Callable[[], Tensor], Tensor, float]  # name, kernel, right answer, tolerance


def _images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1, 3, 64, 64), generator=generator).float()


def _basis() -> Tensor:
    t, u = torch.arange(8.0, dtype=torch.float64), torch.arange(8.0, dtype=torch.float64)[:, None]
    basis = torch.cos((2 * t + 1) * u * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    return basis


def _dct_case() -> Case:
    x, basis = _images(), _basis()
    blocks = x.double().view(1, 3, 8, 8, 8, 8).transpose(3, 4)
    return "block_dct", lambda: block_dct(x), (basis @ blocks @ basis.T).float(), 1e-3


def _jpeg_case() -> Case:
    """The layer and its gradients in images and tables, in units of a pixel in [0, 1]."""
    x, q = _images()[..., :32, :32] / 255, torch.linspace(20, 60, 128).view(2, 8, 8)
    plain = lambda x, q: _plain_jpeg(x.double(), q.double()).float()  # noqa: E731
    kernel = lambda x, q: jpeg(x, q, kappa=2.0)  # noqa: E731
    return "jpeg", lambda: _with_gradients(kernel, x, q), _with_gradients(plain, x, q), 1e-5


def _with_gradients(layer: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    inputs = tuple(x.clone().requires_grad_() for x in inputs)
    with torch.enable_grad():
        y = layer(*inputs)
        found = torch.autograd.grad(y.square().sum() / 2, inputs)
    return torch.cat([part.detach().flatten() for part in (y, *found)])


def _plain_jpeg(x: Tensor, q: Tensor) -> Tensor:
    """The definition of :func:`jsc.functional.jpeg` at kappa = 2: whole blocks, every level."""
    basis, shape = _basis(), x.shape
    red, green, blue = (255 * x).unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = torch.stack([luma - 128, (blue - luma) / 1.772, (red - luma) / 1.402], 1)
    blocks = planes.view(1, 3, shape[2] // 8, 8, -1, 8).transpose(3, 4)
    q = q[[0, 1, 1], None, None]
    u, k = basis @ blocks @ basis.T / q, torch.arange(-60.0, 61.0, dtype=q.dtype)
    z = q * (torch.softmax(-2 * (u[..., None] - k) ** 2, -1) @ k)
    luma, cb, cr = (basis.T @ z @ basis).transpose(3, 4).reshape(shape).unbind(1)
    red, blue = luma + 1.402 * cr, luma + 1.772 * cb
    green = (luma - 0.299 * red - 0.114 * blue) / 0.587
    return (torch.stack([red, green, blue], 1) + 128) / 255


def _contrast_case() -> Case:
    x = _images() / 255
    plain = lambda x: _plain_contrast(x.double()).float()  # noqa: E731
    wanted = _with_gradients(plain, x)
    return "local_contrast", lambda: _with_gradients(local_contrast, x), wanted, 1e-4


def _plain_contrast(x: Tensor) -> Tensor:
    """The definition of :func:`jsc.functional.local_contrast`, on square images."""
    here = torch.arange(x.shape[-1])
    around = torch.arange(-8, 9)
    places = (here[:, None] + around).clamp(0, len(here) - 1)
    weights = torch.exp(-around.to(x.dtype).square() / 32).expand(len(here), -1)
    blur = x.new_zeros(len(here), len(here)).scatter_add(1, places, weights / weights[0].sum())
    centred = x - blur @ x @ blur.T
    return 0.5 + 0.2 * centred / ((blur @ centred.square() @ blur.T).sqrt() + 0.05)


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


def _network_case() -> Case:
    """Compiled once; it has a program for each instruction set. Whole numbers again."""
    generator = torch.Generator().manual_seed(0)
    convs = [nn.Conv2d(c, k, 3, padding=1) for c, k in ((3, 8), (8, 8), (8, 4))]
    model = nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU(), convs[2]).eval()
    for p in model.parameters():
        p.copy_(torch.randint(-1, 2, p.shape, generator=generator))
    x = torch.randint(-4, 5, (1, 3, 20, 20), generator=generator).float()
    options: dict[str, Any] = {"precision": "ieee", "budget": 0, "check": False, "progress": False}
    network = functools.cache(lambda: compile_network(model, x, **options))
    return "compiled network", lambda: network()(x), model(x), 0.0


def self_test() -> list[dict[str, Any]]:
    """One entry per kernel and instruction set: `error` is empty when the result is right."""
    results = []
    with torch.no_grad():
        once = _dct_case(), _jpeg_case(), _contrast_case(), _network_case()
        for isa in _config.ISA_NAMES[: cpu.supported_isa() + 1]:
            with _config.use_isa(isa):
                results += [_test(isa, *case) for case in (*once, *_conv_cases())]
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
