"""SFTP version 3, spoken over one channel: requests in bytes, many in flight, answers by number.

draft-ietf-secsh-filexfer-02 is the protocol, and OpenSSH's PROTOCOL file tells of its extensions.
paramiko's own client takes a thread's turn for every request and makes text of names; here names
are the bytes that the server has, and what can go in one packet does.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from adsmig.errors import AdsmigError, TransientError

VERSION = 3
INIT, HELLO = 1, 2
OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT, OPENDIR, READDIR, REMOVE, MKDIR = range(
    3, 15
)
RMDIR, REALPATH, STAT, RENAME, READLINK, SYMLINK = range(15, 21)
STATUS, HANDLE, DATA, NAME, ATTRS = range(101, 106)
EXTENDED, EXTENDED_REPLY = 200, 201

FOR_READING, FOR_WRITING, CREATE, TRUNCATE = 0x1, 0x2, 0x8, 0x10

POSIX_RENAME, FSYNC = b"posix-rename@openssh.com", b"fsync@openssh.com"
STATVFS, LIMITS = b"statvfs@openssh.com", b"limits@openssh.com"

OK, END = 0, 1
_ERRORS = {
    2: errno.ENOENT,
    3: errno.EACCES,
    5: errno.EINVAL,
    8: errno.EOPNOTSUPP,
}
"""By the status' code; OpenSSH gives all others (a full disk, a directory in the way) as 4."""
FAILURE = errno.EREMOTEIO
"""The errno of what a server refuses without saying why."""

PACKET = 32704
"""Bytes that fit in one packet of a channel of 32 KiB, as OpenSSH's are, under paramiko."""
SPAN = 32 * 1024
"""Bytes that every server reads or writes at one request."""
MOST_SPAN = 128 * 1024
"""Bytes asked for, or sent, at one request, of servers that say that they take as much."""
LONGEST = 1 << 20
"""Bytes of an answer; a longer one is none of SFTP."""
READDIRS = 8
"""Requests for more names in flight."""

_U32, _U64 = struct.Struct(">I"), struct.Struct(">Q")
_HEAD = struct.Struct(">IBI")
_SIZE, _OWNER, _MODE, _TIMES = 1, 2, 4, 8
_MORE = 1 << 31


class Channel(Protocol):
    """What carries the bytes: a paramiko.Channel."""

    def send(self, s: bytes) -> int: ...

    def recv(self, nbytes: int) -> bytes: ...


class Status(NamedTuple):
    """What a server tells of a file; see storage.files.Status.  It tells whole seconds."""

    st_mode: int
    st_size: int
    st_mtime_ns: int
    st_uid: int | None
    st_gid: int | None

    @property
    def st_ctime_ns(self) -> int:
        """The owner's: the protocol has no other."""
        return self.st_mtime_ns


class Named(NamedTuple):
    """A name in a directory, and what was told of it, perhaps not all."""

    name: bytes
    status: Status | None


def text(data: bytes) -> bytes:
    """A string, as requests have them."""
    return _U32.pack(len(data)) + data


def number(value: int) -> bytes:
    """32 bits."""
    return _U32.pack(value)


def attributes(
    mode: int | None = None,
    mtime_ns: int | None = None,
    owner: tuple[int, int] | None = None,
    size: int | None = None,
) -> bytes:
    """Those of a file that are to be set, as requests have them."""
    flags, fields = 0, b""
    if size is not None:
        flags, fields = flags | _SIZE, _U64.pack(size)
    if owner is not None:
        flags, fields = flags | _OWNER, fields + struct.pack(">II", *owner)
    if mode is not None:
        flags, fields = flags | _MODE, fields + _U32.pack(mode)
    if mtime_ns is not None:
        seconds = seconds_of(mtime_ns)
        flags, fields = flags | _TIMES, fields + struct.pack(">II", seconds, seconds)
    return _U32.pack(flags) + fields


