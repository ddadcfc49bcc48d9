"""Files that are not whole yet, in a directory of the job's own; how they get to their places."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import shutil
import stat
import threading
from collections.abc import Callable
from typing import TypeVar

import xxhash

from adsmig import failpoint
from adsmig.errors import ObjectError
from adsmig.model import Meta
from adsmig.storage.base import STAGING
from adsmig.storage.localfile import meta_of, set_link_meta, set_meta, sync_file_system
from adsmig.storage.root import Root

T = TypeVar("T")


class Own(threading.local):
    """A thread's directory, and who its files belong to."""

    path = b""
    owner: tuple[int, int] | None = None


class Staging:
    """The directory ``name`` at the top of a destination.  Errors are OSError."""

    def __init__(self, root: Root, name: bytes) -> None:
        self._root = root
        self._path = os.path.join(root.path, name)
        self._lock_fd: int | None = None
        # Names of this process's own: two must never write one file.
        self._token = os.urandom(6).hex().encode()
        self._mine = Own()
        self._count = itertools.count()

    def __del__(self) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)

    def prepare(self) -> None:
        """Makes it, and what is above it, and locks it for as long as this object lives.

        BlockingIOError: another process has locked it.
        """
        os.makedirs(self._path, exist_ok=True)
        if self._lock_fd is None:
            self._lock_fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def path_for(self, key: bytes) -> bytes:
        """Where this thread keeps what is to become ``key``.

        In a directory of its own: where many make files in one, they wait for one another, and
        the processors with them (two processes took a third longer on ext4).
        """
        if not self._mine.path:
            name = b"%s-%d" % (self._token, next(self._count))
            self._mine.path = os.path.join(self._path, name)
        return os.path.join(self._mine.path, xxhash.xxh3_128_hexdigest(key).encode())

    def path_for_large(self, key: bytes) -> bytes:
        """Where this process keeps what is to become ``key``, for others to write to."""
        name = xxhash.xxh3_128_hexdigest(key).encode() + b"." + self._token
        return os.path.join(self._path, name)

    def owner(self) -> tuple[int, int]:
        """User and group that the thread's new files have."""
        if not self._mine.owner:
            status = os.stat(self._mine.path)  # which has them for the same reasons
            self._mine.owner = status.st_uid, status.st_gid
        return self._mine.owner

    def create(self, staged: bytes, meta: Meta) -> int:
        """A descriptor of a new, empty file there."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        mode = 0o666 if meta.mode is None else meta.mode & 0o700 | 0o600
        return self._inside(staged, lambda: os.open(staged, flags, mode))

    def link(self, staged: bytes, target: bytes, meta: Meta) -> None:
        """A new symbolic link there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(staged)  # left by a try that was cut short
        self._inside(staged, lambda: os.symlink(target, staged))
        set_link_meta(staged, meta)

    def remove_strays(self, staged: bytes) -> None:
        """Removes what killed processes have left for the same key."""
        same_key = os.path.basename(staged).removesuffix(self._token)
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._path):
                if name.startswith(same_key):
                    os.unlink(os.path.join(self._path, name))

    def tidy(self) -> None:
        """Removes the directory and all that is in it."""
        shutil.rmtree(self._path, ignore_errors=True)

    def _inside(self, staged: bytes, make: Callable[[], T]) -> T:
        """Calls what makes the file; makes its directory first, should that not be there."""
        self._root.opened()
        try:
            return make()
        except FileNotFoundError:
            self._root.check()
            os.makedirs(os.path.dirname(staged), exist_ok=True)
            return make()


def publish(staged: bytes, path: bytes, above: int | None = None) -> None:
    """Renames a staged file to its place: ``path``, relative to the directory ``above`` if given.

    Makes the directories above a path.
    """
    failpoint.reach("file.staged")
    try:
        try:
            os.rename(staged, path, dst_dir_fd=above)
        except FileNotFoundError as exc:
            if above is not None:
                raise  # the directory is there, so it is the staged file that is not
            parent = os.path.dirname(path)
            if os.path.islink(parent):
                raise ObjectError("key", "its directory is a broken link there") from exc
            os.makedirs(parent, exist_ok=True)
            os.rename(staged, path)
    except OSError as exc:
        if exc.errno != errno.EXDEV:
            raise
        _move_across(staged, path, above)


def _move_across(staged: bytes, path: bytes, above: int | None) -> None:
    """Renames a staged file to another file system, which is mounted below the root.

    ``path`` is relative to the directory ``above``, if there is one.  Durable at the end, for the
    root's ``syncfs`` does not reach there.
    """
    directory = os.path.dirname(path)
    beside = os.path.join(directory, STAGING + os.path.basename(staged))
    fd = os.open(directory or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=above)
    try:
        _clone(staged, beside, above)
        os.rename(beside, path, src_dir_fd=above, dst_dir_fd=above)
        sync_file_system(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside, dir_fd=above)
        raise
    finally:
        os.close(fd)
    os.unlink(staged)


def _clone(staged: bytes, beside: bytes, above: int | None) -> None:
    status = os.lstat(staged)
    meta = meta_of(status)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(staged), beside, dir_fd=above)
        set_link_meta(beside, meta, above)
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with (
        open(staged, "rb") as source,
        open(os.open(beside, flags, 0o600, dir_fd=above), "wb") as copy,
    ):
        shutil.copyfileobj(source, copy, 1 << 20)
        copy.flush()
        set_meta(copy.fileno(), meta)
