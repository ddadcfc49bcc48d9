"""The calls that a directory tree is read with, whatever keeps it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Status(Protocol):
    """What there is to know of a file, as ``os.stat_result`` has it."""

    @property
    def st_mode(self) -> int: ...

    @property
    def st_size(self) -> int: ...

    @property
    def st_mtime_ns(self) -> int: ...

    @property
    def st_ctime_ns(self) -> int: ...

    @property
    def st_uid(self) -> int | None: ...

    @property
    def st_gid(self) -> int | None: ...


class Scan(NamedTuple):
    """A directory that was read."""

    names: list[bytes]
    """In byte order of their keys: ``/`` ends those of directories."""
    statuses: Sequence[Status | None] | None = None
    """Of each, links themselves; None where they have to be asked for one by one."""


class Files(Protocol):
    """Errors are OSError."""

    settled_ns: int
    """A directory changed less than this before it was read can change again within the same tick
    of its mtime, so an equal mtime proves nothing."""
    ahead: int
    """How many directories are better read at once; 0 where there is no round trip to save."""

    def stat(self, path: bytes) -> Status:
        """Of what a path leads to."""
        ...

    def lstat(self, path: bytes) -> Status:
        """Of what is there, perhaps a link."""
        ...

    def readlink(self, path: bytes) -> bytes:
        """Where a link leads."""
        ...

    def scan(self, path: bytes, follow: bool) -> Scan:
        """All that is in a directory; ``follow``: links to directories are directories."""
        ...

    def is_same(self, path: bytes, status: Status, other: bytes, there: Status) -> bool:
        """Whether two paths lead to the same directory."""
        ...

    def identity(self, status: Status) -> tuple[int, int] | None:
        """Device and inode; None where they are not told."""
        ...

    def expect(self, paths: Sequence[bytes], follow: bool) -> None:
        """These directories, no more than ``ahead``, are about to be read by who lists this tree:
        those that are small may be by now.  What is wrong with one is told by reading it.
        """
        ...

    def taken(self, path: bytes) -> tuple[Status, Scan] | None:
        """A directory that was read ahead, a moment ago, and what there was in it; once.

        Its status is that of what the path led to, or, without ``follow``, of what was there.
        """
        ...


class LocalFiles:
    """This machine's.  What each call does is what ``os`` says at the time."""

    settled_ns = 2_000_000_000
    ahead = 0

    def stat(self, path: bytes) -> os.stat_result:
        """See Files.stat."""
        return os.stat(path)

    def lstat(self, path: bytes) -> os.stat_result:
        """See Files.lstat."""
        return os.lstat(path)

    def readlink(self, path: bytes) -> bytes:
        """See Files.readlink."""
        return os.readlink(path)

    def scan(self, path: bytes, follow: bool) -> Scan:
        """See Files.scan."""

        def is_directory(item: os.DirEntry[bytes]) -> bool:
            try:
                return item.is_dir(follow_symlinks=follow)
            except OSError:
                return False

        with os.scandir(path) as found:
            names = [item.name + b"/" if is_directory(item) else item.name for item in found]
        names.sort()
        return Scan(names)

    def is_same(self, path: bytes, status: Status, other: bytes, there: Status) -> bool:
        """See Files.is_same."""
        assert isinstance(status, os.stat_result)
        assert isinstance(there, os.stat_result)
        return os.path.samestat(status, there)

    def identity(self, status: Status) -> tuple[int, int]:
        """See Files.identity."""
        assert isinstance(status, os.stat_result)
        return status.st_dev, status.st_ino

    def expect(self, paths: Sequence[bytes], follow: bool) -> None:
        """See Files.expect."""

    def taken(self, path: bytes) -> None:
        """See Files.taken."""
