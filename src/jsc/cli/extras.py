"""Optional packages of the command line (see `jsc._extras`), and pictures read by one of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from jsc._extras import MissingExtraError as MissingExtraError
from jsc._extras import need as need
from jsc._version import install_command

PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".webp")


def picture(path: Path, mode: str, purpose: str) -> Any:
    """Pillow's picture of a file, the right way up; ValueError if it cannot be read."""
    pillow = need("PIL.Image", "Pillow", "jpeg", purpose)
    operations = need("PIL.ImageOps", "Pillow", "jpeg", purpose)
    try:
        with pillow.open(path) as image:
            return operations.exif_transpose(image).convert(mode)
    except Exception as error:  # Pillow tells damage by errors of many types
        raise ValueError(f"{purpose}: {path} cannot be read: {error}") from error


def folder_of(module: str, package: str, extra: str, purpose: str) -> Path:
    """Where a package lies, without importing it, or the error of `need`."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(
            f"{purpose} needs {package}, which is not installed; "
            f"install it with: {install_command(extra)}"
        )
    return Path(spec.submodule_search_locations[0])
