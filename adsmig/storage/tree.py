"""A directory tree as a listing: byte order of whole keys, pruned by range, never all in memory."""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from operator import length_hint
from typing import NamedTuple

from adsmig.errors import AdsmigError, ListingError, NotFound, UsageError
from adsmig.model import UNLISTED, Entry, KeyRange
from adsmig.storage.base import Prune
from adsmig.storage.files import Files, LocalFiles, Status

log = logging.getLogger(__name__)

BIG_DIRECTORY = 10_000
"""Names; the sorted names of a directory beyond this are kept while a worker stays in it."""


class _Directory(NamedTuple):
    """A directory as it was read: names in byte order of their keys, ``/`` ending directories."""

    path: bytes
    names: list[bytes]
    statuses: Sequence[Status | None] | None
    """Of each name, links themselves; None where they have to be asked for one by one."""
    status: Status
    proven: bool
    """An unchanged mtime means unchanged names."""


class _Level:
    """A directory that is being listed."""

    __slots__ = "directory", "entered", "places", "prefix"

    def __init__(self, prefix: bytes, directory: _Directory, keys: KeyRange) -> None:
        self.prefix, self.directory = prefix, directory
        self.places = iter(_select(directory.names, prefix, keys))
        """Which of its names are to come."""
        self.entered = 0
        """How many directories in it were."""


