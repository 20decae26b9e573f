"""The version of this package, and the name that pip knows it by: `jsc` there is somebody else's.

The version stands here alone (pyproject.toml reads it); the name stands in pyproject.toml too.
"""

__version__ = "0.1.0"
DISTRIBUTION = "jsc-torch"


def install_command(extra: str) -> str:
    """What a shell installs an optional set of dependencies with."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"
