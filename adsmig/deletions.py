"""What a run has to remove: lent to the workers in batches, files before the directories they are
in.

At the source it goes as soon as the manifest says that it was copied, unless links may lead to it:
then once all was copied.  At the destination nothing goes before the source was listed to its end
without an error.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from adsmig import worker
from adsmig.job import Job
from adsmig.manifest import Manifest
from adsmig.model import UNDELETED, Counts, Deletion, DeletionResult, Outcome, Stop
from adsmig.progress import several
from adsmig.tasks import Committed, Submit

BATCH = 1000
"""Objects that a worker removes at once; what a store takes in one request
(docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html)."""
STRIKES = 3
"""Workers that may die over one batch."""


class Deletions:
    """Those of one run, of one of its sides: only one of them can have any."""

    def __init__(
        self, job: Job, manifest: Manifest, run: int, submit: Submit, committed: Committed
    ) -> None:
        self._job, self._manifest, self._run = job, manifest, run
        self._submit, self._committed = submit, committed
        self.at_source = not job.delete_dst
        self.released = self.at_source
        """What is noted may be removed now."""
        self._past = 0
        self._lent = 0
        self._again: deque[tuple[dict[int, Deletion], int]] = deque()
        self._wanted = job.delete_dst or job.delete_src or job.command == "rm"

    def lend(self, listed: bool, last: bool) -> bool:
        """Lends the next batch; False if there is none.

        ``listed``: no more will be noted.  ``last``: nor is anything else left to do, so that it is
        the directories' turn.
        """
        if not self._wanted or not self.released:
            return False
        if self._again:
            self._lend(*self._again.popleft())
            return True
        if not self._lent:
            self._past = 0  # ids are given again to new rows once those with the highest are gone
        batch = self._manifest.deletions(self.at_source, False, self._past, BATCH)
        if batch and (listed or len(batch) == BATCH or not self._lent):
            self._past = max(batch)
            self._lend(batch, 0)
            return True
        if batch or not last or self._lent:
            return False
        # One batch after the other, for the last may hold what lies in those before it.
        if batch := self._manifest.deletions(self.at_source, True, 0, BATCH):
            self._lend(batch, 0)
            return True
        return False

    def refusal(self, empty: bool, count: int) -> str:
        """Why nothing may be removed at the destination, where ``count`` objects would be, of a run
        whose source was found to be ``empty`` or not; '' if it may.
        """
        job = self._job
        if not count:
            return ""
        found, nothing = several(count, "object"), "nothing was deleted"
        if job.dryrun:
            nothing = "nothing would be deleted"
        if empty and not job.yes:
            return (
                f"{nothing}: {job.src} holds nothing that is selected, and {found}"
                f" at {job.dst} would go; check SRC, or say --yes"
            )
        if job.max_delete is not None and count > job.max_delete:
            return (
                f"{nothing}: it would be {found} at {job.dst}, more than"
                f" --max-delete {job.max_delete:,}; look at them with --dryrun -v, or allow more"
            )
        return ""

    def _lend(self, batch: dict[int, Deletion], strikes: int) -> None:
        def settle(result: DeletionResult) -> None:
            self._lent -= 1
            if not result.settled and not result.stop:
                self._again.append((batch, strikes))
            self._settle(batch, result)

        def died() -> None:
            self._lent -= 1
            if strikes + 1 < STRIKES:
                self._again.append((batch, strikes + 1))
                return
            why = "every worker that was to remove it died"
            failures = [
                Outcome(one.key, one.size, one.time_ns, None, None, why, UNDELETED)
                for one in batch.values()
            ]
            self._settle(batch, DeletionResult([], True, failures, None, 0, 0.0, 0.0))

        self._lent += 1
        arguments: tuple[Any, ...] = (list(batch.values()),)
        self._submit(worker.delete_objects, arguments, settle, died)

    def _settle(self, batch: dict[int, Deletion], result: DeletionResult) -> None:
        counts = self._manifest.commit_deletions(self._run, batch, result)
        stop: Stop | None = result.stop
        self._committed(Counts() if stop else counts, stop)
