"""SFTP, spoken over one channel: many requests in flight, and answers by number.

paramiko's own client takes a thread's turn for every request and makes text of names; here names
are the bytes that the server has, and what can go in one packet does.  OpenSSH's PROTOCOL file
tells of its extensions.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from collections.abc import Sequence
from typing import Protocol

from adsmig.errors import AdsmigError, TransientError
from adsmig.storage.sftppacket import (
    CLOSE,
    END,
    EXTENDED,
    HELLO,
    INIT,
    LIMITS,
    LSTAT,
    OK,
    OPEN,
    OPENDIR,
    POSIX_RENAME,
    READDIR,
    READLINK,
    REALPATH,
    REMOVE,
    RENAME,
    STAT,
    STATUS,
    STATVFS,
    VERSION,
    Ended,
    Named,
    Status,
    code_of,
    extensions_of,
    handle_of,
    limits_of,
    name_of,
    names_of,
    number,
    refusal,
    room_of,
    status_of,
    text,
)

PACKET = 32 * 1024
"""Bytes that fit in one packet of OpenSSH's channels."""
SPAN = 32 * 1024
"""Bytes that every server reads or writes at one request."""
MOST_SPAN = 255 * 1024
"""Bytes asked for, or sent, at one request, of servers that say that they take as much: OpenSSH's
takes a little less than 256 KiB."""
LONGEST = 1 << 20
"""Bytes of an answer; a longer one is none of SFTP."""
FIRST_READDIRS, READDIRS = 3, 8
"""Requests for more names in flight; at first as many as a small directory takes: OpenSSH's server
answers each with a hundred names, and the last with the end."""

_U32 = struct.Struct(">I")
_HEAD = struct.Struct(">IBI")


class Channel(Protocol):
    """What carries the bytes: see storage.sshchannel."""

    def send(self, s: bytes | memoryview) -> int: ...

    def recv(self, nbytes: int) -> bytes | memoryview: ...


