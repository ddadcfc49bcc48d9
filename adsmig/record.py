"""What a manifest has on record as copied, in the order of keys; it may be written to meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import merge
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from adsmig.ledger import Ledger
from adsmig.model import Entry, KeyRange

R = TypeVar("R", bound="tuple[Any, ...]")
Page = Callable[[Ledger, bytes, bool, str, int], list[R]]
PAGE = 5000
"""Rows read at once, so that no reader holds up the writer's checkpoints for long."""


def known_objects(path: str, keys: KeyRange) -> Iterator[Entry]:
    """What the manifest at ``path`` says is at the destination, of a range, in the order of keys.

    Entries have size, time and ETag of their source, as it was then.  ``path`` '': nothing.
    """
    for key, size, time_ns, etag, _ in _rows(Ledger.known, path, keys):
        yield Entry(key, size, time_ns, time_ns, etag)


def known_checksums(path: str, keys: KeyRange) -> Iterator[Entry]:
    """As :func:`known_objects`, with their checksums for ETags."""
    for key, size, time_ns, _, checksum in _rows(Ledger.known, path, keys):
        yield Entry(key, size, time_ns, time_ns, checksum)


def failed_keys(path: str, keys: KeyRange) -> Iterator[bytes]:
    """What could not be copied, and has not been since; as :func:`known_objects`."""
    for (key,) in _rows(Ledger.failed, path, keys):
        yield key


def _rows(page: Page[R], path: str, keys: KeyRange) -> Iterator[R]:
    """Rows that begin with a key, in the order of the keys."""
    if not path:
        return iter(())
    # Among themselves, both are in the order of their bytes.  Mostly, all keys are text.
    texts, blobs = (_of_kind(page, path, keys, kind) for kind in ("text", "blob"))
    first = next(blobs, None)
    return texts if first is None else merge(texts, chain([first], blobs))


def _of_kind(page: Page[R], path: str, keys: KeyRange, kind: str) -> Iterator[R]:
    after, closed = keys.after, keys.closed
    while True:
        with Ledger(Path(path)) as manifest:
            rows = page(manifest, after, closed, kind, PAGE)
        if rows and rows[0][0] in keys and rows[-1][0] in keys:  # and so are those between them
            yield from rows
        else:
            for row in rows:
                if keys.ends_before(row[0]):
                    return
                if row[0] in keys:
                    yield row
        if len(rows) < PAGE:
            return
        after, closed = rows[-1][0], False


class Lookup:
    """Finds what is on record of keys that are asked for in ascending order."""

    def __init__(self, path: str, keys: KeyRange) -> None:
        self._known = known_objects(path, keys)
        self._next = next(self._known, None)

    @property
    def over(self) -> bool:
        """Whether nothing is on record of any key that may still be asked for."""
        return self._next is None

    def find(self, key: bytes) -> Entry | None:
        """What is on record of ``key``."""
        while self._next is not None and self._next.key < key:
            self._next = next(self._known, None)
        return self._next if self._next is not None and self._next.key == key else None
