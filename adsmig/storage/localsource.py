"""File systems as a source: listing in byte order, reading with a check for change."""

from __future__ import annotations

import errno
import os
import stat

from adsmig.errors import AdsmigError, ObjectError, SourceChanged
from adsmig.location import Location
from adsmig.model import Entry, Meta
from adsmig.storage.base import (
    GONE,
    ITSELF,
    LINKED,
    STAGING,
    Body,
    Identity,
    Settings,
    Storage,
)
from adsmig.storage.descent import MISSING, BehindLink, Held, held
from adsmig.storage.localfile import (
    AWAY,
    DirectoryBody,
    LocalBody,
    check_same,
    kept_as,
    meta_of,
)
from adsmig.storage.paths import below, names_of, problem_of
from adsmig.storage.root import Root
from adsmig.storage.tree import Tree
from adsmig.storage.treesource import TreeSource

OWN = "this is a file of this very job: its manifest, or its log"


class LocalSource(TreeSource):
    """A directory tree.  Everything is relative to ``location.path``.

    ``destination``: it is listed and looked at as what a run writes to.  Staging directories, of
    whatever job, are not listed then.
    """

    is_local = True

    def __init__(self, location: Location, settings: Settings, destination: bool) -> None:
        self.location, self.destination = location, destination
        self._root = Root(location, settings.identities[destination])
        self.tick_ns = settings.ticks[destination] or self._root.tick()
        # Only a source tells of the links that it does not follow.
        links = "follow" if destination and settings.links == "record" else settings.links
        self._copies_links = links == "copy"
        self._own = below(location.path, settings.own)
        other = settings.identities[not destination] if all(settings.identities) else None
        tree = Tree(
            location.path, destination, STAGING, settings.staging, self._root.check, links,
            self._own, other[:2] if other else None,
        )  # fmt: skip
        super().__init__(tree, location.path)

    def __repr__(self) -> str:
        return f"LocalStorage({self.location})"

    # Listing

    def missing(self, key: bytes, size: int, src: Storage, its_key: bytes) -> str:
        """See Storage.missing.  A directory may be mounted in two places."""
        self._path(key)
        try:
            above = self._directory_of(key)
            status = os.lstat(names_of(key)[-1], dir_fd=above.fd)
            if isinstance(src, LocalSource):
                path = src._path(its_key)
                same = os.path.samestat(status, os.lstat(path))
                if same and not (status.st_nlink > 1 and self._is_other_name(key, above, path)):
                    return ITSELF
        except BehindLink:
            return LINKED
        except OSError as exc:
            if exc.errno in MISSING:
                return GONE
            raise self._unreadable(exc, "examined") from exc
        return kept_as(status, size, self._copies_links)

    # Reading

    def read(self, entry: Entry, start: int = 0, size: int | None = None) -> Body:
        """See Storage.read."""
        if entry.link is not None:
            raise ObjectError("link", "a symbolic link has no content of its own")
        if entry.key.endswith(b"/"):
            return DirectoryBody(self.meta(entry))
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        if self._copies_links:
            flags |= os.O_NOFOLLOW
        try:
            fd = os.open(self._path(entry.key), flags)
        except OSError as exc:
            if exc.errno == errno.ELOOP and self._copies_links:
                raise SourceChanged("a link has taken its place since it was listed") from exc
            raise self._unreadable(exc) from exc
        size = entry.size - start if size is None else size
        return LocalBody(fd, entry, start, size, self._unreadable)

    def meta(self, entry: Entry) -> Meta:
        """See Storage.meta.  A directory is still the same whatever came and went in it."""
        path = self._path(entry.key).removesuffix(b"/")
        try:
            status = self._tree.examine(path)
            if entry.link is not None:
                same = stat.S_ISLNK(status.st_mode) and os.readlink(path) == entry.link
            elif entry.key.endswith(b"/"):
                same = stat.S_ISDIR(status.st_mode)
            else:
                same = not stat.S_ISLNK(status.st_mode)
                if same:
                    check_same(entry, status)
        except OSError as exc:
            raise self._unreadable(exc, "examined") from exc
        if not same:
            raise SourceChanged("something else has taken its place since it was listed")
        return meta_of(status)

    # The place

    def identity(self) -> Identity | None:
        """The root's device and inode."""
        return self._root.identity()

    def release(self) -> None:
        """Nothing: there are no connections."""

    def close(self) -> None:
        """Nothing is kept for a thread."""

    # Inside

    def problem(self, key: bytes) -> str:
        """See Storage.problem."""
        if self.destination and key in self._own:
            return OWN
        return problem_of(key, self._root.path, self.destination)

    def _is_other_name(self, key: bytes, above: Held, path: bytes) -> bool:
        """Whether a file of several hard links has another here, as ``key`` in ``above``, than the
        one that is ``path``.  That is as good as a copy.
        """
        there, name = os.path.split(path)
        same = os.path.samestat(os.fstat(above.fd), os.stat(there))
        return not same or name != names_of(key)[-1]

    def _unreadable(self, exc: OSError, verb: str = "read") -> AdsmigError:
        """Ours for an error: of the object, or of all once the place is no longer what it was."""
        self._root.check()
        if exc.errno in MISSING:
            return SourceChanged("removed since it was listed")
        if exc.errno in AWAY:
            return AdsmigError(f"reading {self.location}: {exc.strerror}")
        return ObjectError("unreadable", f"cannot be {verb}: {exc.strerror}")

    def _directory_of(self, key: bytes, make: bool = False) -> Held:
        """The directory of ``key``, which no link led to; ``make`` makes it."""
        return held(self._root.opened(), names_of(key)[:-1], make)
