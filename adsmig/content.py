"""The bytes of objects: read, hashed in passing, compared."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator

import xxhash
from isal import isal_zlib

from adsmig.checksum import Sums, Wanted, combined_etag, crc32_text, md5_in
from adsmig.errors import SourceChanged, TransientError
from adsmig.limits import Limits
from adsmig.links import target_of
from adsmig.model import Entry
from adsmig.retry import never, retry
from adsmig.storage.base import Body, Storage

CHUNK = 256 * 1024
"""Bytes; a chunk is hashed and sent while it is still in the processor's cache."""

_NO_MD5 = "; if the store's ETags are no MD5s, say so with etag=opaque in --src-set or --dst-set"


class _Buffer(threading.local):
    def __init__(self) -> None:
        self.view = memoryview(bytearray(CHUNK))


_buffer = _Buffer()


class Reader:
    """The chunks of a Body on their way to a destination, hashed in passing.

    Before the last chunk is given out, the content is held against the source's own CRC-32 or MD5,
    so that bytes damaged on the way here never make a whole object.
    """

    def __init__(
        self,
        body: Body,
        size: int,
        want: Wanted,
        limits: Limits | None,
        parts: PartsMd5 | None = None,
    ) -> None:
        """``want``: what is asked for afterwards, or ahead.  ``parts``: what the source's ETag says
        instead, of an object put in parts.
        """
        self._body, self._size, self._limits = body, size, limits
        self._parts = parts
        self._left = size
        self._held: memoryview | None = None
        self._want = want
        self._xxh3 = xxhash.xxh3_64()
        # Of the two that a source may tell, the one that takes less.
        self._begin(want.md5 or bool(body.md5 and not body.crc32), want.crc32 or bool(body.crc32))
        self._ahead = Sums()

    def _begin(self, md5: bool, crc32: bool) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False) if md5 else None
        self._crc32 = 0 if crc32 else None

    def ahead(self) -> Sums:
        """The hashes of all of it, before any is given out: the source's own, those of what the
        buffer can hold, or of a file that can be read twice; as many as are at hand.

        Whoever is told one ahead refuses what was damaged on its way, and keeps what it had.
        """
        want, body = self._want, self._body
        known = Sums(body.md5, body.crc32)
        if (known.md5 or not want.md5) and (known.crc32 or not want.crc32):
            return known
        view, at = _buffer.view, 0
        if self._size <= CHUNK:
            while self._left:
                at += len(self._next(view[at:]))
            self._held = view[:at]
        elif body.rewind():
            while at < self._size:
                count = body.readinto(view)
                self._hash(view[:count])
                at += count
            body.rewind()
            self._ahead = self.sums
            self._begin(False, False)
        else:
            # Then it can be held against an MD5 afterwards, at least.
            self._begin(True, bool(body.crc32))
            return known
        return self.sums

    def chunks(self) -> Iterator[memoryview]:
        """Views of the calling thread's one buffer, each valid until the next is asked for."""
        if self._held:
            yield self._held
        while self._left:
            yield self._next(_buffer.view)

    def _next(self, view: memoryview) -> memoryview:
        count = self._body.readinto(view[: self._left] if self._left < len(view) else view)
        if not count:
            raise SourceChanged(f"the content ended {self._left} bytes early")
        self._left -= count
        chunk = view[:count]
        self._xxh3.update(chunk)
        self._hash(chunk)
        if self._parts:
            self._parts.update(chunk)
        if not self._left:
            self._prove()
        if self._limits:
            self._limits.take(count)
        return chunk

    def _hash(self, chunk: memoryview) -> None:
        if self._md5:
            self._md5.update(chunk)
        if self._crc32 is not None:
            # With the processor's own instructions: 20 GB/s and more, where zlib's has 4.
            self._crc32 = isal_zlib.crc32(chunk, self._crc32)

    def _prove(self) -> None:
        """At the end, holds what was read against what the source tells, if it tells anything."""
        if self._parts:
            self._parts.check(self.xxh3)
        there = self._body
        if not (there.md5 or there.crc32):
            return
        here = self.sums
        for name, ours, theirs, hint in (
            ("MD5", here.md5, there.md5, _NO_MD5),
            ("CRC-32", here.crc32, there.crc32, ""),
        ):
            if ours and theirs and ours != theirs:
                raise TransientError(f"what was read does not match the source's {name}{hint}")

    @property
    def sums(self) -> Sums:
        """Of what was read so far, or ahead of it, those that were asked for, and may be others."""
        md5 = self._md5.hexdigest() if self._md5 else self._ahead.md5
        crc32 = self._ahead.crc32 if self._crc32 is None else crc32_text(self._crc32)
        return Sums(md5, crc32)

    @property
    def xxh3(self) -> str:
        """Of what was read so far, hexadecimal."""
        return self._xxh3.hexdigest()


class PartsMd5:
    """Holds bytes in passing against the ETag of an object put in parts, if all but the last were
    of ``size`` bytes.  ``doubts``: hashes of what was read before, and did not match.
    """

    def __init__(self, size: int, etag: str, doubts: set[str]) -> None:
        self._size, self._etag, self._doubts = size, etag, doubts
        self._md5s: list[str] = []
        self._begin()

    def _begin(self) -> None:
        self._left = self._size
        self._md5 = hashlib.md5(usedforsecurity=False)

    def update(self, chunk: memoryview) -> None:
        """Takes the next bytes."""
        while chunk:
            piece = chunk[: self._left]
            self._md5.update(piece)
            self._left -= len(piece)
            chunk = chunk[len(piece) :]
            if not self._left:
                self._md5s.append(self._md5.hexdigest())
                self._begin()

    def check(self, xxh3: str) -> None:
        """At the end of content with this hash; TransientError if it is not what the ETag says.

        If it was read as such before, it was not damaged on its way: the parts are of other sizes.
        """
        last = [] if self._left == self._size else [self._md5.hexdigest()]
        if combined_etag([*self._md5s, *last]) != self._etag.lower() and xxh3 not in self._doubts:
            self._doubts.add(xxh3)
            raise TransientError("what was read does not match the source's ETag")


def digest(storage: Storage, entry: Entry, limits: Limits | None, want_md5: bool = False) -> Reader:
    """Reads a whole object for its hashes.  One try; raises as Storage.read does."""
    with storage.read(entry) as body:
        reader = Reader(body, entry.size, Wanted(md5=want_md5), limits)
        for _ in reader.chunks():
            pass
    return reader


def same_time(src: Storage, here: Entry, there: Entry) -> bool:
    """Whether a file has the time that is kept with an object, as a copy of that has.

    In whole seconds.  Tries again; raises what Storage.meta raises.
    """
    if there.mtime_ns is None:
        return False
    kept = retry(lambda: src.meta(here), f"looking at {here.key!r}", final=(SourceChanged,))
    return kept.mtime_ns is not None and kept.mtime_ns // 10**9 == there.mtime_ns // 10**9


def same_link(src: Storage, here: Entry, there: Entry) -> bool:
    """Whether an object stands for the symbolic link that is there; as :func:`same_time`."""
    kept = retry(lambda: src.meta(here), f"looking at {here.key!r}", final=(SourceChanged,))
    return target_of(kept) == there.link


def same_content(
    src: Storage, here: Entry, dst: Storage, there: Entry, limits: Limits | None = None
) -> bool:
    """Whether two objects of one size hold the same bytes; reads no more of them than it must.

    Equal MD5s tell; different ones do not, for an ETag may only look like one.  Tries again;
    raises what reading them raises, SourceChanged for one that is being written.
    """
    sides = [(src, here), (dst, there)]
    known = [md5_in(entry.etag) if storage.etag_is_md5 else None for storage, entry in sides]
    if known[0] and known[0] == known[1]:
        return True
    stopping = limits.stopping if limits else never
    if known[0]:  # read the one that has no MD5, perhaps the other need not be
        sides.reverse()
        known.reverse()
    hashes: list[Reader] = []
    for storage, entry in sides:
        other = known[1 - len(hashes)]
        want_md5 = other is not None and not hashes

        def unit(storage: Storage = storage, entry: Entry = entry, md5: bool = want_md5) -> Reader:
            return digest(storage, entry, limits, md5)

        read = retry(unit, f"reading {entry.key!r}", stopping=stopping, final=(SourceChanged,))
        if want_md5 and read.sums.md5 == other:
            return True
        hashes.append(read)
    return hashes[0].xxh3 == hashes[1].xxh3
