"""The one retry layer: an idempotent unit of work, tried again while that can help.

A unit is one page of a listing, one stat, one object or one part, never a whole job, and
nothing inside a unit tries again by itself, so that tries do not multiply.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Generator
from typing import NamedTuple, TypeVar

from adsmig.errors import Throttled, TransientError

log = logging.getLogger(__name__)
T = TypeVar("T")
W = TypeVar("W")

TRIES = 7
BUSY_TRIES = 70
"""Of a store that is busy with others; some 20 minutes."""
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 20.0
LONG_S = 30.0
"""After so long with one unit, who waits is told what keeps failing."""
TOLD_S = 60.0
"""The least between two times that a process tells that."""


class _Seen:
    """By all threads of this process; more or less, for nobody locks it."""

    slowdowns = 0
    successes = 0
    told = -TOLD_S
    """When somebody was told last of what keeps failing; monotonic."""


def slowdowns() -> int:
    """How often, more or less, stores have asked this process for fewer requests."""
    return _Seen.slowdowns


def never() -> bool:
    """The default for ``stopping``: nobody asks to stop."""
    return False


class Pause(NamedTuple):
    """What a generator of :func:`attempts` yields: it is to be gone on with after so long, or once
    the run is stopping.
    """

    seconds: float


def retry(
    unit: Callable[[], T],
    what: str,
    *,
    tries: int = TRIES,
    stopping: Callable[[], bool] = never,
    final: tuple[type[TransientError], ...] = (),
) -> T:
    """The result of ``unit()``, called up to ``tries`` times while it raises TransientError.

    A try that is throttled does not count, up to ``BUSY_TRIES`` of them, if other units of this
    process came to their ends since the one before, and the run can be stopped meanwhile: the store
    is busy, not out of order.  Of a billion objects, some meet with it seven times in a row.

    Pauses grow exponentially with full jitter (AWS Architecture Blog, "Exponential Backoff And
    Jitter"), longer where the store asked for fewer requests.  ``what`` names the unit in the
    log.  Raises the last error when the tries are used up or ``stopping()`` turns true, and at once
    those that are ``final``.
    """

    def steps() -> Generator[Pause, None, T]:
        yield from ()
        return unit()

    return at_once(attempts(steps, what, tries=tries, stopping=stopping, final=final), stopping)


def attempts(
    unit: Callable[[], Generator[W, None, T]],
    what: str,
    *,
    tries: int = TRIES,
    stopping: Callable[[], bool] = never,
    final: tuple[type[TransientError], ...] = (),
) -> Generator[W | Pause, None, T]:
    """As :func:`retry`, for a unit that yields where it would wait; each pause is yielded, too."""
    pause, left, successes = FIRST_PAUSE_S, tries, _Seen.successes
    spare = 0 if stopping is never else BUSY_TRIES
    began = time.monotonic()
    while True:
        try:
            result = yield from unit()
            _Seen.successes += 1
            return result
        except TransientError as exc:
            throttled, before = isinstance(exc, Throttled), successes
            successes = _Seen.successes
            if throttled and successes != before and spare:
                spare -= 1
            else:
                left -= 1
            if not left or stopping() or isinstance(exc, final):
                raise
            _tell(what, exc, time.monotonic() - began)
            _Seen.slowdowns += throttled
            if not exc.immediate:
                yield Pause(pause * random.uniform(0.5, 1.5))
                if stopping():
                    raise
                pause = min(pause * (4 if throttled else 2.5), LONGEST_PAUSE_S)


def _tell(what: str, error: TransientError, seconds: float) -> None:
    """Says that it is tried again; a person only hears of what takes long, and now and then."""
    now, level = time.monotonic(), logging.INFO
    if seconds >= LONG_S and now - _Seen.told >= TOLD_S:
        _Seen.told, level = now, logging.WARNING
    log.log(level, "%s: %s; trying again", what, error)


def at_once(steps: Generator[object, None, T], stopping: Callable[[], bool] = never) -> T:
    """What comes of them, after all their pauses."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        if isinstance(step, Pause):
            wait(step.seconds, stopping)


def wait(seconds: float, stopping: Callable[[], bool] = never) -> None:
    """Sleeps, but no longer than a moment once ``stopping()`` is true."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not stopping():
        time.sleep(min(left, 0.1))
