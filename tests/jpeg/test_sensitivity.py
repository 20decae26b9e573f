"""The estimators of `jsc.jpeg`, and the tables that start from them."""

import os
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.fft
import torch

import jsc
from jsc.functional import JpegOptions
from jsc.jpeg.sensitivity import _pixels, coefficients
from jsc.nn import JPEG
from jsc.reference.jpeg import ycc_to_rgb


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
    options = JpegOptions(mean=0.5, std=0.5)
    expected = torch.zeros(3, 8, 8, dtype=torch.float64)
    for x, target in data:
        for one, label in zip(
            x, target, strict=True
        ):  # image by image: the split into batches does not count
            z = coefficients(one[None], options).requires_grad_()
            (g,) = torch.autograd.grad(
                loss(model(_pixels(z, one.shape[1:], options)), label[None]), z
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


def test_another_default_device():
    data, model, loss = batches([3, 2]), network(), torch.nn.functional.cross_entropy
    with torch.device("meta"):
        found = jsc.jpeg.mean_absolute(data), jsc.jpeg.sensitivity(model, data, loss)
    assert torch.equal(found[0], jsc.jpeg.mean_absolute(data))
    assert torch.equal(found[1], jsc.jpeg.sensitivity(model, data, loss))


def test_sensitivity_of_a_linear_loss_is_known():
    """loss of image i = c_i <w, x_i>, so that dloss/dZ = c_i times the coefficients of w."""
    w = torch.randn(3, 16, 24, dtype=torch.float64)
    factors = torch.tensor([1.0, -2.0, 3.0, 0.5, 2.0], dtype=torch.float64)
    std, peak = (0.2, 0.5, 0.25), 2.0

    class Functional(torch.nn.Module):
        def forward(self, x):
            return (x * w).sum((1, 2, 3))

    x = torch.rand(5, 3, 16, 24, dtype=torch.float64)
    loader = zip(x.split([2, 2, 1]), factors.split([2, 2, 1]), strict=True)
    s = jsc.jpeg.sensitivity(
        Functional(), loader, lambda out, c: (out * c).mean(), mean=0.1, std=std, peak=peak
    )
    # of the inverse colour transform the transpose, of the inverse DCT the DCT
    weights = w * (peak / 255 / w.new_tensor(std)).view(3, 1, 1)
    rgb_of_unit = torch.stack([torch.stack(ycc_to_rgb(*unit)) for unit in torch.eye(3).to(w)])
    planes = torch.einsum("cr,rhw->chw", rgb_of_unit, weights)
    blocks = planes.view(3, 2, 8, 3, 8).transpose(2, 3)
    z = torch.from_numpy(scipy.fft.dctn(blocks.numpy(), axes=(3, 4), norm="ortho"))
    expected = z.square().sum((1, 2)) * factors.square().mean()
    torch.testing.assert_close(s, expected, rtol=1e-10, atol=0)


def test_sensitivity_is_a_running_sum():
    """One pass over a generator, no batch kept, no gradient asked of the model's parameters."""
    alive = []
    model = network().requires_grad_(False)

    def stream():
        for size in (2, 2, 2, 1):
            alive.append(sum(reference() is not None for reference in references))
            (batch,) = batches([size])
            references.append(weakref.ref(batch[0]))
            yield batch
            del batch

    references = []
    loss = torch.nn.functional.cross_entropy
    with torch.no_grad():  # a caller's no_grad does not stop it
        s = jsc.jpeg.sensitivity(model, stream(), loss, max_images=5)
    assert max(alive) <= 1
    assert len(references) == 3  # stopped after the batch that reached five images
    torch.testing.assert_close(s, jsc.jpeg.sensitivity(model, batches([2]), loss))
    with torch.inference_mode():
        later = (batches([n])[0] for n in (2,))
        torch.testing.assert_close(s, jsc.jpeg.sensitivity(model, later, loss))


def test_sensitivity_tables_by_hand():
    """S_Y = S_Cb = 1 / (i + 1) and S_Cr = 3 / (i + 1) in zig-zag order, q_max = 16: (i + 1) / 4 and
    (i + 1) / 8."""
    y = 1 / (1 + torch.arange(64, dtype=torch.float64))
    tables = JPEG.from_sensitivity(torch.stack([y, y, 3 * y]), q_max=16).tables
    row, column = [0, 1, 5, 6, 14, 15, 27, 28], [0, 2, 3, 9, 10, 20, 21, 35]
    assert tables[0, 0].tolist() == [(i + 1) / 4 for i in row]
    assert tables[0, :, 0].tolist() == [(i + 1) / 4 for i in column]
    assert tables[1, 0].tolist() == [(i + 1) / 8 for i in row]
    assert (tables[0, 7, 7].item(), tables[1, 7, 7].item()) == (16, 8)
    natural = jsc.jpeg.from_zigzag(torch.stack([y, y, 3 * y]))
    assert torch.equal(JPEG.from_sensitivity(natural, q_max=16).tables, tables)


def test_mean_absolute_tables_by_hand():
    m = torch.tensor([8.0, 2.0, 6.0]).view(3, 1, 1).expand(3, 8, 8) * 2**0.5
    m = m.clone()
    m[:, 0, 0] *= 10
    tables = JPEG.from_mean_absolute(m).tables  # 2 m / sqrt(128)
    assert tables[:, 3, 4].tolist() == pytest.approx([2.0, 1.0])
    assert tables[:, 0, 0].tolist() == pytest.approx([20.0, 10.0])
    assert JPEG.from_mean_absolute(m, bits=10).tables[:, 3, 4].tolist() == pytest.approx([1, 0.5])
    assert (JPEG.from_mean_absolute(torch.zeros(3, 8, 8)).tables > 0).all()
    m[:, 0, 1] *= 3
    tables = JPEG.from_mean_absolute(m, dc_as_first_ac=True).tables
    assert tables[:, 0, 0].tolist() == tables[:, 0, 1].tolist() == pytest.approx([6.0, 3.0])


class Words:
    """`len` is unknown, as of a stream; a bar then has no end."""

    def __init__(self, data):
        self.data = data

    def __iter__(self):
        return iter(self.data)


@pytest.mark.parametrize("kind", [list, Words])
def test_progress_is_shown_unless_it_is_not_wanted(monkeypatch, capsys, kind):
    monkeypatch.setattr("jsc._progress.EVERY", 0.0)
    jsc.jpeg.mean_absolute(kind(batches([3, 2])))
    end = "/2" if kind is list else ""
    shown = f"mean_absolute 1{end} 3 images\nmean_absolute 2{end} 5 images\n"
    assert capsys.readouterr().err == shown
    loss = torch.nn.functional.cross_entropy
    jsc.jpeg.sensitivity(network(), kind(batches([1])), loss)
    assert "sensitivity 1" in capsys.readouterr().err
    jsc.jpeg.sensitivity(network(), batches([1]), loss, progress=False)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("stream", [None, SimpleNamespace(write=print)])
def test_progress_without_a_console(monkeypatch, capsys, stream):
    monkeypatch.setattr("jsc._progress.EVERY", 0.0)
    with monkeypatch.context() as m:
        m.setattr("sys.stderr", stream)
        jsc.jpeg.mean_absolute(batches([3]))
    assert ("mean_absolute 1/1 3 images" in capsys.readouterr().out) == (stream is not None)


def test_who_computes_is_one_of_three_words():
    with pytest.raises(ValueError, match="processes must be one of share, parts, alone"):
        jsc.jpeg.mean_absolute(batches([1]), processes="all")
    with pytest.raises(ValueError, match="max_images"):
        jsc.jpeg.mean_absolute(batches([1]), max_images=0)


DATA = os.environ.get("JSC_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="JSC_DATA is not set")


def zigzag_places():
    """(row, column) of coefficients in the order of T.81, figure A.6, walked."""
    row, column, up = 0, 0, True
    for _ in range(64):
        yield row, column
        if up and (row == 0 or column == 7):
            row, column, up = (row + 1, column, False) if column == 7 else (row, column + 1, False)
        elif not up and (column == 0 or row == 7):
            row, column, up = (row, column + 1, True) if row == 7 else (row + 1, column, True)
        else:
            row, column = (row - 1, column + 1) if up else (row + 1, column - 1)


@pytest.mark.data
@needs_data
@pytest.mark.parametrize("q_max", [5.0, 10.0])
def test_authors_tables_from_their_sensitivities(q_max):
    """Entry by entry as their code does, in float64; float32 tables agree to one rounding."""
    with np.load(Path(DATA) / "jpeg_dl" / "authors_tables.npz") as stored:
        kept = {name: stored[name] for name in stored.files}
    pairs = [name for name in kept if name.startswith("sensitivity/") and "/Y_" in name]
    assert len(pairs) >= 22
    for name in pairs:
        s = np.stack([kept[name.replace("/Y_", f"/{plane}_")] for plane in ("Y", "Cb", "Cr")])
        scale = q_max / max(1 / v for v in s[0])
        tables = JPEG.from_sensitivity(torch.from_numpy(s), q_max=q_max).tables
        for i, (row, column) in enumerate(zigzag_places()):
            expected = scale / s[0, i], scale * 2 / (s[1, i] + s[2, i])
            found = tables[:, row, column].tolist()
            assert found == pytest.approx(expected, rel=1.2e-7), (name, i)
        assert tables[0].max().item() == pytest.approx(q_max, rel=1e-6)


@pytest.mark.data
@needs_data
def test_authors_mean_absolute_coefficients():
    """Their file of ImageNet against 200 images of it. Low frequencies only: their crops are
    resized, ours lost chroma to an earlier JPEG."""
    pytest.importorskip("PIL.Image")
    from benchmarks.inputs.images import ImageSet

    with np.load(Path(DATA) / "jpeg_dl" / "authors_tables.npz") as stored:
        y, c = (stored[f"tables/ImageNet_abs_avg/abs_avg_{name}"] for name in ("Y", "CbCr"))
    photos = ImageSet(Path(DATA) / "images" / "imagenet_sample200_256.npz", "test")
    crops = (torch.tensor(photos[i][16:240, 16:240]).permute(2, 0, 1) for i in range(len(photos)))
    m = jsc.jpeg.mean_absolute((x[None].float() for x in crops), peak=255.0)
    found = torch.stack([m[0], (m[1] + m[2]) / 2])[:, :2, :2].float()
    expected = torch.from_numpy(np.stack([y, c])[:, :2, :2])
    torch.testing.assert_close(found, expected, rtol=0.15, atol=0)
    tables = JPEG.from_mean_absolute(torch.from_numpy(np.stack([y, c, c]))).tables
    np.testing.assert_allclose(tables.detach(), np.stack([y, c]) * 2 / 128**0.5, rtol=1e-6)
