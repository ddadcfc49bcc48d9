"""Files that are not whole yet, in a directory of the job's own; how they get to their places.

They go by their paths relative to the root, and are reached by descriptors (storage.descent): who
can write to the destination may put a link in the place of a directory, of this one, too.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import shutil
import stat
import threading
from functools import cached_property

import xxhash

from adsmig import failpoint
from adsmig.model import Meta
from adsmig.storage.base import STAGING
from adsmig.storage.descent import Held, despite_mode, held
from adsmig.storage.folding import Folding, folds
from adsmig.storage.localfile import (
    meta_of,
    set_link_meta,
    set_meta,
    sync_file_system,
    tick_of,
)
from adsmig.storage.root import Root


class Own(threading.local):
    """A thread's directory, and who its files belong to."""

    path = b""
    held: Held | None = None
    owner: tuple[int, int] | None = None


class Staging:
    """The directory ``name`` at the top of a destination.

    Errors are OSError, and BehindLink where something has put a link in the way.
    """

    def __init__(self, root: Root, name: bytes) -> None:
        self._root, self._name = root, name
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
        os.makedirs(self._root.path, exist_ok=True)
        if self._lock_fd is None:
            self._lock_fd = self._make()
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def tick(self) -> int:
        """Nanoseconds between two times of a file there that are told apart, once it is prepared; 1
        if that cannot be found out.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with contextlib.suppress(FileNotFoundError):
            os.unlink(b"tick", dir_fd=self._lock_fd)  # of a run that was killed
        with contextlib.suppress(OSError):
            fd = os.open(b"tick", flags, 0o600, dir_fd=self._lock_fd)
            try:
                return tick_of(fd)
            finally:
                os.close(fd)
                os.unlink(b"tick", dir_fd=self._lock_fd)
        return 1

    def _make(self) -> int:
        """A descriptor of it; made if it is not there."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        root = os.open(self._root.path, flags)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._name, 0o700, dir_fd=root)
            return os.open(self._name, flags | os.O_NOFOLLOW, dir_fd=root)
        except OSError as exc:
            if exc.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            what = f"{os.fsdecode(self._name)} there is a link or a file; remove it"
            raise NotADirectoryError(errno.ENOTDIR, what) from exc
        finally:
            os.close(root)

    @cached_property
    def folding(self) -> Folding | None:
        """What keeps names apart that the file system does not; None where it does, and where no
        file can be made.
        """
        try:
            directory = self._make()
        except PermissionError:
            return None
        try:
            return Folding(self._root, self._name) if folds(directory) else None
        finally:
            os.close(directory)

    def path_for(self, key: bytes) -> bytes:
        """Where this thread keeps what is to become ``key``.

        In a directory of its own: where many make files in one, they wait for one another, and
        the processors with them (two processes took a third longer on ext4).
        """
        if not self._mine.path:
            name = b"%s-%d" % (self._token, next(self._count))
            self._mine.path = os.path.join(self._name, name)
        return os.path.join(self._mine.path, xxhash.xxh3_128_hexdigest(key).encode())

    def path_for_large(self, key: bytes) -> bytes:
        """Where this process keeps what is to become ``key``, for others to write to."""
        name = xxhash.xxh3_128_hexdigest(key).encode() + b"." + self._token
        return os.path.join(self._name, name)

    def owner(self) -> tuple[int, int]:
        """User and group that the thread's new files have."""
        if not self._mine.owner:
            # It has them for the same reasons.
            name, above = self._directory_of(self._mine.path)
            status = os.lstat(name, dir_fd=above.fd)
            self._mine.owner = status.st_uid, status.st_gid
        return self._mine.owner

    def create(self, staged: bytes, meta: Meta) -> int:
        """A descriptor of a new, empty file there."""
        try:
            return self._create(staged, meta)
        except FileNotFoundError:  # the thread's directory was removed, as by an earlier end
            self._mine.held = None
            return self._create(staged, meta)

    def _create(self, staged: bytes, meta: Meta) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        mode = 0o666 if meta.mode is None else meta.mode & 0o700 | 0o600
        name, above = self._directory_of(staged, make=True)
        return os.open(name, flags, mode, dir_fd=above.fd)

    def open(self, staged: bytes) -> int:
        """A descriptor of a file that is there, for writing."""
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        name, above = self._directory_of(staged)
        return os.open(name, flags, dir_fd=above.fd)

    def link(self, staged: bytes, target: bytes, meta: Meta) -> None:
        """A new symbolic link there."""
        name, above = self._directory_of(staged, make=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=above.fd)  # left by a try that was cut short
        os.symlink(target, name, dir_fd=above.fd)
        set_link_meta(name, meta, above.fd)

    def publish(self, staged: bytes, name: bytes, above: int) -> None:
        """Renames a staged file to its place, ``name`` in the directory ``above``."""
        failpoint.reach("file.staged")
        ours, here = self._directory_of(staged)
        try:
            _move(ours, here.fd, name, above)
        except PermissionError as exc:
            despite_mode(exc, above, lambda: _move(ours, here.fd, name, above))

    def remove(self, staged: bytes) -> None:
        """Removes a file that is there."""
        name, above = self._directory_of(staged)
        os.unlink(name, dir_fd=above.fd)

    def remove_strays(self, staged: bytes) -> None:
        """Removes what killed processes have left for the same key."""
        same_key = os.path.basename(staged).removesuffix(self._token)
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(os.path.join(self._root.path, self._name)):
                if name.startswith(same_key):
                    self.remove(os.path.join(self._name, name))

    def tidy(self) -> None:
        """Removes the directory and all that is in it; a link in its place is left alone."""
        shutil.rmtree(os.path.join(self._root.path, self._name), ignore_errors=True)

    def _directory_of(self, staged: bytes, make: bool = False) -> tuple[bytes, Held]:
        """The file's name, and its directory, which ``make`` makes.

        A thread holds its own open: to find it takes as long as all else there is to do there.
        """
        path, _, name = staged.rpartition(b"/")
        mine = self._mine
        if path != mine.path:
            return name, held(self._root.opened(), path.split(b"/") if path else (), make)
        if not mine.held:
            mine.held = held(self._root.opened(), path.split(b"/"), make)
        return name, mine.held


def _move(staged: bytes, here: int, name: bytes, above: int) -> None:
    try:
        os.rename(staged, name, src_dir_fd=here, dst_dir_fd=above)
    except OSError as exc:
        if exc.errno != errno.EXDEV:
            raise
        _move_across(staged, here, name, above)


def _move_across(staged: bytes, here: int, name: bytes, above: int) -> None:
    """Renames a staged file of the directory ``here`` to another file system, which is mounted
    below the root.  Durable at the end, for the root's ``syncfs`` does not reach there.
    """
    beside = STAGING + staged
    fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=above)
    try:
        _clone(staged, here, beside, above)
        os.rename(beside, name, src_dir_fd=above, dst_dir_fd=above)
        sync_file_system(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside, dir_fd=above)
        raise
    finally:
        os.close(fd)
    os.unlink(staged, dir_fd=here)


def _clone(staged: bytes, here: int, beside: bytes, above: int) -> None:
    status = os.lstat(staged, dir_fd=here)
    meta = meta_of(status)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(staged, dir_fd=here), beside, dir_fd=above)
        set_link_meta(beside, meta, above)
        return
    reading = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    writing = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with (
        open(os.open(staged, reading, dir_fd=here), "rb") as source,
        open(os.open(beside, writing, 0o600, dir_fd=above), "wb") as copy,
    ):
        shutil.copyfileobj(source, copy, 1 << 20)
        copy.flush()
        set_meta(copy.fileno(), meta)
