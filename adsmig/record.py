"""What a manifest has, and is to have, on record as copied, in the order of keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from itertools import chain, repeat
from pathlib import Path
from typing import Any, TypeVar

from adsmig.comparison import times_in
from adsmig.ledger import Ledger
from adsmig.model import Entry, KeyRange, Known, Outcome, entries_of
from adsmig.schema import keys_to_db, numbers_to_db

R = TypeVar("R", bound="tuple[Any, ...]")
Rows = list[tuple[Any, ...]]
Page = Callable[[Ledger, bytes, bool, str, int], Rows]
PAGE = 5000
"""Rows read at once, so that no reader holds up the writer's checkpoints for long."""


def known_objects(path: str, keys: KeyRange) -> Iterator[Entry]:
    """What the manifest at ``path`` says is at the destination, of a range, in the order of keys.

    Entries have size, time and ETag of their source, as it was then.  ``path`` '': nothing.
    """
    return _read(Ledger.known, path, keys, _entries)


def known_checksums(path: str, keys: KeyRange) -> Iterator[Entry]:
    """As :func:`known_objects`, with their checksums for ETags."""
    return _read(Ledger.known_checksums, path, keys, _entries)


def known_failures(path: str, keys: KeyRange) -> Iterator[tuple[bytes, str]]:
    """Key and kind of failure of what has not been copied since; as :func:`known_objects`."""
    return _read(Ledger.failed, path, keys, iter)


def _entries(rows: Rows) -> Iterable[Entry]:
    """A column at a time: each step is one call for all of them."""
    if not rows:
        return ()
    keys, sizes, times, etags = zip(*rows, strict=True)
    nothing, plain = repeat(None), repeat("")
    fields = (keys, sizes, times, times, etags, plain, repeat(False), plain, nothing)
    return entries_of(zip(*fields, strict=False))  # some have no end


def _read(
    page: Page, path: str, keys: KeyRange, made: Callable[[Rows], Iterable[R]]
) -> Iterator[R]:
    """What is ``made`` of rows that begin with a key, and begins with it too, in their order."""
    if not path:
        return iter(())
    # Among themselves, both are in the order of their bytes.  Mostly, all keys are text.
    texts, blobs = (_of_kind(page, path, keys, kind, made) for kind in ("text", "blob"))
    first = next(blobs, None)
    return texts if first is None else merge(texts, chain([first], blobs))


def _of_kind(
    page: Page, path: str, keys: KeyRange, kind: str, made: Callable[[Rows], Iterable[R]]
) -> Iterator[R]:
    after, closed = keys.after, keys.closed
    most = 1 if keys.upto == after else PAGE
    while True:
        with Ledger(Path(path)) as manifest:
            rows = page(manifest, after, closed, kind, most)
        last = rows[-1][0] if rows else b""
        if rows and not (rows[0][0] in keys and last in keys):  # as are those between them
            yield from made([row for row in rows if row[0] in keys])
        else:
            yield from made(rows)
        if len(rows) < most or keys.ends_before(last):
            return
        after, closed = last, False


def to_be_known(listed: list[Entry], read: list[Outcome]) -> Known:
    """What is to be on record of objects of a source: of those that were ``listed``, and of those
    whose content was ``read``.
    """
    entries = listed + [Entry(one.key, one.size, one.mtime_ns, 0, one.etag) for one in read]
    if not entries:
        return Known()
    keys, sizes, mtimes, stored, etags, *_ = zip(*entries, strict=True)
    return Known(keys_to_db(keys), sizes, numbers_to_db(times_in(mtimes, stored)), etags)


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
