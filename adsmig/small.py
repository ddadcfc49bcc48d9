"""Small objects, of which one thread copies several at a time.

While a store looks for what it was asked, the thread asks for the next.  So few threads have many
requests in a store's hands, and Python, which runs one thread at a time, has few to choose from.
Where it takes several requests to write each, they are written in batches.
"""

from __future__ import annotations

import contextlib
import math
import select
import time
from collections import deque
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from adsmig import failpoint
from adsmig.checksum import parts_in
from adsmig.comparison import time_of
from adsmig.content import Reader
from adsmig.errors import AdsmigError, NotFound, ObjectError, SourceChanged, TransientError
from adsmig.limits import Limits
from adsmig.model import Action, Entry, Outcome, What
from adsmig.retry import Pause, never, wait
from adsmig.storage.base import Storage, Stored
from adsmig.storage.several import Batching, Whole, overlaps
from adsmig.transfer import (
    PLAIN,
    Manner,
    Steps,
    await_settled,
    check_stored,
    copy,
    copying,
    link_in,
    meta_for,
    parts_of,
)

DEPTH = 32
"""The most that a thread has begun at once."""
SILENCE_S = 1.0
"""Without any answer, after which the oldest is waited for, which has an end."""
TICK_S = 0.1
"""How long to look for answers while some are to be tried again, unless the run is stopping."""
MOST_BYTES = 1 << 20
"""Of an object that is copied so: the others wait while it is sent or read."""

MOST_SMALL = 128 << 10
"""Bytes of an object that may be written along with others."""
MOST_BATCHED = 1 << 20
"""Bytes that are written at once, a little more or less."""


def may_overlap(src: Storage, dst: Storage) -> bool:
    """Whether there is a store to wait for, and nothing better than this to do meanwhile."""
    return (overlaps(src) or overlaps(dst)) and not isinstance(dst, Batching)


def is_small(action: Action) -> bool:
    """Whether an object may be copied so: with few bytes, and no more to be asked about it."""
    return _is_plain(action, MOST_BYTES) and not parts_in(action.src.etag)


def is_batched(action: Action) -> bool:
    """Whether an object may be written along with others."""
    return _is_plain(action, MOST_SMALL)


def is_brief(action: Action) -> bool:
    """Whether an object may be asked for along with others, to be copied or compared."""
    return _is_plain(action, MOST_SMALL, (What.COPY, What.CHECK))


def _is_plain(action: Action, most: int, whats: tuple[What, ...] = (What.COPY,)) -> bool:
    entry = action.src
    plain = entry.link is None and not entry.key.endswith(b"/")
    return plain and action.what in whats and entry.size <= most


class _Copy(NamedTuple):
    due: float
    """When it is to be gone on with, if it pauses."""
    number: int
    action: Action
    steps: Steps


