"""Other people's operators are what they are said to be."""

import torch

from benchmarks.peers.jpeg_dl import AuthorsJPEG, dct_matrix, soft_quantize


def test_the_dct_matrix_is_orthonormal():
    basis = dct_matrix(torch.float64)
    torch.testing.assert_close(basis @ basis.T, torch.eye(8, dtype=torch.float64))


def test_the_authors_quantiser_is_the_mean_level():
    z = torch.linspace(-40, 40, 41, dtype=torch.float64)
    q = torch.tensor(7.0, dtype=torch.float64)
    levels = 7.0 * torch.arange(-60, 61)
    weight = torch.softmax(-0.02 * (z[:, None] - levels) ** 2, 1)
    soft = soft_quantize(z, q.expand(41), 0.02, window=41, levels=None)
    torch.testing.assert_close(soft, weight @ levels.double())
    assert soft_quantize(z, q.expand(41), 5.0, levels=2).abs().max() <= 14  # it saturates


def test_the_authors_layer_is_the_identity_for_small_steps():
    x = 255 * torch.rand(1, 3, 13, 20, dtype=torch.float64)
    layer = AuthorsJPEG(torch.full((2, 8, 8), 1e-3, dtype=torch.float64), levels=None)
    torch.testing.assert_close(layer(x), x, atol=0.02, rtol=0)
