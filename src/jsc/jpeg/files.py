"""Real JPEG files with tables of one's own, through Pillow."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jsc import _checks
from jsc._extras import need
from jsc._files import File, read_bytes, write_bytes
from jsc._lock import Lock
from jsc.functional.options import JpegOptions
from jsc.typing import Subsampling

# A progressive file of some kilobytes can ask for thousands of passes over a large image. Encoders
# make about ten.
MOST_SCANS = 100
# A marker that is followed by its segment's length. Reserved ones (02 to BF) are not: libjpeg looks
# for the next marker right behind them, so that skipping a segment there would hide scans.
MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
START_OF_SCAN, END = b"\xff\xda", b"\xff\xd9"
LONGEST_SIDE = 65500  # of libjpeg; the format has 16 bits for it

_enlarging = Lock()  # the size of Pillow's buffer is that of all threads


def save(
    file: File,
    image: Tensor,
    tables: Tensor,
    *,
    subsampling: Subsampling = "4:4:4",
    peak: float = 1.0,
    optimize: bool = True,
    progressive: bool = False,
) -> None:
    """Write an image as a baseline JPEG file whose quantisation tables are `tables`.

    Parameters
    ----------
    file : path, or binary file open for writing
    image : Tensor, (3, H, W) RGB, (1, H, W) or (H, W) grey
        uint8; or floating, in [0, peak], which is rounded and clipped to 8 bits.
    tables : Tensor of integers, (2, 8, 8), for grey images (1, 8, 8) does; 1 to 255
        Natural order, as :meth:`jsc.nn.JPEG.quant_tables` gives them.
    subsampling : str
        "4:4:4", "4:2:2" or "4:2:0"; the one the tables were trained with.
    optimize : bool
        Huffman codes made for this image: smaller by some per cent, the same pixels.
    progressive : bool
        Progressive instead of sequential: mostly smaller still, the same pixels.

    Raises
    ------
    TypeError, ValueError  if an argument does not fit.
    OSError  if the file cannot be written; what a path had before is still there then.
    MissingExtraError  without Pillow.

    Examples
    --------
    >>> layer, image = jsc.nn.JPEG.from_quality(50), torch.rand(3, 40, 56)
    >>> jsc.jpeg.save("image.jpg", image, layer.quant_tables(), subsampling="4:2:0")
    >>> torch.equal(jsc.jpeg.read_tables("image.jpg"), layer.quant_tables())
    True
    """
    used = JpegOptions(subsampling=subsampling, peak=peak)
    pixels = to_bytes(image, used.peak)
    if pixels.ndim == 2:
        pixels = pixels.unsqueeze(0)
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or not pixels.numel():
        raise ValueError(f"image must be (3, H, W), (1, H, W) or (H, W), got {tuple(image.shape)}")
    if max(pixels.shape[1:]) > LONGEST_SIDE:
        raise ValueError(
            f"image must have at most {LONGEST_SIDE} rows and columns, more than which libjpeg "
            f"does not write; got {tuple(image.shape)}"
        )
    require_integer_tables(tables, pixels.shape[0])
    array = np.ascontiguousarray(pixels.permute(1, 2, 0).cpu().numpy())
    picture = _pillow().fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    steps = tables[: 1 if pixels.shape[0] == 1 else 2]
    options: dict[str, Any] = {
        "qtables": [table.flatten().tolist() for table in steps],
        "subsampling": used.subsampling if pixels.shape[0] == 3 else -1,
        "optimize": bool(optimize),
        "progressive": bool(progressive),
    }
    written = io.BytesIO()
    whole = optimize or progressive  # else Pillow's buffer is emptied whenever it is full
    with _large_buffer(2 * pixels.numel() + 4096) if whole else nullcontext():
        picture.save(written, "JPEG", **options)
    write_bytes(file, written.getvalue())


def load(file: File) -> Tensor:
    """The pixels of a JPEG file: (3, H, W) RGB or (1, H, W) grey, uint8, as they are stored. An
    orientation in the file's EXIF data is not applied: `PIL.ImageOps.exif_transpose` does so.

    Parameters
    ----------
    file : path, or binary file open for reading

    Raises
    ------
    ValueError  if it is no JPEG file or a damaged one, has more than 1.8e8 pixels (a bound that
    Pillow has against files which are small and decode to gigabytes) or 100 scans, or is a pipe.
    OSError  if it cannot be read.
    MissingExtraError  without Pillow.
    """
    with _opened(file) as picture:
        array = np.array(picture if picture.mode == "L" else picture.convert("RGB"))
    pixels = torch.from_numpy(array)
    return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


def read_tables(file: File) -> Tensor:
    """The quantisation tables of any JPEG file, int64, natural order; pixels are not decoded.

    (2, 8, 8): of Y, and of Cb and Cr. A grey file has one, (1, 8, 8). Where Cb and Cr differ, which
    is rare, (3, 8, 8). Entries go up to 255, or 65535 in files with 16-bit tables, which no browser
    is bound to read.

    Raises
    ------
    ValueError  if the file is no JPEG, has no such tables or zeros in them, or is refused by
    :func:`load` for its size.
    OSError  if it cannot be read.
    MissingExtraError  without Pillow.
    """
    with _opened(file) as picture:
        stored: dict[int, Any] = picture.quantization
        chosen = [component[3] for component in picture.layer]  # of each component
    missing = [number for number in chosen if len(stored.get(number, ())) != 64]
    if missing or not chosen:
        raise ValueError(f"{_name(file)} lacks quantisation tables: is it damaged or abbreviated?")
    tables = [torch.tensor(list(stored[number]), device="cpu").view(8, 8) for number in chosen]
    if not all(bool((table > 0).all()) for table in tables):
        raise ValueError(f"{_name(file)} has a quantisation step of 0: is it damaged?")
    if len(tables) > 2 and torch.equal(tables[1], tables[2]):
        tables = tables[:2]
    return torch.stack(tables[:3])


def require_integer_tables(tables: Tensor, channels: int) -> None:
    """What a baseline JPEG file of an image with `channels` can hold."""
    _checks.require_tensor(tables, "tables")
    if tables.is_floating_point() or tables.is_complex() or tables.dtype == torch.bool:
        raise TypeError(
            f"tables must be integers, got {tables.dtype}; a layer's quant_tables() gives them, "
            "or tables.round().clamp(1, 255).long()"
        )
    if tuple(tables.shape) not in ((2, 8, 8), (1, 8, 8))[: 2 if channels == 1 else 1]:
        raise ValueError(
            f"tables must be (2, 8, 8): steps of Y, and of Cb and Cr; got {tuple(tables.shape)}"
        )
    wide = tables.long()  # torch finds no extremes of uint16, uint32 and uint64
    low, high = int(wide.min()), int(wide.max())
    if low < 1 or high > 255:
        raise ValueError(
            f"tables of a baseline JPEG are from 1 to 255, got {low} to {high}; "
            "tables.clamp(1, 255) makes them so"
        )


def to_bytes(image: Tensor, peak: float) -> Tensor:
    """Pixels in [0, peak] rounded and clipped to uint8; uint8 stays as it is."""
    _checks.require_tensor(image, "image")
    if image.dtype == torch.uint8:
        return image.detach()
    if not image.is_floating_point():
        raise TypeError(f"image must be uint8 or floating, got {image.dtype}")
    pixels = _checks.as_computed(image.detach(), "image") * (255 / peak)
    if not bool(pixels.isfinite().all()):
        raise ValueError("image must be finite, got NaN or infinity")
    return pixels.round().clamp(0, 255).to(torch.uint8)


def _pillow() -> Any:
    return need("PIL.Image", "Pillow", "jpeg", "jsc.jpeg with real files")


@contextmanager
def _large_buffer(size: int) -> Iterator[None]:
    """Pillow's buffer must hold the whole file when codes are optimised; its own guess of a byte
    per pixel is too small for noise with steps of 1, and only a global of its module changes it."""
    module = need("PIL.ImageFile", "Pillow", "jpeg", "jsc.jpeg with real files")
    with _enlarging:
        before = module.MAXBLOCK
        module.MAXBLOCK = max(before, size)
        try:
            yield
        finally:
            module.MAXBLOCK = before


@contextmanager
def _opened(file: File) -> Iterator[Any]:
    """Pillow's picture of a file; ValueError for whatever is wrong with it, also while in use."""
    pillow, data = _pillow(), read_bytes(file)
    if _scans(data) > MOST_SCANS:
        raise ValueError(f"{_name(file)} has more than {MOST_SCANS} scans: is it damaged?")
    try:
        with pillow.open(io.BytesIO(data), formats=["JPEG"]) as picture:
            yield picture
    except pillow.UnidentifiedImageError as error:
        raise ValueError(f"{_name(file)} is no JPEG file, or a damaged one") from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow tells damage by errors of many types
        raise ValueError(
            f"{_name(file)} cannot be decoded: {error or type(error).__name__}"
        ) from error


def _scans(data: bytes) -> int:
    """How many scans the image has. Pictures in its segments (thumbnails) or behind its end are not
    decoded."""
    count, at = 0, 2  # behind the marker that begins the image
    while (found := MARKER.search(data, at)) and found[0] != END:
        count += found[0] == START_OF_SCAN
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return count


def _name(file: File) -> str:
    return str(getattr(file, "name", "the file") if hasattr(file, "read") else file)
