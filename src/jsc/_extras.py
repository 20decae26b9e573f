"""Optional packages: imported where they are used, and named with their extra when absent."""

from __future__ import annotations

import importlib
from typing import Any

from jsc._version import install_command


class MissingExtraError(RuntimeError):
    """An optional package is not installed. The message says how to install it."""


def need(module: str, package: str, extra: str, purpose: str) -> Any:
    """The module, or an error that says which extra brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{purpose} needs {package}, which cannot be imported ({error}); "
            f"install it with: {install_command(extra)}"
        ) from None
