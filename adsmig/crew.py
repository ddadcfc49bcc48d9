"""The threads of a process: as many at work as are of use."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Protocol, TypeVar

from adsmig import retry
from adsmig.spare import Idleness


class Stay(Protocol):
    """Called by a thread of a crew after some pieces of work, and never before: whether to look for
    more.
    """

    def __call__(self, size: int, pieces: int = 1) -> bool:
        """``size``: the bytes that all ``pieces`` of them were about."""
        ...


T = TypeVar("T")
Work = Callable[[Stay], None]
"""Takes one piece of work after the other, until there are no more or it is not to stay."""

FIRST = 2
ASIDE = 3
"""So many who each work on something large are not counted: one at a time would leave a store
unused, and how much is done with more of them takes long to tell."""
MOST = 64
"""Of one process.  A Python process has no time for more; over a long distance, each waits."""
WINDOW_S, STEADY_S = 0.1, 0.3
"""The least time over which a rate is taken: while ever more threads are tried; and at other times,
as at first, when it tells of a store that warms up, and of fewer threads."""
ROUNDS = 3
"""And each thread is to have done so many pieces of work in it, so that few long ones tell no
tale."""
PIECE = 128 << 10
"""Bytes that count as much as the rest of what there is to do for an object."""
BETTER, SAME = 1.15, 0.97
"""How much more is done with more threads, for them to be worth it; and with fewer, for the others
not to have been."""
IDLE = 0.5
"""Of all processors' time, is to be left unused before more threads that are dear are tried."""
HOLD_S, LONGEST_HOLD_S = 1.0, 16.0
"""How long a level that was found is kept, at first and at last."""
PATIENCE_S = 6.0
"""How long threads have to leave once the run is stopping; less than interruption.PATIENCE_S, so
that what the others did is settled."""
TICK_S = 0.1


