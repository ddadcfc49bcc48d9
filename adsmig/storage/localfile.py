"""One file or directory of a file system: read with a check for change, written, given its times.

What fails as OSError while writing is put into our words by :func:`from_os_error`.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from adsmig.errors import AdsmigError, ObjectError, SourceChanged, StorageFull, TransientError
from adsmig.model import Entry, Meta
from adsmig.storage.base import LINKED, RESIZED
from adsmig.storage.files import Status

log = logging.getLogger(__name__)

MUCH = 1 << 20
"""Bytes that are worth a call of their own."""

SECOND_NS = 1_000_000_000
TICKS = (1, 100, 1000, 1_000_000, 10_000_000, SECOND_NS, 2 * SECOND_NS)
"""Nanoseconds: of Linux, NTFS and SMB, some servers, exFAT, ext3, FAT."""
ODD_NS = 1_000_000_001_123_456_789
"""A time, of an odd second, that no coarser tick can tell."""
AWAY = (
    errno.ENOTCONN, errno.ECONNABORTED, errno.ESHUTDOWN, errno.EHOSTDOWN, errno.EHOSTUNREACH,
    errno.ETIMEDOUT,
)  # fmt: skip
"""What every call fails with once the server or the daemon behind a file system is gone."""
SET_ID = stat.S_ISUID | stat.S_ISGID
_ENDING = (
    *AWAY, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.EUCLEAN,
    errno.EMFILE, errno.ENFILE, errno.ENOMEM,
)  # fmt: skip
"""What no object is to blame for when writing it fails."""


class LocalBody:
    """A span of a file being read; see storage.base.Body."""

    def __init__(
        self,
        fd: int,
        entry: Entry,
        start: int,
        size: int,
        unreadable: Callable[[OSError], AdsmigError],
    ) -> None:
        """``unreadable``: ours for what goes wrong."""
        self._fd, self._entry, self._unreadable = fd, entry, unreadable
        self._start, self._at, self._end = start, start, start + size
        self.md5: str | None = None
        self.crc32: str | None = None
        try:
            self.meta = meta_of(self._check())
            if not entry.size:
                self._prove_empty()
        except BaseException:
            os.close(fd)
            raise

    def _check(self) -> os.stat_result:
        status = os.fstat(self._fd)
        check_same(self._entry, status)
        return status

    def _prove_empty(self) -> None:
        """Raises if there are bytes all the same, as in files of /proc, and of a FUSE daemon that
        does not know their sizes.
        """
        try:
            more = os.pread(self._fd, 1, 0)
        except OSError as exc:
            raise self._unreadable(exc) from exc
        if more:
            self._check()
            raise ObjectError("unreadable", "it says that it is empty, and is not")

    def readinto(self, buffer: memoryview) -> int:
        """See Body.readinto."""
        left = self._end - self._at
        if left <= 0:
            return 0
        try:
            count = os.preadv(self._fd, [buffer[:left]], self._at)
        except OSError as exc:
            raise self._unreadable(exc) from exc
        self._at += count
        if self._at >= self._end or not count:
            self._check()
            if not count:
                raise SourceChanged("the file became shorter while it was read")
        return count

    def rewind(self) -> bool:
        """See Body.rewind."""
        self._at = self._start
        return True

    def __enter__(self) -> LocalBody:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


class DirectoryBody:
    """What there is to read of a directory: no bytes; see storage.base.Body."""

    md5: str | None = None
    crc32: str | None = None

    def __init__(self, meta: Meta) -> None:
        self.meta = meta

    def readinto(self, buffer: memoryview) -> int:
        """0: this is the end."""
        return 0

    def rewind(self) -> bool:
        """See Body.rewind."""
        return False

    def __enter__(self) -> DirectoryBody:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""


def check_same(entry: Entry, status: Status) -> None:
    """Raises SourceChanged if it is no longer the file that was listed."""
    if not stat.S_ISREG(status.st_mode):
        raise ObjectError("unreadable", "not a regular file")
    if status.st_size != entry.size or status.st_mtime_ns != entry.mtime_ns:
        raise SourceChanged("the file changed while it was read")


def kept_as(status: Status, size: int, links: bool) -> str:
    """What Storage.missing says of a file; ``links``: links are copied as such, too."""
    if stat.S_ISLNK(status.st_mode):
        return "" if links else LINKED
    return "" if stat.S_ISREG(status.st_mode) and status.st_size == size else RESIZED


def meta_of(status: Status) -> Meta:
    """What a file system keeps beside the bytes; links have no mode of their own."""
    mode = None if stat.S_ISLNK(status.st_mode) else stat.S_IMODE(status.st_mode)
    return Meta(status.st_mtime_ns, mode, status.st_uid, status.st_gid)


def set_meta(
    fd: int, meta: Meta, owner: tuple[int, int] | None = None, anothers: bool = False
) -> None:
    """Gives an open file or directory its owner (as root), mode and mtime, as far as known.

    ``owner``: the user and group that it has, if that is known.  An owner or a mode that cannot be
    kept there is left out, and with an owner the right to act as such; not the mode of what is
    ``anothers``, and could be kept by that.
    """
    uid, gid, mode = meta.uid, meta.gid, meta.mode
    if uid is not None and gid is not None and (uid, gid) != owner and os.geteuid() == 0:
        try:
            os.fchown(fd, uid, gid)  # before chmod: it clears the set-id bits
        except OSError as exc:
            _leave_out("owners", exc)
    if mode is not None:
        if mode & SET_ID and uid is not None:
            status = os.fstat(fd)
            # A directory only passes its group on.
            if (status.st_uid, status.st_gid) != (uid, gid) and not stat.S_ISDIR(status.st_mode):
                mode &= ~SET_ID
        try:
            os.fchmod(fd, mode)
        except OSError as exc:
            if anothers:
                raise
            _leave_out("permissions", exc)
    if meta.mtime_ns is not None:
        os.utime(fd, ns=(meta.mtime_ns, meta.mtime_ns))


def set_link_meta(path: bytes, meta: Meta, above: int | None = None) -> None:
    """As :func:`set_meta`, for a symbolic link itself."""
    if meta.uid is not None and meta.gid is not None and os.geteuid() == 0:
        try:
            os.chown(path, meta.uid, meta.gid, dir_fd=above, follow_symlinks=False)
        except OSError as exc:
            _leave_out("owners", exc)
    if meta.mtime_ns is not None:
        times = (meta.mtime_ns, meta.mtime_ns)
        os.utime(path, ns=times, dir_fd=above, follow_symlinks=False)


def set_directory_meta(fd: int, meta: Meta) -> None:
    """As :func:`set_meta`, where it differs: nobody else may touch what another user owns."""
    there = meta_of(os.fstat(fd))
    if (there.uid, there.gid) == (meta.uid, meta.gid):
        meta = replace(meta, uid=None, gid=None)
    if there.mode == meta.mode:
        meta = replace(meta, mode=None)
    if there.mtime_ns == meta.mtime_ns:
        meta = replace(meta, mtime_ns=None)
    set_meta(fd, meta, anothers=os.geteuid() not in (0, there.uid))


def _leave_out(what: str, exc: OSError) -> None:
    """Goes on without something that the file system, or who runs this there, cannot have kept:
    as FAT, a server that takes root for nobody, or a user namespace.  Raises what is else.
    """
    if exc.errno not in (errno.EPERM, errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
        raise exc
    tell_unkept(what)


@lru_cache(maxsize=2)
def tell_unkept(what: str) -> None:
    """Says it, once."""
    log.warning(
        "%s cannot be kept at the destination; going on without them, as --noperms does", what
    )


def tick_of(fd: int) -> int:
    """Nanoseconds between two times of a file that are told apart, from 1 up; changes its time.

    Times of an odd and of an even second are tried, for there are ticks of two seconds (FAT), and
    some are rounded up.
    """
    tick = 1
    for time_ns in (ODD_NS, ODD_NS + SECOND_NS):
        os.utime(fd, ns=(time_ns, time_ns))
        off = abs(os.fstat(fd).st_mtime_ns - time_ns)
        tick = max(tick, next((one for one in TICKS if off < one), 1))
    return tick


def write_all(fd: int, chunk: memoryview, offset: int | None = None) -> int:
    """Writes the whole chunk, at ``offset`` or where the file stands; the number of its bytes."""
    done = 0
    while done < len(chunk):
        if offset is None:
            done += os.write(fd, chunk[done:])
        else:
            done += os.pwrite(fd, chunk[done:], offset + done)
    return done


def begin_to_store(fd: int, start: int, size: int) -> None:
    """Has the kernel begin to bring a span of a file to the disk, if there is much of it.

    A later flush of all then finds little left to wait for.  posix_fadvise(2) has no call of that
    name; on Linux, to say that nobody will need what is in memory starts its way out.
    """
    if size >= MUCH:
        os.posix_fadvise(fd, start, size, os.POSIX_FADV_DONTNEED)


def from_os_error(exc: OSError, doing: str) -> AdsmigError:
    """Ours for an error while writing: told apart by whether the object or the run has to end."""
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(f"{doing}: {exc.strerror}; free some room")
    if exc.errno == errno.ENOENT:
        return TransientError(f"{doing}: a file or directory was removed meanwhile")
    if exc.errno in _ENDING:
        return AdsmigError(f"{doing}: {exc.strerror}")
    if exc.errno in (errno.ENOTDIR, errno.EEXIST):
        return ObjectError("key", "a file is where this key needs a directory")
    if exc.errno in (errno.EISDIR, errno.ENOTEMPTY):
        return ObjectError("key", "a directory is where this file has to be")
    if exc.errno == errno.ENAMETOOLONG:
        return ObjectError("key", "too long for a path of this file system")
    if exc.errno in (errno.EACCES, errno.EPERM):
        return ObjectError("denied", f"cannot be written: {exc.strerror}")
    return ObjectError("write", f"cannot be written: {exc.strerror}")


_libc = ctypes.CDLL(None, use_errno=True)


def sync_file_system(fd: int) -> None:
    """syncfs(2), which reports write errors since Linux 5.8; sync(2) elsewhere."""
    if not hasattr(_libc, "syncfs"):
        os.sync()
    elif _libc.syncfs(fd):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
