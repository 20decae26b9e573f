"""Real files: written, read back, and computed bit by bit without a file."""

import io
import os
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import jsc
from jsc._extras import MissingExtraError
from jsc.jpeg import decoded, load, quality_tables, read_tables, save
from jsc.jpeg.decoded import MATRIX
from jsc.reference.jpeg import BASIS

image = pytest.importorskip("PIL.Image")
features = pytest.importorskip("PIL.features")
SUBSAMPLINGS = ["4:4:4", "4:2:2", "4:2:0"]


def natural(h, w, seed=0):
    """A picture with the 1/f spectrum and the correlated colours of a photograph, uint8."""
    generator = torch.Generator().manual_seed(seed)
    frequency = torch.fft.fftfreq(h)[:, None].hypot(torch.fft.rfftfreq(w))
    frequency[0, 0] = 1
    noise = torch.fft.rfft2(torch.randn(3, h, w, generator=generator)) / frequency
    planes = torch.fft.irfft2(noise, s=(h, w))
    planes = planes / planes.std((1, 2), correction=0, keepdim=True).clamp(min=1e-3)
    mix = torch.tensor([[1, 0.3, 0.2], [1, 0.1, -0.2], [1, -0.3, 0.1]])
    mixed = 120 + 45 * torch.einsum("ij,jhw->ihw", mix, planes)
    return mixed.round().clamp(0, 255).to(torch.uint8)


def noise(h, w):
    return torch.randint(0, 256, (3, h, w), dtype=torch.uint8)


def written(x, tables, **options):
    file = io.BytesIO()
    save(file, x, tables, **options)
    file.seek(0)
    return file


def random_tables():
    return torch.randint(1, 256, (2, 8, 8))


def dqt(data):
    """Tables of a file, read from its bytes: {number: 64 entries in zig-zag order}."""
    found, at = {}, 2
    while data[at + 1] != 0xDA:
        (size,) = struct.unpack(">H", data[at + 2 : at + 4])
        if data[at + 1] == 0xDB:
            body = data[at + 4 : at + 2 + size]
            for start in range(0, len(body), 65):
                found[body[start]] = list(body[start + 1 : start + 65])
        at += 2 + size
    return found


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("options", [{}, {"optimize": False}, {"progressive": True}])
def test_tables_come_back(subsampling, options):
    tables = random_tables()
    file = written(natural(33, 50), tables, subsampling=subsampling, **options)
    assert torch.equal(read_tables(file), tables)
    stored = dqt(file.getvalue())  # Pillow is not asked
    assert [stored[0], stored[1]] == jsc.jpeg.to_zigzag(tables).tolist()
    file.seek(0)
    sampling = [layer[1:3] for layer in image.open(file).layer]
    assert sampling[0] == {"4:4:4": (1, 1), "4:2:2": (2, 1), "4:2:0": (2, 2)}[subsampling]
    assert sampling[1:] == [(1, 1), (1, 1)]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.uint32])
def test_tables_of_every_type_of_integers(dtype):
    x, tables = noise(9, 12), random_tables()
    assert torch.equal(read_tables(written(x, tables.to(dtype))), tables)
    assert torch.equal(decoded(x, tables.to(dtype)), decoded(x, tables))
    with pytest.raises(ValueError, match="got 0 to 0"):
        written(x, torch.zeros(2, 8, 8, dtype=dtype))


def test_another_default_device():
    tables = random_tables()
    file = written(noise(9, 12), tables)
    with torch.device("meta"):
        found = read_tables(file)
    assert torch.equal(found, tables)


def test_grey():
    tables = random_tables()
    for x in (natural(20, 30)[:1], natural(20, 30)[0]):
        for given in (tables, tables[:1]):
            file = written(x, given, subsampling="4:2:0")
            assert torch.equal(read_tables(file), tables[:1])
            file.seek(0)
            assert torch.equal(load(file)[None], decoded(x.view(1, 1, 20, 30), given))


def test_paths_and_floats(tmp_path):
    x, tables = natural(16, 24), quality_tables(90).long()
    save(tmp_path / "a.jpg", x, tables)
    save(str(tmp_path / "b.jpg"), x.double() / 255, tables)
    save(tmp_path / "c.jpg", x.float() + 0.3, tables, peak=255.0)
    first, *others = [(tmp_path / f"{name}.jpg").read_bytes() for name in "abc"]
    assert all(other == first for other in others)
    assert load(tmp_path / "a.jpg").shape == (3, 16, 24)
    over = written(torch.full((3, 8, 8), 7.0), tables)
    assert load(over).min() >= 254


def test_pillows_quality_is_ours():
    x = natural(40, 40)
    ours = load(written(x, quality_tables(60).long()))
    file = io.BytesIO()
    image.fromarray(x.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=60, subsampling=0)
    assert torch.equal(ours, load(file))