class Copies:
    """Those of one thread, which calls :meth:`drop` at the end.  They are done in any order; its
    length is how many were begun and not yet given out by :meth:`finish`.
    """

    def __init__(
        self, src: Storage, dst: Storage, limits: Limits | None, manner: Manner = PLAIN
    ) -> None:
        self._src, self._dst, self._limits, self._manner = src, dst, limits, manner
        self._stopping = limits.stopping if limits else never
        self._count = 0
        self._begun: dict[int, _Copy] = {}
        """Those that wait for an answer by that descriptor, the oldest first."""
        self._ready = deque[int]()
        """By which some of those came."""
        self._pausing: list[_Copy] = []
        """Those that are to be tried again, as a heap."""
        self._done = deque[tuple[Action, Outcome]]()

    def __len__(self) -> int:
        return len(self._begun) + len(self._pausing) + len(self._done)

    def begin(self, action: Action, key: bytes) -> None:
        """Begins to copy an object to ``key``; raises as transfer.copy."""
        self._count += 1
        steps = copying(self._src, self._dst, action.src, key, self._limits, self._manner)
        self._go_on(_Copy(0.0, self._count, action, steps))

    def finish(self) -> tuple[Action, Outcome]:
        """What became of the next that is copied, or has failed; raises as transfer.copy."""
        self.ready()
        return self._done.popleft()

    def ready(self, seconds: float = math.inf) -> bool:
        """Whether one is copied, or has failed, before so many seconds have passed; raises as
        transfer.copy.
        """
        until = time.monotonic() + seconds
        while not self._done:
            one = self._next(until)
            if not one:
                return False
            self._go_on(one)
        return True

    def drop(self) -> None:
        """Lets go of those that were begun and not finished."""
        for one in (*self._begun.values(), *self._pausing):
            one.steps.close()
        self._begun.clear()
        self._pausing.clear()

    def _go_on(self, one: _Copy) -> None:
        try:
            step = next(one.steps)
        except StopIteration as end:
            self._done.append((one.action, end.value))
            return
        if isinstance(step, Pause):
            heappush(self._pausing, one._replace(due=time.monotonic() + step.seconds))
        else:
            self._begun[step] = one

    def _next(self, until: float) -> _Copy | None:
        """The next to be gone on with, once there is one; None if that is not until then."""
        while not self._ready:
            now = time.monotonic()
            seconds = min(SILENCE_S, until - now)
            if self._pausing:
                due = self._pausing[0].due - now
                if not self._begun:
                    wait(min(due, until - now), self._stopping)
                if due <= 0 or self._stopping() or (not self._begun and due <= until - now):
                    return heappop(self._pausing)
                seconds = min(seconds, due, TICK_S)
            if until <= now or not self._begun:
                return None
            self._look(seconds, until == math.inf)
        return self._begun.pop(self._ready.popleft())

    def _look(self, seconds: float, at_last: bool) -> None:
        """Finds those that need not be waited for, the oldest first; waits no longer for one.

        If no answer comes for SILENCE_S, it is the oldest's turn, ``at_last``: whoever reads that
        gives up in time.
        """
        oldest = next(iter(self._begun))
        poll = select.poll()
        poll.register(oldest, select.POLLIN)
        alone = len(self._begun) == 1 and not self._pausing and at_last
        if not alone and not poll.poll(0):
            for fd in self._begun:
                poll.register(fd, select.POLLIN)
            self._ready.extend(fd for fd, _ in poll.poll(seconds * 1000))
            if self._ready or seconds < SILENCE_S or not at_last:
                return
        self._ready.append(oldest)


def copy_batch(
    src: Storage,
    dst: Batching,
    objects: Sequence[tuple[Entry, bytes]],
    limits: Limits | None,
    manner: Manner = PLAIN,
) -> Iterator[Outcome]:
    """As :func:`copy`, for several small objects, each with its key at the destination; in order.

    Whatever does not go well at once is copied again, by itself, once it is its turn.
    """
    began = time.monotonic()
    read: dict[bytes, tuple[Reader, Whole]] = {}
    for entry, key in objects:
        try:
            await_settled(src, dst, entry, limits.stopping if limits else never)
            with src.read(entry) as body:
                if link_in(dst, entry, body.meta, manner) is not None:
                    continue
                parts = None if body.crc32 else parts_of(src, entry, set())
                reader = Reader(body, entry.size, dst.wanted(), limits, parts)
                meta = meta_for(dst, entry, body.meta, manner.perms)
                read[key] = reader, Whole(key, b"".join(reader.chunks()), meta)
        except (ObjectError, NotFound, SourceChanged):
            continue  # which concerns this one only
        except AdsmigError:
            break  # perhaps nobody answers any more, and to ask for each of the others takes long
    failpoint.reach("object.begun")
    stored: dict[bytes, Stored | None] = {}
    with contextlib.suppress(TransientError):
        written = dst.write_batch([whole for _, whole in read.values()])
        stored = dict(zip(read, written, strict=True))
    failpoint.reach("object.stored")
    seconds = (time.monotonic() - began) / len(objects)
    for entry, key in objects:
        outcome = None
        if answer := stored.get(key):
            reader = read[key][0]
            with contextlib.suppress(AdsmigError):
                check_stored(src, dst, entry, key, answer, reader, began, limits, manner)
                checksum = "xxh3:" + reader.xxh3
                outcome = Outcome(
                    entry.key, entry.size, time_of(entry), entry.etag, checksum, seconds=seconds
                )
        yield outcome or copy(src, dst, entry, key, limits, manner)
