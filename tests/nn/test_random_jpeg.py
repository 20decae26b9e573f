"""`jsc.nn.RandomJPEG`."""

import copy
import pickle

import pytest
import torch
from samples import IMAGENET, photo
from torch import nn

import jsc
from jsc.nn import RandomJPEG


def at(quality, x, **options):
    tables = jsc.jpeg.quality_tables(quality, x.dtype)
    return jsc.functional.jpeg(x, tables, quantizer="hard", **options).clamp(0, 1)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_one_quality_is_the_layer_clipped(dtype, subsampling):
    x = photo(3, 13, 18, dtype=dtype)
    y = RandomJPEG(30, subsampling=subsampling)(x)
    assert torch.equal(y, at(30, x, subsampling=subsampling))
    assert torch.equal(RandomJPEG((30, 30), subsampling=subsampling)(x[0]), y[0])


def test_each_image_has_a_quality_of_its_own():
    x = photo(1, 16, 24).expand(200, -1, -1, -1)
    y = RandomJPEG((20, 24), 0.5, generator=seeded())(x)
    kinds = torch.stack([x[0], *(at(q, x[:1])[0] for q in range(20, 25))])
    which = (y.unsqueeze(1) == kinds).flatten(2).all(2)
    assert which.any(1).all()  # each image is one of those
    counts = which.float().mean(0)
    assert 0.35 < counts[0] < 0.65
    assert (counts[1:] > 0.03).all()


def test_same_on_batch():
    x, augment = photo(1, 16, 24).expand(4, -1, -1, -1), RandomJPEG((10, 90), same_on_batch=True)
    results = [augment(x) for _ in range(5)]
    assert all(torch.equal(y, y[:1].expand_as(y)) for y in results)
    assert not all(torch.equal(y, results[0]) for y in results)


def test_draws_follow_the_generator():
    x = photo(8, 16, 16)
    y = RandomJPEG(generator=seeded(1))(x)
    assert torch.equal(RandomJPEG(generator=seeded(1))(x), y)
    assert not torch.equal(RandomJPEG(generator=seeded(2))(x), y)
    augment = RandomJPEG()
    torch.manual_seed(5)
    y = augment(x)
    torch.manual_seed(5)
    assert torch.equal(augment(x), y)
    own = RandomJPEG(generator=seeded(3))
    before = torch.get_rng_state()
    for other in (copy.deepcopy(own), pickle.loads(pickle.dumps(own))):
        assert torch.equal(other(x), RandomJPEG(generator=seeded(3))(x))
    assert torch.equal(torch.get_rng_state(), before)


def test_never_and_always():
    x = photo(4, 9, 9)
    assert torch.equal(RandomJPEG(p=0.0)(x), x)
    assert torch.equal(RandomJPEG(10, p=1.0)(x), at(10, x))
    assert RandomJPEG()(torch.zeros(0, 3, 8, 8)).shape == (0, 3, 8, 8)


def test_bytes_are_nearly_those_of_a_file():
    x = (photo(2, 40, 56) * 255).round().to(torch.uint8)
    y = RandomJPEG(50)(x)
    assert y.dtype == torch.uint8
    real = jsc.jpeg.decoded(x, jsc.jpeg.quality_tables(50).long())
    assert (y.float() - real.float()).abs().mean() < 1
    assert torch.equal(RandomJPEG(50, **IMAGENET)(x[0]), y[0])


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_and_normalised_images(half):
    x = photo(2, 16, 16)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in IMAGENET.values())
    y = RandomJPEG(20, **IMAGENET)((x - mean) / std)
    torch.testing.assert_close(y * std + mean, at(20, x), rtol=0, atol=1e-5)
    assert RandomJPEG(20)(x.to(half)).dtype == half
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert RandomJPEG(20, p=0.5)(x.to(half)).dtype == half


def test_memory_format_is_kept():
    x = photo(4, 16, 24).contiguous(memory_format=torch.channels_last)
    assert RandomJPEG(p=0.5)(x).is_contiguous(memory_format=torch.channels_last)


def test_gradients_flow_where_they_are_asked_for():
    for options in ({"quantizer": "ste"}, {"quantizer": "soft", "kappa": 2.0}):
        x = photo(2, 16, 16).requires_grad_()
        RandomJPEG(30, **options)(x).square().sum().backward()
        assert x.grad.abs().max() > 0


def test_inside_other_containers():
    x = photo(2, 16, 24)
    model = nn.Sequential(RandomJPEG((30, 95)), nn.Conv2d(3, 2, 3)).eval()
    assert model(x).shape == (2, 2, 14, 22)
    assert list(model[0].parameters()) == list(model[0].buffers()) == []
    assert "quality=(30, 95), p=1.0, quantizer='hard'" in repr(model)
    kornia = pytest.importorskip("kornia.augmentation")
    container = kornia.container.ImageSequential(kornia.RandomHorizontalFlip(p=1.0), RandomJPEG(30))
    torch.testing.assert_close(container(x), at(30, x.flip(3)))
    mask = torch.ones(2, 1, 16, 24)
    pair = kornia.AugmentationSequential(RandomJPEG(30), data_keys=["input", "mask"])
    images, masks = pair(x, mask)
    torch.testing.assert_close(images, at(30, x))
    assert torch.equal(masks, mask)  # of the images alone


def test_another_default_device():
    layer, x = RandomJPEG(50), photo(1, 16, 16)
    with torch.device("meta"):
        y = layer(x)
    torch.testing.assert_close(y, layer(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"quality": 0}, ValueError, "quality"),
        ({"quality": (30, 101)}, ValueError, "from 1 to 100"),
        ({"quality": (90, 30)}, ValueError, "least, most"),
        ({"quality": 50.5}, TypeError, "quality must be an int"),
        ({"p": 1.5}, ValueError, "probability"),
        ({"generator": 1}, TypeError, "torch.Generator"),
        ({"subsampling": "4:1:1"}, ValueError, "4:4:4"),
        ({"tables": 1}, TypeError, "tables"),
        ({"alpha": -1.0, "p": 0.0}, ValueError, "alpha"),
        ({"kappa": "2", "p": 0.0}, TypeError, "kappa"),
        ({"x": torch.zeros(8, 8)}, ValueError, "one image without N"),
        ({"x": torch.zeros(1, 3, 8, 8).long()}, TypeError, "float32"),
    ],
)
def test_errors(change, error, message):
    arguments = dict(change)
    x = arguments.pop("x", torch.zeros(1, 3, 8, 8))
    with pytest.raises(error, match=message):
        RandomJPEG(**arguments)(x)
