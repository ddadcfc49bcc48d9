"""What the workers of a run have in hand, and what becomes of it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from adsmig.errors import AdsmigError
from adsmig.job import Job
from adsmig.limits import Lease, Limits
from adsmig.model import Counts, Stop
from adsmig.workforce import Workforce

log = logging.getLogger(__name__)

Committed = Callable[[Counts, "Stop | None"], None]
"""Told what was committed to the manifest, and why no more can be done, if so."""


class Submit(Protocol):
    """:meth:`Tasks.submit`, for who has something to lend."""

    def __call__(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        settle: Callable[[Any], None],
        give_back: Callable[[], object],
        leased: bool = True,
    ) -> None: ...


@dataclass(slots=True)
class _Task:
    """Something that a worker has in hand."""

    settle: Callable[[Any], None]
    give_back: Callable[[], object]
    slot: int


class Tasks:
    """Those that ``workforce`` has in hand; ``len()`` tells how many.

    ``slots``: the places in ``limits`` that they may use, one each.  ``halted`` is told why nothing
    more can be done, if a task ends so.
    """

    def __init__(
        self,
        job: Job,
        workforce: Workforce,
        limits: Limits,
        slots: Iterable[int],
        halted: Callable[[Stop], None],
    ) -> None:
        self._job, self._workforce = job, workforce
        self._limits, self._free = limits, list(slots)
        self._halted = halted
        self._in_hand: dict[Future[Any], _Task] = {}
        # Filled by whatever thread completes them; to wait for all in hand takes longer, the more
        # there are.
        self._done: SimpleQueue[Future[Any]] = SimpleQueue()

    def __len__(self) -> int:
        return len(self._in_hand)

    def submit(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        settle: Callable[[Any], None],
        give_back: Callable[[], object],
        leased: bool = True,
    ) -> None:
        """Has a worker call the function with the job, the arguments and a lease, if ``leased``.

        :meth:`settle` then calls ``settle`` with its result, or ``give_back`` if it failed or its
        worker died.
        """
        task = _Task(settle, give_back, self._free.pop())
        lease = (Lease(self._limits.path, task.slot),) if leased else ()
        try:
            future = self._workforce.submit(function, self._job, *arguments, *lease)
        except BrokenExecutor:
            self._begin_anew(task)
            return
        self._in_hand[future] = task
        future.add_done_callback(self._done.put)

    def settle(self, timeout_s: float) -> bool:
        """Settles what was completed since the last call; waits so long for it if that is nothing.

        Whether there was any.
        """
        done = self._completed(timeout_s)
        for future in done:
            if future in self._in_hand:  # a broken pool takes all of them at once
                self._settle(future)
        return bool(done)

    def _completed(self, timeout_s: float) -> list[Future[Any]]:
        done = []
        with contextlib.suppress(Empty):
            done.append(self._done.get(timeout=timeout_s))
            while True:
                done.append(self._done.get_nowait())
        return done

    def _settle(self, future: Future[Any]) -> None:
        task = self._in_hand.pop(future)
        try:
            result = future.result()
        except BrokenExecutor:
            self._begin_anew(task)
            return
        except Exception as exc:
            self._release(task)
            task.give_back()
            log.info("a task failed", exc_info=exc)
            known = isinstance(exc, AdsmigError)
            told = str(exc) if known else f"internal error: {type(exc).__name__}: {exc}"
            self._halted(Stop(told, kind=type(exc).__name__))
            return
        self._release(task)
        task.settle(result)

    def _release(self, task: _Task) -> None:
        self._limits.report(task.slot, Counts())
        self._free.append(task.slot)

    def _begin_anew(self, first: _Task) -> None:
        """A worker died, and its pool with it: all that was in hand is to be lent again."""
        log.warning("a worker process died; starting anew")
        for task in (first, *self._in_hand.values()):
            self._release(task)
            task.give_back()
        self._in_hand.clear()
        if not self._workforce.replace():
            self._halted(
                Stop(
                    "worker processes die as soon as they begin; see the system's log for who ends"
                    " them"
                )
            )
