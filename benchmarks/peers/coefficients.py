"""The quantised DCT coefficients that a JPEG file holds, read by libjpeg through jpeglib."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from jsc._extras import need


def read(file: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (3, 64, H / 8, W / 8) int16 and the steps (3, 64) of a 4:4:4 file.

    Both in natural order, 8 v + u of the vertical frequency v and the horizontal u. ValueError for
    a file of another subsampling or with one component.
    """
    # It reads files by their path only.
    with tempfile.TemporaryDirectory(dir=_in_memory()) as folder:
        path = Path(folder) / "image.jpg"
        path.write_bytes(file)
        return read_path(path)


def read_path(path: Path) -> tuple[np.ndarray, np.ndarray]:
    jpeglib = need("jpeglib", "jpeglib", "bench", "reading coefficients")
    found = jpeglib.read_dct(str(path))
    planes = [found.Y, found.Cb, found.Cr]
    if any(plane is None or plane.shape != planes[0].shape for plane in planes):
        raise ValueError(f"{path.name} must be a 4:4:4 file of three components")
    height, width = planes[0].shape[:2]
    stacked = np.stack(planes).reshape(3, height, width, 64).transpose(0, 3, 1, 2)
    steps = np.stack([found.qt[number].reshape(64) for number in found.quant_tbl_no])
    return np.ascontiguousarray(stacked.astype(np.int16)), steps.astype(np.float32)


def _in_memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
