"""Tables against libjpeg (through Pillow), and the estimators of `jsc.jpeg`."""

import io

import pytest
import torch

import jsc
from jsc.jpeg.sensitivity import coefficients
from jsc.jpeg.tables import ZIGZAG


@pytest.mark.parametrize("quality", [1, 2, 10, 25, 49, 50, 51, 75, 95, 100])
def test_quality_tables_are_libjpegs(quality):
    image = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
    file.seek(0)
    written = image.open(file).quantization  # natural order since Pillow 8.3
    found = jsc.jpeg.quality_tables(quality)
    for i in (0, 1):
        assert found[i].flatten().tolist() == list(written[i])


def test_zigzag():
    assert ZIGZAG[:10] == (0, 1, 8, 16, 9, 2, 3, 10, 17, 24)
    assert sorted(ZIGZAG) == list(range(64))
    tables = torch.arange(128).view(2, 8, 8)
    assert torch.equal(jsc.jpeg.from_zigzag(jsc.jpeg.to_zigzag(tables)), tables)
    with pytest.raises(ValueError, match="8, 8"):
        jsc.jpeg.to_zigzag(torch.zeros(64))
    with pytest.raises(ValueError, match="64"):
        jsc.jpeg.from_zigzag(torch.zeros(63))


def network():
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Dropout(0.5), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 3),
    )  # fmt: skip


def batches(sizes):
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.rand(n, 3, 20, 17, generator=generator), torch.randint(3, (n,), generator=generator))
        for n in sizes
    ]


def test_sensitivity_is_its_definition_and_leaves_the_model_alone():
    model = network().train()
    model[2].eval()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    data, loss = batches([3, 2]), torch.nn.functional.cross_entropy
    s = jsc.jpeg.sensitivity(model, data, loss, mean=0.5, std=0.5)
    assert [m.training for m in model] == [True, True, False, True, True, True, True]
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())

    model.eval()
    expected = torch.zeros(3, 8, 8, dtype=torch.float64)
    for x, target in data:
        for one, label in zip(
            x, target, strict=True
        ):  # image by image: the split into batches does not count
            z = coefficients(one[None], 0.5, 0.5).requires_grad_()
            from jsc.jpeg.sensitivity import _pixels

            (g,) = torch.autograd.grad(
                loss(model(_pixels(z, one[None], 0.5, 0.5, 1.0)), label[None]), z
            )
            expected += g.double().square().sum((0, 2, 3))
    torch.testing.assert_close(s, expected / 5, rtol=1e-4, atol=1e-12)
    assert jsc.nn.JPEG.from_sensitivity(s).tables.isfinite().all()


def test_modes_are_restored_after_an_error():
    model = network().train()

    def loss(output, target):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        jsc.jpeg.sensitivity(model, batches([1]), loss)
    assert model.training
    with pytest.raises(ValueError, match="no images"):
        jsc.jpeg.sensitivity(model, [], torch.nn.functional.cross_entropy)


def test_mean_absolute():
    data = batches([3, 2])
    m = jsc.jpeg.mean_absolute(data)
    z = torch.cat([coefficients(x) for x, _ in data])
    torch.testing.assert_close(m, z.double().abs().mean((0, 2, 3)))
    assert torch.equal(
        jsc.jpeg.mean_absolute(data, max_images=2), jsc.jpeg.mean_absolute([data[0][0]])
    )
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\)"):
        jsc.jpeg.mean_absolute([torch.zeros(1, 1, 8, 8)])