def test_noise_with_steps_of_one_fits_the_buffer(capfd):
    x = noise(300, 300)
    assert load(written(x, torch.ones(2, 8, 8).long())).shape == x.shape
    assert capfd.readouterr().err == ""


def test_threads_that_save_leave_pillows_buffer_as_it_was(monkeypatch):
    """Its size is a global of Pillow's: one thread at a time changes it, and only who must."""
    module = pytest.importorskip("PIL.ImageFile")
    before, saving, most, encode = module.MAXBLOCK, [], [0], image.Image.save

    def slowly(*arguments, **options):
        saving.append(options)
        if options["optimize"]:
            most[0] = max(most[0], sum(o["optimize"] for o in saving))
        elif not any(o["optimize"] for o in saving):
            assert before == module.MAXBLOCK
        time.sleep(0.01)
        encode(*arguments, **options)
        saving.remove(options)

    monkeypatch.setattr(image.Image, "save", slowly)
    x, tables = noise(200, 200), torch.ones(2, 8, 8).long()
    jobs = [lambda k=k: written(x, tables, optimize=k % 4 > 0) for k in range(12)]
    with ThreadPoolExecutor(6) as pool:
        for job in [pool.submit(job) for job in jobs]:
            job.result()
    assert most == [1]
    assert before == module.MAXBLOCK


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_to_8_bits_in_float32(dtype):
    x, tables = (natural(64, 96) / 255 * 0.97).to(dtype), torch.ones(2, 8, 8).long()
    assert written(x, tables).getvalue() == written(x.float(), tables).getvalue()


def with_tables(tables, numbers, bits=8):
    """A small file whose tables and the components' choice of them are replaced."""
    data = written(natural(8, 8), quality_tables(50).long()).getvalue()
    parts, at = [data[:2]], 2
    for number, table in enumerate(tables):
        values = jsc.jpeg.to_zigzag(table).tolist()
        body = bytes([number | (16 if bits == 16 else 0)])
        body += struct.pack(">64H", *values) if bits == 16 else bytes(values)
        parts.append(b"\xff\xdb" + struct.pack(">H", len(body) + 2) + body)
    while data[at + 1] != 0xDA:
        (size,) = struct.unpack(">H", data[at + 2 : at + 4])
        segment = bytearray(data[at : at + 2 + size])
        if data[at + 1] == 0xC0:
            for i, number in enumerate(numbers):
                segment[12 + 3 * i] = number
        if data[at + 1] != 0xDB:
            parts.append(bytes(segment))
        at += 2 + size
    return io.BytesIO(b"".join(parts) + data[at:])


def test_tables_of_other_encoders():
    three = torch.randint(1, 256, (3, 8, 8))
    assert torch.equal(read_tables(with_tables(three, (0, 1, 2))), three)
    assert torch.equal(read_tables(with_tables(three[:1], (0, 0, 0))), three[[0, 0]])
    assert torch.equal(read_tables(with_tables(three[:2], (1, 0, 0))), three[[1, 0]])
    wide = torch.randint(1, 65536, (2, 8, 8))
    assert torch.equal(read_tables(with_tables(wide, (0, 1, 1), bits=16)), wide)


def test_damaged_files(tmp_path):
    with pytest.raises(ValueError, match="no JPEG file"):
        read_tables(io.BytesIO(b"no picture"))
    with pytest.raises(ValueError, match="lacks quantisation tables"):
        read_tables(with_tables([], (0, 1, 1)))
    good = written(natural(64, 64), quality_tables(50).long()).getvalue()
    path = tmp_path / "half.jpg"
    path.write_bytes(good[: len(good) // 2])
    assert read_tables(path).shape == (2, 8, 8)  # the header is there
    with pytest.raises(ValueError, match=r"half\.jpg cannot be decoded"):
        load(path)
    path.write_bytes(good[:30])
    with pytest.raises(ValueError, match="damaged"):
        read_tables(path)
    with pytest.raises(FileNotFoundError):
        read_tables(tmp_path / "none.jpg")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"tables": quality_tables(50)}, TypeError, "quant_tables"),
        ({"tables": torch.zeros(2, 8, 8).long()}, ValueError, "1 to 255, got 0 to 0"),
        ({"tables": torch.full((2, 8, 8), 256)}, ValueError, "clamp"),
        ({"tables": torch.ones(2, 64).long()}, ValueError, r"\(2, 8, 8\)"),
        ({"tables": torch.ones(1, 8, 8).long()}, ValueError, r"\(2, 8, 8\)"),
        ({"tables": [[1] * 64] * 2}, TypeError, "torch.Tensor"),
        ({"image": torch.zeros(2, 8, 8)}, ValueError, r"\(3, H, W\)"),
        ({"image": torch.zeros(1, 3, 8, 8)}, ValueError, r"\(3, H, W\)"),
        ({"image": torch.zeros(3, 0, 8)}, ValueError, r"\(3, H, W\)"),
        ({"image": torch.zeros(3, 8, 8).long()}, TypeError, "uint8 or floating"),
        ({"image": torch.full((3, 8, 8), float("nan"))}, ValueError, "finite"),
        ({"image": torch.zeros(3, 1, 65501)}, ValueError, r"65500 .* got \(3, 1, 65501\)"),
        ({"subsampling": "4:1:1"}, ValueError, "4:4:4, 4:2:2, 4:2:0"),
        ({"peak": 0}, ValueError, "peak"),
    ],
)
def test_errors(change, error, message):
    good = {"image": torch.zeros(3, 8, 8), "tables": quality_tables(50).long()}
    arguments = {**good, **change}
    with pytest.raises(error, match=message):
        save(io.BytesIO(), arguments.pop("image"), arguments.pop("tables"), **arguments)


