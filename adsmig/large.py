"""Large objects under way: each is opened, lent out part by part to all workers, and finished."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from adsmig import worker
from adsmig.errors import AdsmigError, NotFound
from adsmig.findings import deletion_of
from adsmig.job import Job
from adsmig.manifest import Manifest
from adsmig.model import (
    Budget,
    Counts,
    Entry,
    Outcome,
    Part,
    PartsResult,
    Upload,
    UploadResult,
)
from adsmig.proof import combined_checksum
from adsmig.scan import selection_of
from adsmig.tasks import Committed, Submit
from adsmig.transfer import GAVE_UP, failure

log = logging.getLogger(__name__)

FEW_PARTS = 8
"""That are lent together, where it is open how many threads there will be."""
MOST_PARTS = 64
"""The most parts of one object that are lent at once."""
TRIES = 4
"""Of an object that changes whenever it is copied."""
STRIKES = 5
"""Workers that may die over one object."""
ROUNDS = 4
"""In a row in which parts of an object may be given up and none is done, half a minute each: what
is done of it would be lost, and a server that is started anew takes less than that."""


@dataclass(slots=True)
class _Large:
    """One of them."""

    entry: Entry
    upload: Upload | None = None
    parts: dict[int, Part] = field(default_factory=dict)
    todo: deque[int] = field(default_factory=deque)
    lent: int = 0
    tries: int = 0
    began: float = field(default_factory=time.time)
    """When this run of the program came upon it; Unix time."""
    strikes: int = 0
    struck: bool = False
    """A strike was counted for what is in hand: workers that die, die together."""
    rounds: int = 0
    """Of those that were given up, how many in a row; what is in hand at once counts once."""
    seen: str = ""
    """The checksum of what was read and was to be put together last."""
    failed: Outcome | None = None
    again: bool = False
    """The source changed or the upload is gone: from the beginning, once nothing is lent."""

    @property
    def done(self) -> int:
        """Bytes."""
        return sum(self.upload.span(part)[1] for part in self.parts) if self.upload else 0

    def begin(self, upload: Upload | None, parts: Iterable[Part]) -> None:
        """Takes over an open upload, of which ``parts`` are done."""
        self.upload, self.again = upload, False
        self.parts = {part.number: part for part in parts}
        numbers = range(1, upload.parts + 1) if upload else ()
        self.todo = deque(number for number in numbers if number not in self.parts)

    def fail(self, outcome: Outcome, rounds: int) -> None:
        """Takes it for failed, unless another round may go better.  ``rounds``: how many there had
        been when what failed was lent.
        """
        if outcome.kind == GAVE_UP:
            self.rounds = min(self.rounds, rounds) + 1
            if self.rounds < ROUNDS:
                log.info("going on with %r, although %s", self.entry.key, outcome.error)
                return
        self.failed = self.failed or outcome


def abandon_uploads(job: Job, manifest: Manifest) -> None:
    """Aborts the uploads of a run that will not be gone on with: nobody would know them any more.

    Raises if the destination cannot be reached.
    """
    for pending in manifest.pending_uploads():
        if pending.upload:
            worker.abort_upload(job, pending.entry.key, pending.upload.upload_id)


def abandon_lost_uploads(job: Job) -> None:
    """Aborts the uploads that a lost manifest may have known of: those of keys that the job selects
    and the source has, to which nobody else has any business to upload.

    Raises if the destination cannot be reached.
    """
    src, dst = worker.storages(job)
    selection = selection_of(job)
    for key, upload_id in dst.uploads():
        here = job.single[0] if job.single else key
        ours = key == job.dst_key(here) and here in job.keys and selection.keeps_key(here)
        with contextlib.suppress(NotFound):
            if ours and src.stat(here):
                dst.abort(key, upload_id)
                log.info("aborted an upload of %r that the lost manifest may have known of", key)


class LargeObjects:
    """Those of one run.  Everything that is done about them is committed before it is built on."""

    def __init__(
        self, job: Job, manifest: Manifest, run: int, submit: Submit, committed: Committed
    ) -> None:
        self._job, self._manifest, self._run = job, manifest, run
        self._submit, self._committed = submit, committed
        self._pending: dict[bytes, _Large] = {}
        self._doubtful = set[bytes]()
        """Those that more than one upload may have been opened for."""

    def __bool__(self) -> bool:
        return bool(self._pending)

    @property
    def waiting(self) -> bool:
        """Whether others could be at work on them, beside those who are."""
        return any(large.todo or not large.lent for large in self._pending.values())

    def load(self) -> None:
        """Takes up those that the manifest holds unfinished."""
        self._pending = {}
        for pending in self._manifest.pending_uploads():
            large = _Large(pending.entry, tries=pending.tries)
            large.begin(pending.upload, pending.parts)
            self._pending[pending.entry.key] = large

    def add(self, entries: Iterable[Entry]) -> None:
        """Takes up those that a slice came upon."""
        for entry in entries:
            self._pending[entry.key] = _Large(entry)

    def progress(self) -> Counts:
        """What is done of objects that no count holds yet."""
        return Counts(copied_bytes=sum(large.done for large in self._pending.values()))

    def lend(self, seconds: float, workers: int) -> bool:
        """Lends the next step of the first object that has one; False if none has.  Parts, if it
        has come to that, so many that each of the ``workers`` gets some.
        """
        return any(self._lend(large, seconds, workers) for large in list(self._pending.values()))

    def _lend(self, large: _Large, seconds: float, workers: int) -> bool:
        if large.failed or large.again:
            if large.lent:
                return False
            self._clear(large)
            if large.failed:
                return False
        rounds = large.rounds
        if large.upload is None:
            if large.lent:
                return False
            arguments: tuple[Any, ...] = (large.entry, large.tries > 0)
            self._step(large, worker.open_upload, arguments, self._opened)
        elif large.todo:
            few = self._job.threads_per_worker or FEW_PARTS
            share = max(few, len(large.todo) // workers)
            count = min(share, MOST_PARTS, len(large.todo))
            numbers = tuple(large.todo.popleft() for _ in range(count))

            def settle(large: _Large, result: PartsResult) -> None:
                self._parts_done(large, numbers, rounds, result)

            def give_back() -> None:
                large.todo.extendleft(reversed(numbers))

            arguments = (large.upload, numbers, Budget(seconds, count))
            self._step(large, worker.run_parts, arguments, settle, give_back)
        elif large.lent:
            return False
        else:
            parts = [large.parts[number] for number in sorted(large.parts)]
            arguments = (large.upload, parts, large.seen)

            def finished(large: _Large, result: UploadResult) -> None:
                self._finished(large, rounds, result)

            self._step(large, worker.finish_upload, arguments, finished)
        return True

    def _step(
        self,
        large: _Large,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        settle: Callable[[_Large, Any], None],
        give_back: Callable[[], None] = lambda: None,
    ) -> None:
        def settled(result: Any) -> None:
            large.lent -= 1
            large.strikes = 0
            settle(large, result)

        def died() -> None:
            large.lent -= 1
            if function is worker.open_upload:
                self._doubtful.add(large.entry.key)
            large.strikes += not large.struck
            large.struck = True
            give_back()
            if large.strikes >= STRIKES:
                large.failed = failure(large.entry, "killed", "every worker that copied it died")

        large.lent += 1
        large.struck = False
        self._submit(function, arguments, settled, died)

    def tidy(self) -> None:
        """At the end of a run, aborts uploads that nobody knew of: one that was asked for may be
        opened only when whoever asked has given up, looked for it, and opened another.
        """
        if not self._doubtful:
            return
        dst = worker.storages(self._job)[1]
        keys = {self._job.dst_key(key) for key in self._doubtful}
        with contextlib.suppress(AdsmigError):  # all that was to be done is done
            for key, upload_id in dst.uploads():
                if key in keys:
                    dst.abort(key, upload_id)
                    log.info("aborted an upload of %r that was opened too late", key)

    def _opened(self, large: _Large, result: UploadResult) -> None:
        if result.doubtful:
            self._doubtful.add(large.entry.key)
        if result.outcome:
            large.failed = result.outcome
        elif result.upload:
            large.tries += 1
            large.entry = result.upload.entry
            large.begin(result.upload, [])
            self._manifest.commit_upload(large.entry, result.upload, large.tries)
        self._committed(Counts(), result.stop)

    def _parts_done(
        self, large: _Large, numbers: tuple[int, ...], rounds: int, result: PartsResult
    ) -> None:
        self._manifest.commit_parts(self._run, large.entry.key, result)
        large.parts.update((part.number, part) for part in result.parts)
        left = [number for number in numbers if number not in large.parts]
        if result.parts:
            large.rounds = rounds = 0
        if result.failure:
            large.fail(result.failure, rounds)
            # They are begun in order: the first has failed.  Others may go well meanwhile.
            large.todo.extend((*left[1:], *left[:1]))
        else:
            large.todo.extendleft(reversed(left))
        large.again = large.again or result.changed
        self._committed(Counts(), result.stop)

    def _finished(self, large: _Large, rounds: int, result: UploadResult) -> None:
        if result.outcome and result.outcome.error:
            large.fail(result.outcome, rounds)
        elif result.outcome:
            self._end(large, result.outcome._replace(seconds=time.time() - large.began))
        elif not result.stop:
            large.again = True
            if large.upload:
                parts = [large.parts[number] for number in sorted(large.parts)]
                large.seen = combined_checksum(large.upload, parts) or ""
        self._committed(Counts(), result.stop)

    def _clear(self, large: _Large) -> None:
        """Gives up an upload that failed, or makes ready to begin it anew."""
        upload, large.upload = large.upload, None
        if large.tries >= TRIES and not large.failed:
            why = ": copy it when nobody writes to it"
            if not self._job.src.is_path:
                why = ", or does not match its checksum: see --src-set crc32 and etag"
            large.failed = failure(large.entry, "changed", f"it keeps changing{why}")
        large.again = False
        if upload:
            with contextlib.suppress(AdsmigError):  # the next upload of the key aborts it as well
                worker.abort_upload(self._job, large.entry.key, upload.upload_id)
        if large.failed:
            self._end(large, large.failed)
        else:
            self._manifest.commit_upload(large.entry, None, large.tries)

    def _end(self, large: _Large, outcome: Outcome) -> None:
        deletions = [deletion_of(outcome)] if self._job.delete_src and not outcome.error else []
        self._manifest.commit_large(self._run, outcome, deletions)
        del self._pending[large.entry.key]
        good = Counts(copied=1, copied_bytes=outcome.size)
        self._committed(Counts(failed=1) if outcome.error else good, None)