class Tree:
    """The tree below ``root``, which itself may be a symbolic link.

    ``links`` says which of the links below it are entries, not followed; see Settings.links.
    ``check`` is called before and after a listing, and before it tells of trouble; it raises if
    ``root`` is no longer what it was.
    ``own`` are keys that are left out.  ``staging`` is what the destination of this run has at its
    top, and ``other`` the identity of the directory at the other side: a listing that comes upon
    one of them raises UsageError.
    ``written`` says that this run writes there: what begins with ``hidden`` at its top is left out,
    and kept names are trusted for as long as the process lives.  The run itself is what changes the
    directory then, each range once; a name that is missing from stale names only means that an
    object is written again.  ``files`` are this machine's, or another's.
    """

    def __init__(
        self,
        root: bytes,
        written: bool,
        hidden: bytes,
        staging: str,
        check: Callable[[], None],
        links: str = "follow",
        own: Collection[bytes] = (),
        other: tuple[int, int] | None = None,
        files: Files | None = None,
    ) -> None:
        self._files: Files = files or LocalFiles()
        self.root, self._written, self._hidden = root, written, hidden
        self._base = os.path.join(root, b"")
        self._staging, self._own, self._other = os.fsencode(staging) + b"/", own, other
        self._check, self._links = check, links
        self._kept: _Directory | None = None
        self._big: _Level | None = None
        """The large one that was entered last."""

    @property
    def names_ahead(self) -> int:
        """See Storage.names_ahead.  Where there are directories among them, nobody knows how much
        is in those.
        """
        big = self._big
        return length_hint(big.places) if big and not big.entered else 0

    def list(
        self, keys: KeyRange, prune: Prune | None = None, guess: bool = False
    ) -> Iterator[Entry]:
        """See Storage.list.  A directory's own entry comes before its content.

        A directory that ``prune`` names is not even looked at.  ``guess``: what is kept of a large
        one will do, whether it is still so or not.
        """
        try:
            top = self._read_directory(self.root, guess)
        except FileNotFoundError as exc:
            raise NotFound(f"no such directory: {_shown(self.root)}") from exc
        except NotADirectoryError as exc:
            raise NotFound(f"not a directory: {_shown(self.root)}") from exc
        except OSError as exc:
            raise AdsmigError(f"cannot list {_shown(self.root)}: {exc.strerror}") from exc
        self._check()
        levels = [self._entered(_Level(b"", top, keys))]
        while levels:
            level = levels[-1]
            prefix, above = level.prefix, level.directory
            for place in level.places:
                name = above.names[place]
                key = prefix + name
                status = above.statuses[place] if above.statuses else None
                if self._written and not prefix and name.startswith(self._hidden):
                    continue
                if not name.endswith(b"/"):
                    if self._own and key in self._own:
                        continue
                    if entry := self._file_entry(key, status):
                        yield entry
                    continue
                if name == self._staging and not self._written:
                    raise self._within(prefix)
                if prune and prune(key):
                    continue
                self._expect(level, place, keys, prune)
                try:
                    directory = self._read_directory(os.path.join(self.root, key), guess)
                    real = status is not None and stat.S_ISDIR(status.st_mode)
                    around = not real and self._is_around(directory, levels)
                except FileNotFoundError:
                    continue  # removed since its parent was read
                except OSError as exc:
                    # Inside the range: it could be listed when that was made.  Just before it: it
                    # may have been told of, but only if it could not be listed then either.
                    if key not in keys and key != keys.after:
                        raise ListingError(
                            f"cannot list {_shown(os.path.join(self.root, key))}: {exc.strerror}"
                        ) from exc
                    self._check()
                    yield _trouble(key, f"{UNLISTED}: {exc.strerror}")
                    continue
                if self._other and self._files.identity(directory.status) == self._other:
                    ways = (*self._above(key), os.path.join(self.root, key[:-1]))
                    harmless = self._written and any(map(self._is_link, ways))
                    if not harmless:  # nothing is removed through a link at the destination
                        raise self._within(key)
                if around:
                    if key in keys:
                        yield _trouble(key, "a symbolic link to a directory above it")
                    continue
                if key in keys:
                    yield Entry(
                        key,
                        0,
                        directory.status.st_mtime_ns,
                        directory.status.st_ctime_ns,
                        implied=bool(directory.names),
                    )
                levels.append(self._entered(_Level(key, directory, keys)))
                break
            else:
                levels.pop()
        # In an unmounted tree all that was listed before is missing, which is no end of a listing.
        self._check()

    def _entered(self, level: _Level) -> _Level:
        if len(level.directory.names) > BIG_DIRECTORY:
            self._big = level
        return level

    def _within(self, key: bytes) -> UsageError:
        inner, outer = "destination", "source"
        if self._written:
            inner, outer = outer, inner
        return UsageError(
            f"the {inner} lies within the {outer}, which has it as"
            f" {_shown(os.path.join(self.root, key))}: choose separate places, or leave that out"
            " with --exclude-dir"
        )

    def _expect(self, level: _Level, place: int, keys: KeyRange, prune: Prune | None) -> None:
        """Has those be read at once that come after one another, from the second of them on: who
        wants a single key has no use for others.
        """
        most = self._files.ahead
        if most and level.entered % most == 1:
            names = level.directory.names[place : place + 4 * most]
            found = [level.prefix + name for name in names if name.endswith(b"/")]
            wanted = [
                os.path.join(self.root, key)
                for key in found[:most]
                if (keys.upto is None or key <= keys.upto) and not (prune and prune(key))
            ]
            if len(wanted) > 1:
                self._files.expect(wanted, self._links == "follow")
        level.entered += 1

    def _read_directory(self, path: bytes, guess: bool) -> _Directory:
        if read := self._files.taken(path):
            status, (names, statuses) = read
            return _Directory(path, names, statuses, status, proven=False)
        status = self._status(path)
        kept = self._kept
        if kept and kept.path == path:
            same = kept.proven and kept.status.st_mtime_ns == status.st_mtime_ns
            if guess or self._written or same:
                return kept
        proven = status.st_mtime_ns < time.time_ns() - self._files.settled_ns
        names, statuses = self._files.scan(path, self._links == "follow")
        directory = _Directory(path, names, statuses, status, proven)
        if len(names) > BIG_DIRECTORY:
            log.debug("read a directory of %d names: %s", len(names), _shown(path))
            self._kept = directory
        return directory

    def _status(self, path: bytes) -> Status:
        """Of a directory; NotADirectoryError if a link that is not followed took its place."""
        if self._links == "follow" or path == self.root:
            return self._files.stat(path)
        status = self._files.lstat(path.removesuffix(b"/"))
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return status

    def _is_around(self, directory: _Directory, levels: Sequence[_Level]) -> bool:
        """Whether a directory is one of those that lead to it."""
        path, status = directory.path, directory.status
        return any(
            self._files.is_same(path, status, level.directory.path, level.directory.status)
            for level in levels
        )

    def _file_entry(self, key: bytes, status: Status | None) -> Entry | None:
        path = self._base + key
        try:
            if status is None or (stat.S_ISLNK(status.st_mode) and self._links != "copy"):
                status = self.examine(path)
            if stat.S_ISREG(status.st_mode):
                return Entry(key, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            return self.entry(key, status)
        except OSError as exc:
            try:
                self._files.lstat(path)
            except (FileNotFoundError, NotADirectoryError):
                return None  # removed since its directory was read
            except OSError:
                pass
            if exc.errno in (errno.ENOENT, errno.ELOOP):
                return _trouble(key, "a broken symbolic link")
            self._check()
            return _trouble(key, f"cannot be examined: {exc.strerror}")

    def examine(self, path: bytes) -> Status:
        """The status of what ``path`` leads to, or of the link there if that is not followed."""
        if self._links == "copy":
            return self._files.lstat(path)
        status = self._files.stat(path)
        if self._links == "record" and stat.S_ISDIR(status.st_mode):
            return self._files.lstat(path)
        return status

    def is_behind_link(self, key: bytes) -> bool:
        """Whether a listing does not show the key, as it does not follow a link above it."""
        if self._links == "follow":
            return False
        return any(map(self._is_link, self._above(key)))

    def _above(self, key: bytes) -> Iterator[bytes]:
        """The paths of the directories that lead to a key."""
        ends = (at for at, byte in enumerate(key[:-1]) if byte == ord("/"))
        return (os.path.join(self.root, key[:end]) for end in ends)

    def hides(self, key: bytes) -> bool:
        """See Storage.hides."""
        if self._links == "copy":
            return False  # what is below a link that is copied is not there
        record = self._links == "record"
        return any(
            self._is_link(path) and (record or not self._leads_in(path))
            for path in self._above(key)
        )

    def _is_link(self, path: bytes) -> bool:
        try:
            return stat.S_ISLNK(self._files.lstat(path).st_mode)
        except OSError:
            return False

    def _leads_in(self, path: bytes) -> bool:
        try:
            return stat.S_ISDIR(self._files.stat(path).st_mode)
        except OSError:
            return False

    def entry(self, key: bytes, status: Status) -> Entry:
        """The entry of something examined; raises OSError for a link that cannot be read."""
        if stat.S_ISLNK(status.st_mode):
            target = self._files.readlink(os.path.join(self.root, key))
            return Entry(key, len(target), status.st_mtime_ns, status.st_ctime_ns, link=target)
        if key.endswith(b"/"):
            return Entry(key, 0, status.st_mtime_ns, status.st_ctime_ns)
        if not stat.S_ISREG(status.st_mode):
            return _trouble(key, "not a regular file")
        return Entry(key, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _select(names: list[bytes], prefix: bytes, keys: KeyRange) -> range:
    """Which of a directory's sorted ``names`` the range can hold a key at or below.

    A directory is among them if only its content is in the range.
    """
    low, high = 0, len(names)
    if keys.after.startswith(prefix):
        rest = keys.after[len(prefix) :]
        low = (bisect_left if keys.closed else bisect_right)(names, rest)
        # A directory sorts before its content: the one that the range begins inside.
        if low and names[low - 1].endswith(b"/") and rest.startswith(names[low - 1]):
            low -= 1
    if keys.upto is not None:
        if keys.upto.startswith(prefix):
            high = bisect_right(names, keys.upto[len(prefix) :])
        elif keys.upto < prefix:
            high = 0
    return range(low, high)


def _trouble(key: bytes, problem: str) -> Entry:
    return Entry(key, 0, None, 0, problem=problem)


def _shown(path: bytes) -> str:
    return path.decode(errors="backslashreplace")
