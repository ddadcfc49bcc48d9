"""What a slice found equal at the destination, and what goes on record because of that."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import zip_longest

from adsmig.comparison import Verdict, by_content, by_record, is_copy
from adsmig.job import Job
from adsmig.model import Entry, KeyRange, Known, Outcome
from adsmig.plan import rules_of
from adsmig.record import Lookup, known_failures, to_be_known
from adsmig.schema import LEAST

UNKNOWN_NS = LEAST
"""On record, the time of a version of which nobody knows; no file has it."""


class Equals:
    """Those of one slice, whose lock is held by whoever calls."""

    def __init__(self, job: Job, keys: KeyRange) -> None:
        self._job, self._keys = job, keys
        self.read: list[Outcome] = []
        """Those that had to be read to find out."""
        self.read_bytes = 0
        self.listed: list[Entry] = []
        """Of the others, those that are not on record as that."""
        self.cleared: list[bytes] = []
        """The keys of those that are on record as failures, and are none any more."""
        self._records = job.command in ("cp", "sync") and not job.by_record
        self._known: Lookup | None = None
        # What is equal by now is no failure, though the run does not look at all of them again.
        self._failures = known_failures(job.known, keys) if job.doubts else iter(())
        self._failure = next(self._failures, None)
        self._failed_before = set[bytes]()
        """The keys of these, up to the last that was asked about."""
        self._by_content = rules_of(job).compare is by_content

    @property
    def on_record(self) -> bool:
        """Whether something is to be put there."""
        return self._records and bool(self.read or self.listed)

    def add_listed(self, entries: list[Entry], there: Sequence[Entry]) -> None:
        """Of objects whose listings tell it, in the order of keys; ``there``: of what they are
        equal to, if that was listed.
        """
        if self._job.doubts:
            self._clear([entry.key for entry in entries])
        if self._records:
            self._record(entries, there)

    def add_read(self, outcome: Outcome) -> None:
        """Of an object that had to be read to find out; in any order."""
        self.read.append(outcome)
        self.read_bytes += outcome.size
        self._clear([outcome.key])

    def _clear(self, keys: Sequence[bytes]) -> None:
        """Takes those off the list of failures that are on it; they come in any order."""
        last = max(keys, default=b"")
        while self._failure is not None and self._failure[0] <= last:
            self._failed_before.add(self._failure[0])
            self._failure = next(self._failures, None)
        if self._failed_before:
            self.cleared += self._failed_before.intersection(keys)

    def _record(self, entries: list[Entry], there: Sequence[Entry]) -> None:
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
            self.listed += entries
            return
        for entry, copy in zip_longest(entries, there):
            record = self._known.find(entry.key)
            if record is None or record.size != entry.size:
                self.listed.append(entry)
            elif by_record(entry, record) != Verdict.SAME:
                if self._by_content or (copy and is_copy(entry, copy, record)):
                    self.listed.append(entry)
                elif copy and copy.mtime_ns is None and entry.mtime_ns is not None:
                    self.listed.append(entry._replace(mtime_ns=UNKNOWN_NS))

    def keep(self, kept: Callable[[bytes], bool]) -> None:
        """Forgets all but what is ``kept``, by its key."""
        self.read = [one for one in self.read if kept(one.key)]
        self.listed = [one for one in self.listed if kept(one.key)]
        self.cleared = [key for key in self.cleared if kept(key)]

    def known(self) -> Known:
        """What is to be put on record."""
        return to_be_known(self.listed, self.read if self._records else [])
