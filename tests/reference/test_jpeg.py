"""The oracle itself, against SciPy's DCT and the numbers that the standards print."""

import numpy as np
import pytest
import scipy.fft
import torch

from jsc.reference import jpeg as reference
from jsc.reference import rate

F64 = torch.float64


def test_block_dct_is_scipys():
    x = torch.randn(2, 1, 16, 24, dtype=F64)
    blocks = x.view(2, 1, 2, 8, 3, 8).transpose(3, 4)
    expected = torch.from_numpy(scipy.fft.dctn(blocks.numpy(), axes=(-2, -1), norm="ortho"))
    torch.testing.assert_close(reference.block_dct(x), expected)
    torch.testing.assert_close(reference.block_idct(expected), x)


def test_colours_are_those_of_the_standard():
    """T.871, section 7, prints these digits."""
    r, g, b = torch.eye(3, dtype=F64)
    printed = [[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]]
    found = torch.stack(reference.rgb_to_ycc(r, g, b))
    torch.testing.assert_close(found, torch.tensor(printed, dtype=F64), rtol=0, atol=5e-5)
    printed = [[1.0, 0.0, 1.402], [1.0, -0.3441, -0.7141], [1.0, 1.772, 0.0]]
    found = torch.stack(reference.ycc_to_rgb(r, g, b))
    torch.testing.assert_close(found, torch.tensor(printed, dtype=F64), rtol=0, atol=5e-5)
    colours = torch.rand(3, 5, dtype=F64)
    torch.testing.assert_close(
        torch.stack(reference.ycc_to_rgb(*reference.rgb_to_ycc(*colours))), colours
    )


@pytest.mark.parametrize("kappa", [0.2, 1.0, 9.0])
def test_the_mean_level_is_numpys_average(kappa):
    u, k = 2.3, np.arange(-40, 45)
    expected = np.average(k, weights=np.exp(-kappa * (u - k) ** 2))
    found = reference.lattice_mean(torch.tensor([u], dtype=F64), torch.tensor([kappa], dtype=F64))
    assert found.item() == pytest.approx(expected, rel=1e-13)


def test_windows_stay_inside_the_levels():
    u = torch.tensor([-9.0, -1.4, 0.2, 2.6, 9.0])
    assert reference.window_centre(u, 3, None).tolist() == [-9, -1, 0, 3, 9]
    assert reference.window_centre(u, 3, 4).tolist() == [-3, -1, 0, 3, 3]
    assert reference.window_centre(u, 5, 2).tolist() == [0] * 5


def test_straight_through_writes_its_derivatives_down():
    z = torch.tensor([0.6, -1.6, 7.4, 8.0, -30.0], dtype=F64, requires_grad=True)
    q = torch.tensor(2.0, dtype=F64).expand(5).clone().requires_grad_()
    y = reference.ste_quantize(z, q, 4)
    assert y.tolist() == [0.0, -2.0, 8.0, 8.0, -8.0]
    dz, dq = torch.autograd.grad(y.sum(), (z, q))
    assert dz.tolist() == [1, 1, 1, 1, 0]
    assert dq.tolist() == pytest.approx([-0.3, -0.2, 0.3, 0.0, -4.0])


def test_entropy_of_known_distributions():
    p = torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]], dtype=F64)
    assert rate.entropy(p).tolist() == [2.0, 0.0]
    z, q = torch.tensor([[0.0, 1.0, 2.0, 3.0]], dtype=F64), torch.ones(1, dtype=F64)
    assert rate.hard_entropy(z, q).tolist() == [2.0]
    assert rate.hard_entropy(z, q, 1).item() == pytest.approx(0.811278, abs=1e-6)
