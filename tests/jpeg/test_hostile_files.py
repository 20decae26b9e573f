"""Damaged and hostile files raise a ValueError, in bounded memory and time."""

import io
import os
import socket
import struct
import subprocess
import sys

import pytest
import torch

import jsc
from jsc.jpeg import files, load, quality_tables, read_tables, save

image = pytest.importorskip("PIL.Image")


def written(mode="RGB", **options):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (24 * 40 * 4,), generator=generator, dtype=torch.uint8)
    file = io.BytesIO()
    picture = image.frombytes(mode, (40, 24), pixels.numpy().tobytes()[: 24 * 40 * len(mode)])
    picture.save(file, "JPEG", **options)
    return file.getvalue()


def sized(data, height, width):
    at = next(i for marker in (b"\xff\xc0", b"\xff\xc2") if (i := data.find(marker)) >= 0)
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def with_table(data, entries, wide):
    """The first table of a file replaced."""
    at = data.index(b"\xff\xdb")
    size = struct.unpack(">H", data[at + 2 : at + 4])[0]
    packed = struct.pack(f">64{'H' if wide else 'B'}", *entries)
    body = bytes([16 if wide else 0]) + packed
    return data[:at] + b"\xff\xdb" + struct.pack(">H", len(body) + 2) + body + data[at + 2 + size :]


