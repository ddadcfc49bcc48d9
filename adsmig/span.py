"""How long a slice lasts, of keys or of parts, and how long the rest of it is waited for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterable

SEEK_SHARE, LEAST_SHARE = 10, 4
"""A slice lasts at least this many times as long as it took to reach its first key; and one that is
recalled, for which others wait."""
PATIENCE_S, PATIENCE, SLOW = 0.05, 0.1, 3
"""How long nothing need come of what is in hand once the time is up: so many seconds at least, that
share of how long the slice lasted, and so many times as long as an object mostly takes."""
STEP = 1.1
"""By how much each object moves what one mostly takes."""
LONGEST_S = 30.0
"""After which nothing more is begun, whatever is in hand: a killed job loses that."""


class Span:
    """The time of one slice, from now on, of ``seconds``; whoever calls holds the slice's lock.

    Once that is up, what is in hand is waited for as long as something comes of it.  If nothing
    does, more is begun until what was waited for is done, lest all others stand still because a
    store takes long with a few.
    """

    def __init__(self, seconds: float) -> None:
        self._began = self._done_at = time.monotonic()
        self._deadline = self._least = self._began + seconds
        self._up_at: float | None = None
        self._late: set[Hashable] | None = None
        """The keys, or numbers, that were waited for in vain."""
        self._mostly_s = 0.0
        """How long an object mostly takes; near the median, which few slow ones do not move."""

    def reached(self) -> None:
        """The first key was: how long that took, the slice is to be worth."""
        now = time.monotonic()
        seek_s = now - self._began
        self._deadline = max(self._deadline, now + SEEK_SHARE * seek_s)
        self._least = now + LEAST_SHARE * seek_s

    def done(self, key: Hashable, seconds: float) -> None:
        """Something came of an object that was in hand for so long; 0: nobody knows."""
        self._done_at = time.monotonic()
        if not self._mostly_s:
            self._mostly_s = seconds
        elif seconds:
            self._mostly_s *= STEP if seconds > self._mostly_s else 1 / STEP
        if self._late:
            self._late.discard(key)

    def used_up(self, recalled: Callable[[float], bool]) -> bool:
        """Whether nothing more is to be begun; ``recalled`` tells whether that was asked for since
        a moment (time.monotonic), which is of no use to anybody while some are late.
        """
        now = time.monotonic()
        if self._late is not None:
            return now > self._deadline or not self._late
        return now > self._deadline or (now > self._least and recalled(self._began))

    def end(self) -> None:
        """Nothing more is begun, as the time is up."""
        self._up_at = time.monotonic()

    def patience(self) -> float:
        """For how many seconds yet nothing need come of what is in hand; for ever if the slice did
        not end because its time was up, or lasted for long enough.
        """
        if self._up_at is None or self._up_at - self._began > LONGEST_S:
            return math.inf
        share = PATIENCE * (self._up_at - self._began)
        quiet_s = time.monotonic() - max(self._up_at, self._done_at)
        return max(PATIENCE_S, share, SLOW * self._mostly_s) - quiet_s

    def resume(self, in_hand: Iterable[Hashable]) -> None:
        """More is begun, until these keys are done."""
        self._up_at, self._late = None, set(in_hand)
        self._deadline = self._began + LONGEST_S
