"""What a slice found about its keys, and what became of them; no I/O but in records."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from adsmig.comparison import Verdict, by_content, by_record, is_copy, time_of
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
from adsmig.plan import Run, rules_of
from adsmig.record import Lookup, known_failures, to_be_known
from adsmig.schema import LEAST
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

UNKNOWN_NS = LEAST
"""On record, the time of a version of which nobody knows; no file has it."""

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
        self._job, self._keys = job, keys
        self._listed = _Listed()
        self._outcomes: list[Outcome] = []
        self._equal: list[Outcome] = []
        """Of those that had to be read to find out."""
        self._found_equal: list[Entry] = []
        """Of the others, those that are not on record as that."""
        self._records = job.command in ("cp", "sync") and not job.by_record
        self._known: Lookup | None = None
        # What is equal by now is no failure, though the run does not look at all of them again.
        self._failures = known_failures(job.known, keys) if job.doubts else iter(())
        self._failure = next(self._failures, None)
        self._failed_before = set[bytes]()
        """The keys of these, up to the last that was asked about."""
        self._cleared: list[bytes] = []
        self._by_content = rules_of(job).compare is by_content
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
        self._copied_bytes = self._failed = self._equal_bytes = 0
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
            or len(self._found_equal) >= MOST_EQUAL
            or len(self._planned) >= MOST_NAMED
        )

    @property
    def rests_on_destination(self) -> bool:
        """Whether something goes on record, or from the source, because the destination has it."""
        equal = self._records and (self._equal or self._found_equal)
        return bool(self.copied or equal or (self._job.delete_src and self._deletions))

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
        self._clear([entry.key for entry in entries] if self._job.doubts else [])
        if self._records:
            self._record_equal(entries, there)
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

    def _clear(self, keys: Sequence[bytes]) -> None:
        """Takes those off the list of failures that are on it; they come in any order."""
        last = max(keys, default=b"")
        while self._failure is not None and self._failure[0] <= last:
            self._failed_before.add(self._failure[0])
            self._failure = next(self._failures, None)
        if self._failed_before:
            self._cleared += self._failed_before.intersection(keys)

    def _record_equal(self, entries: list[Entry], there: Sequence[Entry]) -> None:
        """Has objects that were found equal put on record, if they are not there yet.

        A record that only tells another time stays, unless the content was compared, or what is
        there is a copy that nobody put on record, as of a run that was killed just then: an object
        that was replaced by an older one is not noticed otherwise, neither now nor by who goes by
        it.  An object that a file was copied to does not tell which of both it is: then the record
        says that nobody knows.
        """
        if self._known is None or self._job.retries:  # which is about keys far apart
            path = self._job.known if os.path.exists(self._job.known) else ""
            upto = entries[-1].key if self._job.retries else self._keys.upto
            self._known = Lookup(path, KeyRange(entries[0].key, upto, True))
        if self._known.over:
            self._found_equal += entries
            return
        for entry, copy in zip_longest(entries, there):
            record = self._known.find(entry.key)
            if record is None or record.size != entry.size:
                self._found_equal.append(entry)
            elif by_record(entry, record) != Verdict.SAME:
                if self._by_content or (copy and is_copy(entry, copy, record)):
                    self._found_equal.append(entry)
                elif copy and copy.mtime_ns is None and entry.mtime_ns is not None:
                    self._found_equal.append(entry._replace(mtime_ns=UNKNOWN_NS))

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
        self._equal.append(outcome)
        self._equal_bytes += outcome.size
        self._clear([outcome.key])
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
        self._equal = [one for one in self._equal if kept(one.key)]
        self._found_equal = [one for one in self._found_equal if kept(one.key)]
        self._large = [one for one in self._large if kept(one.key)]
        self._planned = [one for one in self._planned if kept(one.key)]
        self._deletions = [one for one in self._deletions if kept(one.key)]
        self._cleared = [key for key in self._cleared if kept(key)]
        self._links = [key for key in self._links if kept(key)]
        self._directories = [key for key in self._directories if kept(key)]
        self._above = {key for key in self._above if kept(key)}

    def settled_counts(self) -> Counts:
        """Of what the threads did, as lists tell it."""
        good = [one for one in self._outcomes if not one.error]
        return Counts(
            unchanged=len(self._equal),
            unchanged_bytes=sum(one.size for one in self._equal),
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
        read = self._equal if self._records else []
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
            to_be_known(self._found_equal, read),
            self._cleared,
        )

    def unflushed(self, stop: Stop, started: float) -> SliceResult:
        """Nothing is settled, and whatever was to rest on what the destination has is a failure: it
        may look whole there, and not be on the disk.  So a later run writes it again.
        """
        written = [one for one in (*self._outcomes, *self._equal) if not one.error]
        failures = [
            one._replace(checksum=None, error=stop.message, kind=UNFLUSHED) for one in written
        ] + [failure(entry, UNFLUSHED, stop.message) for entry in self._found_equal]
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
            listed.unchanged + len(self._equal),
            listed.unchanged_bytes + self._equal_bytes,
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
