"""Directories as a source, here or at a server: what follows from their Tree alone."""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator

from adsmig.errors import AdsmigError, NotFound, ObjectError
from adsmig.model import Entry, KeyRange
from adsmig.storage.base import Prune
from adsmig.storage.descent import MISSING
from adsmig.storage.tree import Tree


class TreeSource(ABC):
    """A directory tree, which lies at ``path``; ``where`` is added to that in errors."""

    keeps_files = True

    def __init__(self, tree: Tree, path: bytes, where: str = "") -> None:
        self._tree, self._top, self._where = tree, path, where

    # Listing

    @property
    def names_ahead(self) -> int:
        """See Storage.names_ahead."""
        return self._tree.names_ahead

    def list(self, keys: KeyRange, prune: Prune | None = None) -> Iterator[Entry]:
        """See Storage.list.  A directory's own entry comes before its content."""
        return self._tree.list(keys, prune)

    def probe(self, after: bytes, guess: bool = False) -> bytes | None:
        """See Storage.probe."""
        entries = self._tree.list(KeyRange(after), guess=guess)
        return next((entry.key for entry in entries), None)

    def stat(self, key: bytes) -> Entry:
        """See Storage.stat."""
        path = self._path(key)
        missing = NotFound(f"no such file{self._where}: {os.fsdecode(path)}")
        try:
            if not key or self._tree.is_behind_link(key):
                raise missing
            status = self._tree.examine(path.removesuffix(b"/"))
            if stat.S_ISDIR(status.st_mode) != key.endswith(b"/"):
                raise missing
            return self._tree.entry(key, status)
        except OSError as exc:
            if exc.errno in MISSING:
                raise missing from exc
            raise self._unreadable(exc, "examined") from exc

    def hides(self, key: bytes) -> bool:
        """See Storage.hides."""
        return self._tree.hides(key)

    # Reading

    def part_size(self, entry: Entry, sure: bool = False) -> int | None:
        """None: there are no such parts."""
        return None

    def crc32(self, entry: Entry) -> str | None:
        """None: no hash is kept with a file."""
        return None

    # Inside

    @abstractmethod
    def problem(self, key: bytes) -> str:
        """See Storage.problem."""

    @abstractmethod
    def _unreadable(self, exc: OSError, verb: str = "read") -> AdsmigError:
        """Ours for an error, of one object or of all."""

    def _path(self, key: bytes) -> bytes:
        """The path of ``key``, which is certain to lie inside the root, but for links."""
        if problem := self.problem(key):
            raise ObjectError("key", problem)
        return os.path.join(self._top, key)
