"""Winograd's filtering is convolution, and its gradients are those of the definition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from jsc.reference import winograd


def maps(H, W, requires_grad=False):
    x, w = torch.randn(2, 3, H, W, dtype=torch.float64), torch.randn(4, 3, 3, 3).double()
    return x.requires_grad_(requires_grad), w.requires_grad_(requires_grad)


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize(("H", "W", "padding"), [(8, 6, (1, 1)), (5, 7, (0, 2)), (3, 3, (0, 0))])
def test_it_is_convolution(m, H, W, padding):
    x, w = maps(H, W)
    expected = F.conv2d(x, w, padding=padding)
    torch.testing.assert_close(winograd.conv2d(x, w, padding, m), expected)


@pytest.mark.parametrize("m", [2, 4])
def test_its_gradients_are_the_definitions(m):
    x, w = maps(5, 6, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: winograd.conv2d(x, w, (1, 1), m), (x, w))
    grad = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    expected = torch.autograd.grad(F.conv2d(x, w, padding=1), w, grad)[0]
    torch.testing.assert_close(winograd.weight_gradient(x, grad, (1, 1), m), expected)
    # the gradient of the input: turned kernels, filters as channels
    turned = w.flip(2, 3).transpose(0, 1)
    expected = torch.autograd.grad(F.conv2d(x, w, padding=1), x, grad)[0]
    torch.testing.assert_close(winograd.conv2d(grad, turned, (1, 1), m), expected)