class Crew:
    """``count`` threads; None: it finds out how many.

    It begins with ``first``, of which all but two wait until those have found something to do, and
    doubles them as long as that gets more done.  The level that is found is held for a while, and
    then more are tried, and fewer.  Each time that a store asked for fewer requests, half of them
    leave; the last has fewer at once.

    ``each``: the most requests that one thread may have in a store's hands at once, if it can have
    several; all have no more than MOST.

    ``dear``: a thread costs the store so much to begin with that no more are tried where the
    processors of this machine, perhaps the store's, have little time to spare.
    """

    def __init__(
        self, count: int | None = None, first: int = FIRST, dear: bool = False, each: int = 1
    ) -> None:
        self._fixed, self._dear = count is not None, dear
        self._each = self._most_each = each
        """How many requests the store lets each have, and would have at most."""
        self.level = count or first
        """How many are to be at work, beside those who work on something large."""
        self._pool = ThreadPoolExecutor(count or MOST, "copy")
        self._lock = threading.Lock()
        self._futures: list[Future[None]] = []
        self._work: Work | None = None
        self._release: Callable[[], None] = lambda: None
        self._active = self._aside = 0
        """How many there are, and how many of them work on something large."""
        self._most = 0
        """The most that there ever were."""
        self._fresh = 0
        """Of those, how many have done nothing yet: what they do first, is to connect."""
        # Of the window: how often threads were done, the weight of what they did, and the time in
        # which there was work.
        self._turns, self._weight, self._elapsed = 0, 0.0, 0.0
        self._since = 0.0
        self._slowdowns = retry.slowdowns()
        self._idleness = Idleness() if dear and not self._fixed else None
        # Of the search: the level to go back to, and what got done there.
        self._base, self._rate = 0, 0.0
        self._rising, self._factor = True, 2.0
        self._hold_s, self._held_until = HOLD_S, 0.0

    @property
    def depth(self) -> int:
        """How many requests a thread may have in a store's hands by now, at least one."""
        return max(min(self._each, MOST // self.level), 1)

    @property
    def _wanted(self) -> int:
        """How many there are to be, with those."""
        return min(self.level + min(self._aside, ASIDE), MOST)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """While one of the threads works on something large, another takes its place, unless their
        number is given, each is dear, or the store asked for fewer requests.
        """
        with self._lock:
            counts = not (self._fixed or self._dear or self._each < self._most_each)
            self._aside += counts
            self._enlist()
        try:
            yield
        finally:
            with self._lock:
                self._aside -= counts

    def run(
        self,
        work: Work,
        stopping: Callable[[], bool] = retry.never,
        release: Callable[[], None] = lambda: None,
        resume: Callable[[], bool] = retry.never,
    ) -> bool:
        """Has ``work`` called by the threads; True when all have left.  Raises what one did.

        ``release`` is called by each that leaves, and at first by the caller, who only waits: what
        they hold, the others may have a use for.  ``resume`` is asked every so often whether those
        who have left are to come back, while others are still at work.

        False if, PATIENCE_S after ``stopping`` turned true, some have not: they wait for a server
        that says nothing, and may still go on at any time.  The next call waits for them as well.
        """
        if self._fixed and self.level == 1:
            work(lambda size, pieces=1: True)
            return True
        self._work, self._release, self._since = work, release, time.monotonic()
        release()
        with self._lock:
            self._enlist(self.level if self._fixed or self._dear else FIRST)
        error = None
        patience_ends = 0.0
        while True:
            with self._lock:
                if not self._futures:
                    break
                future = self._futures.pop()
            while not wait([future], TICK_S).done:
                now = time.monotonic()
                if stopping() and not patience_ends:
                    patience_ends = now + PATIENCE_S
                elif patience_ends and now > patience_ends:
                    with self._lock:
                        self._futures.append(future)
                    return False
                elif not patience_ends and resume():
                    with self._lock:
                        self._enlist()
            error = future.exception() or error
        self._elapsed += time.monotonic() - self._since
        self._work = None
        if error:
            raise error
        return True

    def each(
        self,
        items: Iterable[T],
        do: Callable[[T], object],
        release: Callable[[], None] = lambda: None,
    ) -> None:
        """Has ``do`` called once with each of the items, in any order; raises what one call did,
        when the other threads have seen to what was left.  ``release``: as of :meth:`run`.
        """
        lock, waiting = threading.Lock(), iter(items)

        def work(stay: Stay) -> None:
            while True:
                with lock:
                    taken = list(islice(waiting, 1))
                if not taken:
                    return
                do(taken[0])
                if not stay(0):
                    return

        self.run(work, release=release)

    def _enlist(self, most: int = MOST) -> None:
        """Starts as many as are lacking, up to ``most`` in all."""
        assert self._work
        while self._active < min(self._wanted, most):
            fresh = self._active >= self._most
            self._active += 1
            self._fresh += fresh
            self._futures.append(self._pool.submit(self._run_one, self._work, self._release, fresh))
        self._most = max(self._most, self._active)

    def _run_one(self, work: Work, release: Callable[[], None], fresh: bool) -> None:
        left = False

        def stay(size: int, pieces: int = 1) -> bool:
            nonlocal fresh, left
            if self._fixed:
                return True
            with self._lock:
                self._fresh -= fresh
                fresh = False
                self._count(size, pieces)
                if self._active < self._wanted:
                    self._enlist(self._active + 1)  # there is work: soon all will have begun
                elif self._active > self._wanted:
                    self._active -= 1
                    left = True
            return not left

        try:
            work(stay)
        finally:
            release()
            if not left:
                with self._lock:
                    self._active -= 1
                    self._fresh -= fresh

    # The search

    def _count(self, size: int, pieces: int) -> None:
        """Some more pieces of work are done; now and then, what follows from that."""
        if self._fresh:
            self._turns, self._weight, self._elapsed = 0, 0.0, 0.0
            self._since = time.monotonic()
            return
        self._turns += 1
        self._weight += pieces + size / PIECE
        if self._turns < ROUNDS * self.level:
            return
        now = time.monotonic()
        elapsed = self._elapsed + now - self._since
        slowdowns = retry.slowdowns()
        slowed, climbing = slowdowns != self._slowdowns, self._rising and self._base
        if elapsed < (WINDOW_S if slowed or climbing else STEADY_S):
            return
        rate = self._weight / elapsed
        self._turns, self._weight, self._elapsed, self._since = 0, 0.0, 0.0, now
        if slowed:
            self._slowdowns = slowdowns
            if self.level == 1:
                self._each = max(self._each // 2, 1)
            self._settle(max(self.level // 2, 1), now)
        elif self._each < self._most_each:
            self._each += 1
        elif now >= self._held_until:
            self._consider(rate, now)
        if self._active < self._wanted:
            self._enlist()

    def _consider(self, rate: float, now: float) -> None:
        """Compares what got done with what got done before, at the level that was tried from."""
        better = self.level > self._base and rate > self._rate * BETTER
        if not self._base or better:  # at first there is nothing to compare with
            if self._rising and self._idleness and self._idleness.share() < IDLE:
                self._settle(self.level, now)
            else:
                self._try(rate, now)
        elif self.level < self._base and rate > self._rate * SAME:
            self._settle(self.level, now)
        else:
            self._settle(self._base, now)

    def _try(self, rate: float, now: float) -> None:
        self._base, self._rate = self.level, rate
        if self._rising:
            self.level = min(max(int(self.level * self._factor), self.level + 1), MOST)
        else:
            self.level = max(int(self.level / self._factor), 1)
        if self.level == self._base:
            self._settle(self.level, now)

    def _settle(self, level: int, now: float) -> None:
        """Holds a level, and tries the other direction after that."""
        self.level, self._base = level, 0
        self._held_until = now + self._hold_s
        self._hold_s = min(self._hold_s * 2, LONGEST_HOLD_S)
        self._rising, self._factor = not self._rising, 1.5
