"""Progress of something that takes a while: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

EVERY = 5.0  # seconds between lines when there is no bar


class Progress:
    """Counts to `total`, if that is known; `step(note)` adds one. It writes to standard error, or
    nothing at all, as where there is none (a program without a console).

    On a terminal this is tqdm's bar if tqdm is installed. Otherwise a plain line is printed at
    most every five seconds: a log stays readable and a short run stays silent.
    """

    def __init__(self, what: str, total: int | None, *, enabled: bool = True) -> None:
        self.what, self.total, self.done = what, total, 0
        self.enabled = enabled and sys.stderr is not None
        self.last = time.monotonic()
        self.bar: Any = None
        if self.enabled and getattr(sys.stderr, "isatty", bool)():
            try:
                from tqdm.auto import tqdm
            except ImportError:
                pass
            else:
                self.bar = tqdm(total=total, desc=what, leave=False, dynamic_ncols=True)

    def step(self, note: str = "") -> None:
        self.done += 1
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update()
        elif self.enabled and time.monotonic() - self.last >= EVERY:
            self.last = time.monotonic()
            of = "" if self.total is None else f"/{self.total}"
            print(f"{self.what} {self.done}{of} {note}".rstrip(), file=sys.stderr)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.close()