def test_without_pillow(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'jsc-torch\[jpeg\]'"):
        read_tables("photo.jpg")


def test_matrix_is_the_dct():
    # The vertical part of the basis images (k, 0) is the DCT matrix, times 1 / sqrt 8.
    exact = BASIS[:, 0, :, 0] * 8192 * 8
    assert (torch.tensor(MATRIX) - exact).abs().max() < 1.5


SIZES = [(64, 96), (53, 37), (17, 16), (16, 17), (1, 1), (9, 2), (33, 3), (5, 4)]


def decibels(a, b):
    return -10 * ((a.double() - b.double()) / 255).square().mean().clamp(min=1e-12).log10()


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("size", SIZES)
def test_decoded_is_libjpeg(size, subsampling):
    for x in (natural(*size), noise(*size)):
        for tables in (quality_tables(10).long(), quality_tables(95).long(), random_tables()):
            pixels = load(written(x, tables, subsampling=subsampling))
            found = decoded(x[None], tables, subsampling=subsampling)[0]
            if features.check_feature("libjpeg_turbo"):
                assert torch.equal(found, pixels)
            else:  # another library rounds otherwise
                assert decibels(found, pixels) > 30


def test_decoded_normalises():
    x, tables = natural(64, 96)[None], quality_tables(40).long()
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    m, s = torch.tensor(mean).view(1, 3, 1, 1), torch.tensor(std).view(1, 3, 1, 1)
    expected = decoded(x, tables, subsampling="4:2:0").float()
    layer = jsc.nn.JPEG(tables.float() + 0.2, subsampling="4:2:0", mean=mean, std=std)
    found = layer.decoded((x / 255 - m) / s)
    torch.testing.assert_close((found * s + m) * 255, expected, rtol=0, atol=1e-3)
    assert torch.equal(decoded(x.float(), tables, peak=255.0, subsampling="4:2:0"), expected)
    # the layer with hard rounding differs by the rounding to 8 bits only
    hard = jsc.nn.JPEG(tables.float(), quantizer="hard", subsampling="4:2:0", peak=255.0)
    assert decibels(hard(x.float()).clamp(0, 255), expected) > 36
    assert decoded(torch.zeros(0, 3, 8, 8), tables).shape == (0, 3, 8, 8)
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\)"):
        decoded(x[0, 0], tables)
    with pytest.raises(TypeError, match="integers"):
        decoded(x, tables.float())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16, torch.bfloat16])
def test_decoded_takes_one_image_and_half_precision(dtype):
    x, tables = natural(20, 28)[None], quality_tables(40).long()
    expected = decoded(x, tables)
    batch = x if dtype == torch.uint8 else (x / 255 * 2 - 1).to(dtype)
    options = {} if dtype == torch.uint8 else {"mean": 0.5, "std": 0.5}
    found = decoded(batch, tables, **options)
    assert found.dtype == dtype
    assert torch.equal(decoded(batch[0], tables, **options), found[0])
    if dtype == torch.float16:  # half a grey level is more than its rounding, of bfloat16 less
        assert torch.equal(found, (expected.float() / 255 * 2 - 1).to(dtype))


DATA = os.environ.get("JSC_DATA")


@pytest.mark.data
@pytest.mark.skipif(not DATA, reason="JSC_DATA is not set")
@pytest.mark.parametrize("name", ["imagenet_sample200_256", "flower_photos5_128"])
def test_decoded_is_libjpeg_on_photographs(name):
    from benchmarks.inputs.images import ImageSet

    photos = ImageSet(Path(DATA) / "images" / f"{name}.npz")
    for i in range(0, len(photos), 40):
        x = torch.from_numpy(photos[i].copy()).permute(2, 0, 1)
        for subsampling in SUBSAMPLINGS:
            for quality in (10, 50, 75, 95):
                tables = quality_tables(quality).long()
                pixels = load(written(x, tables, subsampling=subsampling))
                found = decoded(x[None], tables, subsampling=subsampling)[0]
                assert decibels(found, pixels) >= 49
                assert torch.equal(found, pixels) or not features.check_feature("libjpeg_turbo")
