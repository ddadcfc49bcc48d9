"""The messages between the kernel and a file system in user space: bytes in, tuples out, and back.

``include/uapi/linux/fuse.h`` of Linux is what they are described by; all of them are of version
7.31 or older, which Linux has had since 5.4.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

VERSION = 7, 31
MAX_WRITE = 1 << 20
"""Bytes in one message; Linux sends up to 256 pages."""
MAX_READAHEAD = 8 << 20
ROOT = 1
"""The node of the mount point."""

LOOKUP, FORGET, GETATTR, SETATTR, READLINK, SYMLINK = 1, 2, 3, 4, 5, 6
MKNOD, MKDIR, UNLINK, RMDIR, RENAME, LINK = 8, 9, 10, 11, 12, 13
OPEN, READ, WRITE, STATFS = 14, 15, 16, 17
RELEASE, FSYNC, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR = 18, 20, 25, 26, 27, 28, 29
FSYNCDIR, CREATE, INTERRUPT, DESTROY = 30, 35, 36, 38
BATCH_FORGET, READDIRPLUS, RENAME2 = 42, 44, 45

_ASYNC_READ, _BIG_WRITES, _DO_READDIRPLUS, _READDIRPLUS_AUTO = 1 << 0, 1 << 5, 1 << 13, 1 << 14
_ASYNC_DIO, _PARALLEL_DIROPS, _MAX_PAGES = 1 << 15, 1 << 18, 1 << 22
_WANTED = (
    _ASYNC_READ | _BIG_WRITES | _DO_READDIRPLUS | _READDIRPLUS_AUTO | _ASYNC_DIO
    | _PARALLEL_DIROPS | _MAX_PAGES
)  # fmt: skip
"""Not the kernel's cache of what is to be written: with that, it believes no size and no time of a
file but its own, and those that it is told first, when metadata need not be known yet."""

MODE, UID, GID, SIZE, ATIME, MTIME, ATIME_NOW, MTIME_NOW = 1, 2, 4, 8, 16, 32, 128, 256
"""What a SETATTR sets."""
KEEP_CACHE, NOFLUSH = 1 << 1, 1 << 5
"""How a file is open: what the kernel has of it stays; closing it needs not to be told."""
NOREPLACE = 1
"""A RENAME2 that fails where there is something already."""

HEADER = struct.Struct("<IIQQIIIHH")
_REPLY = struct.Struct("<IiQ")
_ATTR = struct.Struct("<QQQqqqIIIIIIIIII")
_VALID = struct.Struct("<QII")
_ENTRY = struct.Struct("<QQQQII")
_OPEN = struct.Struct("<QIi")
_INIT = struct.Struct("<IIIIHHIIHHIIH22x")
_SETATTR = struct.Struct("<IIQQQqqqIIIIIIII")
_STATFS = struct.Struct("<QQQQQIIII24x")
_DIRENT = struct.Struct("<QQII")
IO = struct.Struct("<QQIIQII")
"""Of a READ or a WRITE: handle, offset, size, and four more."""
HANDLE = struct.Struct("<QIIQ")
"""Of RELEASE, FLUSH and FSYNC: the handle, and more that FSYNC has not."""
OPENED = _OPEN.size
"""Of the answer to OPEN, and of the end of that to CREATE; the handle comes first."""
OPEN_FLAGS = struct.Struct("<II")
_2 = struct.Struct("<II")
_4 = struct.Struct("<IIII")
_Q = struct.Struct("<Q")
_QQ = struct.Struct("<QQ")

IO_AT = HEADER.size + IO.size
"""Where the bytes of a WRITE begin."""


class Attributes(NamedTuple):
    """What stat(2) tells."""

    ino: int
    mode: int
    """With the kind of the file."""
    size: int
    mtime_ns: int
    uid: int
    gid: int
    valid_s: float = 0.0
    """How long the kernel may believe it."""


class Change(NamedTuple):
    """A SETATTR: fields are None that are to stay."""

    mode: int | None
    uid: int | None
    gid: int | None
    size: int | None
    mtime_ns: int | None
    mtime_now: bool


def reply(unique: int, size: int, error: int = 0) -> bytes:
    """The head of an answer with ``size`` bytes after it, or of one that says an ``error``."""
    return _REPLY.pack(_REPLY.size + size, -error, unique)


def init_of(body: memoryview) -> tuple[int, int] | None:
    """The version of the kernel's protocol, and what it can do; None for another protocol."""
    major, minor, _, flags = _4.unpack_from(body)
    return (minor, flags) if major == VERSION[0] else None


