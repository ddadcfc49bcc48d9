"""A server's directory tree, as storage.tree reads it.  What fails on the way is tried again."""

from __future__ import annotations

import contextlib
import stat
import struct
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TypeVar, overload

from adsmig.errors import TransientError
from adsmig.retry import retry
from adsmig.storage import files
from adsmig.storage.files import Scan
from adsmig.storage.sftppacket import FAILURE, Named, Status
from adsmig.storage.sftpwire import SftpWire

T = TypeVar("T")

BATCH = 256
"""Files that are asked about at once."""
MOST_AHEAD = 64
"""Directories read ahead that are kept: those beside one that is being listed wait meanwhile."""
FRESH_S = 10.0
"""For so long, what was read ahead is taken for what is there."""
_NOBODY = 0xFFFFFFFF
_PACKED = struct.Struct(">IQIII")


class SftpFiles:
    """See storage.files.Files.  ``wire`` gives the calling thread's connection."""

    settled_ns = 3600 * 1_000_000_000
    """The server's clock may be another."""
    ahead = 8

    def __init__(self, wire: Callable[[], SftpWire]) -> None:
        self._wire = wire
        self._ahead: dict[bytes, tuple[float, Status, Scan]] = {}
        """Directories that were read before they were asked for, and when."""

    def retried(self, unit: Callable[[SftpWire], T], what: str) -> T:
        """What ``unit`` returns, called again while the connection fails it; it can be."""
        return retry(lambda: unit(self._wire()), what)

    def stat(self, path: bytes) -> Status:
        """See Files.stat."""
        return self.retried(lambda wire: wire.stat(path), "looking at a file")

    def lstat(self, path: bytes) -> Status:
        """See Files.lstat."""
        return self.retried(lambda wire: wire.lstat(path), "looking at a file")

    def readlink(self, path: bytes) -> bytes:
        """See Files.readlink."""
        return self.retried(lambda wire: wire.readlink(path), "reading a link")

    def is_same(self, path: bytes, status: files.Status, other: bytes, there: files.Status) -> bool:
        """See Files.is_same.  The protocol tells no inodes, so both are looked up."""

        def unit(wire: SftpWire) -> bool:
            return wire.realpath(path) == wire.realpath(other)

        return self.retried(unit, "looking up a directory")

    def identity(self, status: files.Status) -> None:
        """See Files.identity."""

    def scan(self, path: bytes, follow: bool) -> Scan:
        """See Files.scan."""
        return self.retried(
            lambda wire: _scan(wire, path, wire.names(path), follow), "listing a directory"
        )

    def expect(self, paths: Sequence[bytes], follow: bool) -> None:
        """See Files.expect.  Two round trips for all, and one more for each that has links."""
        if len(self._ahead) > MOST_AHEAD:
            self._ahead.clear()
        with contextlib.suppress(OSError, TransientError):
            wire = self._wire()
            for path, status, names in wire.small_directories(paths, follow):
                scan = _scan(wire, path, names, follow)
                self._ahead[path] = time.monotonic(), status, scan

    def taken(self, path: bytes) -> tuple[Status, Scan] | None:
        """See Files.taken."""
        read = self._ahead.pop(path, None)
        if read is None or time.monotonic() - read[0] > FRESH_S:
            return None
        return read[1:]


def _scan(wire: SftpWire, path: bytes, listed: Sequence[Named], follow: bool) -> Scan:
    known: dict[bytes, Status | None] = {}
    unknown: list[bytes] = []
    for name, status in listed:
        if b"/" in name or not name:
            raise OSError(FAILURE, "the server lists a name that is none")
        if status is None:
            unknown.append(name)
        else:
            known[name] = status
    for name, found in _look(wire, path, unknown):
        # Why not, or that it is gone, is told to who asks about it alone.
        known[name] = found if isinstance(found, Status) else None
    links = [
        name for name, status in known.items() if follow and status and stat.S_ISLNK(status.st_mode)
    ]
    leading = {
        name
        for name, found in _look(wire, path, links, follow=True)
        if isinstance(found, Status) and stat.S_ISDIR(found.st_mode)
    }
    rows = []
    for name, status in known.items():
        is_directory = (status and stat.S_ISDIR(status.st_mode)) or name in leading
        rows.append((name + b"/" if is_directory else name, _pack(status)))
    rows.sort()
    return Scan([name for name, _ in rows], _Statuses(b"".join(packed for _, packed in rows)))


def _look(
    wire: SftpWire, path: bytes, names: Sequence[bytes], follow: bool = False
) -> list[tuple[bytes, Status | OSError]]:
    found: list[tuple[bytes, Status | OSError]] = []
    waiting = iter(names)
    while batch := list(islice(waiting, BATCH)):
        paths = [path.rstrip(b"/") + b"/" + name for name in batch]
        found += zip(batch, wire.lstats(paths, follow), strict=True)
    return found


def _pack(status: Status | None) -> bytes:
    if status is None:
        return bytes(_PACKED.size)
    uid = _NOBODY if status.st_uid is None else status.st_uid
    gid = _NOBODY if status.st_gid is None else status.st_gid
    seconds = status.st_mtime_ns // 1_000_000_000
    return _PACKED.pack(status.st_mode, status.st_size, seconds, uid, gid)


class _Statuses(Sequence[Status | None]):
    """Those of a directory, in 24 bytes each: it may have millions.  No mode stands for None."""

    def __init__(self, packed: bytes) -> None:
        self._packed = packed

    def __len__(self) -> int:
        return len(self._packed) // _PACKED.size

    @overload
    def __getitem__(self, at: int) -> Status | None: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Status | None]: ...

    def __getitem__(self, at: int | slice) -> Status | Sequence[Status | None] | None:
        if isinstance(at, slice):
            return [self[one] for one in range(*at.indices(len(self)))]
        mode, size, seconds, uid, gid = _PACKED.unpack_from(self._packed, at * _PACKED.size)
        if not mode:
            return None
        time_ns = seconds * 1_000_000_000
        if _NOBODY in (uid, gid):
            return Status(mode, size, time_ns, None, None)
        return Status(mode, size, time_ns, uid, gid)
