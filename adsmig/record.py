"""What a manifest has on record as copied, in the order of keys; it may be written to meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge
from pathlib import Path

from adsmig.manifest import Manifest
from adsmig.model import Entry, KeyRange

PAGE = 5000
"""Rows read at once, so that no reader holds up the writer's checkpoints for long."""


def known_objects(path: str, keys: KeyRange) -> Iterator[Entry]:
    """What the manifest at ``path`` says is at the destination, of a range, in the order of keys.

    Entries have size, time and ETag of their source, as it was then.  ``path`` '': nothing.
    """
    if not path:
        return
    # Among themselves, both are in the order of their bytes.
    yield from merge(_known(path, keys, "text"), _known(path, keys, "blob"))


def _known(path: str, keys: KeyRange, kind: str) -> Iterator[Entry]:
    after, closed = keys.after, keys.closed
    while True:
        with Manifest(Path(path)) as manifest:
            rows = manifest.known(after, closed, kind, PAGE)
        for key, size, time_ns, etag in rows:
            if keys.ends_before(key):
                return
            if key in keys:
                yield Entry(key, size, time_ns, time_ns, etag)
        if len(rows) < PAGE:
            return
        after, closed = rows[-1][0], False


class Lookup:
    """Finds what is on record of keys that are asked for in ascending order."""

    def __init__(self, path: str, keys: KeyRange) -> None:
        self._known = known_objects(path, keys)
        self._next = next(self._known, None)

    def find(self, key: bytes) -> Entry | None:
        """What is on record of ``key``."""
        while self._next is not None and self._next.key < key:
            self._next = next(self._known, None)
        return self._next if self._next is not None and self._next.key == key else None
