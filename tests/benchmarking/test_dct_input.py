"""`dct_input`: coefficients and pixels are the same pictures, runs are kept, words follow."""

import io
import json

import numpy as np
import pytest
import torch

import jsc
from benchmarks.jpeg import dct_files, dct_input, dct_networks, dct_page
from benchmarks.peers import coefficients


def file_of(seed, side=128, quality=60):
    """A smooth 4:4:4 JPEG file."""
    pillow = pytest.importorskip("PIL.Image")
    random = np.random.default_rng(seed)
    small = pillow.fromarray(random.integers(60, 190, (6, 6, 3), dtype=np.uint8))
    written = io.BytesIO()
    picture = small.resize((side, side), pillow.Resampling.BICUBIC)
    picture.save(written, "JPEG", quality=quality, subsampling="4:4:4")
    return written.getvalue()


def read(file):
    """Coefficients without jpeglib: the DCT of what Pillow decodes, over the steps, rounded."""
    from PIL import Image

    picture = Image.open(io.BytesIO(file))
    picture.draft("YCbCr", picture.size)
    x = torch.from_numpy(np.asarray(picture).astype(np.float32) - 128).permute(2, 0, 1)[None]
    y, c = jsc.jpeg.read_tables(io.BytesIO(file)).float()
    steps = torch.stack([y, c, c])
    levels = (jsc.functional.block_dct(x)[0] / steps[:, None, None]).round()
    levels = levels.permute(0, 3, 4, 1, 2).flatten(1, 2)
    return levels.numpy().astype(np.int16), steps.flatten(1).numpy()


@pytest.fixture
def made(monkeypatch):
    """The benchmark on a few files; how often a network was trained."""
    monkeypatch.setattr(coefficients, "read", read)
    monkeypatch.setattr(coefficients, "read_path", lambda path: read(path.read_bytes()))

    def load(data, quality, quick):
        files = [file_of(seed, quality=quality or 90) for seed in range(12)]
        labels = [seed % 5 for seed in range(12)]
        test = dct_files.of_files(files, labels)
        index = torch.arange(12)
        return dct_files.Files(quality, test[index[:8]], test[index[8:]], test, files)

    monkeypatch.setattr(dct_files, "load", load)
    trained, original = [], dct_networks.train
    monkeypatch.setattr(dct_networks, "train", lambda *a: trained.append(1) or original(*a))
    return trained


def test_it_runs_and_trains_nothing_again(tmp_path, made, capsys):
    given = ["--data", "x", "--quick", "--out", str(tmp_path), "--runs", str(tmp_path / "runs")]
    dct_input.main([*given, "--no-times"])
    assert len(made) == 4
    assert "not known before it is measured" in capsys.readouterr().out
    dct_input.main(given)
    assert len(made) == 4
    found = json.loads((tmp_path / "dct_input.json").read_text())
    assert len(found["rows"]) == 4
    for one in found["files"]:
        assert 0 < one["density"] < 1
        assert set(one["times"]["ratios"]) >= {"stem", "whole", "file to answer"}
    assert found["files"][1]["density"] < found["files"][0]["density"]
    assert (tmp_path / "dct_input.png").exists()
    assert "sceptical reader" in capsys.readouterr().out


@pytest.mark.parametrize("seed", [0, 1])
def test_views_of_both_forms_are_the_same_pictures(made, seed):
    split = dct_files.load(None, 90, quick=True).train
    both = [
        next(dct_files.views(split, torch.Generator().manual_seed(seed), dct))
        for dct in (False, True)
    ]
    (pixels, labels), (levels, same) = both
    assert torch.equal(labels, same)
    side = dct_files.CROP
    blocks = (levels * split.steps.view(-1, 1, 1)).view(-1, 3, 8, 8, side, side)
    y, cb, cr = jsc.functional.block_idct(blocks.permute(0, 1, 4, 5, 2, 3)).unbind(1)
    rgb = torch.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], 1) + 128
    assert (rgb - pixels).abs().mean() < 1
    assert len({tuple(row) for row in levels.flatten(1).tolist()}) == len(labels)


def test_a_zero_stays_a_zero(made):
    split = dct_files.load(None, 60, quick=True).train
    front = dct_networks.build("coefficients", split, 0)[0]
    zeros, prepared = split.levels == 0, front.prepared(split.levels)
    zeros[:, (0, 64, 128)] = False
    assert torch.equal((prepared == 0) & zeros, zeros)
    assert prepared[:, 0].mean().abs() < 1e-3
    assert prepared[:, 0].std().item() == pytest.approx(1, rel=1e-2)


def test_both_networks_have_the_same_trunk(made):
    split = dct_files.load(None, 60, quick=True).train
    models = [dct_networks.build(kind, split, 3) for kind in dct_networks.INPUTS]
    for a, b in zip(*(m[1].parameters() for m in models), strict=True):
        assert torch.equal(a, b)
    shapes = {m[0](dct_networks.inputs(k, split)).shape for k, m in
              zip(dct_networks.INPUTS, models, strict=True)}  # fmt: skip
    assert shapes == {(8, 48, 16, 16)}


def test_sets_of_several_tables_are_refused(made):
    with pytest.raises(ValueError, match="the same quantisation tables"):
        dct_files.of_files([file_of(0, quality=50), file_of(1, quality=60)], [0, 1])


def test_coefficients_are_those_of_the_file():
    pytest.importorskip("jpeglib")
    file = file_of(3, quality=40)
    levels, steps = coefficients.read(file)
    ours, tables = read(file)
    assert np.array_equal(steps, tables)
    assert (levels != ours).mean() < 0.001
    with pytest.raises(ValueError, match="4:4:4"):
        coefficients.read(dct_files_at_420(file))


def dct_files_at_420(file):
    from PIL import Image

    written = io.BytesIO()
    Image.open(io.BytesIO(file)).save(written, "JPEG", subsampling="4:2:0")
    return written.getvalue()


def test_the_sentences_follow_from_the_rows():
    rows = [
        {"quality": 30, "input": kind, "seed": seed, "validation": 60.0, "test": test}
        for kind, tests in (("pixels", (60.0, 62.0)), ("coefficients", (58.0, 61.0)))
        for seed, test in enumerate(tests)
    ]
    names = ("stem", "whole", "file to answer", "file to answer, ideal reader")
    ratios = {name: [1.5, 1.4, 1.6] for name in names}
    ratios["stem, zeros skipped"] = [0.8, 0.7, 0.9]
    about = [{
        "quality": 30, "bytes": 1.0, "bits a pixel": 1.0, "density": 0.1, "density of Y": 0.2,
        "times": {"ratios": ratios},
    }]  # fmt: skip
    assert dct_page.gains(rows, 30) == [-2, -1]
    text = dct_page.words(rows, about)
    assert "90 % of the coefficients are zeros; coefficients against pixels -1.5 ± 0.7" in text
    assert "lose accuracy in the mean (quality 30)" in text
    assert "save time for files quality 30" in text
    assert "faster nowhere on this processor" in text
