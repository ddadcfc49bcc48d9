"""What a slice found about its keys, and what became of them; no I/O but in records."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from adsmig.comparison import time_of
from adsmig.equals import Equals
from adsmig.errors import NotFound, ObjectError, SourceChanged
from adsmig.job import Job
from adsmig.model import (
    UNFLUSHED,
    Action,
    Counts,
    Deletion,
    Entry,
    KeyRange,
    Outcome,
    Planned,
    SliceResult,
    Stop,
    What,
)
from adsmig.plan import Run
from adsmig.storage.base import Storage
from adsmig.survey import Survey
from adsmig.transfer import failure

MOST_LARGE = 50
"""A slice ends after so many large objects, lest a listing run far ahead of the copying."""
MOST_DELETIONS = 20_000
"""Or after so many deletions."""
MOST_NAMED = 20_000
"""Or after so many that a dry run names."""
MOST_EQUAL = 20_000
"""Or after so many that were found equal, and are to be put on record."""

_NAMED = {What.COPY: "copy", What.LARGE: "copy", What.DELETE: "delete"}


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


class Findings:
    """Those of one slice, whose lock is held by whoever calls."""

    def __init__(self, job: Job, keys: KeyRange, src: Storage, dst: Storage) -> None:
        self._job = job
        self._listed = _Listed()
        self._outcomes: list[Outcome] = []
        self._equals = Equals(job, keys)
        self._large: list[Entry] = []
        self._deletions: list[Deletion] = []
        self._links: list[bytes] = []
        self._directories: list[bytes] = []
        # One object has a name of its own at the destination.
        self._notes_above = job.keeps_directories and not job.single
        self._above = set[bytes]()
        """Directories of what was copied: filters, or where a range begins, may keep them from
        being listed, and they may have been made just now."""
        self.copied = 0
        """Objects; of a dry run, those that would be."""
        self._copied_bytes = self._failed = 0
        self._survey = Survey(job, src, dst) if job.dryrun else None
        self._planned: list[Planned] = []

    @property
    def foreseen(self) -> bool:
        """Nothing is done, only counted: it is a dry run."""
        return self._survey is not None

    @property
    def full(self) -> bool:
        """Whether there is so much of something that the slice is to end."""
        return (
            len(self._large) >= MOST_LARGE
            or len(self._deletions) >= MOST_DELETIONS
            or len(self._equals.listed) >= MOST_EQUAL
            or len(self._planned) >= MOST_NAMED
        )

    @property
    def rests_on_destination(self) -> bool:
        """Whether something goes on record, or from the source, because the destination has it."""
        return bool(
            self.copied or self._equals.on_record or (self._job.delete_src and self._deletions)
        )

    # What came of the listings

    def add_run(self, run: Run) -> None:
        """Settles objects that were found equal, or counts them in a dry run."""
        entries = run.entries
        if not self._survey:
            self._skip(entries, run.there)
            return
        size = sum(entry.size for entry in entries)
        self._survey.add_all(entries, run.what)
        self._listed.found += len(entries)
        self._listed.found_bytes += size
        if run.what == What.SKIP:
            self._listed.unchanged += len(entries)
            self._listed.unchanged_bytes += size
        else:
            self.copied += len(entries)
            self._copied_bytes += size

    def _skip(self, entries: list[Entry], there: Sequence[Entry]) -> None:
        """Settles objects that were found equal to what is ``there``."""
        listed, job = self._listed, self._job
        size = sum(entry.size for entry in entries)
        listed.found += len(entries)
        listed.found_bytes += size
        if job.against:
            known = [entry for entry in entries if entry.etag or not entry.size]
            listed.left += len(entries) - len(known)  # nobody knows their checksums
            entries, size = known, sum(entry.size for entry in known)
        listed.unchanged += len(entries)
        listed.unchanged_bytes += size
        self._equals.add_listed(entries, there)
        if job.delete_src:
            self._deletions += (_deletion(one, at_source=True, checked=True) for one in entries)

    def settle(self, action: Action) -> bool:
        """Counts an action, and settles it if it is no work; True if it is."""
        what, entry, there = action
        listed, job = self._listed, self._job
        if what == What.SKIP:
            self._skip([entry], [there] if there else [])
            return False
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
                    self.add(failure(entry, "extra", "only at the destination"))
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
            self.add(failure(entry, "source", entry.problem))
        elif what == What.DELETE:
            self._deletions.append(_deletion(entry, at_source=True, checked=False))
        elif job.command == "verify":
            self.add(self._difference(entry, there))
        else:
            self.add_large(entry)
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

    def foresee(self, action: Action, same: Callable[[Entry, Entry], bool]) -> None:
        """Counts what a run would do about one key; ``same`` tells from the content whether two
        objects are equal.
        """
        what, entry, there = action
        assert self._survey
        if what == What.CHECK:
            assert there
            there = there._replace(key=self._job.dst_key(entry.key))
            try:
                what = What.SKIP if same(entry, there) else What.COPY
            except (ObjectError, NotFound, SourceChanged) as exc:
                what, entry = What.FAIL, entry._replace(problem=str(exc))
                action = Action(what, entry)
        if what != What.DROP:
            self._survey.add(action, what)
        if self._job.names_keys and what in _NAMED and not entry.implied:
            self._planned.append(Planned(_NAMED[what], entry.key, entry.size))
        if what == What.DELETE:
            if not entry.implied:
                self._listed.deleted += 1
                self._listed.deleted_bytes += entry.size
        elif what in (What.COPY, What.LARGE):
            self.copied += 1
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

    # What came of the work

    def add(self, outcome: Outcome) -> None:
        """Of an object that was copied, or failed."""
        self._outcomes.append(outcome)
        if outcome.error:
            self._failed += 1
        else:
            self.copied += 1
            self._copied_bytes += outcome.size
            self._note_above(outcome.key)
            if self._job.delete_src:
                self._deletions.append(deletion_of(outcome))

    def add_equal(self, outcome: Outcome) -> None:
        """Of an object that had to be read to find out."""
        self._equals.add_read(outcome)
        if self._job.delete_src:
            self._deletions.append(deletion_of(outcome))

    def add_large(self, entry: Entry) -> None:
        """Of an object that is to be copied in parts."""
        self._large.append(entry)
        self._note_above(entry.key)

    def _note_above(self, key: bytes) -> None:
        """Notes the directories that a key lies in."""
        if not self._notes_above:
            return
        while (end := key.rfind(b"/", 0, -1)) >= 0 and (key := key[: end + 1]) not in self._above:
            self._above.add(key)

    # All of it

    def forget_past(self, cursor: bytes | None) -> None:
        """Drops what is known about keys past the cursor; they are looked at again."""

        def kept(key: bytes) -> bool:
            return cursor is not None and key <= cursor

        self._outcomes = [one for one in self._outcomes if kept(one.key)]
        self._equals.keep(kept)
        self._large = [one for one in self._large if kept(one.key)]
        self._planned = [one for one in self._planned if kept(one.key)]
        self._deletions = [one for one in self._deletions if kept(one.key)]
        self._links = [key for key in self._links if kept(key)]
        self._directories = [key for key in self._directories if kept(key)]
        self._above = {key for key in self._above if kept(key)}

    def settled_counts(self) -> Counts:
        """Of what the threads did, as lists tell it."""
        good = [one for one in self._outcomes if not one.error]
        return Counts(
            unchanged=len(self._equals.read),
            unchanged_bytes=sum(one.size for one in self._equals.read),
            copied=len(good),
            copied_bytes=sum(one.size for one in good),
            failed=len(self._outcomes) - len(good),
        )

    def result(
        self,
        cursor: bytes | None,
        counts: Counts,
        done: bool,
        stop: Stop | None,
        started: float,
    ) -> SliceResult:
        """What is known up to ``cursor``, and nothing past that."""
        if cursor is None and not done:
            self.forget_past(None)
        return SliceResult(
            cursor,
            done,
            counts,
            self._outcomes,
            self._large,
            self._deletions,
            self._links,
            list(self._above.union(self._directories)) if self._above else self._directories,
            self._survey.inventory if self._survey else None,
            self._planned,
            stop,
            os.getpid(),
            started,
            time.time(),
            self._equals.known(),
            self._equals.cleared,
        )

    def unflushed(self, stop: Stop, started: float) -> SliceResult:
        """Nothing is settled, and whatever was to rest on what the destination has is a failure: it
        may look whole there, and not be on the disk.  So a later run writes it again.
        """
        written = [one for one in (*self._outcomes, *self._equals.read) if not one.error]
        failures = [
            one._replace(checksum=None, error=stop.message, kind=UNFLUSHED) for one in written
        ] + [failure(entry, UNFLUSHED, stop.message) for entry in self._equals.listed]
        result = self.result(None, Counts(), False, stop, started)
        return replace(result, outcomes=failures, cleared=[])

    def listed_counts(self) -> Counts:
        """Of what was settled as it was listed."""
        return self._listed.counts()

    def counts(self) -> Counts:
        """Of all of it; as :meth:`settled_counts`, without counting."""
        listed = self._listed
        return Counts(
            listed.found,
            listed.found_bytes,
            listed.unchanged + len(self._equals.read),
            listed.unchanged_bytes + self._equals.read_bytes,
            self.copied,
            self._copied_bytes,
            self._failed,
            listed.left,
            listed.dropped,
            listed.deleted,
            listed.deleted_bytes,
        )


def deletion_of(outcome: Outcome) -> Deletion:
    """Of a source object that was copied, or found equal."""
    return Deletion(outcome.key, outcome.size, outcome.mtime_ns, outcome.etag, True, True)


def _deletion(entry: Entry, at_source: bool, checked: bool) -> Deletion:
    time_ns = time_of(entry)
    return Deletion(entry.key, entry.size, time_ns, entry.etag, at_source, checked, entry.implied)


def done(entry: Entry, kind: str) -> Outcome:
    """The Outcome of an object that was looked at."""
    return Outcome(entry.key, entry.size, time_of(entry), entry.etag, None, kind=kind)
