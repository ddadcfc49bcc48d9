"""How what was written to an SFTP server gets to stable storage there."""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Sequence

from adsmig.storage.sftppacket import EXTENDED, FOR_READING, FSYNC, OPEN, handle_of, number, text
from adsmig.storage.sftpwire import SftpWire

FLUSH = 256 << 20
"""Bytes in parts of large files, after which the server is asked to flush what it has."""
FLUSHED = 64
"""Files and directories that it is asked to flush at once."""


class Flushes:
    """What is not on stable storage yet, as far as those have written who share this."""

    def __init__(self) -> None:
        self._unsynced = set[bytes]()
        self._unflushed = 0
        self._flush_error: OSError | None = None
        self._lock = threading.Lock()

    def at_times(self, wire: SftpWire, handle: bytes, size: int) -> None:
        """Has the server flush a file that is written in parts, once a good deal was written since
        the last time, so that the disk is at work while others send.

        What could not be kept then, nobody is told of later (fsync(2)): :meth:`sync` fails as well.
        """
        with self._lock:
            self._unflushed += size
            if self._unflushed < FLUSH or FSYNC not in wire.extensions:
                return
            self._unflushed = 0
        try:
            wire.ask(EXTENDED, text(FSYNC), text(handle))
        except OSError as exc:
            self._flush_error = exc
            raise

    def note(self, path: bytes) -> None:
        """Remembers a directory, or a file, that is not on stable storage yet."""
        with self._lock:
            self._unsynced.add(path)

    def sync(self, wire: SftpWire) -> None:
        """Has the server flush what was noted, where it can.

        Files were flushed before they were renamed.  On Linux a directory can be opened like a
        file, and flushing it makes the renames durable; other servers refuse to open it.
        """
        with self._lock:
            paths, self._unflushed = list(self._unsynced), 0
            error, self._flush_error = self._flush_error, None
        if error:
            raise error
        if FSYNC in wire.extensions:
            for at in range(0, len(paths), FLUSHED):
                _flush(wire, paths[at : at + FLUSHED])
        with self._lock:
            self._unsynced.difference_update(paths)


def _flush(wire: SftpWire, paths: Sequence[bytes]) -> None:
    """Has the server flush all of these that can be opened; raises what came of the first that it
    could not flush.
    """
    openings = [wire.send(OPEN, text(path), number(FOR_READING), number(0)) for path in paths]
    wire.settle(*openings)
    flushing = list[int]()
    for opening in openings:
        with contextlib.suppress(OSError):  # it was removed meanwhile, or is not to be opened
            handle = handle_of(wire.wait(opening))
            flushing.append(wire.send(EXTENDED, text(FSYNC), text(handle)))
            wire.close(handle)
    wire.settle(*flushing)
    errors = list[OSError]()
    for request in flushing:
        try:
            wire.wait(request)
        except OSError as exc:
            if exc.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                errors.append(exc)
    if errors:
        raise errors[0]
