"""Waiting for room on the disk under the manifest, with what is to be committed in hand."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TypeVar

from adsmig.errors import Interrupted, StorageFull
from adsmig.retry import never, wait

T = TypeVar("T")

AGAIN_S = 1.0
"""Between two tries."""
LIMIT_S = 3600.0
"""Where nobody is at a terminal to see it, so that whoever started the run is told at last."""

Patience = Callable[["StorageFull | None"], None]
"""Called with what is wrong before each new try, which it may give up by raising; with None once a
later try succeeded."""


def impatient(error: StorageFull | None) -> None:
    """Does not wait."""
    if error:
        raise error


def patiently(unit: Callable[[], T], patience: Patience) -> T:
    """What ``unit`` returns, called until there is room for it; it does all or nothing."""
    waited = False
    while True:
        try:
            result = unit()
        except StorageFull as exc:
            patience(exc)
            waited = True
            continue
        if waited:
            patience(None)
        return result


class Pause:
    """Tells the user once that there is no room, and waits a moment each time it is called.

    ``tell`` is given a word for machines and a line for people; ``hint`` is the command that goes
    on.  Raises Interrupted once ``stopping()`` is true, or for a Ctrl-C that nobody else takes; the
    error itself when nobody is there to see it and LIMIT_S have passed.
    """

    def __init__(self, tell: Callable[[str, str], None], hint: str) -> None:
        self._tell, self._hint = tell, hint
        self._since: float | None = None
        self.stopping: Callable[[], bool] = never

    def __call__(self, error: StorageFull | None) -> None:
        if error is None:
            self._since = None
            self._tell("going on", "there is room again: going on")
            return
        if self._since is None:
            self._since = time.monotonic()
            self._tell("paused", f"{error}; waiting for it, nothing is lost")
        if not sys.stderr.isatty() and time.monotonic() - self._since > LIMIT_S:
            raise StorageFull(f"{error}, then go on with: {self._hint}") from error
        try:
            wait(AGAIN_S, self.stopping)
            interrupted = self.stopping()
        except KeyboardInterrupt:
            interrupted = True
        if interrupted:
            raise Interrupted(f"interrupted; {error}, then go on with: {self._hint}") from error