def seconds_of(time_ns: int) -> int:
    """A time as the protocol has it: 32 bits without a sign, from 1970 to 2106."""
    return min(max(time_ns // 1_000_000_000, 0), 0xFFFFFFFF)


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
        self._flush()
        hello = self._packet()
        if not hello or hello[0] != HELLO:
            raise AdsmigError(f"{where} does not speak SFTP; check the address")
        self.extensions = dict(_pairs(hello, 5))
        self.span = SPAN
        if LIMITS in self.extensions:
            # packet, read, write, handles; OpenSSH's PROTOCOL, 4.8
            _, reads, writes, _ = struct.unpack_from(">QQQQ", self.ask(EXTENDED, text(LIMITS)), 5)
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
            self._flush(whole=True)
        return self._number

    def wait(self, request: int) -> bytes:
        """The answer to a request, as a packet; OSError for a status that is not OK."""
        packet = self._await(request)
        if packet[0] == STATUS:
            (code,) = _U32.unpack_from(packet, 5)
            if code == END:
                raise EOFError
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
            if packet[0] == STATUS and (code := _U32.unpack_from(packet, 5)[0]) != OK:
                raise refusal(code, packet)
        return packets

    def _await(self, request: int) -> bytes:
        if request not in self._answers:
            self._flush()
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
        return _names_of(self.ask(READLINK, text(path)))[0].name

    def realpath(self, path: bytes) -> bytes:
        """The absolute path of what is there, without links."""
        return _names_of(self.ask(REALPATH, text(path)))[0].name

    def names(self, path: bytes) -> list[Named]:
        """All that is in a directory, in no order."""
        handle = self.opendir(path)
        found: list[Named] = []
        flying = [self.send(READDIR, text(handle))]
        ahead = 1
        try:
            while flying:
                page = _names_of(self.wait(flying.pop(0)))
                found += (one for one in page if one.name not in (b".", b".."))
                ahead = min(2 * ahead, READDIRS)
                flying += [self.send(READDIR, text(handle)) for _ in range(ahead - len(flying))]
        except EOFError:
            pass
        finally:
            if not self.lost:
                self.forget(*flying)
                self.close(handle)
        return found

    def rename(self, old: bytes, new: bytes) -> None:
        """Renames, in place of what is there; OSError.

        A server without OpenSSH's extension refuses to where something is there already, as the
        protocol asks of it.  It is removed first then, so that there is a moment without it.
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
            self.ask(REMOVE, text(new))
            self.ask(RENAME, text(old), text(new))

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
        packet = self.ask(EXTENDED, text(STATVFS), text(path))
        # bsize, frsize, blocks, bfree, bavail, files, ffree, favail, ...; PROTOCOL, 4.4
        numbers = struct.unpack_from(">QQQQQQQQ", packet, 5)
        return numbers[4] * numbers[1] >= MOST_SPAN and (numbers[7] > 0 or not numbers[5])

    # Bytes

    def _flush(self, whole: bool = False) -> None:
        """Sends what waits to be sent, or of that, what makes ``whole`` packets."""
        out, self._out = self._out, bytearray()
        end = len(out) // PACKET * PACKET if whole else len(out)
        at = 0
        try:
            while at < end:
                sent = self._channel.send(bytes(out[at : min(at + PACKET, end)]))
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


def refusal(code: int, packet: bytes) -> OSError:
    """The error that a status stands for."""
    (size,) = _U32.unpack_from(packet, 9) if len(packet) >= 13 else (0,)
    said = packet[13 : 13 + size].decode(errors="replace") or f"status {code}"
    said = "".join(one if one.isprintable() else "?" for one in said)
    if code in _ERRORS:
        return OSError(_ERRORS[code], os.strerror(_ERRORS[code]))
    return OSError(FAILURE, f"the server says: {said}")


def handle_of(packet: bytes) -> bytes:
    """That a server gave."""
    _expect(packet, HANDLE)
    return _string(packet, 5)[0]


def status_of(packet: bytes) -> Status:
    """That a server gave; OSError if it is incomplete."""
    _expect(packet, ATTRS)
    status, _ = _attributes(packet, 5)
    if status is None:
        raise OSError(FAILURE, "the server does not tell what kind of file it is")
    return status


def _names_of(packet: bytes) -> list[Named]:
    _expect(packet, NAME)
    (count,) = _U32.unpack_from(packet, 5)
    at, found = 9, []
    for _ in range(count):
        name, at = _string(packet, at)
        (size,) = _U32.unpack_from(packet, at)  # of the line that `ls -l` would print
        status, at = _attributes(packet, at + 4 + size)
        found.append(Named(name, status))
    return found


def _attributes(packet: bytes, at: int) -> tuple[Status | None, int]:
    """None if size, mode or time is missing; and where it ends."""
    (flags,) = _U32.unpack_from(packet, at)
    if flags == _SIZE | _OWNER | _MODE | _TIMES:  # as OpenSSH has them, in one go
        size, uid, gid, mode, _, mtime = struct.unpack_from(">QIIIII", packet, at + 4)
        return Status(mode, size, mtime * 1_000_000_000, uid, gid), at + 32
    at += 4
    size = uid = gid = mode = mtime = None
    if flags & _SIZE:
        (size,), at = _U64.unpack_from(packet, at), at + 8
    if flags & _OWNER:
        (uid, gid), at = struct.unpack_from(">II", packet, at), at + 8
    if flags & _MODE:
        (mode,), at = _U32.unpack_from(packet, at), at + 4
    if flags & _TIMES:
        (_, mtime), at = struct.unpack_from(">II", packet, at), at + 8
    if flags & _MORE:
        (count,), at = _U32.unpack_from(packet, at), at + 4
        for _ in range(2 * count):
            _, at = _string(packet, at)
    if size is None or mode is None or mtime is None:
        return None, at
    return Status(mode, size, mtime * 1_000_000_000, uid, gid), at


def _string(packet: bytes, at: int) -> tuple[bytes, int]:
    (size,) = _U32.unpack_from(packet, at)
    return packet[at + 4 : at + 4 + size], at + 4 + size


def _pairs(packet: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    while at < len(packet):
        name, at = _string(packet, at)
        value, at = _string(packet, at)
        yield name, value


def _expect(packet: bytes, kind: int) -> None:
    if packet[0] != kind:
        raise OSError(FAILURE, "the server's answer is of another kind")
