"""Names where ``A`` and ``a`` are one, as on FAT, exFAT, NTFS and SMB: of two objects whose keys
differ in nothing else, the second must not take the place of the first.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator, Sequence

from adsmig.errors import ObjectError
from adsmig.storage.descent import MISSING, held
from adsmig.storage.root import Root

LOCK = b"names"
"""A file that is locked by who puts something in its place."""
MOST_SEEN = 100_000
"""Directories that are known to be there as they are spelled."""


def folds(directory: int) -> bool:
    """Whether that is so in a directory that may be written to; OSError if it may not."""
    name = b"adsmig-" + os.urandom(6).hex().encode()
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, dir_fd=directory))
    try:
        os.lstat(name.upper(), dir_fd=directory)
        return True
    except FileNotFoundError:
        return False
    finally:
        os.unlink(name, dir_fd=directory)


class Folding:
    """The tree below ``root``, where it is so.  ``directory``, at its top, holds the lock of those
    who write there now.
    """

    def __init__(self, root: Root, directory: bytes) -> None:
        self._root, self._directory = root, directory
        self._seen = set[tuple[bytes, ...]]()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def claimed(self, names: Sequence[bytes], directory: bool) -> Iterator[None]:
        """While a file, or a directory, is put in its place, to which ``names`` lead.  Nobody else
        does that meanwhile.

        Raises ObjectError if one of them is there in another spelling, and OSError.
        """
        # Not kept open: over FUSE, the directory could not be removed at the end.
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        above = held(self._root.opened(), (self._directory,), make=True)
        with self._lock, open(os.open(LOCK, flags, 0o600, dir_fd=above.fd), "wb") as file:
            with contextlib.suppress(OSError):  # not every server has locks
                fcntl.flock(file, fcntl.LOCK_EX)
            for depth in range(1, len(names) + 1):
                if not self._is_spelled_so(tuple(names[:depth])):
                    break  # nor is anything below it there
            yield
            if len(self._seen) >= MOST_SEEN:
                self._seen.clear()
            depths = len(names) + directory
            self._seen.update(tuple(names[:depth]) for depth in range(1, depths))

    def _is_spelled_so(self, names: tuple[bytes, ...]) -> bool:
        """Whether it is there, by the last of ``names`` to the letter."""
        if names in self._seen:
            return True
        *above, name = names
        path = os.path.join(self._root.path, *above)
        try:
            os.lstat(os.path.join(path, name))
            spelled = os.listdir(path)
        except OSError as exc:
            if exc.errno not in MISSING:
                raise
            return False
        if name not in spelled:
            alike = (one for one in map(os.fsdecode, spelled) if _folded(one) == _folded(name))
            what = next(alike, "another name")
            raise ObjectError("key", f"{what!r} is there, which is the same to this file system")
        return True


def _folded(name: str | bytes) -> str:
    return os.fsdecode(name).casefold()
