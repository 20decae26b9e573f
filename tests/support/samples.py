"""Inputs and measures that several test files share."""

from __future__ import annotations

import torch

from jsc import _config, functional

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def photo(n=1, h=64, w=96, dtype=torch.float32, seed=0):
    """Smooth colours with some texture, in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((n, 3, 5, 5), generator=generator, dtype=dtype)
    fine = torch.randn((n, 3, h, w), generator=generator, dtype=dtype) * 0.02
    smooth = torch.nn.functional.interpolate(coarse, (h, w), mode="bicubic", align_corners=False)
    return (smooth + fine).clamp(0, 1)


def gradients(f, *inputs, g):
    """f(*inputs) and its gradients along g; zeros where an input is not used."""
    inputs = [t.detach().clone().requires_grad_() for t in inputs]
    y = f(*inputs)
    found = torch.autograd.grad(y, inputs, g.to(y.dtype), allow_unused=True)
    return y.detach(), [
        torch.zeros_like(t) if v is None else v for v, t in zip(found, inputs, strict=True)
    ]


def same_bits(run):
    """What `run` (value, gradients) gives on every instruction set with FMA and on one thread, all
    equal."""
    results = []
    for name in _config.ISA_NAMES[1 : _config.isa() + 1]:
        with _config.use_isa(name):
            results.append(run())
    torch.set_num_threads(1)
    results.append(run())
    for y, found in results[1:]:
        assert torch.equal(y, results[0][0])
        assert all(torch.equal(a, b) for a, b in zip(found, results[0][1], strict=True))
    return results[0]


def drawn_levels(u, q, kappa, n, dtype=torch.float64, **options):
    """n (a multiple of 64) levels that the layer draws for coefficients z = u q: of a grey image
    whose coefficients they all are."""
    z = torch.full((1, 1, 1, n // 64, 8, 8), u * q, dtype=dtype)
    tables = torch.full((2, 8, 8), q, dtype=dtype)
    grey = {"mean": 128.0, "peak": 255.0, "quantizer": "sample"}  # no shift of levels
    y = functional.jpeg(functional.block_idct(z), tables, kappa=kappa, **grey, **options)
    return functional.block_dct(y).flatten() / q
