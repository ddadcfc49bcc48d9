"""Parts of a large object, being copied by the threads of one process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial

from adsmig import failpoint
from adsmig.crew import Crew, Stay
from adsmig.errors import AdsmigError, NotFound, SourceChanged, TransientError
from adsmig.job import Job
from adsmig.limits import Lease, opened
from adsmig.model import Budget, Counts, Entry, Outcome, Part, PartsResult, Stop, Upload
from adsmig.retry import never, retry
from adsmig.scan import storages
from adsmig.slice import stop_of
from adsmig.span import Span
from adsmig.transfer import failed, put_part

CHANGED = (SourceChanged,)
"""What another try of the same version of an object does not make good."""


class Parts:
    """Those of an upload that were lent at once; call :meth:`run` once.  Threads pull numbers."""

    def __init__(
        self, job: Job, upload: Upload, numbers: tuple[int, ...], budget: Budget, lease: Lease
    ) -> None:
        self._upload, self._lease = upload, lease
        self._key = job.dst_key(upload.entry.key)
        self._src, self._dst = storages(job)
        self._limits = opened(lease.path)
        self._stopping = self._limits.stopping if self._limits else never
        self._recalled = self._limits.recalled if self._limits else lambda _: False
        self._started, self._span = time.time(), Span(budget.seconds)
        self._lock = threading.Lock()
        self._ended = False
        self._waiting = iter(numbers)
        self._in_hand: dict[int, float] = {}
        """When each was begun."""
        self._done: list[Part] = []
        self._errors: list[AdsmigError] = []

    def run(self, crew: Crew) -> PartsResult:
        """Copies them, in any order, until all are done or the time is up; see worker.run_parts."""
        crew.run(self._work, self._stopping, self._release, self._resume)
        with self._lock:
            parts, errors = self._done.copy(), self._errors.copy()  # some threads may be late
        outcome, stop = None, None
        for exc in errors:
            if not isinstance(exc, (SourceChanged, NotFound)):
                _, failure, halt = verdict(self._upload.entry, exc, self._stopping)
                outcome, stop = outcome or failure, stop or halt
        again = any(isinstance(exc, (SourceChanged, NotFound)) for exc in errors)
        try:
            if parts:
                failpoint.reach("flush.before")
                self._dst.sync()
                failpoint.reach("flush.after")
        except AdsmigError as exc:
            parts, stop = [], stop_of(exc)
        sent, now = self._sent(parts), time.time()
        return PartsResult(parts, sent, outcome, again, stop, os.getpid(), self._started, now)

    def _work(self, stay: Stay) -> None:
        while (number := self._begin()) is not None:
            what = f"part {number} of {self._key!r}"
            try:
                part = retry(
                    partial(self._put, number), what, stopping=self._stopping, final=CHANGED
                )
            except AdsmigError as exc:
                with self._lock:
                    self._errors.append(exc)
                return
            except BaseException:
                with self._lock:
                    del self._in_hand[number]  # which nobody is to wait for
                raise
            with self._lock:
                self._done.append(part)
                self._span.done(number, time.monotonic() - self._in_hand.pop(number))
                if self._limits:
                    counts = Counts(copied_bytes=self._sent(self._done))
                    self._limits.report(self._lease.slot, counts)
            if not stay(self._upload.span(number)[1]):
                return

    def _put(self, number: int) -> Part:
        return put_part(self._src, self._dst, self._key, self._upload, number, self._limits)

    def _begin(self) -> int | None:
        """The next to copy, if one is to be begun: at least one is done, however long it takes."""
        with self._lock:
            if self._done and not self._ended and self._span.used_up(self._recalled):
                self._span.end()
                self._ended = True
            if self._ended or self._errors or self._stopping():
                return None
            number = next(self._waiting, None)
            if number is not None:
                if not (self._done or self._in_hand):
                    self._span.reached()
                self._in_hand[number] = time.monotonic()
            return number

    def _resume(self) -> bool:
        """Has more begun, if nothing has come of those in hand for long enough."""
        with self._lock:
            if not (self._ended and self._in_hand) or self._errors or self._stopping():
                return False
            if self._span.patience() > 0:
                return False
            self._span.resume(self._in_hand)
            self._ended = False
            return True

    def _release(self) -> None:
        self._src.release()
        self._dst.release()

    def _sent(self, parts: list[Part]) -> int:
        return sum(self._upload.span(part.number)[1] for part in parts)


def verdict(
    entry: Entry, exc: AdsmigError, stopping: Callable[[], bool]
) -> tuple[None, Outcome | None, Stop | None]:
    """What an error over a large object comes to: no upload, and a failure, or a reason to stop.

    Neither, when the run is stopping anyway: the object is left as it is, to be resumed.
    """
    try:
        return None, failed(exc, entry, stopping), None
    except TransientError as error:
        return None, None, None if stopping() else stop_of(error)
    except AdsmigError as error:
        return None, None, stop_of(error)
