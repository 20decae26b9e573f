"""Optional packages of the command line (see `jsc._extras`)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from jsc._extras import MissingExtraError as MissingExtraError
from jsc._extras import need as need
from jsc._version import install_command


def folder_of(module: str, package: str, extra: str, purpose: str) -> Path:
    """Where a package lies, without importing it, or the error of `need`."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(
            f"{purpose} needs {package}, which is not installed; "
            f"install it with: {install_command(extra)}"
        )
    return Path(spec.submodule_search_locations[0])
