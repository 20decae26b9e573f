"""Operators under torch's older vmap, whose tensors look like ordinary ones of the CPU."""

import pytest
import torch

import jsc
from jsc.functional import block_dct, block_idct, jpeg, local_contrast, soft_quantize

F64 = torch.float64
TABLES = torch.full((2, 8, 8), 20.0, dtype=F64)
FUNCTIONS = {
    "local_contrast": local_contrast,
    "jpeg": lambda x: jpeg(x, TABLES, kappa=3.0),
    "soft_quantize": lambda x: soft_quantize(9 * x, TABLES[0], kappa=3.0),
    "block_dct": block_dct,
    "block_idct": lambda x: block_idct(x.view(1, 3, 1, 1, 8, 8)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_batches_of_gradients(name):
    x, corner = torch.rand(1, 3, 8, 8, dtype=F64), torch.rand(192, 5, dtype=F64)
    f = lambda x: FUNCTIONS[name](x).reshape(192) @ corner  # noqa: E731
    expected = torch.autograd.functional.jacobian(f, x)
    found = torch.autograd.functional.jacobian(f, x, vectorize=True)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("method", ["cpc", "winograd"])
def test_batches_of_gradients_of_a_convolution_in_training(method):
    layer = jsc.nn.SparseConv2d(16, 16, 3, padding=1, method=method).train()
    x = torch.relu(torch.randn(2, 16, 32, 32)).contiguous(memory_format=torch.channels_last)
    leaves = (x.requires_grad_(), layer.weight, layer.bias)
    y = layer(x)
    grads = torch.randn(3, *y.shape)
    found = torch.autograd.grad(y, leaves, grads, is_grads_batched=True, retain_graph=True)
    loop = [torch.autograd.grad(y, leaves, g, retain_graph=True) for g in grads]
    for a, parts in zip(found, zip(*loop, strict=True), strict=True):
        torch.testing.assert_close(a, torch.stack(parts), rtol=1e-4, atol=1e-3)
