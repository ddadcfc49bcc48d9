"""Who carries out a run's tasks: one thread of this process, then processes, if they are of use."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from typing import Any

from adsmig.job import Job
from adsmig.model import Counts
from adsmig.pool import close, kill, processes
from adsmig.spare import LISTING, LOGINS, USUAL, SpareTime, Terms

MANY = 50_000
"""Objects, of which processes take less than one that tries first how many there are."""
ALONE = 100_000
"""Names of one directory, still to come, that one process looks through as soon as two, each of
which reads all of them first: for three quarters of the processors' time, and half the memory."""
STARTS = 3
"""How often to start processes that die at once."""


class Workforce:
    """The workers of one run; whoever made it calls :meth:`close`.

    ``given`` is a pool of the caller's, which it leaves open.  ``known``: how many objects an
    earlier run has found.
    """

    def __init__(self, job: Job, given: Executor | None = None, known: int = 0) -> None:
        self._job, self._given = job, given
        self._executor = given
        self.pooled = given is not None
        """Whether these are processes."""
        # Who says how many processes, or how much at once, gets it as soon as may be.
        told = job.workers is not None or job.threads is not None
        self._spare = None if told else SpareTime(_terms_of(job))
        self.eager = known >= MANY and _terms_of(job) is USUAL
        """Whether to have processes from the start."""
        self._seen = Counts()

    @property
    def size(self) -> int:
        """How many work at once."""
        return self._job.processes if self.pooled else 1

    @property
    def may_grow(self) -> bool:
        """Whether there can be processes, and are none yet."""
        return not self.pooled and self._job.processes > 1

    @property
    def told(self) -> bool:
        """Whether it is the user who says how many are to work."""
        return self._spare is None

    def has_room(self, done: Counts, ahead: int) -> bool:
        """Whether the machine has time for more processes than this one, as far as was seen; asked
        every so often with what is done so far, and with the Storage.names_ahead of a side.

        While nothing gets done, it waits for something else: SeaweedFS takes a second for the first
        object of a bucket.
        """
        if self._spare is None:
            return True
        before, self._seen = self._seen, done
        if done == before:
            self._spare.begin()
        reads = self._job.by_content and self._job.compare != "size"
        if 0 < ahead < ALONE and not (done.copied or reads):
            return False
        return self._spare.enough()

    def grow(self) -> None:
        """Has processes do what is submitted from now on; nothing may be in hand."""
        self.close()
        self.pooled = True

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """As Executor.submit, which raises BrokenExecutor once a worker has died."""
        if self._executor is None:
            self._executor = self._begin()
        return self._executor.submit(function, *arguments)

    def replace(self) -> bool:
        """Starts anew after a worker died; False if that cannot be done."""
        for _ in range(STARTS):
            if self._executor and not self._given:
                kill(self._executor)
            self.close()
            self._executor = self._given or self._begin()
            with contextlib.suppress(BrokenExecutor):
                self._executor.submit(os.getpid).result()
                return True
        return False

    def close(self, late: bool = False, busy: bool = False) -> None:
        """Ends those that there are.

        ``late``: threads may still wait for a server, for which nobody waits any more.  ``busy``:
        some have a task in hand.
        """
        if self._executor is None or self._given is not None:
            return
        if late:
            kill(self._executor)
        if busy:
            self._executor.shutdown(wait=False, cancel_futures=True)
        else:
            close(self._executor)
        self._executor = None

    def _begin(self) -> Executor:
        return processes(self._job.processes) if self.pooled else ThreadPoolExecutor(1, "slice")


def _terms_of(job: Job) -> Terms:
    """On which more processes than one are worth it."""
    if job.dryrun:
        return LISTING
    return LOGINS if job.over_sftp else USUAL
