"""SFTP servers as a source: listed like a file system, read with a check for change."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence

from adsmig.errors import AdsmigError, ObjectError, SourceChanged, TransientError
from adsmig.location import Location
from adsmig.model import Entry, Meta
from adsmig.storage.base import GONE, LINKED, STAGING, Body, Identity, Settings, Storage
from adsmig.storage.descent import MISSING
from adsmig.storage.localfile import DirectoryBody, kept_as, meta_of
from adsmig.storage.paths import problem_of
from adsmig.storage.sftpfile import Expected, SftpBody
from adsmig.storage.sftpfiles import SftpFiles
from adsmig.storage.sftplogin import drop, drop_released, release, shown, wire_to
from adsmig.storage.sftppacket import Status
from adsmig.storage.sftpwire import SftpWire
from adsmig.storage.tree import Tree
from adsmig.storage.treesource import TreeSource


class SftpSource(TreeSource):
    """A directory of a server.  Everything is relative to ``location.path``.

    ``destination``: it is listed and looked at as what a run writes to.  Staging directories, of
    whatever job, are not listed then.  Times are whole seconds.
    """

    is_local = False
    tick_ns = 1_000_000_000

    def __init__(self, location: Location, settings: Settings, destination: bool) -> None:
        self.location, self.destination = location, destination
        self._settings, self._root = settings, location.path
        # Only a source tells of the links that it does not follow.
        links = "follow" if destination and settings.links == "record" else settings.links
        self._copies_links = links == "copy"
        self._files = SftpFiles(self._wire)
        self._expected = Expected()
        tree = Tree(
            self._root, destination, STAGING, settings.staging, lambda: None, links,
            files=self._files,
        )  # fmt: skip
        super().__init__(tree, location.path, f" at {shown(location)}")

    def __repr__(self) -> str:
        return f"SftpStorage({self.location})"

    def _wire(self) -> SftpWire:
        return wire_to(self.location, self._settings)

    # Listing

    def missing(self, key: bytes, size: int, src: Storage, its_key: bytes) -> str:
        """See Storage.missing."""
        path = self._path(key)
        ends = [at for at, byte in enumerate(key) if byte == ord("/")]
        paths = [*(os.path.join(self._root, key[:end]) for end in ends), path]
        try:
            *above, status = self._files.retried(lambda wire: wire.lstats(paths), "looking at it")
        except OSError as exc:
            raise ObjectError("unreadable", f"cannot be examined: {exc.strerror}") from exc
        if any(isinstance(one, Status) and stat.S_ISLNK(one.st_mode) for one in above):
            return LINKED
        if isinstance(status, OSError):
            if status.errno in MISSING:
                return GONE
            raise ObjectError("unreadable", f"cannot be examined: {status.strerror}") from status
        return kept_as(status, size, self._copies_links)

    # Reading

    def read(self, entry: Entry, start: int = 0, size: int | None = None) -> Body:
        """See Storage.read."""
        if entry.link is not None:
            raise ObjectError("link", "a symbolic link has no content of its own")
        if entry.key.endswith(b"/"):
            return DirectoryBody(self.meta(entry))
        wire = self._wire()
        size = entry.size - start if size is None else size
        if size == entry.size and (body := self._expected.take(wire, entry)):
            return body.look()
        try:
            return self._opened_body(wire, entry, start, size)
        except ObjectError:
            # Perhaps it holds no more files open than those that are about to be read.
            if not self._expected.drop():
                raise
            return self._opened_body(wire, entry, start, size)

    def _opened_body(self, wire: SftpWire, entry: Entry, start: int, size: int) -> SftpBody:
        path = self._path(entry.key)
        return SftpBody(wire, path, entry, start, size, self._copies_links).ask().look()

    def expect(self, entries: Sequence[Entry]) -> None:
        """See Expecting."""
        files = [(self._path(one.key), one) for one in entries if not self.problem(one.key)]
        with contextlib.suppress(TransientError):
            self._expected.ask(self._wire(), files, self._copies_links)

    def meta(self, entry: Entry) -> Meta:
        """See Storage.meta.  A directory is still the same whatever came and went in it."""
        path = self._path(entry.key).removesuffix(b"/")
        try:
            status = self._tree.examine(path)
            if entry.link is not None:
                same = stat.S_ISLNK(status.st_mode) and self._files.readlink(path) == entry.link
            elif entry.key.endswith(b"/"):
                same = stat.S_ISDIR(status.st_mode)
            else:
                same = stat.S_ISREG(status.st_mode)
                same = same and (status.st_size, status.st_mtime_ns) == (entry.size, entry.mtime_ns)
        except OSError as exc:
            raise self._unreadable(exc, "examined") from exc
        if not same:
            raise SourceChanged("it changed, or something else took its place, since it was listed")
        return meta_of(status)

    # The place

    def identity(self) -> Identity | None:
        """None: the protocol tells no inodes."""
        return None

    def release(self) -> None:
        """See Storage.release.  A login takes some 60 ms of a processor's time over there."""
        self._expected.drop()
        release(self.location)

    def close(self) -> None:
        """See Storage.close."""
        self._expected.drop()
        drop(self.location)
        drop_released(self.location)

    # Inside

    def _unreadable(self, exc: OSError, verb: str = "read") -> AdsmigError:
        if exc.errno in MISSING:
            return SourceChanged("removed since it was listed")
        return ObjectError("unreadable", f"cannot be {verb}: {exc.strerror}")

    def problem(self, key: bytes) -> str:
        """See Storage.problem."""
        return problem_of(key, self._root, self.destination)
