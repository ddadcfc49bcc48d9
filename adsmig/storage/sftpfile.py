"""The bytes of one remote file, with many requests in flight: what a round trip takes is waited
for once, not once for each request.
"""

from __future__ import annotations

import contextlib
import errno
import stat
import threading
from collections import deque
from collections.abc import Iterator, Sequence

from adsmig.errors import AdsmigError, ObjectError, SourceChanged
from adsmig.model import Entry, Meta
from adsmig.storage.localfile import meta_of
from adsmig.storage.sftppacket import (
    FOR_READING,
    FSTAT,
    LSTAT,
    OPEN,
    READ,
    WRITE,
    Status,
    data_of,
    handle_of,
    number,
    status_of,
    text,
)
from adsmig.storage.sftpwire import SftpWire

IN_FLIGHT = 4 << 20
"""Bytes of one file asked for, or sent, and not answered yet."""


class SftpBody:
    """A span of a remote file being read; see storage.base.Body.

    Opened in three steps, each of which waits for the server only for what the one before has
    asked: so those of several files can be taken together.  Each raises what storage.base.Storage
    says of reading, and then nothing is left open.
    """

    def __init__(
        self, wire: SftpWire, path: bytes, entry: Entry, start: int, size: int, real: bool = False
    ) -> None:
        """Asks for a handle.  ``real``: a link that took the file's place is not followed."""
        self.wire, self.entry = wire, entry
        self.meta = Meta()
        self.md5: str | None = None
        self.crc32: str | None = None
        self._asked, self._end, self._left = start, start + size, size
        self._flying = deque[tuple[int, int, int]]()  # request, offset and size, in order
        self._data = memoryview(b"")
        self._look = wire.send(LSTAT, text(path)) if real else None
        self._opening: int | None = wire.send(OPEN, text(path), number(FOR_READING), number(0))
        self._handle = b""
        self._first: int | None = None
        self._last: int | None = None

    @property
    def opening(self) -> tuple[int | None, int | None]:
        """The requests that :meth:`ask` waits for."""
        return self._look, self._opening

    def ask(self) -> SftpBody:
        """Asks for the status, and for the first bytes."""
        with self._told():
            look, self._look = self._look, None
            if look is not None and stat.S_ISLNK(status_of(self.wire.wait(look)).st_mode):
                raise SourceChanged("a link has taken its place since it was listed")
            self._handle = self._opened()
            self._first = self.wire.send(FSTAT, text(self._handle))
            if not self.entry.size:
                self._flying.append((self._read(0, 1), 0, 1))
            self._ask()
        return self

    def look(self) -> SftpBody:
        """Makes sure that it is the file that was listed."""
        with self._told():
            assert self._first is not None
            first, self._first = self._first, None
            self.meta = meta_of(self._check(first))
            if not self.entry.size:
                self._prove_empty()
        return self

    def _prove_empty(self) -> None:
        """As storage.localfile.LocalBody does."""
        request, *_ = self._flying.popleft()
        with contextlib.suppress(EOFError):
            if data_of(self.wire.wait(request)):
                assert self._last is not None
                last, self._last = self._last, None
                self._check(last)
                raise ObjectError("unreadable", "it says that it is empty, and is not")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            self.close()
            raise unreadable(exc) from exc
        except BaseException:
            self.close()
            raise

    def _opened(self) -> bytes:
        assert self._opening is not None
        opening, self._opening = self._opening, None
        return handle_of(self.wire.wait(opening))

    def _ask(self) -> None:
        """Keeps requests in flight, with one for the status behind the last."""
        wire = self.wire
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
        return self.wire.send(READ, text(self._handle), place, number(size))

    def _check(self, request: int) -> Status:
        status = status_of(self.wire.wait(request))
        if not stat.S_ISREG(status.st_mode):
            raise ObjectError("unreadable", "not a regular file")
        if (status.st_size, status.st_mtime_ns) != (self.entry.size, self.entry.mtime_ns):
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
        data = data_of(self.wire.wait(request))
        if not data or len(data) > size:
            raise OSError(errno.EPROTO, "the server sent another number of bytes")
        if len(data) < size:
            offset, size = offset + len(data), size - len(data)
            self._flying.appendleft((self._read(offset, size), offset, size))
            if self._last is not None:  # it has to come after the last bytes
                self.wire.forget(self._last)
                self._last = None
                if self._asked >= self._end:
                    self._last = self.wire.send(FSTAT, text(self._handle))
        self._data = data

    def close(self) -> None:
        """Lets go of it, at any step; may be called again."""
        if not self.wire.lost:
            flying = [request for request, _, _ in self._flying]
            flying += [one for one in (self._look, self._first, self._last) if one is not None]
            self.wire.forget(*flying)
            if self._opening is not None:
                with contextlib.suppress(OSError, AdsmigError):
                    self._handle = self._opened()
            if self._handle:
                self.wire.close(self._handle)
        self._look = self._opening = self._first = self._last = None
        self._handle = b""
        self._flying.clear()

    def rewind(self) -> bool:
        """See Body.rewind."""
        return False

    def __enter__(self) -> SftpBody:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Expected(threading.local):
    """Files that the calling thread is about to read, asked for together: the server is waited for
    twice for all of them, and not twice for each.
    """

    def __init__(self) -> None:
        self._bodies: dict[bytes, SftpBody] = {}

    def ask(self, wire: SftpWire, files: Sequence[tuple[bytes, Entry]], real: bool) -> None:
        """Asks for all of these, each with its path, in place of what was asked for before.

        What is wrong with one is not told: who reads it asks for it again, by itself.  Raises
        TransientError if the connection is lost.
        """
        self.drop()
        if wire.handles:
            files = files[: wire.handles // 2]
        bodies = [SftpBody(wire, path, one, 0, one.size, real) for path, one in files]
        wire.settle(*(request for body in bodies for request in body.opening))
        for body in bodies:
            with contextlib.suppress(ObjectError, SourceChanged):
                self._bodies[body.entry.key] = body.ask()

    def take(self, wire: SftpWire, entry: Entry) -> SftpBody | None:
        """The file, if it was asked for, as who opens it by itself has it after the second step."""
        body = self._bodies.pop(entry.key, None)
        if body is None or (body.wire is wire and body.entry == entry and not wire.lost):
            return body
        body.close()
        return None

    def drop(self) -> bool:
        """Lets go of those that were not taken; whether there were any."""
        bodies, self._bodies = self._bodies, {}
        for body in bodies.values():
            with contextlib.suppress(AdsmigError):
                body.close()
        return bool(bodies)


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
