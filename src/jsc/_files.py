"""Files that a user names: they are read whole, and reading never waits; they are written whole or
not at all."""

from __future__ import annotations

import errno
import os
import secrets
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


def write_bytes(file: Any, data: bytes) -> None:
    """`data` into a binary file, or as the content of a path: where that fails, what the path had
    before is still there. OSError if it cannot be written."""
    if hasattr(file, "write"):
        file.write(data)
        return
    if not isinstance(file, (str, PathLike)):  # a number would be a descriptor of this process
        raise TypeError(
            f"file must be a path or a binary file open for writing, got {_checks.shown(file)}"
        )
    try:
        mode = os.stat(file).st_mode
    except FileNotFoundError:
        if not os.fspath(file):  # whose real path would be that of the folder we are in
            raise
        mode = None
    if mode is not None and not stat.S_ISREG(mode):  # /dev/stdout; `open` refuses a folder
        with open(file, "wb") as opened:
            opened.write(data)
        return
    path = os.path.realpath(file)  # a link stays one
    if mode is not None:
        os.close(os.open(path, os.O_WRONLY))  # refused where `open` is
    _replace(path, data, mode)


def _replace(path: str, data: bytes, mode: int | None) -> None:
    """By a file beside it that is complete before it takes the name, and may do what a file that
    is new may, or what the old one might."""
    beside = os.path.join(os.path.dirname(path), f".jsc-{secrets.token_hex(8)}")
    try:
        # not by `tempfile`, whose files nobody else may read
        number = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError as error:
        error.filename = path  # the name that the user knows
        raise
    try:
        with open(number, "wb") as opened:
            opened.write(data)
            if mode is not None:
                os.fchmod(number, stat.S_IMODE(mode))
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise
