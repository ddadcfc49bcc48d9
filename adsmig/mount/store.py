"""The bucket as the mount sees it: blocking calls, each tried again as usual, run by threads."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple, TypeVar

from adsmig.checksum import Sums, combined_etag, parts_in
from adsmig.errors import (
    AdsmigError,
    NotFound,
    ObjectError,
    SourceChanged,
    TransientError,
)
from adsmig.limits import Limits
from adsmig.model import LAST, Entry, KeyRange, Meta, Part, Upload
from adsmig.mount.pieces import CHUNK, Span, prove, scratch
from adsmig.mount.refusals import os_error
from adsmig.providers import AWS
from adsmig.retry import retry
from adsmig.storage.base import Stored
from adsmig.storage.s3 import S3Storage

log = logging.getLogger(__name__)
T = TypeVar("T")

THREADS, AHEAD = 24, 24
"""Requests at once: for what somebody waits for, and for what somebody may ask for soon."""
PART = 32 << 20
_COPIED, _COPYING = 256 << 20, 4
"""Bytes of a part of what is too large to be copied with one request; so many at once."""
SINGLE = 32 << 20
"""Bytes of what is sent with one request; more goes in parts."""
_OWN = frozenset(("mtime", "mode", "uid", "gid"))


class Found(NamedTuple):
    """An object, with what is kept beside its content."""

    entry: Entry
    meta: Meta


class _Local(threading.local):
    """What a thread works for."""

    def __init__(self) -> None:
        self.unwanted = threading.Event()
        """Set when nobody wants it any more."""


class Store:
    """One Location, for an event loop.  The opener closes it."""

    def __init__(self, storage: S3Storage, limits: Limits | None = None) -> None:
        self.storage = storage
        self._limits = limits
        self._front = ThreadPoolExecutor(THREADS, "store")
        self._behind = ThreadPoolExecutor(AHEAD, "ahead")
        self._local = _Local()
        self.progress = time.monotonic()
        """When bytes last went to the store, or came from there."""

    def close(self) -> None:
        """Begins nothing any more, and waits for nothing."""
        for pool in (self._behind, self._front):
            pool.shutdown(wait=False, cancel_futures=True)

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """What the function returns, called in a thread.  Raises OSError for errors of ours."""
        return await self._run(self._front, function, *arguments)

    async def run_ahead(self, function: Callable[..., T], *arguments: object) -> T:
        """The same for what nobody waits for yet."""
        return await self._run(self._behind, function, *arguments)

    async def _run(
        self, pool: ThreadPoolExecutor, function: Callable[..., T], *arguments: object
    ) -> T:
        """Who is cancelled waits for the thread all the same, which tries nothing again from then
        on: two writes of one key must not overtake each other.
        """
        unwanted = threading.Event()

        def call() -> T:
            self._local.unwanted = unwanted
            return function(*arguments)

        future = asyncio.get_running_loop().run_in_executor(pool, call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            unwanted.set()
            await asyncio.wait([future])
            raise
        except AdsmigError as exc:
            raise os_error(exc) from exc

    def _retry(self, unit: Callable[[], T], what: str) -> T:
        """As retry.retry, but that there is no sense in reading what was replaced again."""
        return retry(unit, what, stopping=self._local.unwanted.is_set, final=(SourceChanged,))

    # What follows blocks, and is for the threads.

    def look(self, key: bytes) -> Found:
        """The object of exactly this key, NotFound if there is none."""
        return Found(*self.storage.look(key))

    def look_all(self, keys: Sequence[bytes]) -> list[Found | AdsmigError]:
        """The objects of these keys, one after the other, or what kept us from it."""
        found: list[Found | AdsmigError] = []
        for key in keys:
            try:
                found.append(self.look(key))
            except AdsmigError as exc:
                found.append(exc)
        return found

    def is_directory(self, key: bytes) -> bool:
        """Whether there is anything below ``key``, which ends in a slash."""
        return self.storage.holds_below(key)

    def is_empty(self, key: bytes) -> bool:
        """Whether there is nothing in a directory, whose key ends in a slash."""
        found = itertools.islice(self.storage.children(key), 2)
        return all(one == key and not (entry and entry.size) for one, entry in found)

    def all_below(self, key: bytes) -> list[Entry]:
        """Every object below a directory, its marker too."""
        return list(self.storage.list(KeyRange(key, key + LAST, closed=False))) + self._marker(key)

    def _marker(self, key: bytes) -> list[Entry]:
        try:
            return [self.storage.stat(key)]
        except NotFound:
            return []

    def read(self, entry: Entry, start: int, size: int) -> tuple[bytearray, Meta]:
        """Bytes of exactly this version, held against its checksum where they are all of it."""

        def unit() -> tuple[bytearray, Meta]:
            data = bytearray(size)
            view = memoryview(data)
            with self.storage.read(entry, start, size) as body:
                at = 0
                while at < size:
                    count = body.readinto(view[at : at + CHUNK])
                    if not count:
                        raise SourceChanged("it ended early")
                    self._moved(count)
                    at += count
                prove(data, body)
                return data, body.meta

        if not size:
            return bytearray(), self.look(entry.key).meta
        return self._retry(unit, "reading an object")

    def stream(
        self, entry: Entry, start: int, size: int, step: int, give: Callable[[int, bytearray], None]
    ) -> None:
        """Calls ``give`` with the offset and the bytes of each ``step`` bytes, in order."""
        at = start

        def unit() -> None:
            nonlocal at
            with self.storage.read(entry, at, start + size - at) as body:
                while at < start + size:
                    data = bytearray(min(step, start + size - at))
                    view, filled = memoryview(data), 0
                    while filled < len(data):
                        count = body.readinto(view[filled:])
                        if not count:
                            raise SourceChanged("it ended early")
                        filled += count
                        self._moved(count)
                    give(at, data)
                    at += len(data)

        self._retry(unit, "reading an object")

    def write(self, key: bytes, fd: int, size: int, meta: Meta) -> Entry:
        """Stores the ``size`` bytes of a file as ``key``, whole or not at all, and checked."""

        def unit() -> Entry:
            span = Span(fd, 0, size, self._moved)
            md5 = span.md5()  # told ahead: what arrives damaged spares what was there
            stored = self.storage.write(key, span.chunks(), size, meta, Sums(md5))
            return self._checked(key, size, stored, md5)

        return self._retry(unit, "storing an object")

    def _checked(self, key: bytes, size: int, stored: Stored, md5: str) -> Entry:
        if stored.md5 and stored.md5 != md5:
            raise TransientError("the store's MD5 does not match what was sent")
        if stored.etag and (stored.md5 or stored.size == size):
            return Entry(key, size, None, 0, stored.etag)
        there = self.storage.stat(key)
        if there.size != size:
            raise TransientError(f"{there.size} bytes are there instead of {size}")
        return there

    def begin(self, key: bytes, meta: Meta, part_size: int = PART) -> Upload:
        """Opens an upload of as many bytes as there will be."""
        most = min(self.storage.profile.max_parts * part_size, self.storage.profile.max_size)
        entry = Entry(key, most, None, 0)
        upload = self._retry(
            lambda: self.storage.begin_beside(key, entry, meta), "opening a multipart upload"
        )
        return replace(upload, part_size=max(part_size, self.storage.profile.min_part))

    def put_part(self, upload: Upload, number: int, fd: int, size: int) -> Part:
        """Stores a part from where it lies in the file."""
        start = (number - 1) * upload.part_size
        upload = replace(upload, entry=upload.entry._replace(size=start + size))

        def unit() -> Part:
            span = Span(fd, start, size, self._moved)
            key = upload.entry.key
            stored = self.storage.put_part(key, upload, number, span.chunks())
            if stored.md5 and stored.md5 != span.digest:
                raise TransientError("the store's MD5 does not match what was sent")
            return Part(number, stored.etag or "", None, span.digest)

        return self._retry(unit, "storing a part")

    def complete(self, upload: Upload, parts: list[Part], size: int, meta: Meta) -> Entry:
        """Makes the object appear."""
        key = upload.entry.key
        whole = replace(upload, entry=upload.entry._replace(size=size))
        etag = self.storage.complete(key, whole, parts, meta)
        return Entry(key, size, None, 0, etag) if etag else self.storage.stat(key)

    def completed(self, upload: Upload, parts: dict[int, Part], fd: int, size: int) -> Entry | None:
        """The object, if the store has it already, put together from exactly these parts and, where
        one is missing, what lies in the file there: the answer to :meth:`complete` was lost.
        """
        try:
            there = self.look(upload.entry.key).entry
        except NotFound:
            return None
        count, tells = -(-size // upload.part_size), self.storage.profile.etag == AWS
        if there.size != size or (tells and parts_in(there.etag) != count):
            return None

        def md5(number: int) -> str | None:
            if number in parts:
                return parts[number].md5
            start = (number - 1) * upload.part_size
            return Span(fd, start, min(upload.part_size, size - start), self._moved).md5()

        ours = [md5(number) for number in range(1, count + 1)]
        if tells and (there.etag or "").lower() == combined_etag(ours):
            return there
        # Nobody but the store may be able to compute its ETag: the bytes have to tell.
        for number, one in enumerate(ours):
            start = number * upload.part_size
            if not one or one != self._md5(there, start, min(upload.part_size, size - start)):
                return None
        return there

    def _md5(self, entry: Entry, start: int, size: int) -> str | None:
        """Of bytes of exactly this version; None if there is another one by now."""
        whole = hashlib.md5(usedforsecurity=False)
        try:
            self.stream(entry, start, size, CHUNK, lambda _at, data: whole.update(data))
        except (NotFound, SourceChanged):
            return None
        return whole.hexdigest()

    def abort(self, upload: Upload) -> None:
        """Gives an upload up."""
        self.storage.abort(upload.entry.key, upload.upload_id)

    def copy(self, entry: Entry, key: bytes, meta: Meta | None) -> Entry:
        """Copies an object to ``key`` inside the store, with other metadata if given.

        Where the store cannot, its bytes come here and go back.
        """

        def unit() -> Entry | None:
            stored = self.storage.copy_within(entry, key, meta)
            if stored is None:
                return None
            there = self.storage.stat(key)
            if there.size != entry.size:
                raise TransientError(f"{there.size} bytes are there instead of {entry.size}")
            return there

        if there := self._retry(unit, "copying an object"):
            return there
        known = own_meta(self.look(entry.key).meta) if meta is None else meta
        large = entry.size > SINGLE and not entry.key.endswith(b"/")
        if large and (there := self._copy_parts(entry, key, known)):
            return there
        with scratch() as file:
            fd = file.fileno()
            for start in range(0, entry.size, PART):
                data, _ = self.read(entry, start, min(PART, entry.size - start))
                os.pwrite(fd, data, start)
            if entry.size <= SINGLE:
                return self.write(key, fd, entry.size, known)
            upload = self.begin(key, known)
            size = upload.part_size
            numbers = range(1, -(-entry.size // size) + 1)
            parts = [
                self.put_part(upload, n, fd, min(size, entry.size - (n - 1) * size))
                for n in numbers
            ]
            return self.complete(upload, parts, entry.size, known)

    def _copy_parts(self, entry: Entry, key: bytes, meta: Meta) -> Entry | None:
        """As :meth:`copy`, of what is more than the store copies with one request; None where it
        copies no parts either.
        """
        storage, unwanted = self.storage, self._local.unwanted
        upload = self._retry(
            lambda: storage.begin_beside(key, entry, meta), "opening a multipart upload"
        )
        most = min(storage.profile.max_part, storage.profile.max_copy)
        upload = replace(upload, part_size=max(upload.part_size, min(_COPIED, most)))

        def copied(number: int) -> Part | None:
            self._local.unwanted = unwanted
            if unwanted.is_set():
                raise TransientError("nobody wants the copy any more")
            stored = self._retry(
                lambda: storage.copy_part(storage, key, upload, number), "copying a part"
            )
            self.progress = time.monotonic()
            return Part(number, stored.etag or "", None, None) if stored else None

        parts, done = list[Part](), False
        try:
            with ThreadPoolExecutor(_COPYING) as pool:
                numbers = range(1, upload.parts + 1)
                for at in range(0, len(numbers), _COPYING):
                    some = list(pool.map(copied, numbers[at : at + _COPYING]))
                    parts += [part for part in some if part]
                    if None in some:
                        break
            if len(parts) == upload.parts:
                storage.complete(key, upload, parts, meta)
                done = True
        finally:
            if not done:
                with contextlib.suppress(AdsmigError):
                    storage.abort(key, upload.upload_id)
        return storage.stat(key) if done else None

    def delete(self, keys: list[bytes]) -> None:
        """Removes objects; what is not there is no error."""
        if problems := self.storage.delete(keys):
            key, why = next(iter(problems.items()))
            raise ObjectError("denied" if "denied" in why.lower() else "delete", f"{key!r}: {why}")

    def mark(self, key: bytes, meta: Meta) -> Entry:
        """Stores the marker of a new directory."""
        self._retry(lambda: self.storage.write(key, iter(()), 0, meta), "storing a directory")
        return Entry(key, 0, None, 0)

    def mark_again(self, key: bytes, meta: Meta) -> Entry:
        """Stores the marker of a directory that may have one: what is its content stays."""
        with contextlib.suppress(NotFound):
            there = self.storage.stat(key)
            if there.size:
                return self.copy(there, key, meta)
        return self.mark(key, meta)

    def mark_if_not(self, key: bytes, meta: Meta) -> None:
        """Makes sure that a directory has a marker; one that it has stays what it is."""
        try:
            self.storage.stat(key)
        except NotFound:
            self.mark(key, meta)

    def copy_marker(self, key: bytes, copy: bytes) -> None:
        """Stores the marker of one directory for another, too, with its content."""
        there, meta = self.look(key)
        if there.size:
            self.copy(there, copy, None)
        else:
            self.mark(copy, own_meta(meta))

    def write_bytes(self, key: bytes, data: bytes, meta: Meta) -> Entry:
        """Stores a few bytes as ``key``."""
        with scratch() as file:
            os.pwrite(file.fileno(), data, 0)
            return self.write(key, file.fileno(), len(data), meta)

    def _moved(self, count: int) -> None:
        self.progress = time.monotonic()
        if self._limits:
            self._limits.take(count)


def own_meta(meta: Meta) -> Meta:
    """The metadata of which the fields count, and not what they were read from."""
    if _OWN.isdisjoint(meta.user):
        return meta
    user = {name: value for name, value in meta.user.items() if name not in _OWN}
    return replace(meta, user=user)
