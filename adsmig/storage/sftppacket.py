"""Packets of SFTP version 3: what requests are made of, and what answers say.

draft-ietf-secsh-filexfer-02 is the protocol.  Names are the bytes that the server has.
"""

from __future__ import annotations

import errno
import functools
import os
import struct
from collections.abc import Callable
from typing import NamedTuple, TypeVar

T = TypeVar("T")

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

_U32, _U64 = struct.Struct(">I"), struct.Struct(">Q")
_SIZE, _OWNER, _MODE, _TIMES = 1, 2, 4, 8
_MORE = 1 << 31


class Ended(OSError, EOFError):
    """The server says that there is no more: an error, if it was not asked for more."""

    def __init__(self) -> None:
        super().__init__(FAILURE, "the server says: end of file")


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


def _answer(parse: Callable[[bytes], T]) -> Callable[[bytes], T]:
    """Has it raise OSError for an answer that ends before all is there that it tells of."""

    @functools.wraps(parse)
    def parsing(packet: bytes) -> T:
        try:
            return parse(packet)
        except (struct.error, IndexError) as exc:
            raise OSError(FAILURE, "the server's answer is malformed") from exc

    return parsing


@_answer
def code_of(packet: bytes) -> int:
    """That of a status; see :func:`refusal`."""
    code: int = _U32.unpack_from(packet, 5)[0]
    return code


def refusal(code: int, packet: bytes) -> OSError:
    """The error that a status stands for."""
    (size,) = _U32.unpack_from(packet, 9) if len(packet) >= 13 else (0,)
    said = packet[13 : 13 + size].decode(errors="replace") or f"status {code}"
    said = "".join(one if one.isprintable() else "?" for one in said)
    if code in _ERRORS:
        return OSError(_ERRORS[code], os.strerror(_ERRORS[code]))
    return OSError(FAILURE, f"the server says: {said}")


@_answer
def handle_of(packet: bytes) -> bytes:
    """That a server gave."""
    _expect(packet, HANDLE)
    return _string_at(packet, 5)[0]


@_answer
def data_of(packet: bytes) -> memoryview:
    """The bytes that were read, which end where the packet does."""
    _expect(packet, DATA)
    (size,) = _U32.unpack_from(packet, 5)
    if len(packet) != 9 + size:
        raise IndexError
    return memoryview(packet)[9:]


@_answer
def limits_of(packet: bytes) -> tuple[int, int, int]:
    """Bytes that the server reads at one request, and writes, and how many files it holds open;
    each 0 if it does not say.  OpenSSH's PROTOCOL, 4.8.
    """
    _expect(packet, EXTENDED_REPLY)
    _, reads, writes, handles = struct.unpack_from(">4Q", packet, 5)
    return reads, writes, handles


@_answer
def room_of(packet: bytes) -> tuple[int, bool]:
    """Bytes that a file system has left for us, and whether it takes one more file.  OpenSSH's
    PROTOCOL, 4.4.
    """
    _expect(packet, EXTENDED_REPLY)
    # bsize, frsize, blocks, bfree, bavail, files, ffree, favail, ...
    numbers = struct.unpack_from(">8Q", packet, 5)
    return numbers[4] * numbers[1], numbers[7] > 0 or not numbers[5]


@_answer
def extensions_of(packet: bytes) -> dict[bytes, bytes]:
    """Those that the first packet names, with their values."""
    at, found = 5, {}
    while at < len(packet):
        name, at = _string_at(packet, at)
        found[name], at = _string_at(packet, at)
    return found


@_answer
def status_of(packet: bytes) -> Status:
    """That a server gave; OSError if it is incomplete."""
    _expect(packet, ATTRS)
    status, _ = _attributes(packet, 5)
    if status is None:
        raise OSError(FAILURE, "the server does not tell what kind of file it is")
    return status


@_answer
def names_of(packet: bytes) -> list[Named]:
    """That a server gave."""
    _expect(packet, NAME)
    (count,) = _U32.unpack_from(packet, 5)
    at, found = 9, []
    for _ in range(count):
        name, at = _string_at(packet, at)
        (size,) = _U32.unpack_from(packet, at)  # of the line that `ls -l` would print
        status, at = _attributes(packet, at + 4 + size)
        found.append(Named(name, status))
    return found


@_answer
def name_of(packet: bytes) -> bytes:
    """The only one that a server gave."""
    return names_of(packet)[0].name


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
            _, at = _string_at(packet, at)
    if size is None or mode is None or mtime is None:
        return None, at
    return Status(mode, size, mtime * 1_000_000_000, uid, gid), at


def _string_at(packet: bytes, at: int) -> tuple[bytes, int]:
    """A string, and where it ends."""
    (size,) = _U32.unpack_from(packet, at)
    end = at + 4 + size
    if end > len(packet):
        raise IndexError
    return packet[at + 4 : end], end


def _expect(packet: bytes, kind: int) -> None:
    if packet[0] != kind:
        raise OSError(FAILURE, "the server's answer is of another kind")
