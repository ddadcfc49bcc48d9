"""A directory tree as a listing: byte order of whole keys, pruned by range, never all in memory."""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import NamedTuple

from adsmig.errors import AdsmigError, ListingError, NotFound
from adsmig.model import Entry, KeyRange
from adsmig.storage.base import Prune

log = logging.getLogger(__name__)

BIG_DIRECTORY = 10_000
"""Names; the sorted names of a directory beyond this are kept while a worker stays in it."""

_SETTLED_NS = 2_000_000_000
"""A directory changed less than this before it was read can change again within the same tick of
its mtime, so an equal mtime proves nothing."""


class _Directory(NamedTuple):
    """A directory as it was read: names in byte order of their keys, ``/`` ending directories."""

    path: bytes
    names: list[bytes]
    status: os.stat_result
    proven: bool
    """An unchanged mtime means unchanged names."""


class Tree:
    """The tree below ``root``, which itself may be a symbolic link.

    ``links`` says which of the links below it are entries, not followed; see Settings.links.
    ``check`` is called before and after a listing; it raises if ``root`` is no longer what it was.
    ``written`` says that this run writes there: what begins with ``hidden`` at its top is left out,
    and kept names are trusted for as long as the process lives.  The run itself is what changes the
    directory then, each range once; a name that is missing from stale names only means that an
    object is written again.
    """

    def __init__(
        self,
        root: bytes,
        written: bool,
        hidden: bytes,
        check: Callable[[], None],
        links: str = "follow",
    ) -> None:
        self.root, self._written, self._hidden = root, written, hidden
        self._check, self._links = check, links
        self._kept: _Directory | None = None

    def list(self, keys: KeyRange, prune: Prune | None = None) -> Iterator[Entry]:
        """See Storage.list.  A directory's own entry comes before its content.

        A directory that ``prune`` names is not even looked at.
        """
        try:
            top = self._read_directory(self.root)
        except FileNotFoundError as exc:
            raise NotFound(f"no such directory: {_shown(self.root)}") from exc
        except NotADirectoryError as exc:
            raise NotFound(f"not a directory: {_shown(self.root)}") from exc
        except OSError as exc:
            raise AdsmigError(f"cannot list {_shown(self.root)}: {exc.strerror}") from exc
        self._check()
        if self._written:
            shown = [name for name in top.names if not name.startswith(self._hidden)]
            top = top._replace(names=shown)
        levels = [(b"", top.status, iter(_select(top.names, b"", keys)))]
        while levels:
            prefix, _, names = levels[-1]
            for name in names:
                key = prefix + name
                if not name.endswith(b"/"):
                    if entry := self._file_entry(key):
                        yield entry
                    continue
                if prune and prune(key):
                    continue
                try:
                    directory = self._read_directory(os.path.join(self.root, key))
                except FileNotFoundError:
                    continue  # removed since its parent was read
                except OSError as exc:
                    # Inside the range: it could be listed when that was made.  Just before it: it
                    # may have been told of, but only if it could not be listed then either.
                    if key not in keys and key != keys.after:
                        raise ListingError(
                            f"cannot list {_shown(os.path.join(self.root, key))}: {exc.strerror}"
                        ) from exc
                    yield _trouble(key, f"the directory cannot be listed: {exc.strerror}")
                    continue
                if any(os.path.samestat(directory.status, above) for _, above, _ in levels):
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
                below = _select(directory.names, key, keys)
                levels.append((key, directory.status, iter(below)))
                break
            else:
                levels.pop()
        # In an unmounted tree all that was listed before is missing, which is no end of a listing.
        self._check()

    def _read_directory(self, path: bytes) -> _Directory:
        status = self._status(path)
        kept = self._kept
        if (
            kept
            and kept.path == path
            and (self._written or (kept.proven and kept.status.st_mtime_ns == status.st_mtime_ns))
        ):
            return kept
        proven = status.st_mtime_ns < time.time_ns() - _SETTLED_NS
        with os.scandir(path) as found:
            names = [item.name + b"/" if self._is_directory(item) else item.name for item in found]
        names.sort()
        directory = _Directory(path, names, status, proven)
        if len(names) > BIG_DIRECTORY:
            log.debug("read a directory of %d names: %s", len(names), _shown(path))
            self._kept = directory
        return directory

    def _status(self, path: bytes) -> os.stat_result:
        """Of a directory; NotADirectoryError if a link that is not followed took its place."""
        if self._links == "follow" or path == self.root:
            return os.stat(path)
        status = os.lstat(path.removesuffix(b"/"))
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return status

    def _is_directory(self, item: os.DirEntry[bytes]) -> bool:
        """A link that is not followed is none: it is listed, and sorts, under its bare name."""
        try:
            return item.is_dir(follow_symlinks=self._links == "follow")
        except OSError:
            return False

    def _file_entry(self, key: bytes) -> Entry | None:
        path = os.path.join(self.root, key)
        try:
            return self.entry(key, self.examine(path))
        except OSError as exc:
            try:
                os.lstat(path)
            except (FileNotFoundError, NotADirectoryError):
                return None  # removed since its directory was read
            except OSError:
                pass
            if exc.errno in (errno.ENOENT, errno.ELOOP):
                return _trouble(key, "a broken symbolic link")
            return _trouble(key, f"cannot be examined: {exc.strerror}")

    def examine(self, path: bytes) -> os.stat_result:
        """The status of what ``path`` leads to, or of the link there if that is not followed."""
        if self._links == "copy":
            return os.lstat(path)
        status = os.stat(path)
        if self._links == "record" and stat.S_ISDIR(status.st_mode):
            return os.lstat(path)
        return status

    def is_behind_link(self, key: bytes) -> bool:
        """Whether a listing does not show the key, as it does not follow a link above it."""
        if self._links == "follow":
            return False
        ends = (at for at, byte in enumerate(key[:-1]) if byte == ord("/"))
        return any(os.path.islink(os.path.join(self.root, key[:end])) for end in ends)

    def hides(self, key: bytes) -> bool:
        """See Storage.hides."""
        if self._links == "copy":
            return False  # what is below a link that is copied is not there
        ends = (at for at, byte in enumerate(key[:-1]) if byte == ord("/"))
        above = (os.path.join(self.root, key[:end]) for end in ends)
        record = self._links == "record"
        return any(os.path.islink(path) and (record or not os.path.isdir(path)) for path in above)

    def entry(self, key: bytes, status: os.stat_result) -> Entry:
        """The entry of something examined; raises OSError for a link that cannot be read."""
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(os.path.join(self.root, key))
            return Entry(key, len(target), status.st_mtime_ns, status.st_ctime_ns, link=target)
        if key.endswith(b"/"):
            return Entry(key, 0, status.st_mtime_ns, status.st_ctime_ns)
        if not stat.S_ISREG(status.st_mode):
            return _trouble(key, "not a regular file")
        return Entry(key, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _select(names: list[bytes], prefix: bytes, keys: KeyRange) -> list[bytes]:
    """Those of a directory's sorted ``names`` at or below which the range can hold a key.

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
    return names[low:high]


def _trouble(key: bytes, problem: str) -> Entry:
    return Entry(key, 0, None, 0, problem=problem)


def _shown(path: bytes) -> str:
    return path.decode(errors="backslashreplace")
