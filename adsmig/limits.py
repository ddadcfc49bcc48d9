"""What all processes of a run share on one machine: a bandwidth bucket, flags, live tallies.

It is a small memory-mapped file, because such a file outlives any process that is killed: a
semaphore held by a dead worker would stop all the others, while the kernel drops a dead process's
``flock``.  Nothing here is needed for correctness.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import struct
import tempfile
import threading
import time
from functools import lru_cache
from typing import NamedTuple

from adsmig.errors import AdsmigError, StorageFull
from adsmig.model import Counts
from adsmig.retry import wait

_HEADER = struct.Struct("=dddd")
"""Stop flag, bytes a second (0: unlimited), when the next byte may go, and when slices were last
recalled (both CLOCK_MONOTONIC).
"""
_SLOT = struct.Struct("=" + "q" * len(Counts._fields))
_NOTHING = bytes(32 * _SLOT.size)
_SLOTS_AT = 64
SLOTS = 512
"""Tallies in the file, unless more are asked for: one for each task that is out at once."""


class Lease(NamedTuple):
    """Names a place in a shared Limits; small enough to travel with every slice."""

    path: str
    slot: int


class Limits:
    """A run's shared file, open.  The process that called :meth:`create` removes it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR)
        self._map = mmap.mmap(self._fd, 0)
        self._slots = (len(self._map) - _SLOTS_AT) // _SLOT.size
        self._thread = threading.Lock()
        self.bytes_per_s: float = _HEADER.unpack_from(self._map)[1]

    @classmethod
    def create(cls, path: str | None = None, bwlimit_mbps: float = 0, slots: int = SLOTS) -> Limits:
        """A new file, at ``path`` or a temporary one; ``bwlimit_mbps`` in megabits per second."""
        try:
            if path is None:
                fd, path = tempfile.mkstemp(prefix="adsmig-", suffix=".shared")
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)  # a killed run's; its workers, if any live, keep the old file
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "wb") as file:
                # All of it, now: on a full disk, to touch a hole in a mapped file is death by
                # SIGBUS.
                os.posix_fallocate(fd, 0, _SLOTS_AT + slots * _SLOT.size)
                file.write(_HEADER.pack(0, bwlimit_mbps * 1e6 / 8, 0, 0))
            return cls(path)
        except OSError as exc:
            if exc.errno == errno.ENOSPC:
                raise StorageFull(f"no room for {path}; free some room") from exc
            raise AdsmigError(f"cannot make {path}: {exc.strerror}") from exc

    def remove(self) -> None:
        """Closes and deletes the file; the processes that have it open are not disturbed."""
        self._map.close()
        os.close(self._fd)
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        opened.cache_clear()

    def stop(self) -> None:
        """Asks every process of the run to settle what it has in hand and return."""
        struct.pack_into("=d", self._map, 0, 1.0)

    def stopping(self) -> bool:
        """Whether :meth:`stop` was called, by any process."""
        return self._map[7] != 0  # the highest byte of a little-endian 1.0

    def recall(self) -> None:
        """Asks for what was begun before now to be given back: others could do some of the rest."""
        struct.pack_into("=d", self._map, 24, time.monotonic())

    def recalled(self, began: float) -> bool:
        """Whether :meth:`recall` was called since ``began`` (CLOCK_MONOTONIC), by any process."""
        recalled_at: float = struct.unpack_from("=d", self._map, 24)[0]
        return recalled_at >= began

    def take(self, size: int) -> None:
        """Returns when ``size`` more bytes may be sent under the run's bandwidth limit."""
        if not self.bytes_per_s:
            return
        with self._thread:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            try:
                now = time.monotonic()
                turn = max(now, struct.unpack_from("=d", self._map, 16)[0])
                struct.pack_into("=d", self._map, 16, turn + size / self.bytes_per_s)
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)
        if turn > now:
            wait(turn - now, self.stopping)

    def report(self, slot: int, counts: Counts) -> None:
        """Shows what the slice in ``slot`` has done so far; zeros once it is committed."""
        _SLOT.pack_into(self._map, _SLOTS_AT + slot % self._slots * _SLOT.size, *counts)

    def live(self) -> Counts:
        """The sum over all slots: what is done but not yet committed."""
        return _sum(self._map[_SLOTS_AT:])


def live_at(path: str) -> Counts:
    """As :meth:`Limits.live`, for who only looks on; zeros where there is no such file."""
    try:
        with open(path, "rb") as file:
            file.seek(_SLOTS_AT)
            return _sum(file.read())
    except (OSError, struct.error):
        return Counts()


def _sum(slots: bytes) -> Counts:
    total = Counts()
    for at in range(0, len(slots), len(_NOTHING)):  # for most tell of nothing
        some = slots[at : at + len(_NOTHING)]
        if some != _NOTHING[: len(some)]:
            for values in _SLOT.iter_unpack(some):
                if any(values):
                    total += Counts(*values)
    return total


@lru_cache(maxsize=4)
def opened(path: str) -> Limits | None:
    """The Limits at ``path``, opened once a process; None where this machine has no such file."""
    try:
        return Limits(path)
    except OSError:
        return None
