"""The windowed operator against a restatement of the authors' code, one round and several."""

import pytest
import torch
from samples import gradients, photo

import jsc
from benchmarks.peers.jpeg_dl import AuthorsJPEG
from jsc.functional import block_dct, jpeg, soft_quantize

F64 = torch.float64
PRESET = jsc.nn.jpeg.PRESETS["jpeg-dl"]


def clear_of_edges(x, tables, margin=1e-4):
    """Pixels of the blocks without a coefficient within `margin` of a cell edge: the windowed sum
    jumps there, and float32 may fall on either side."""
    h, w = x.shape[2:]
    authors = AuthorsJPEG(tables)
    planes = torch.nn.functional.pad(authors._to_ycbcr(x - 128), (0, -w % 8, 0, -h % 8))
    q = tables[[0, 1, 1]].view(3, 1, 1, 8, 8)
    u = block_dct(planes) / q
    jumps = ((u - u.floor() - 0.5).abs() * q < margin) & (u.abs() < 130) & (q > 4e-3)
    clear = ~jumps.flatten(4).any(4).any(1, keepdim=True)
    return clear.repeat_interleave(8, 2).repeat_interleave(8, 3)[:, :, :h, :w]


@pytest.mark.parametrize("size", [(32, 48), (29, 45)])
@pytest.mark.parametrize("step", [0.002, 0.3, 5.0])
@pytest.mark.parametrize("alpha", [0.05, 5.0])
def test_preset_is_the_authors_operator(dtype, size, step, alpha):
    x = photo(2, *size, dtype=F64) * 255
    tables = step * (0.5 + torch.rand(2, 8, 8, dtype=F64))
    expected = AuthorsJPEG(tables, alpha)(x).detach()
    layer = jsc.nn.JPEG.preset("jpeg-dl", tables.to(dtype), alpha=alpha)
    error = (layer(x.to(dtype)).double() - expected).abs()
    if dtype == F64:
        assert error.max().item() < 1e-9
    else:
        clear = clear_of_edges(x, tables)
        assert clear.double().mean() > 0.5
        assert error[clear.expand_as(error)].max().item() < 2e-3


@pytest.mark.parametrize("window", [3, 5, 9])
@pytest.mark.parametrize("levels", [None, 127])
def test_other_windows(window, levels):
    x, tables = photo(1, 24, 24, dtype=F64) * 255, 0.2 + 6 * torch.rand(2, 8, 8, dtype=F64)
    expected = AuthorsJPEG(tables, 0.3, window, levels)(x).detach()
    options = {**PRESET, "alpha": 0.3, "window": window, "levels": levels}
    assert (jpeg(x, tables, **options) - expected).abs().max().item() < 1e-9


@pytest.mark.parametrize("size", [(24, 16), (21, 30)])
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_rounds_are_the_authors_layers(dtype, size, rounds):
    x = photo(2, *size, dtype=F64) * 255
    tables = 0.3 + 8 * torch.rand(rounds, 2, 8, 8, dtype=F64)
    alpha = 0.2 + torch.rand(rounds, 2, 8, 8, dtype=F64)
    g = torch.randn_like(x)
    authors = AuthorsJPEG(tables, alpha)
    expected, (dx, dalpha) = gradients(lambda x, a: _with_alpha(authors, a)(x), x, alpha, g=g)
    (dtables,) = torch.autograd.grad(authors(x), authors.tables, g)
    preset = {**PRESET, "window": 5}
    del preset["alpha"]
    y, found = gradients(
        lambda x, t, a: jpeg(x, t, alpha=a, **preset),
        *(t.to(dtype) for t in (x, tables, alpha)),
        g=g,
    )
    if dtype == torch.float32:  # slopes multiply from round to round
        error = (y.double() - expected).abs()
        assert error.median().item() < 2e-3
        return
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-9)
    for a, b in zip(found, (dx, dtables, dalpha), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7 * b.abs().max().item())


def _with_alpha(authors, alpha):
    authors.alpha = alpha
    return authors


def test_coefficients_alone(dtype):
    z = (torch.rand(500, 2, 64, dtype=dtype) - 0.5) * 300
    q, alpha = torch.rand(2, 64, dtype=dtype) * 4 + 0.1, 5.0
    u = (z / q).double()
    z = torch.where((u - u.floor() - 0.5).abs() < 1e-3, z + 0.01 * q, z)
    from benchmarks.peers import jpeg_dl

    expected = jpeg_dl.soft_quantize(z.double(), q.double(), alpha)
    found = soft_quantize(z, q, alpha, window=5, levels=127)
    assert (found.double() - expected).abs().max().item() < (2e-3 if dtype != F64 else 1e-11)
