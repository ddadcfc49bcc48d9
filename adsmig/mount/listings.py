"""Directories that are open: their names, as the kernel asks for them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import stat
import time
from collections.abc import Coroutine, Iterator
from typing import Any

from adsmig.links import may_be_link
from adsmig.model import Entry
from adsmig.mount import protocol as p
from adsmig.mount.nodes import MOST_LISTED, Directory, Nodes, Since
from adsmig.mount.tree import Listed, Tree, named

log = logging.getLogger(__name__)

_PAGE = 1000


class Listing:
    """A directory that is open, as far as it has been read."""

    def __init__(self, directory: Directory) -> None:
        self.directory, self.key = directory, directory.key
        self.rows: Iterator[tuple[bytes, Entry | None]] | None = None
        """What is still to come from the store."""
        self.names: list[Listed] = []
        self.first = 0
        """How many names came before these."""
        self.ours = {
            name for name, node in directory.children.items() if node.draft and not node.gone
        }
        """Names of files that may be here only: those that the store has not told of so far."""
        self.all: list[Listed] | None = []
        """All names, as long as they may become what is known of the directory."""
        self.since: Since | None = None
        """What has happened here since the store was first asked."""
        self.done = False

    def restart(self) -> None:
        """Begins again."""
        self.end()
        self.__init__(self.directory)  # type: ignore[misc]

    def end(self) -> None:
        """Nothing more of it will be asked for."""
        if self.since:
            self.since.end()


class Listings:
    """All that are open, by number.  Belongs to the event loop.

    Each is read to its end once, while others may make and remove names in it; what it told is what
    is known of the directory from then on, if that is little enough to be kept.
    """

    def __init__(self, nodes: Nodes, tree: Tree) -> None:
        self.nodes, self.tree = nodes, tree
        self._open: dict[int, Listing] = {}
        self._last = 0

    def open(self, directory: Directory) -> int:
        """The number of a new one."""
        self._last += 1
        self._open[self._last] = Listing(directory)
        return self._last

    def close(self, number: int) -> None:
        """Nobody reads it any more."""
        if listing := self._open.pop(number, None):
            listing.end()
            # Who was interrupted may still wait for the store, and is not told of changes now.
            listing.rows, listing.done = None, True

    def read(
        self, number: int, offset: int, size: int, plus: bool
    ) -> bytes | Coroutine[Any, Any, bytes]:
        """The kernel's records, in up to ``size`` bytes, of the names from the ``offset``-th on;
        none at the end.  ``plus``: with what stat(2) tells of those of which that is known.

        What is not here yet is waited for; OSError where the store fails.
        """
        listing = self._open[number]
        if offset == 0 or offset < listing.first:
            listing.restart()
        if listing.directory.is_listed and offset == 0:
            self._take_known(listing)
        # The kernel asks for more than the first names in this way if these were asked about.
        if plus and (offset or self.tree.statting):
            return self._read_known(listing, offset, size)
        if offset < listing.first + len(listing.names) or listing.done:
            return self._dirents(listing, offset, size, plus)
        return self._read_on(listing, offset, size, plus)

    async def _read_known(self, listing: Listing, offset: int, size: int) -> bytes:
        """As :meth:`_read_on`, with the metadata of all that is read."""
        directory = listing.directory
        await self._load(listing, offset)
        at = max(offset - listing.first, 0)
        count = size // 160 + 1
        rows = [(name, entry) for name, _, entry in listing.names[at : at + 2 * count]]
        wanted = self.tree.learn_all(directory, rows[:count])
        self.tree.learn_all(directory, rows[count:])
        if offset == 0:
            self.tree.walked(directory)
        if wanted:
            await asyncio.wait(wanted)
        return self._dirents(listing, offset, size, True)

    def _take_known(self, listing: Listing) -> None:
        directory = listing.directory
        assert directory.listed is not None
        listing.names = [(name, b"", entry) for name, entry in directory.listed.items()]
        listing.ours.difference_update(directory.listed)
        self._finish(listing)

    def _finish(self, listing: Listing) -> None:
        """Adds what is only here."""
        for name in sorted(listing.ours):
            node = listing.directory.children.get(name)
            if node and not node.gone:
                listing.names.append((name, node.name, node.entry or Entry(b"", 0, None, 0)))
        listing.done = True

    async def _read_on(self, listing: Listing, offset: int, size: int, plus: bool) -> bytes:
        await self._load(listing, offset)
        return self._dirents(listing, offset, size, plus)

    async def _load(self, listing: Listing, offset: int) -> None:
        """Has the names from ``offset`` on."""
        directory = listing.directory
        store = self.tree.store
        if directory.reading and offset == 0:
            with contextlib.suppress(OSError):  # then it is asked for again
                await asyncio.shield(directory.reading)
            if directory.is_listed:
                self._take_known(listing)
        while not listing.done and offset >= listing.first + len(listing.names):
            if listing.rows is None or listing.since is None:
                listing.since = Since(directory)
                listing.rows = store.storage.children(directory.key)
            rows, since, asked = listing.rows, listing.since, time.monotonic()
            try:
                page = await store.run(lambda rows=rows: list(itertools.islice(rows, _PAGE)))
            except BaseException:
                # What has failed once seems to be at its end from then on.
                if listing.rows is rows:
                    listing.restart()
                raise
            if listing.rows is not rows:
                continue  # somebody else has begun it again
            since.took += time.monotonic() - asked
            if directory.key != listing.key:  # it got another name meanwhile
                listing.restart()
                continue
            listing.first += len(listing.names)
            names = named(directory, page)
            listing.names = [one for one in names if self._there(directory, since, one)]
            if listing.ours:
                listing.ours.difference_update(name for name, _, _ in listing.names)
            if listing.all is not None:
                listing.all += listing.names
                if len(listing.all) > MOST_LISTED:
                    listing.all, directory.wide = None, True
            if len(page) < _PAGE:
                if listing.all is not None:
                    self.tree.install(directory, listing.all, since)
                self._finish(listing)
                listing.end()
        await self._types(listing)

    @staticmethod
    def _there(directory: Directory, since: Since, one: Listed) -> bool:
        """Whether it was not removed while it was listed."""
        name = one[0]
        return name not in since.removed or name in directory.children

    async def _types(self, listing: Listing) -> None:
        """Looks at what may be symbolic links."""
        directory = listing.directory
        for name, _, entry in listing.names:
            if entry and may_be_link(entry):
                try:
                    await self.tree.current(directory, name)
                except OSError as exc:
                    log.info("%r: %s", name, exc)

    def _dirents(self, listing: Listing, offset: int, size: int, plus: bool) -> bytes:
        directory, parts, left = listing.directory, list[bytes](), size
        children, defaults = directory.children, self.nodes.defaults
        until = directory.listed_until - time.monotonic()
        for at in range(max(offset - listing.first, 0), len(listing.names)):
            name, _, entry = listing.names[at]
            node = children.get(name)
            kind = node.kind if node else stat.S_IFREG if entry else stat.S_IFDIR
            ino = node.ino if node else 0xFFFFFFFF
            next_at = listing.first + at + 1
            if plus:
                known = None
                if node and node.is_told(defaults) and node.is_fresh:
                    known = node.attributes(defaults)
                part = p.direntplus(known, until, ino, next_at, kind, name)
            else:
                known = None
                part = p.dirent(ino, next_at, kind, name)
            left -= len(part)
            if left < 0:
                break
            if known and node:
                node.lookups += 1
            parts.append(part)
        return b"".join(parts)
