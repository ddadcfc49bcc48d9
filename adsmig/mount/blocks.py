"""What was read from the store, kept on disk: pieces of objects, by key and ETag.

The disk holds segments, files that are only ever appended to, each piece behind a head with its
hash.  The oldest segment goes when there is no room; what is still asked for of the older ones is
written again to the newest, so what goes is what nobody wanted for long.  Nothing is flushed: after
a power cut or a crash, what does not match its hash is not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import struct
import threading
from pathlib import Path

import xxhash

from adsmig.model import Entry

log = logging.getLogger(__name__)

BLOCK = 1 << 20
"""Bytes in a piece; the last one of an object is what is left."""
_MOST_SEGMENT = 64 << 20
_HEAD = struct.Struct("<4sI16sQ")
"""A mark, the size, whose piece it is, and the hash of the bytes."""
_MARK = b"adb1"


def version_of(entry: Entry) -> bytes:
    """What names one version of an object in the cache."""
    text = b"%d %s %s" % (entry.size, (entry.etag or "").encode(), entry.key)
    return hashlib.blake2b(text, digest_size=12).digest()


class Blocks:
    """The pieces on disk, in ``directory``, up to ``most`` bytes.  For many threads; the caller
    closes it.  A disk that is full, or fails, only makes it forget.
    """

    def __init__(self, directory: Path, most: int) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = directory
        disk = os.statvfs(directory)
        room = min(most, disk.f_blocks * disk.f_frsize)
        self._segment = max(min(_MOST_SEGMENT, room // 16), 1 << 16)
        self._most = most
        self._lock = threading.Lock()
        self._where: dict[bytes, tuple[int, int, int]] = {}
        """By version and number: segment, offset of the bytes, size."""
        self._unproven: dict[bytes, int] = {}
        """The hashes of pieces of an earlier mount that nobody has read yet."""
        self._files: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self._newest = 0
        self._load()
        self._begin(max(self._files, default=0) + 1)

    def close(self) -> None:
        """Lets go of the files."""
        with self._lock:
            for fd in self._files.values():
                os.close(fd)
            self._files.clear()
            self._where.clear()

    def has(self, version: bytes, number: int) -> bool:
        """Whether piece ``number`` is there, as far as is known."""
        return version + number.to_bytes(4, "little") in self._where

    def get(self, version: bytes, number: int, start: int, size: int) -> bytes | None:
        """Bytes of piece ``number``, from ``start`` within it; None if it is not there."""
        name = version + number.to_bytes(4, "little")
        found = self._where.get(name)
        if not found:
            return None
        if name in self._unproven and not self._prove(name, found):
            return None
        segment, at, length = found
        fd = self._files.get(segment)
        size = min(size, length - start)
        data = b""
        with contextlib.suppress(OSError):
            data = os.pread(fd, size, at + start) if fd is not None else b""
        if len(data) != size or segment not in self._files:
            self._where.pop(name, None)  # it went meanwhile
            return None
        if start == 0 and segment < self._newest - 3 * len(self._files) // 4:
            self._again(name, found)
        return data

    def put(self, version: bytes, number: int, data: bytes | bytearray | memoryview) -> None:
        """Keeps a piece."""
        name = version + number.to_bytes(4, "little")
        head = _HEAD.pack(_MARK, len(data), name, xxhash.xxh3_64_intdigest(data))
        with self._lock:
            if not self._files or name in self._where:
                return
            if self._sizes[self._newest] + len(head) + len(data) > self._segment:
                self._begin_next(self._newest + 1)
            if not self._files:
                return
            segment, at = self._newest, self._sizes[self._newest]
            fd = self._files[segment]
            self._sizes[segment] += len(head) + len(data)
            # Inside the lock: a segment's file must not be closed, and another opened, meanwhile.
            try:
                written = os.pwritev(fd, [head, data], at)
            except OSError as exc:
                log.info("the cache begins anew: %s", exc.strerror)
                self._drop()
                return
            if written == len(head) + len(data):
                self._where[name] = segment, at + len(head), len(data)

    def drop(self) -> None:
        """Forgets all, for the room is needed."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        newest = self._newest
        while self._files:
            self._drop_oldest()
        self._where.clear()
        self._unproven.clear()
        self._begin_next(newest + 1)

    def _again(self, name: bytes, found: tuple[int, int, int]) -> None:
        data = self._whole(*found)
        with self._lock:
            if self._where.get(name) != found or len(data) != found[2]:
                return
            del self._where[name]
        self.put(name[:12], int.from_bytes(name[12:], "little"), data)

    def _whole(self, segment: int, at: int, length: int) -> bytes:
        """A piece, as far as it can be read: its segment may go meanwhile."""
        fd = self._files.get(segment)
        with contextlib.suppress(OSError):
            return os.pread(fd, length, at) if fd is not None else b""
        return b""

    def _prove(self, name: bytes, found: tuple[int, int, int]) -> bool:
        data = self._whole(*found)
        wanted = self._unproven.pop(name, None)
        if wanted is None or xxhash.xxh3_64_intdigest(data) == wanted:
            return True
        with self._lock:
            self._where.pop(name, None)
        return False

    def _begin_next(self, number: int) -> None:
        """As :meth:`_begin`; nothing is kept from now on where that fails."""
        try:
            self._begin(number)
        except OSError as exc:
            log.warning("there is no cache any more: %s", exc.strerror)
            while self._files:
                self._drop_oldest()

    def _begin(self, number: int) -> None:
        """Opens the next segment, and makes room for it."""
        disk = os.statvfs(self._directory)
        free = disk.f_bavail * disk.f_frsize
        while self._files and (
            sum(self._sizes.values()) + self._segment > self._most or free < 2 * self._segment
        ):
            free += self._drop_oldest()
        path = self._directory / f"{number:012d}"
        self._files[number] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        self._sizes[number] = 0
        self._newest = number

    def _drop_oldest(self) -> int:
        """Removes the oldest segment; its size."""
        oldest = min(self._files)
        os.close(self._files.pop(oldest))
        with contextlib.suppress(OSError):
            os.unlink(self._directory / f"{oldest:012d}")
        # Who reads finds that they have gone, and takes them away, too, without the lock.
        where = self._where.copy()
        for name in [name for name, (segment, _, _) in where.items() if segment == oldest]:
            self._where.pop(name, None)
            self._unproven.pop(name, None)
        return self._sizes.pop(oldest)

    def _load(self) -> None:
        """Finds out what an earlier mount left."""
        for path in sorted(self._directory.glob("[0-9]" * 12)):
            number, at = int(path.name), 0
            fd = os.open(path, os.O_RDWR)
            end = os.fstat(fd).st_size
            while at + _HEAD.size <= end:
                mark, size, name, digest = _HEAD.unpack(os.pread(fd, _HEAD.size, at))
                if mark != _MARK or at + _HEAD.size + size > end:
                    break
                self._where[name] = number, at + _HEAD.size, size
                self._unproven[name] = digest
                at += _HEAD.size + size
            self._files[number], self._sizes[number] = fd, end