def python(code, *arguments):
    """Run it in a process of its own, which can be ended after a time."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_a_header_of_4_gigapixels(tmp_path):
    """An image of 65535 x 65535 is 12 GB; neither function may begin with it."""
    names = []
    for mode in ("RGB", "L", "CMYK"):
        for progressive in (False, True):
            names.append(tmp_path / f"{mode}{progressive}.jpg")
            names[-1].write_bytes(sized(written(mode, progressive=progressive), 65535, 65535))
    run = python(
        "import resource, sys, jsc, numpy, PIL.JpegImagePlugin\n"
        "pages = int(open('/proc/self/statm').read().split()[0])\n"
        "most = pages * resource.getpagesize() + (64 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
        "for name in sys.argv[1:]:\n"
        "    for function in (jsc.jpeg.load, jsc.jpeg.read_tables):\n"
        "        try:\n            function(name)\n"
        "        except ValueError as error:\n            print(error)",
        *names,
    )
    assert run.stdout.count("exceeds limit") == 2 * len(names), run.stderr


def test_a_file_of_thousands_of_scans():
    data = written(progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    bomb = data[:-2] + scan * 1000 + data[-2:]
    for function in (load, read_tables):
        with pytest.raises(ValueError, match="more than 100 scans"):
            function(io.BytesIO(bomb))


@pytest.mark.parametrize("reserved", [0x02, 0x4F, 0xBF])
def test_reserved_markers_hide_no_scans(reserved):
    """They have no length, so that nothing behind them is theirs to skip."""
    hidden = b"\xff" + bytes([reserved]) + b"\x40\x00"
    scans = b"\xff\xda\x00\x02" * 1000
    assert files._scans(b"\xff\xd8" + hidden + scans + b"\xff\xd9") == 1000


@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 1}, {"progressive": True}])
def test_only_the_scans_of_the_image_count(options):
    """Not those of a thumbnail, nor what lies behind the end: another picture, a film."""
    data, scan = written(**options), b"\xff\xda\x00\x02"
    expected = load(io.BytesIO(data))
    thumbnail = b"\xff\xe5\x10\x02" + scan * 1024
    for more in (data + scan * 1000, data[:2] + thumbnail + data[2:]):
        assert torch.equal(load(io.BytesIO(more)), expected)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 1}])
def test_kinds_of_files_that_are_right(mode, options):
    data = written(mode, quality=60, **options)
    assert load(io.BytesIO(data)).shape == (1 if mode == "L" else 3, 24, 40)
    expected = quality_tables(60).long()[: 1 if mode == "L" else 2]
    if mode == "CMYK":  # all four components have the first table
        expected = expected[:1].expand(2, 8, 8)
    assert torch.equal(read_tables(io.BytesIO(data)), expected)


def test_steps_of_16_bits_and_of_zero():
    wide = with_table(written("L"), range(1, 65), True)
    assert read_tables(io.BytesIO(wide)).max() == 64
    large = with_table(written("L"), [65535] * 64, True)
    assert read_tables(io.BytesIO(large)).eq(65535).all()
    for entries in ([0] * 64, [5] * 63 + [0]):
        with pytest.raises(ValueError, match="step of 0"):
            read_tables(io.BytesIO(with_table(written("L"), entries, False)))


@pytest.mark.parametrize("size", [(0, 40), (24, 0)])
def test_a_header_without_pixels(size):
    with pytest.raises(ValueError, match="file"):
        load(io.BytesIO(sized(written(), *size)))


def test_12_bits_and_arithmetic_coding():
    data = bytearray(written())
    at = data.index(b"\xff\xc0")
    data[at + 4] = 12
    with pytest.raises(ValueError, match=r"cannot be decoded|is no JPEG"):
        load(io.BytesIO(data))
    data[at + 4], data[at + 1] = 8, 0xC9  # arithmetic: read if this libjpeg can, or refused
    try:
        assert load(io.BytesIO(data)).shape == (3, 24, 40)
    except ValueError as error:
        assert "the file" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"no image", b"\x00" * 999]
)
def test_what_is_no_image(data, tmp_path):
    (tmp_path / "file.jpg").write_bytes(data)
    for function in (load, read_tables):
        for file in (tmp_path / "file.jpg", io.BytesIO(data)):
            with pytest.raises(ValueError, match=r"is no JPEG file|cannot be decoded|lacks"):
                function(file)


def test_what_may_never_end(tmp_path):
    """A pipe without a writer, devices without an end, a socket."""
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        run = python(
            "import sys, jsc\nfor path in sys.argv[1:]:\n"
            "    for function in (jsc.jpeg.load, jsc.jpeg.read_tables):\n"
            "        try:\n            function(path)\n"
            "        except (ValueError, OSError) as error:\n"
            "            print(type(error).__name__)",
            tmp_path / "pipe", "/dev/zero", "/dev/null", tmp_path / "socket",
        )  # fmt: skip
    assert run.stdout.split() == ["ValueError"] * 6 + ["OSError"] * 2, run.stderr


def test_no_descriptor_is_left_open(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"no image")
    before = len(os.listdir("/proc/self/fd"))
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "file"):
        with pytest.raises((ValueError, IsADirectoryError)):
            load(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_paths_that_cannot_be_opened(tmp_path):
    for function in (load, read_tables):
        with pytest.raises(FileNotFoundError):
            function(tmp_path / "nothing.jpg")
        with pytest.raises(IsADirectoryError):
            function(tmp_path)


def saved(file):
    save(file, torch.rand(3, 8, 8), torch.ones(2, 8, 8, dtype=torch.long))


@pytest.mark.parametrize("file", [None, 7, 0, True, b"path", [], object(), 1.5])
def test_what_is_no_file(file):
    """Not a number either: `open` would take it for a descriptor, and close it."""
    for function in (load, read_tables, saved):
        with pytest.raises(TypeError, match="file must be a path or a binary file"):
            function(file)


def test_a_descriptor_is_not_written_to():
    reader, writer = os.pipe()
    with pytest.raises(TypeError, match="file must be a path"):
        saved(writer)
    os.close(writer)  # still open
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_files_that_are_open():
    data = written()
    expected = load(io.BytesIO(data))
    half = io.BytesIO(data)
    half.seek(100)
    assert torch.equal(load(half), expected)  # from the beginning
    reader, writer = os.pipe()
    with open(writer, "wb") as file:
        file.write(data)
    with open(reader, "rb") as file:  # where one cannot go back
        assert torch.equal(load(file), expected)
    with pytest.raises(TypeError, match='mode "rb"'):
        load(io.StringIO("text"))


def test_save_does_not_touch_a_file_before_all_is_right(tmp_path):
    path = tmp_path / "kept.jpg"
    path.write_bytes(b"kept")
    with pytest.raises(ValueError, match="tables"):
        save(path, torch.rand(3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.long))
    assert path.read_bytes() == b"kept"
    with pytest.raises(OSError, match="directory"):
        save(tmp_path, torch.rand(3, 8, 8), jsc.nn.JPEG().quant_tables())


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    (tmp_path / "kept.jpg").write_bytes(b"kept")
    monkeypatch.setattr(os, "replace", full)
    for name in ("kept.jpg", "new.jpg"):
        with pytest.raises(OSError, match="No space"):
            saved(tmp_path / name)
    assert (tmp_path / "kept.jpg").read_bytes() == b"kept"
    assert os.listdir(tmp_path) == ["kept.jpg"]


def test_a_saved_file_is_as_open_would_make_it(tmp_path):
    old, link, loose = (tmp_path / name for name in ("old.jpg", "link.jpg", "loose.jpg"))
    old.write_bytes(b"old")
    old.chmod(0o640)
    link.symlink_to(old)
    loose.symlink_to(tmp_path / "later.jpg")
    before = os.umask(0o027)
    try:
        for path in (link, loose, tmp_path / "new.jpg"):
            saved(path)
    finally:
        os.umask(before)
    assert link.is_symlink()
    assert loose.is_symlink()
    for name in ("old.jpg", "later.jpg", "new.jpg"):
        assert (tmp_path / name).read_bytes().startswith(b"\xff\xd8")
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o640
    with pytest.raises(FileNotFoundError, match=r"none/a\.jpg"):
        saved(tmp_path / "none" / "a.jpg")


def test_save_to_a_device():
    code = (
        "import jsc, torch\n"
        "jsc.jpeg.save('/dev/stdout', torch.rand(3, 8, 8), jsc.nn.JPEG().quant_tables())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=300)
    assert load(io.BytesIO(run.stdout)).shape == (3, 8, 8), run.stderr