class SftpWire:
    """One channel, for one thread.  A request that the server refuses raises OSError; a connection
    that is lost, TransientError, and then ``lost`` is true.
    """

    def __init__(self, channel: Channel, where: str) -> None:
        """Agrees on the version; ``where`` names the server in messages."""
        self.lost = False
        self._channel, self._where = channel, where
        self._out, self._in = bytearray(), bytearray()
        self._number = 0
        self._sent = set[int]()
        self._answers: dict[int, bytes] = {}
        self._unwanted = set[int]()
        self._out += struct.pack(">IBI", 5, INIT, VERSION)
        self.flush()
        hello = self._packet()
        if not hello or hello[0] != HELLO:
            raise AdsmigError(f"{where} does not speak SFTP; check the address")
        try:
            self.extensions = extensions_of(hello)
        except OSError as exc:
            raise AdsmigError(f"{where} does not speak SFTP; check the address") from exc
        self.span, self.handles = SPAN, 0
        """Bytes that are read or written at one request; and how many files the server says it
        holds open, 0 if it does not say.
        """
        if LIMITS in self.extensions:
            reads, writes, self.handles = limits_of(self.ask(EXTENDED, text(LIMITS)))
            self.span = max(min(reads or SPAN, writes or SPAN, MOST_SPAN), 1024)

    def __repr__(self) -> str:
        return f"SftpWire({self._where}{', lost' if self.lost else ''})"

    # Requests in flight

    def send(self, kind: int, *parts: bytes | memoryview) -> int:
        """Sends a request, some time before its answer is waited for; its number."""
        self._number = (self._number + 1) & 0xFFFFFFFF
        size = 5 + sum(map(len, parts))
        self._sent.add(self._number)
        self._out += _HEAD.pack(size, kind, self._number)
        for part in parts:
            self._out += part
        if len(self._out) >= PACKET:
            self.flush(whole=True)
        return self._number

    def wait(self, request: int) -> bytes:
        """The answer to a request, as a packet; OSError for a status that is not OK, of the end
        Ended.
        """
        packet = self._await(request)
        if packet[0] == STATUS:
            code = code_of(packet)
            if code == END:
                raise Ended
            if code != OK:
                raise refusal(code, packet)
        return packet

    def forget(self, *requests: int) -> None:
        """Drops the answers to these that nobody has waited for, and nobody will."""
        for request in requests:
            if self._answers.pop(request, None) is None and request in self._sent:
                self._unwanted.add(request)

    def ask(self, kind: int, *parts: bytes) -> bytes:
        """As :meth:`send` and :meth:`wait`."""
        return self.wait(self.send(kind, *parts))

    def all(self, requests: Sequence[int]) -> list[bytes]:
        """As :meth:`wait`, for several; all answers are in when it raises for the first of them."""
        packets = [self._await(request) for request in requests]
        for packet in packets:
            if packet[0] == STATUS and (code := code_of(packet)) != OK:
                raise refusal(code, packet)
        return packets

    def settle(self, *requests: int | None) -> None:
        """Returns once these are answered; the answers are still to be waited for."""
        for request in requests:
            if request is not None:
                self._answers[request] = self._await(request)

    def _await(self, request: int) -> bytes:
        while request not in self._answers:
            packet = self._packet()
            if len(packet) < 5:
                raise self._lose("it sent what is no answer")
            (answered,) = _U32.unpack_from(packet, 1)
            self._sent.discard(answered)
            if answered in self._unwanted:
                self._unwanted.discard(answered)
            else:
                self._answers[answered] = packet
        return self._answers.pop(request)

    # Whole requests

    def open(self, path: bytes, flags: int, attrs: bytes = b"\0\0\0\0") -> bytes:
        """A handle of a file, to be closed."""
        return handle_of(self.ask(OPEN, text(path), number(flags), attrs))

    def opendir(self, path: bytes) -> bytes:
        """A handle of a directory, to be closed."""
        return handle_of(self.ask(OPENDIR, text(path)))

    def close(self, handle: bytes) -> None:
        """Closes a handle, some time."""
        self.forget(self.send(CLOSE, text(handle)))

    def stat(self, path: bytes) -> Status:
        """Of what a path leads to."""
        return status_of(self.ask(STAT, text(path)))

    def lstat(self, path: bytes) -> Status:
        """Of what is there, perhaps a link."""
        return status_of(self.ask(LSTAT, text(path)))

    def lstats(self, paths: Sequence[bytes], follow: bool = False) -> list[Status | OSError]:
        """Of many at once, or why not."""
        kind = STAT if follow else LSTAT
        requests = [self.send(kind, text(path)) for path in paths]
        return [self._status_or_error(request) for request in requests]

    def _status_or_error(self, request: int) -> Status | OSError:
        try:
            return status_of(self.wait(request))
        except OSError as exc:
            return exc

    def readlink(self, path: bytes) -> bytes:
        """Where a link leads."""
        return name_of(self.ask(READLINK, text(path)))

    def realpath(self, path: bytes) -> bytes:
        """The absolute path of what is there, without links."""
        return name_of(self.ask(REALPATH, text(path)))

    def names(self, path: bytes) -> list[Named]:
        """All that is in a directory, in no order; OSError if it may not be searched."""
        handle = self.opendir(path)
        found: list[Named] = []
        ahead, bare = FIRST_READDIRS, True
        flying = [self.send(READDIR, text(handle)) for _ in range(ahead)]
        try:
            while flying:
                page = names_of(self.wait(flying.pop(0)))
                bare = bare and not page
                found += (one for one in page if one.name not in (b".", b".."))
                ahead = min(2 * ahead, READDIRS)
                flying += [self.send(READDIR, text(handle)) for _ in range(ahead - len(flying))]
        except EOFError:
            # Some servers may work on several requests at once, in whatever order.
            found += self._names_of_all(flying)[0]
        finally:
            if not self.lost:
                self.forget(*flying)
                self.close(handle)
        if bare:
            # OpenSSH's leaves out what it may not look at: where nothing may be, even ".".
            with contextlib.suppress(FileNotFoundError):
                self.ask(LSTAT, text(os.path.join(path, b".")))
        return found

    def small_directories(
        self, paths: Sequence[bytes], follow: bool
    ) -> list[tuple[bytes, Status, list[Named]]]:
        """Those directories of which a few answers tell all names, each with its status before
        that; ``follow``: links lead to directories as well.
        """
        kind = STAT if follow else LSTAT
        looks = [self.send(kind, text(path.removesuffix(b"/") or b"/")) for path in paths]
        openings = [self.send(OPENDIR, text(path)) for path in paths]
        self.settle(*looks, *openings)
        asked = []
        for path, look, opening in zip(paths, looks, openings, strict=True):
            status = self._status_or_error(look)
            with contextlib.suppress(OSError):
                handle = handle_of(self.wait(opening))
                pages = [self.send(READDIR, text(handle)) for _ in range(FIRST_READDIRS)]
                self.close(handle)
                asked.append((path, status, pages))
        self.settle(*(page for _, _, pages in asked for page in pages))
        found = []
        for path, status, pages in asked:
            try:
                names, whole = self._names_of_all(pages)
            except OSError:
                self.forget(*pages)
                continue
            if whole and isinstance(status, Status) and stat.S_ISDIR(status.st_mode):
                found.append((path, status, names))
        return found

    def _names_of_all(self, pages: Sequence[int]) -> tuple[list[Named], bool]:
        """The names that these requests are answered with; and whether those are all, as one was
        told that there are no more, none was refused, and there is some, if only ``.``.  OSError if
        there are names that cannot be told.
        """
        names, ended, refused = list[Named](), False, False
        for page in pages:
            try:
                packet = self.wait(page)
            except EOFError:
                ended = True
            except OSError:  # behind the end, some refuse to look for more
                refused = True
            else:
                names += names_of(packet)
        whole = ended and not refused and bool(names)
        return [one for one in names if one.name not in (b".", b"..")], whole

    def rename(self, old: bytes, new: bytes) -> None:
        """Renames, in place of what is there; OSError.

        A server without OpenSSH's extension refuses to where something is there already, as the
        protocol asks of it.  That is moved aside first then, so that there is a moment without it,
        to beside ``old``; and back again if it was refused for another reason.
        """
        if POSIX_RENAME in self.extensions:
            self.ask(EXTENDED, text(POSIX_RENAME), text(old), text(new))
            return
        try:
            self.ask(RENAME, text(old), text(new))
        except OSError:
            there = self.lstat(new)  # raises if that is not the reason
            if stat.S_ISDIR(there.st_mode) or not self.exists(old):
                raise
            aside = old + b".old"
            self.ask(RENAME, text(new), text(aside))
            try:
                self.ask(RENAME, text(old), text(new))
            except OSError:
                self.ask(RENAME, text(aside), text(new))
                raise
            self.forget(self.send(REMOVE, text(aside)))

    def exists(self, path: bytes) -> bool:
        """Whether something is there, perhaps a link that leads nowhere."""
        try:
            self.lstat(path)
        except OSError as exc:
            if exc.errno == errno.ENOENT:
                return False
            raise
        return True

    def has_room(self, path: bytes) -> bool:
        """False if the server says that the file system has none left for us."""
        if STATVFS not in self.extensions:
            return True
        left, takes_more = room_of(self.ask(EXTENDED, text(STATVFS), text(path)))
        return left >= MOST_SPAN and takes_more

    # Bytes

    def flush(self, whole: bool = False) -> None:
        """Sends what waits to be sent, or of that, what makes ``whole`` packets."""
        out, self._out = self._out, bytearray()
        end = len(out) // PACKET * PACKET if whole else len(out)
        at, view = 0, memoryview(out)
        try:
            while at < end:
                sent = self._channel.send(view[at:end])
                if not sent:
                    raise EOFError
                at += sent
        except _lost_errors() as exc:
            raise self._lose(_reason(exc)) from exc
        self._out += out[end:]

    def _packet(self) -> bytes:
        """The next one, without its length."""
        while len(self._in) < 4:
            self._fill()
        (size,) = _U32.unpack_from(self._in)
        if not 0 < size <= LONGEST:
            raise self._lose("it sent what is no SFTP")
        while len(self._in) < 4 + size:
            self._fill()
        packet = bytes(memoryview(self._in)[4 : 4 + size])
        del self._in[: 4 + size]
        return packet

    def _fill(self) -> None:
        """Takes what comes next, which may be the answer to what was not sent yet."""
        if self._out:
            self.flush()
        try:
            data = self._channel.recv(1 << 20)
            if not data:
                raise EOFError
        except _lost_errors() as exc:
            raise self._lose(_reason(exc)) from exc
        self._in += data

    def _lose(self, reason: str) -> TransientError:
        self.lost = True
        return TransientError(f"the connection to {self._where} was lost: {reason}")


def _lost_errors() -> tuple[type[Exception], ...]:
    from paramiko import SSHException

    return (OSError, EOFError, SSHException)


def _reason(exc: Exception) -> str:
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    return str(exc) or "closed by the other side"
