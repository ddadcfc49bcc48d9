"""The bytes of one remote file, with many requests in flight: what a round trip takes is waited
for once, not once for each request.
"""

from __future__ import annotations

import errno
import stat
from collections import deque
from collections.abc import Iterator

from adsmig.errors import ObjectError, SourceChanged
from adsmig.model import Entry
from adsmig.storage.localfile import meta_of
from adsmig.storage.sftppacket import (
    DATA,
    FOR_READING,
    FSTAT,
    LSTAT,
    OPEN,
    READ,
    WRITE,
    Status,
    handle_of,
    number,
    status_of,
    text,
)
from adsmig.storage.sftpwire import SftpWire

IN_FLIGHT = 4 << 20
"""Bytes of one file asked for, or sent, and not answered yet."""


class SftpBody:
    """A span of a remote file being read; see storage.base.Body."""

    def __init__(
        self, wire: SftpWire, path: bytes, entry: Entry, start: int, size: int, real: bool = False
    ) -> None:
        """``real``: a link that took the file's place is not followed."""
        self._wire, self._entry = wire, entry
        self._asked, self._end, self._left = start, start + size, size
        self._flying = deque[tuple[int, int, int]]()  # request, offset and size, in order
        self._data = memoryview(b"")
        self._last: int | None = None
        self.md5: str | None = None
        self.crc32: str | None = None
        self._handle = b""
        try:
            look = wire.send(LSTAT, text(path)) if real else None
            opening = wire.send(OPEN, text(path), number(FOR_READING), number(0))
            if look is not None and stat.S_ISLNK(status_of(wire.wait(look)).st_mode):
                wire.forget(opening)
                raise SourceChanged("a link has taken its place since it was listed")
            self._handle = handle_of(wire.wait(opening))
            first = wire.send(FSTAT, text(self._handle))
            self._ask()
            self.meta = meta_of(self._check(first))
        except OSError as exc:
            self._close()
            raise unreadable(exc) from exc
        except BaseException:
            self._close()
            raise

    def _ask(self) -> None:
        """Keeps requests in flight, with one for the status behind the last."""
        wire = self._wire
        flying = self._asked - (self._flying[0][1] if self._flying else self._asked)
        while self._asked < self._end and flying < IN_FLIGHT:
            size = min(wire.span, self._end - self._asked)
            self._flying.append((self._read(self._asked, size), self._asked, size))
            self._asked += size
            flying += size
        if self._asked >= self._end and self._last is None:
            self._last = wire.send(FSTAT, text(self._handle))

    def _read(self, offset: int, size: int) -> int:
        place = offset.to_bytes(8, "big")
        return self._wire.send(READ, text(self._handle), place, number(size))

    def _check(self, request: int) -> Status:
        status = status_of(self._wire.wait(request))
        if not stat.S_ISREG(status.st_mode):
            raise ObjectError("unreadable", "not a regular file")
        if (status.st_size, status.st_mtime_ns) != (self._entry.size, self._entry.mtime_ns):
            raise SourceChanged("the file changed while it was read")
        return status

    def readinto(self, buffer: memoryview) -> int:
        """See Body.readinto."""
        done = 0
        try:
            while self._left and done < len(buffer):
                if not self._data:
                    self._next()
                count = min(len(self._data), len(buffer) - done)
                buffer[done : done + count] = self._data[:count]
                self._data = self._data[count:]
                done += count
                self._left -= count
            if not self._left and self._last is not None:
                last, self._last = self._last, None
                self._check(last)
        except EOFError as exc:
            raise SourceChanged("the file became shorter while it was read") from exc
        except OSError as exc:
            raise unreadable(exc) from exc
        return done

    def _next(self) -> None:
        """Takes the next answer; what a short one lacks is asked for again."""
        self._ask()
        request, offset, size = self._flying.popleft()
        packet = self._wire.wait(request)
        if packet[0] != DATA:
            raise OSError(errno.EPROTO, "the server's answer is of another kind")
        data = memoryview(packet)[9:]
        if not data or len(data) > size:
            raise OSError(errno.EPROTO, "the server sent another number of bytes")
        if len(data) < size:
            offset, size = offset + len(data), size - len(data)
            self._flying.appendleft((self._read(offset, size), offset, size))
            if self._last is not None:  # it has to come after the last bytes
                self._wire.forget(self._last)
                self._last = None
                if self._asked >= self._end:
                    self._last = self._wire.send(FSTAT, text(self._handle))
        self._data = data

    def _close(self) -> None:
        if self._handle and not self._wire.lost:
            self._wire.forget(*(request for request, _, _ in self._flying))
            if self._last is not None:
                self._wire.forget(self._last)
            self._wire.close(self._handle)
        self._handle = b""
        self._flying.clear()

    def rewind(self) -> bool:
        """See Body.rewind."""
        return False

    def __enter__(self) -> SftpBody:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()


def unreadable(exc: OSError) -> Exception:
    """Ours for an error while reading."""
    if exc.errno == errno.ENOENT:
        return SourceChanged("removed since it was listed")
    return ObjectError("unreadable", f"cannot be read: {exc.strerror}")


def write_spans(
    wire: SftpWire, handle: bytes, chunks: Iterator[memoryview], offset: int = 0
) -> int:
    """Writes all chunks from ``offset`` on, and the number of their bytes.

    Returns only when the server has answered for each of them; OSError if it refused one.
    """
    written, flying = send_spans(wire, handle, chunks, offset)
    wire.all(flying)
    return written


def send_spans(
    wire: SftpWire, handle: bytes, chunks: Iterator[memoryview], offset: int = 0
) -> tuple[int, list[int]]:
    """As :func:`write_spans`, but leaves it to the caller to wait for the last requests."""
    flying = deque[tuple[int, int]]()
    beginning, pending = text(handle), 0
    start = offset
    try:
        for chunk in chunks:
            for at in range(0, len(chunk), wire.span):
                piece = chunk[at : at + wire.span]
                head = beginning + offset.to_bytes(8, "big") + number(len(piece))
                flying.append((wire.send(WRITE, head, piece), len(piece)))
                offset += len(piece)
                pending += len(piece)
                while pending > IN_FLIGHT:
                    pending -= flying[0][1]
                    wire.wait(flying.popleft()[0])
    except BaseException:
        if not wire.lost:
            wire.forget(*(request for request, _ in flying))
        raise
    return offset - start, [request for request, _ in flying]