def init_reply(minor: int, flags: int) -> bytes:
    """What we can do, of what the kernel can."""
    pages = MAX_WRITE // 4096
    return _INIT.pack(
        VERSION[0], min(minor, VERSION[1]), MAX_READAHEAD, _WANTED & flags, 64, 48, MAX_WRITE, 1,
        pages, 0, 0, 0, 0,
    )  # fmt: skip


def _attr(at: Attributes) -> bytes:
    seconds, ns = divmod(at.mtime_ns, 10**9)
    return _ATTR.pack(
        at.ino, at.size, -(-at.size // 512), seconds, seconds, seconds, ns, ns, ns,
        at.mode, 1, at.uid, at.gid, 0, 4096, 0,
    )  # fmt: skip


def attributes_reply(at: Attributes) -> bytes:
    """Of GETATTR and SETATTR."""
    valid = max(at.valid_s, 0)
    return _VALID.pack(int(valid), int(valid % 1 * 1e9), 0) + _attr(at)


def entry_reply(at: Attributes, name_valid_s: float) -> bytes:
    """Of LOOKUP and its kin: a name leads to this file for so long."""
    valid, name = max(at.valid_s, 0), max(name_valid_s, 0)
    return _ENTRY.pack(
        at.ino, 0, int(name), int(valid), int(name % 1 * 1e9), int(valid % 1 * 1e9)
    ) + _attr(at)


def nothing_reply(valid_s: float) -> bytes:
    """Of LOOKUP: there is no such name, for so long."""
    name = max(valid_s, 0)
    return _ENTRY.pack(0, 0, int(name), 0, int(name % 1 * 1e9), 0) + bytes(_ATTR.size)


_UNKNOWN = bytes(_ENTRY.size + _ATTR.size)


def dirent(ino: int, at: int, kind: int, name: bytes) -> bytes:
    """An entry of READDIR; ``at`` tells where the next one is, ``kind`` is of stat's mode."""
    head = _DIRENT.pack(ino, at, len(name), kind >> 12)
    return head + name + bytes(-len(name) % 8)


def direntplus(
    known: Attributes | None, name_valid_s: float, ino: int, at: int, kind: int, name: bytes
) -> bytes:
    """An entry of READDIRPLUS; with None the kernel looks it up when somebody wants to know."""
    entry = entry_reply(known, name_valid_s) if known else _UNKNOWN
    return entry + dirent(ino, at, kind, name)


def open_reply(handle: int, flags: int) -> bytes:
    """Of OPEN, OPENDIR, and behind the entry of CREATE."""
    return _OPEN.pack(handle, flags, 0)


def write_reply(size: int) -> bytes:
    """Of WRITE: so many bytes were taken."""
    return _2.pack(size, 0)


def statfs_reply(used: int, size: int, names: int) -> bytes:
    """Of STATFS, in blocks of 4 KiB; ``names`` is the longest name."""
    return _STATFS.pack(size, size - used, size - used, 1 << 40, 1 << 40, 4096, names, 4096, 0)


def change_of(body: memoryview) -> Change:
    """What a SETATTR asks for."""
    (valid, _, _, size, _, _, mtime, _, _, ns, _, mode, _, uid, gid, _) = _SETATTR.unpack_from(body)
    return Change(
        mode if valid & MODE else None,
        uid if valid & UID else None,
        gid if valid & GID else None,
        size if valid & SIZE else None,
        mtime * 10**9 + ns if valid & MTIME and not valid & MTIME_NOW else None,
        bool(valid & MTIME_NOW),
    )


def name_of(body: memoryview, at: int = 0) -> bytes:
    """The name that ends the message."""
    return bytes(body[at:]).rstrip(b"\0")


def names_of(body: memoryview, at: int) -> tuple[bytes, bytes]:
    """The two names that end the message."""
    one, other, *_ = bytes(body[at:]).split(b"\0")
    return one, other


def words(body: memoryview) -> tuple[int, int]:
    """Two numbers of 32 bits that begin the message."""
    first, second = _2.unpack_from(body)
    return first, second


def number(body: memoryview) -> int:
    """The number of 64 bits that begins the message."""
    value: int = _Q.unpack_from(body)[0]
    return value


def forgets_of(body: memoryview) -> list[tuple[int, int]]:
    """Nodes, and how often each was given to the kernel that now forgets them."""
    count, _ = _2.unpack_from(body)
    return [_QQ.unpack_from(body, 8 + 16 * i) for i in range(count)]
