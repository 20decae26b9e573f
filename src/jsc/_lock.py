"""A lock that neither a fork nor a signal handler finds closed for ever."""

from __future__ import annotations

import os
import threading
import weakref
from types import TracebackType


class Lock:
    """Re-entrant, since a signal handler may run in the middle of what its own thread does; and
    open in a forked child, where the thread that held it is not."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _ALL.add(self)

    def open(self) -> None:
        """A new lock, unless this thread can have the old one."""
        if self.acquire(timeout=0):
            self.release()
        else:
            self._lock = threading.RLock()

    def acquire(self, timeout: float = -1) -> bool:
        return self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.release()


_ALL: weakref.WeakSet[Lock] = weakref.WeakSet()


def _open_all() -> None:
    for lock in list(_ALL):
        lock.open()


os.register_at_fork(after_in_child=_open_all)
