"""Promises of docs/reliability.md that hold for whole modules, and are tested nowhere else.

P4, the same bits for every number of threads, split of the batch and repeat. P9, torch's own
samples and errors of conv2d. P12 to P14 are beside this file, P8 beside each operator.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import jsc
from jsc.methods import available

OWN = [method for method in available() if method not in ("dense", "im2col", "mec")]
REPEATS = 1000


def convolution(method):
    stride = 1 if method == "winograd" else 2  # it has no other
    module = jsc.nn.SparseConv2d(19, 33, 3, stride, padding=1, method=method).eval()
    return module.requires_grad_(False), torch.relu(torch.randn(5, 19, 15, 13))


def jpeg(**options):
    return jsc.nn.JPEG.from_quality(40, **options).requires_grad_(False), torch.rand(5, 3, 24, 40)


MODULES = {
    **{f"convolution, {m}": lambda m=m: convolution(m) for m in OWN},
    "JPEG layer": jpeg,
    "JPEG layer, hard": lambda: jpeg(quantizer="hard"),
    "block DCT": lambda: (jsc.nn.BlockDCT(), torch.rand(5, 3, 24, 40)),
    "quantizer": lambda: (
        jsc.nn.SoftQuantizer(torch.full((8, 8), 9.0)).requires_grad_(False),
        100 * torch.randn(5, 3, 8, 8),
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_same_bits_for_1_to_8_threads_and_every_split_of_the_batch(name, threads):
    module, x = MODULES[name]()
    threads(1)
    whole = module(x)
    for count in range(1, 9):
        threads(count)
        assert torch.equal(module(x), whole), count
        for size in (1, 2, 3):
            parts = [module(part) for part in x.split(size)]
            assert torch.equal(torch.cat(parts), whole), (count, size)


@pytest.mark.parametrize("name", MODULES)
def test_same_bits_a_thousand_times(name, threads):
    module, x = MODULES[name]()
    threads(2)
    first = module(x)
    assert all(torch.equal(module(x), first) for _ in range(REPEATS))


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_same_gradients_for_1_to_8_threads(subsampling, threads):
    layer, x = jpeg(subsampling=subsampling, kappa=3.0)
    layer.requires_grad_(True)

    def gradients():
        given = x.clone().requires_grad_()
        return torch.autograd.grad(layer(given).square().sum(), [given, layer.tables])

    threads(1)
    first = gradients()
    for count in range(2, 9):
        threads(count)
        assert all(map(torch.equal, gradients(), first)), count


@pytest.mark.parametrize("method", [m for m in available() if m != "dense"])
def test_torchs_own_errors(method):
    """What torch's conv2d refuses is refused, as the documented kind of error and in words."""
    from torch.testing._internal.common_methods_invocations import op_db

    (info,) = [op for op in op_db if op.name == "nn.functional.conv2d"]
    seen = 0
    for case in info.error_inputs("cpu"):
        sample = case.sample_input
        with pytest.raises((TypeError, ValueError, RuntimeError)):
            F.conv2d(sample.input, *sample.args, **sample.kwargs)
        with pytest.raises((TypeError, ValueError, RuntimeError)) as caught:
            jsc.functional.conv2d(sample.input, *sample.args, **sample.kwargs, method=method)
        assert len(str(caught.value).split()) >= 4, caught.value
        seen += 1
    assert seen >= 8
