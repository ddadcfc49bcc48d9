"""What a dry run learns about each key, for its inventory."""

from __future__ import annotations

from adsmig.comparison import time_of, times_in
from adsmig.errors import AdsmigError
from adsmig.inventory import Inventory
from adsmig.job import Job
from adsmig.model import Action, Entry, What
from adsmig.storage.base import Storage

_VERDICTS = {
    What.SKIP: "unchanged",
    What.LEAVE: "left",
    What.FAIL: "unreadable",
    What.DELETE: "extraneous",
}
ONE_NAME = "a file and a directory of one name"
ASLEEP = "in a storage class that cannot be read before it is restored"
_ARCHIVES = {"GLACIER", "DEEP_ARCHIVE", "ARCHIVE", "COLD_ARCHIVE", "DEEP_COLD_ARCHIVE"}
"""docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects.html, and the names that other
clouds have for the same."""


class Survey:
    """Fills an Inventory with one slice of a run.  Call :meth:`add` in the order of keys."""

    def __init__(self, job: Job, src: Storage, dst: Storage) -> None:
        self.inventory = Inventory(job.began_ns, job.depth)
        self._job, self._src = job, src
        self._dst = dst if job.dst else None
        # The keys of objects that the last one begins with, if two such cannot be paths together.
        self._above: list[bytes] | None = None
        self._paths = self._dst is not None and dst.keeps_files and not src.keeps_files

    def add(self, action: Action, what: What) -> None:
        """Takes in what was decided about one key."""
        entry = action.src
        if what == What.DELETE and self._job.dst:
            if not entry.implied:
                self.inventory.forecast.verdict(_VERDICTS[what], entry.size)
            return
        if entry.implied:
            return
        if not entry.problem or time_of(entry):  # else nobody knows its size and age
            self.inventory.add(entry.key, entry.size, time_of(entry), entry.storage_class)
        if entry.storage_class in _ARCHIVES and what != What.SKIP:
            self.inventory.forecast.trouble(ASLEEP, entry.key)
        if self._dst is None:
            return
        name = _VERDICTS.get(what) or ("changed" if action.dst else "new")
        self.inventory.forecast.verdict(name, entry.size)
        key = self._job.dst_key(entry.key)
        if problem := self._dst.problem(key):
            self.inventory.forecast.trouble(problem, entry.key)
        elif self._paths and self._in_the_way(entry.key):
            self.inventory.forecast.trouble(ONE_NAME, entry.key)

    def add_all(self, entries: list[Entry], what: What) -> None:
        """As :meth:`add`, for objects right after one another that the same was decided about."""
        if self._dst is None:
            keys, sizes, mtimes, stored, _, classes, *_ = zip(*entries, strict=True)
            if _ARCHIVES.isdisjoint(classes):
                self.inventory.add_all(keys, sizes, times_in(mtimes, stored), classes)
                return
        for entry in entries:
            self.add(Action(what, entry), what)

    def _in_the_way(self, key: bytes) -> bool:
        """Whether the name of another object is a directory of ``key``.

        ``a`` comes before ``a/b``, but ``a-`` may come between: so all that a key begins with wait.
        """
        if self._above is None:  # the first of a slice: what came before it is not known
            self._above = [name for name in _directories(key) if self._is_object(name)]
        while self._above and not key.startswith(self._above[-1]):
            self._above.pop()
        found = any(key.startswith(name + b"/") for name in self._above)
        if not key.endswith(b"/"):
            self._above.append(key)
        return found

    def _is_object(self, key: bytes) -> bool:
        try:
            self._src.stat(key)
        except AdsmigError:
            return False
        return True


def _directories(key: bytes) -> list[bytes]:
    return [key[:at] for at, byte in enumerate(key) if byte == ord("/") and at]
