"""Permissions and times of directories, which they get once all that lies in them is there."""

from __future__ import annotations

from collections.abc import Callable

from adsmig import worker
from adsmig.job import Job
from adsmig.manifest import Manifest
from adsmig.model import Counts, Outcome
from adsmig.tasks import Committed, Submit

BATCH = 1000


class Directories:
    """Those of one run; lent in one batch after the other, so that what lies inside comes first."""

    def __init__(
        self, job: Job, manifest: Manifest, run: int, submit: Submit, committed: Committed
    ) -> None:
        self._manifest, self._run = manifest, run
        self._submit, self._committed = submit, committed
        self.done = not job.keeps_directories
        self._give_back: Callable[[], None] = lambda: None

    def lend(self) -> bool:
        """Lends the next batch, once nothing else is in hand; False if there is none."""
        if self.done:
            return False
        keys = self._manifest.directories(BATCH)
        if not keys:
            self.done = True
            return False

        def settle(failures: list[Outcome]) -> None:
            self._manifest.commit_directories(self._run, keys, failures)
            self._committed(Counts(failed=len(failures)), None)

        self._submit(worker.finish_directories, (keys,), settle, self._give_back)
        return True
