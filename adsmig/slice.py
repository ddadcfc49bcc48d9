"""A range of keys being worked on by the threads of one process."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from adsmig import failpoint
from adsmig.content import same_content, same_time
from adsmig.crew import Crew, Stay
from adsmig.errors import AdsmigError, NotFound, ObjectError, SourceChanged, TransientError
from adsmig.job import LARGE_SIZE, Job
from adsmig.limits import Lease, opened
from adsmig.model import (
    Action,
    Budget,
    Counts,
    Deletion,
    Entry,
    KeyRange,
    Known,
    Outcome,
    SliceResult,
    Stop,
    What,
)
from adsmig.plan import Run, Verdict, by_content, by_record, rules_of, time_of
from adsmig.record import Lookup
from adsmig.retry import never
from adsmig.scan import plan_of, storages
from adsmig.storage.base import Batching
from adsmig.survey import Survey
from adsmig.transfer import Manner, copy, copy_batch, failure, holds, settled

log = logging.getLogger(__name__)

SEEK_SHARE = 10
"""A slice lasts at least this many times as long as it took to reach its first key."""
MOST_LARGE = 50
"""A slice ends after so many large objects, lest a listing run far ahead of the copying."""
MOST_DELETIONS = 20_000
"""Or after so many deletions."""
CLOSE_S = 1.0
"""How long to wait for threads to let go of what they share; all but a listing takes far less."""
MOST_EQUAL = 20_000
"""Or after so many that were found equal, and are to be put on record."""

MOST_SMALL = 128 << 10
"""Bytes of an object that may be written along with others."""
MOST_BATCHED = 1 << 20
"""Bytes that are written at once, a little more or less."""

_WORK = (What.COPY, What.CHECK)
"""What threads carry out; all else is settled as it is listed."""


@dataclass(slots=True)
class _Listed:
    """Tallies of what was settled as it was listed, in the order of keys."""

    found: int = 0
    found_bytes: int = 0
    unchanged: int = 0
    unchanged_bytes: int = 0
    left: int = 0
    dropped: int = 0
    deleted: int = 0
    deleted_bytes: int = 0

    def counts(self) -> Counts:
        return Counts(
            self.found,
            self.found_bytes,
            self.unchanged,
            self.unchanged_bytes,
            left=self.left,
            dropped=self.dropped,
            deleted=self.deleted,
            deleted_bytes=self.deleted_bytes,
        )


class Slice:
    """A range being worked on; call :meth:`run` once.  Threads pull actions from it."""

    def __init__(self, job: Job, keys: KeyRange, budget: Budget, lease: Lease) -> None:
        self._job, self._keys, self._budget, self._lease = job, keys, budget, lease
        self._limits = opened(lease.path)
        self._stopping = self._limits.stopping if self._limits else never
        self._src, self._dst = storages(job)
        self._manner = Manner(job.perms, job.delete_src)
        self._lock = threading.RLock()  # an error may come while it is held
        self._started, self._began = time.time(), time.monotonic()
        self._deadline = self._began + budget.seconds
        self._actions: Iterator[Action | Run] | None = None
        self._batch: int | None = None
        self._cursor: bytes | None = None
        self._dispatched = 0
        self._ended = self._done = self._closed = False
        self._stop: AdsmigError | None = None
        self._listed = _Listed()
        self._outcomes: list[Outcome] = []
        self._equal: list[Outcome] = []
        """Of those that had to be read to find out."""
        self._found_equal: list[Known] = []
        """Of the others, those that are not on record as that."""
        self._records = job.command in ("cp", "sync") and not job.by_record
        self._known: Lookup | None = None
        self._by_content = rules_of(job).compare is by_content
        self._large: list[Entry] = []
        self._deletions: list[Deletion] = []
        self._links: list[bytes] = []
        self._directories: list[bytes] = []
        self._copied = self._copied_bytes = self._failed = self._equal_bytes = 0
        # Keys being worked on: the cursor and the tallies as they were just before each.
        self._in_hand: dict[bytes, tuple[bytes | None, Counts]] = {}
        self._survey = Survey(job, self._src, self._dst) if job.dryrun else None

    def run(self, crew: Crew) -> SliceResult:
        """Settles keys in order until all are or the budget is used up; see worker.run_slice."""
        failpoint.reach("slice.begun")
        if self._job.dryrun:
            self._work(lambda size, pieces=1: True)  # which only lists
        else:
            left = crew.run(self._work, self._stopping, self._release)
            if not left and not self._close():
                return SliceResult(
                    None, False, Counts(), [],
                    worker=os.getpid(), started=self._started, ended=time.time(),
                )  # fmt: skip
        try:
            if self._copied and not self._job.dryrun and self._job.dst:
                failpoint.reach("flush.before")
                self._dst.sync()
                failpoint.reach("flush.after")
        except AdsmigError as exc:
            return self._result(None, Counts(), False, exc)
        cursor, counts, done = self._cursor, self._counts(), self._done
        if self._in_hand:
            # Some keys were left unsettled: only what comes before the first of them counts.
            done = False
            cursor, counts = self._in_hand[min(self._in_hand)]
            self._forget_past(cursor)
            counts += self._settled_counts()
        return self._result(cursor, counts, done, self._stop)

    def _release(self) -> None:
        self._src.release()
        self._dst.release()

    def _close(self) -> bool:
        """Keeps threads that are late from changing anything more; False if one of them is just at
        it, waiting for a listing.
        """
        if not self._lock.acquire(timeout=CLOSE_S):
            return False
        self._ended = self._closed = True
        self._lock.release()
        return True

    def _forget_past(self, cursor: bytes | None) -> None:
        """Drops what is known about keys past the cursor; they are looked at again."""

        def kept(key: bytes) -> bool:
            return cursor is not None and key <= cursor

        self._outcomes = [one for one in self._outcomes if kept(one.key)]
        self._equal = [one for one in self._equal if kept(one.key)]
        self._found_equal = [one for one in self._found_equal if kept(one[0])]
        self._large = [one for one in self._large if kept(one.key)]
        self._deletions = [one for one in self._deletions if kept(one.key)]
        self._links = [key for key in self._links if kept(key)]
        self._directories = [key for key in self._directories if kept(key)]

    def _settled_counts(self) -> Counts:
        """Of what the threads did, as lists tell it."""
        good = [one for one in self._outcomes if not one.error]
        return Counts(
            unchanged=len(self._equal),
            unchanged_bytes=sum(one.size for one in self._equal),
            copied=len(good),
            copied_bytes=sum(one.size for one in good),
            failed=len(self._outcomes) - len(good),
        )

    def _result(
        self, cursor: bytes | None, counts: Counts, done: bool, stop: AdsmigError | None
    ) -> SliceResult:
        nothing = cursor is None and not done
        if nothing:
            self._forget_past(None)
        read = self._equal if self._records else []
        return SliceResult(
            cursor,
            done,
            counts,
            self._outcomes,
            self._large,
            self._deletions,
            self._links,
            self._directories,
            self._survey.inventory if self._survey else None,
            stop_of(stop) if stop else None,
            os.getpid(),
            self._started,
            time.time(),
            self._found_equal + [(one.key, one.size, one.mtime_ns, one.etag) for one in read],
        )

    def _counts(self) -> Counts:
        """All of it; as :meth:`_settled_counts`, without counting."""
        listed = self._listed
        return Counts(
            listed.found,
            listed.found_bytes,
            listed.unchanged + len(self._equal),
            listed.unchanged_bytes + self._equal_bytes,
            self._copied,
            self._copied_bytes,
            self._failed,
            listed.left,
            listed.dropped,
            listed.deleted,
            listed.deleted_bytes,
        )

    def _work(self, stay: Stay) -> None:
        """What each thread does: works on one object, or a few, after the other, until there are no
        more.
        """
        try:
            while actions := self._next():
                size = 0
                for action, equal, outcome in self._carry_out(actions):
                    size += action.src.size if outcome else 0
                    if not self._keep(action, equal, outcome):
                        return
                if not stay(size, len(actions)):
                    return
        except Exception as exc:
            self._end(exc)

    def _end(self, exc: Exception) -> None:
        """Notes what went wrong with more than an object; nothing more is begun."""
        if not isinstance(exc, AdsmigError):
            log.info("internal error", exc_info=exc)
            exc = AdsmigError(f"internal error: {type(exc).__name__}: {exc}")
        with self._lock:
            self._ended = True
            if not self._closed and not (isinstance(exc, TransientError) and self._stopping()):
                self._stop = self._stop or exc

    def _keep(self, action: Action, equal: bool, outcome: Outcome | None) -> bool:
        """Counts what became of an object; False if it is too late for that."""
        with self._lock:
            if self._closed:
                return False
            del self._in_hand[action.src.key]
            if outcome is None:
                self._large.append(action.src)
            elif equal:
                self._equal.append(outcome)
                self._equal_bytes += outcome.size
                if self._job.delete_src:
                    self._deletions.append(deletion_of(outcome))
                self._show()
            else:
                self._settle(outcome)
            return True

    def _carry_out(self, actions: list[Action]) -> Iterator[tuple[Action, bool, Outcome | None]]:
        """Works on objects: each with whether it was found equal, and what became of it."""
        small = [action for action in actions if _is_small(action)]
        if len(small) > 1 and isinstance(self._dst, Batching):
            objects = [(action.src, self._job.dst_key(action.src.key)) for action in small]
            outcomes = copy_batch(self._src, self._dst, objects, self._limits, self._manner)
            for action, outcome in zip(small, outcomes, strict=True):
                yield action, False, outcome
            actions = [action for action in actions if not _is_small(action)]
        for action in actions:
            yield action, *self._carry_out_one(action)

    def _carry_out_one(self, action: Action) -> tuple[bool, Outcome | None]:
        """Works on one object: whether it was found equal, and what became of it.

        No outcome: it is to be copied, in parts.
        """
        entry, job = action.src, self._job
        key = job.dst_key(entry.key)
        if action.what == What.CHECK:
            assert action.dst
            there = action.dst._replace(key=key)

            def compare() -> Outcome:
                return done(entry, "" if self._same(entry, there) else "differs")

            found = settled(compare, entry, self._stopping)
            if found.kind != "differs":
                return not found.error, found
            if job.command == "verify":
                what = "what was copied" if job.against else "the same"
                return False, failure(entry, "differs", f"the content is not {what}")
            if entry.size > min(LARGE_SIZE, job.max_put):
                return False, None
        return False, copy(self._src, self._dst, entry, key, self._limits, self._manner)

    def _same(self, entry: Entry, there: Entry) -> bool:
        """Whether what could not be told from the listings is equal."""
        job = self._job
        if job.against:
            return holds(self._dst, there, entry.etag or "", self._limits)
        if job.command != "verify" and job.compare in ("", "manifest") and not job.delete_src:
            return same_time(self._src, entry, there)
        return same_content(self._src, entry, self._dst, there, self._limits)

    def _settle(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        if outcome.error:
            self._failed += 1
        else:
            self._copied += 1
            self._copied_bytes += outcome.size
            if self._job.delete_src:
                self._deletions.append(deletion_of(outcome))
        self._show()

    def _next(self) -> list[Action]:
        """What to work on next: one object, or some small ones, where they are better written at
        once; everything that needs no work is settled on the way.  Nothing: there is no more, or
        there can be no more.
        """
        with self._lock:
            if self._batch is None:
                self._batch = self._batch_size()  # by the first thread, which needs to connect
            actions, size = list[Action](), 0
            try:
                while action := self._advance():
                    actions.append(action)
                    size += action.src.size
                    if len(actions) == self._batch or size > MOST_BATCHED or not _is_small(action):
                        break
            except Exception as exc:
                self._end(exc)
            return actions

    def _batch_size(self) -> int:
        """How many objects are to be written at once."""
        dst = self._dst
        return dst.batch_size() if isinstance(dst, Batching) and not self._job.dryrun else 1

    def _advance(self) -> Action | None:
        """The next object to work on."""
        listed = 0
        if self._actions is None:
            self._actions = plan_of(self._job, self._keys)
        while not self._ended:
            if self._cursor is not None and self._used_up():
                break
            try:
                action = next(self._actions, None)
            except BaseException:
                # Still under the lock: to the next thread, a generator that raised would look
                # like one that has come to its end, and the range like one that is done.
                self._ended = True
                raise
            if action is None:
                self._done = True
                break
            if self._cursor is None:
                reached = time.monotonic()
                self._deadline = max(self._deadline, reached + SEEK_SHARE * (reached - self._began))
            if isinstance(action, Run):  # mostly, and by the million objects
                self._settle_run(action)
                self._cursor = action.entries[-1].key
                self._show()
                continue
            if self._survey:
                self._foresee(action)
            elif action.what == What.SKIP:
                self._skip([action.src])
            elif action.what in _WORK and not self._budget.objects:
                break
            else:
                before, counts = self._cursor, self._listed.counts()
                if self._settle_listed(action):
                    self._in_hand[action.src.key] = before, counts
                    self._cursor = action.src.key
                    self._dispatched += 1
                    return action
            self._cursor = action.src.key
            listed += 1
            if not listed & 1023:
                self._show()
        self._ended = True
        return None

    def _settle_run(self, run: Run) -> None:
        entries, size = run.entries, sum(entry.size for entry in run.entries)
        if not self._survey:
            self._skip(entries)
            return
        self._survey.add_all(entries, run.what)
        self._listed.found += len(entries)
        self._listed.found_bytes += size
        if run.what == What.SKIP:
            self._listed.unchanged += len(entries)
            self._listed.unchanged_bytes += size
        else:
            self._copied += len(entries)
            self._copied_bytes += size

    def _skip(self, entries: list[Entry]) -> None:
        """Settles objects that were found equal."""
        listed, job = self._listed, self._job
        listed.found += len(entries)
        listed.found_bytes += sum(entry.size for entry in entries)
        if job.against:
            known = [entry for entry in entries if entry.etag or not entry.size]
            listed.left += len(entries) - len(known)  # nobody knows their checksums
            entries = known
        listed.unchanged += len(entries)
        listed.unchanged_bytes += sum(entry.size for entry in entries)
        if self._records:
            self._record_equal(entries)
        if job.delete_src:
            self._deletions += (_deletion(one, at_source=True, checked=True) for one in entries)

    def _settle_listed(self, action: Action) -> bool:
        """Counts an action, and settles it if it is no work; True if it is."""
        what, entry, there = action
        listed, job = self._listed, self._job
        if what == What.DROP:
            listed.dropped += not entry.key.endswith(b"/")
            return False
        if what == What.DIRECTORY:
            if job.keeps_directories:
                self._directories.append(entry.key)
            if job.delete_src:  # once it is empty
                self._deletions.append(_deletion(entry, at_source=True, checked=False))
            return False
        if what == What.DELETE and job.dst:
            if job.command == "verify":
                if not entry.implied:
                    self._settle(failure(entry, "extra", "only at the destination"))
            else:
                self._deletions.append(_deletion(entry, at_source=False, checked=True))
            return False
        if not entry.implied:
            listed.found += 1
            listed.found_bytes += entry.size
        if what == What.CHECK or (what == What.COPY and job.command != "verify"):
            return True
        if what == What.LEAVE:
            listed.left += 1
            if entry.link is not None and job.record:
                self._links.append(entry.key)
        elif what == What.FAIL:
            self._settle(failure(entry, "source", entry.problem))
        elif what == What.DELETE:
            self._deletions.append(_deletion(entry, at_source=True, checked=False))
        elif job.command == "verify":
            self._settle(self._difference(entry, there))
        else:
            self._large.append(entry)
        return False

    def _difference(self, entry: Entry, there: Entry | None) -> Outcome:
        """What ``verify`` found without reading it."""
        if there is None:
            return failure(entry, "missing", "it is not at the destination")
        if there.problem:
            return failure(entry, "unreadable", there.problem)
        now, other = (
            ("when it was copied", "now")
            if self._job.against
            else ("at the source", "at the other")
        )
        sizes = f"{entry.size:,} bytes {now}, {there.size:,} {other}"
        return failure(entry, "differs", sizes)

    def _record_equal(self, entries: list[Entry]) -> None:
        """Has objects that were found equal put on record, if they are not there yet.

        A record that only tells another time stays, unless the content was compared: an object that
        was replaced by an older one is not noticed otherwise, neither now nor by who goes by it.
        """
        if self._known is None:
            path = self._job.known if os.path.exists(self._job.known) else ""
            self._known = Lookup(path, KeyRange(entries[0].key, self._keys.upto, True))
        for entry in entries:
            record = self._known.find(entry.key)
            if (
                record is None
                or record.size != entry.size
                or (self._by_content and by_record(entry, record) != Verdict.SAME)
            ):
                self._found_equal.append((entry.key, entry.size, time_of(entry), entry.etag))

    def _foresee(self, action: Action) -> None:
        """Counts what a run would do about one key; for a dry run, which is in one thread."""
        what, entry, there = action
        assert self._survey
        if what == What.CHECK:
            assert there
            there = there._replace(key=self._job.dst_key(entry.key))
            try:
                what = What.SKIP if self._same(entry, there) else What.COPY
            except (ObjectError, NotFound, SourceChanged) as exc:
                what, entry = What.FAIL, entry._replace(problem=str(exc))
                action = Action(what, entry)
        if what != What.DROP:
            self._survey.add(action, what)
        if what == What.DELETE:
            if not entry.implied:
                self._listed.deleted += 1
                self._listed.deleted_bytes += entry.size
        elif what in (What.COPY, What.LARGE):
            self._copied += 1
            self._copied_bytes += entry.size
        if what != What.DELETE or not self._job.dst:
            self._count_foreseen(what, entry)

    def _count_foreseen(self, what: What, entry: Entry) -> None:
        listed = self._listed
        if what == What.DROP:
            listed.dropped += not entry.key.endswith(b"/")
        elif not entry.implied:
            listed.found += 1
            listed.found_bytes += entry.size
            if what == What.SKIP:
                listed.unchanged += 1
                listed.unchanged_bytes += entry.size
            elif what == What.LEAVE:
                listed.left += 1
            elif what == What.FAIL:
                self._failed += 1
                self._outcomes.append(failure(entry, "source", entry.problem))

    def _show(self) -> None:
        if self._limits:
            self._limits.report(self._lease.slot, self._counts())

    def _used_up(self) -> bool:
        return (
            self._dispatched >= (self._budget.objects or 1)
            or len(self._large) >= MOST_LARGE
            or time.monotonic() > self._deadline
            or self._stopping()
            or len(self._deletions) >= MOST_DELETIONS
            or len(self._found_equal) >= MOST_EQUAL
        )


def _is_small(action: Action) -> bool:
    """Whether an object may be written along with others."""
    entry = action.src
    plain = entry.link is None and not entry.key.endswith(b"/")
    return plain and action.what == What.COPY and entry.size <= MOST_SMALL


def deletion_of(outcome: Outcome) -> Deletion:
    """Of a source object that was copied, or found equal."""
    return Deletion(outcome.key, outcome.size, outcome.mtime_ns, outcome.etag, True, True)


def _deletion(entry: Entry, at_source: bool, checked: bool) -> Deletion:
    time_ns = time_of(entry)
    return Deletion(entry.key, entry.size, time_ns, entry.etag, at_source, checked, entry.implied)


def done(entry: Entry, kind: str) -> Outcome:
    """The Outcome of an object that was looked at."""
    return Outcome(entry.key, entry.size, time_of(entry), entry.etag, None, kind=kind)


def stop_of(exc: AdsmigError) -> Stop:
    """An error that ends a run, in a form that crosses processes."""
    return Stop(str(exc), exc.exit_code, type(exc).__name__)
