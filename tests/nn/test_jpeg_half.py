"""The JPEG modules in half precision and without data."""

import copy

import pytest
import torch
from samples import IMAGENET, photo
from torch._subclasses import FakeTensorMode

from jsc.nn import JPEG, BlockDCT, InverseBlockDCT, SoftQuantizer

HALVES = pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)


@HALVES
@pytest.mark.parametrize("train_alpha", [False, True])
@pytest.mark.parametrize("quality", [1, 50, 100])
def test_a_model_in_half_precision(half, train_alpha, quality):
    layer = JPEG.from_quality(quality, kappa=2.0, train_alpha=train_alpha, **IMAGENET)
    exact = copy.deepcopy(layer)
    model = torch.nn.Sequential(layer, torch.nn.Conv2d(3, 4, 3)).to(half)
    x = photo(2, 20, 28).to(half)
    assert torch.equal(layer.quant_tables(), exact.quant_tables())  # whole numbers up to 255
    torch.testing.assert_close(layer(x).float(), exact(x.float()), rtol=0.02, atol=0.05)
    model(x).float().square().mean().backward()
    for parameter in layer.parameters():
        assert parameter.dtype == parameter.grad.dtype == half
        assert parameter.grad.isfinite().all()
    assert layer.tables.grad.abs().max() > 0
    assert layer.rate(x).dtype == torch.float32
    assert layer.decoded(x).dtype == half


@HALVES
def test_training_in_half_precision_keeps_the_tables_usable(half):
    layer = JPEG.from_quality(10, kappa=1.5).to(half)
    x = photo(2, 16, 16).to(half)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e4)  # far below the least step, at once
    for _ in range(3):
        optimizer.zero_grad()
        (layer(x).float() - x.float()).square().mean().backward()
        optimizer.step()
    assert layer(x).isfinite().all()
    assert layer.quant_tables().min() >= 1


@HALVES
def test_parts_in_half_precision(half):
    z = BlockDCT()(photo(1, 16, 16).to(half))
    quantizer = SoftQuantizer(0.1, kappa=2.0, train_alpha=True).to(half)
    y = InverseBlockDCT()(quantizer(z))
    assert y.dtype == half
    y.float().sum().backward()
    assert quantizer.q.grad.dtype == quantizer.log_kappa.grad.dtype == half


@pytest.mark.parametrize("options", [{}, {"train_alpha": True, "rounds": 2}])
def test_layers_are_made_on_the_meta_device_and_filled_later(options):
    real = JPEG.from_quality(30, kappa=2.0, **options)
    with torch.device("meta"):
        layer, quantizer = JPEG.from_quality(90, kappa=1.0, **options), SoftQuantizer(2.0)
    assert layer.tables.is_meta
    assert quantizer.q.is_meta
    assert layer(torch.rand(1, 3, 9, 17, device="meta")).shape == (1, 3, 9, 17)
    layer = layer.to_empty(device="cpu")
    layer.load_state_dict(real.state_dict())
    x = photo()
    assert torch.equal(layer(x), real(x))


def test_layers_without_data_for_planning():
    """Under FakeTensorMode, as tools make a network of which they want the sizes alone."""
    with FakeTensorMode():
        layer, s = JPEG(train_alpha=True), torch.rand(3, 8, 8)
        assert layer(torch.rand(1, 3, 9, 17)).shape == (1, 3, 9, 17)
        assert layer.quant_tables().shape == (2, 8, 8)
        for made in (JPEG.from_sensitivity(s), JPEG.from_mean_absolute(s)):
            assert made.tables.shape == (2, 8, 8)
