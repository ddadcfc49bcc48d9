"""Small objects being copied by one thread, several at a time.

While a store looks for what it was asked, the thread asks for the next.  So few threads have many
requests in a store's hands, and Python, which runs one thread at a time, has few to choose from.
"""

from __future__ import annotations

import select
import time
from collections import deque
from typing import NamedTuple

from adsmig.errors import AdsmigError
from adsmig.limits import Limits
from adsmig.model import Action, Outcome, What, parts_in
from adsmig.storage.base import Batching, Storage, overlaps
from adsmig.transfer import PLAIN, Manner, Steps, copy, steps

DEPTH = 32
"""The most that a thread has begun at once."""
SILENCE_S = 1.0
"""Without any answer, after which the oldest is waited for, which has an end."""
MOST_BYTES = 1 << 20
"""Of an object that is copied so: the others wait while it is sent or read."""


def may_overlap(src: Storage, dst: Storage) -> bool:
    """Whether there is a store to wait for, and nothing better than this to do meanwhile."""
    return (overlaps(src) or overlaps(dst)) and not isinstance(dst, Batching)


def is_small(action: Action) -> bool:
    """Whether an object may be copied so: with few bytes, and no more to be asked about it."""
    entry = action.src
    plain = entry.link is None and not entry.key.endswith(b"/") and not parts_in(entry.etag)
    return plain and action.what == What.COPY and entry.size <= MOST_BYTES


class _Copy(NamedTuple):
    action: Action
    key: bytes
    steps: Steps
    began: float


class Copies:
    """Those of one thread, which calls :meth:`drop` at the end."""

    def __init__(
        self, src: Storage, dst: Storage, limits: Limits | None, manner: Manner = PLAIN
    ) -> None:
        self._src, self._dst, self._limits, self._manner = src, dst, limits, manner
        self._begun: dict[int, _Copy] = {}
        """Those that wait for an answer by that descriptor, the oldest first."""
        self._ready = deque[int]()
        """By which some of those came."""
        self._done = deque[tuple[Action, Outcome]]()

    def __len__(self) -> int:
        return len(self._begun) + len(self._done)

    def begin(self, action: Action, key: bytes) -> None:
        """Begins to copy an object to ``key``; raises as transfer.copy."""
        tries = steps(self._src, self._dst, action.src, key, self._limits, self._manner, set())
        self._go_on(_Copy(action, key, tries, time.monotonic()))

    def finish(self) -> tuple[Action, Outcome]:
        """What became of the next that is copied; raises as transfer.copy, to which it is left if
        the first try fails.
        """
        while not self._done:
            self._go_on(self._answered())
        return self._done.popleft()

    def _answered(self) -> _Copy:
        """One that need not be waited for, the oldest if it is such a one.  If no answer comes
        within SILENCE_S, the oldest: whoever reads its answer gives up in time.
        """
        if not self._ready:
            poll = select.poll()
            oldest = next(iter(self._begun))
            poll.register(oldest, select.POLLIN)
            if len(self._begun) > 1 and not poll.poll(0):
                for fd in self._begun:
                    poll.register(fd, select.POLLIN)
                self._ready = deque(fd for fd, _ in poll.poll(SILENCE_S * 1000))
            if not self._ready:
                self._ready.append(oldest)
        return self._begun.pop(self._ready.popleft())

    def _go_on(self, one: _Copy) -> None:
        try:
            fd = next(one.steps)
        except StopIteration as end:
            outcome: Outcome = end.value
            outcome = outcome._replace(seconds=time.monotonic() - one.began)
            self._done.append((one.action, outcome))
        except AdsmigError as exc:
            entry, args = one.action.src, (self._limits, self._manner, exc)
            self._done.append((one.action, copy(self._src, self._dst, entry, one.key, *args)))
        else:
            self._begun[fd] = one

    def drop(self) -> None:
        """Lets go of those that were begun and not finished."""
        while self._begun:
            self._begun.popitem()[1].steps.close()
