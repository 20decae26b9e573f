"""Files that a user names: they are read whole, and reading never waits."""

from __future__ import annotations

import errno
import os
import stat
from os import PathLike
from typing import Any, BinaryIO

from jsc import _checks

File = str | PathLike[str] | BinaryIO


def open_regular(path: str | PathLike[str]) -> BinaryIO:
    """The file, open for reading; ValueError if it is a pipe, a device or a socket, where reading
    may wait for ever; TypeError if it is no path (a number would be a descriptor of this process).
    OSError if it cannot be opened."""
    if not isinstance(path, (str, PathLike)):
        raise TypeError(f"path must be a str or a path, got {type(path).__name__}")
    # without O_NONBLOCK the opening of a pipe waits for a writer
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        mode = os.fstat(number).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if not stat.S_ISREG(mode):
            raise ValueError(
                f"{os.fspath(path)} is a pipe or a device, not a file; read it yourself and give "
                "io.BytesIO(data)"
            )
        return open(number, "rb")
    except BaseException:
        os.close(number)
        raise


def read_bytes(file: Any) -> bytes:
    """All bytes of a path or of a binary file, which is read from its beginning if it can be."""
    if isinstance(file, (str, PathLike)):
        with open_regular(file) as opened:
            return opened.read()
    if not hasattr(file, "read"):
        raise TypeError(
            f"file must be a path or a binary file open for reading, got {_checks.shown(file)}"
        )
    if hasattr(file, "seekable") and file.seekable():
        file.seek(0)
    data = file.read()
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(
            f"file must be open for reading bytes, but gave a {type(data).__name__}; open it with "
            'mode "rb"'
        )
    return bytes(data)
