"""Objects in a dict: the contract of storage.base in its simplest form, and a fast one for tests.

Storages whose Locations name the same bucket share its objects, as long as the process lives.
"""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from adsmig.checksum import NO_SUMS, Sums, Wanted
from adsmig.errors import NotFound, ObjectError, SourceChanged, TransientError
from adsmig.location import Location
from adsmig.model import Entry, KeyRange, Meta, Part, Upload
from adsmig.storage.base import GONE, RESIZED, Identity, Prune, Storage, Stored, part_size_for


class _Object(NamedTuple):
    content: bytes
    etag: str
    stored_ns: int
    meta: Meta


class _Bucket:
    """By full key: objects, and the one unfinished upload of each; ``keys`` stays sorted."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.keys: list[bytes] = []
        self.objects: dict[bytes, _Object] = {}
        self.uploads: dict[bytes, tuple[str, dict[int, bytes]]] = {}


_buckets: defaultdict[str, _Bucket] = defaultdict(_Bucket)


class MemoryStorage:
    """A prefix in one of the process's buckets; a bucket exists as soon as it is named."""

    etag_is_md5 = True
    keeps_files = False
    names_ahead = 0
    is_local = False
    tick_ns = 1_000_000_000

    def __init__(self, location: Location) -> None:
        self.location, self.prefix = location, location.path
        self._bucket = _buckets[location.bucket]

    def __repr__(self) -> str:
        return f"MemoryStorage({self.location})"

    def list(self, keys: KeyRange, prune: Prune | None = None) -> Iterator[Entry]:
        """See Storage.list.  Sees what is put or removed ahead of it meanwhile."""
        for entry in self._list(keys):
            if not (prune and any(map(prune, _directories(entry.key)))):
                yield entry

    def _list(self, keys: KeyRange) -> Iterator[Entry]:
        bucket, seek = self._bucket, bisect_left if keys.closed else bisect_right
        full = self.prefix + keys.after
        while True:
            with bucket.lock:
                at = seek(bucket.keys, full)
                if at == len(bucket.keys) or not bucket.keys[at].startswith(self.prefix):
                    return
                full, seek = bucket.keys[at], bisect_right
                entry = self.stat(full[len(self.prefix) :])
            if keys.ends_before(entry.key):
                return
            yield entry

    def probe(self, after: bytes, guess: bool = False) -> bytes | None:
        """See Storage.probe."""
        return next((entry.key for entry in self.list(KeyRange(after))), None)

    def stat(self, key: bytes) -> Entry:
        """See Storage.stat."""
        found = self._bucket.objects.get(self.prefix + key)
        if not found:
            raise NotFound(f"no such object: {key!r}")
        return Entry(key, len(found.content), None, found.stored_ns, found.etag)

    def missing(self, key: bytes, size: int, src: Storage, its_key: bytes) -> str:
        """See Storage.missing."""
        found = self._bucket.objects.get(self.prefix + key)
        return GONE if not found else "" if len(found.content) == size else RESIZED

    def read(self, entry: Entry, start: int = 0, size: int | None = None) -> MemoryBody:
        """See Storage.read."""
        found = self._bucket.objects.get(self.prefix + entry.key)
        if not found or (len(found.content), found.etag) != (entry.size, entry.etag):
            raise SourceChanged("the object changed since it was listed")
        return MemoryBody(found, start, entry.size if size is None else start + size)

    def part_size(self, entry: Entry, sure: bool = False) -> int | None:
        """None: there are no such parts."""
        return None

    def crc32(self, entry: Entry) -> str | None:
        """None: MD5s are told."""
        return None

    def wanted(self) -> Wanted:
        """See Storage.wanted."""
        return Wanted(md5=True)

    def meta(self, entry: Entry) -> Meta:
        """See Storage.meta."""
        with self.read(entry) as body:
            return body.meta

    def write(
        self,
        key: bytes,
        chunks: Iterator[memoryview],
        size: int,
        meta: Meta,
        sums: Sums = NO_SUMS,
    ) -> Stored:
        """See Storage.write.  Holds every key but the empty one."""
        self._check(key)
        content = b"".join(map(bytes, chunks))
        if len(content) != size:
            raise TransientError(f"{len(content)} bytes came instead of {size}")
        etag = hashlib.md5(content).hexdigest()
        if sums.md5 not in (None, etag):
            raise TransientError("another MD5 was told")
        return self._put(key, content, etag, meta)

    def write_link(self, key: bytes, target: bytes, meta: Meta) -> None:
        """See Storage.write_link."""
        raise ObjectError("link", "an object store has no symbolic links")

    def problem(self, key: bytes) -> str:
        """See Storage.problem."""
        return "" if self.prefix + key else "an object needs a name"

    def _check(self, key: bytes) -> None:
        if problem := self.problem(key):
            raise ObjectError("key", problem)

    def _put(self, key: bytes, content: bytes, etag: str, meta: Meta) -> Stored:
        full, bucket = self.prefix + key, self._bucket
        with bucket.lock:
            if full not in bucket.objects:
                insort(bucket.keys, full)
            bucket.objects[full] = _Object(content, etag, time.time_ns(), meta)
        return Stored(etag, etag)

    def delete(self, keys: Sequence[bytes]) -> dict[bytes, str]:
        """See Storage.delete."""
        bucket = self._bucket
        for full in (self.prefix + key for key in keys):
            with bucket.lock:
                if bucket.objects.pop(full, None):
                    del bucket.keys[bisect_left(bucket.keys, full)]
        return {}

    def hides(self, key: bytes) -> bool:
        """False: there are no links."""
        return False

    def set_directory_meta(self, key: bytes, meta: Meta) -> None:
        """Nothing to do: there are no directories but objects."""

    def copy_from(self, src: Storage, entry: Entry, key: bytes) -> Stored | None:
        """None: let the bytes pass through the caller, as between most storages."""
        return None

    def copy_part(self, src: Storage, key: bytes, upload: Upload, number: int) -> Stored | None:
        """None, as copy_from."""
        return None

    def begin_upload(self, key: bytes, entry: Entry, meta: Meta, crc32: bool = False) -> Upload:
        """See Storage.begin_upload."""
        self._check(key)
        upload = Upload(entry, uuid.uuid4().hex, part_size_for(entry.size))
        self._bucket.uploads[self.prefix + key] = upload.upload_id, {}
        return upload

    def put_part(
        self,
        key: bytes,
        upload: Upload,
        number: int,
        chunks: Iterator[memoryview],
        sums: Sums = NO_SUMS,
    ) -> Stored:
        """See Storage.put_part."""
        content = b"".join(map(bytes, chunks))
        self._parts(key, upload)[number] = content
        return Stored(hashlib.md5(content).hexdigest(), hashlib.md5(content).hexdigest())

    def _parts(self, key: bytes, upload: Upload) -> dict[int, bytes]:
        upload_id, parts = self._bucket.uploads.get(self.prefix + key, ("", {}))
        if upload_id != upload.upload_id:
            raise NotFound("no such upload")
        return parts

    def complete(self, key: bytes, upload: Upload, parts: Sequence[Part], meta: Meta) -> str | None:
        """See Storage.complete."""
        etag = hashlib.md5(b"".join(bytes.fromhex(part.etag) for part in parts)).hexdigest()
        etag += f"-{len(parts)}"
        with self._bucket.lock:
            try:
                there = self._parts(key, upload)
            except NotFound:
                if self.stat(key).etag == etag:
                    return etag  # an earlier try completed it, and its answer was lost
                raise
            if any(hashlib.md5(there.get(p.number, b"")).hexdigest() != p.etag for p in parts):
                raise ObjectError("InvalidPart", "a part is missing, or not the one that was sent")
            self._put(key, b"".join(there[part.number] for part in parts), etag, meta)
            self.abort(key, upload.upload_id)
        return etag

    def abort(self, key: bytes, upload_id: str) -> None:
        """See Storage.abort."""
        with self._bucket.lock:
            if self._bucket.uploads.get(self.prefix + key, ("",))[0] == upload_id:
                del self._bucket.uploads[self.prefix + key]

    def uploads(self) -> Iterator[tuple[bytes, str]]:
        """See Storage.uploads."""
        for full, (upload_id, _) in list(self._bucket.uploads.items()):
            if full.startswith(self.prefix):
                yield full[len(self.prefix) :], upload_id

    def prepare(self) -> None:
        """Nothing to do, here and in the methods below."""

    sync = tidy = release = close = prepare

    def identity(self) -> Identity | None:
        """None: what is in memory stays where it is."""
        return None


class MemoryBody:
    """An object, or a span of it, as it was when it was opened; see storage.base.Body."""

    def __init__(self, found: _Object, start: int, end: int) -> None:
        self.meta = found.meta
        whole = (start, end) == (0, len(found.content)) and "-" not in found.etag
        self.md5 = found.etag if whole else None
        self.crc32: str | None = None
        self._left = memoryview(found.content)[start:end]

    def readinto(self, buffer: memoryview) -> int:
        """See Body.readinto."""
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def rewind(self) -> bool:
        """See Body.rewind."""
        return False

    def __enter__(self) -> MemoryBody:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""


def _directories(key: bytes) -> Iterator[bytes]:
    """The directories that ``key`` lies in, and that it is; the outermost first."""
    return (key[: at + 1] for at, byte in enumerate(key) if byte == ord("/"))
