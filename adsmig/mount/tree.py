"""Finds files by their names, and keeps what is known of them in step with the store."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import logging
import stat
import time
from collections.abc import Iterator
from dataclasses import replace

from adsmig.errors import NotFound
from adsmig.links import may_be_link, target_of
from adsmig.model import Entry, Meta
from adsmig.mount.names import CONTENT, LONGEST, part_of, spelled
from adsmig.mount.nodes import FRESH_S, MOST_LISTED, Directory, Node, Nodes, Since
from adsmig.mount.store import Found, Store

log = logging.getLogger(__name__)

FEW = 2000
"""Names of a directory that is listed to find one of them."""
_LEAD = 192
"""Files whose metadata is asked for at once where one after the other is wanted."""
_CHUNK = 8
"""Of these, one after the other by one thread."""
_STATTING_S = 3.0
_COMING = 2
"""Directories that are read before who walks through a tree has come to them."""

Listed = tuple[bytes, bytes, "Entry | None"]
"""What is in a directory: its name, the part of the key, and its entry; None for a directory."""


class Tree:
    """The nodes, and the store behind them.  Belongs to the event loop."""

    def __init__(self, nodes: Nodes, store: Store) -> None:
        self.nodes, self.store = nodes, store
        self.statting_until = 0.0
        self._guests: list[tuple[float, list[Node]]] = []
        self._listings = set[Directory]()
        """Those of which all names are known."""
        self._coming: list[bytes] = []
        """The keys of directories that may be read next, by who walks through the tree."""
        self._work = set[asyncio.Task[None]]()

    # Names

    def known(self, directory: Directory, name: bytes) -> Node | None:
        """The file of that name.  Raises FileNotFoundError if there is none; None if the store has
        to be asked.
        """
        node = directory.children.get(name)
        if node and node.is_fresh:
            return node
        if not directory.is_listed:
            return None
        assert directory.listed is not None
        if name not in directory.listed:
            if node:
                self.nodes.replaced(node)
            raise _none(name)
        entry = directory.listed[name]
        if entry and may_be_link(entry) and not (node and node.known and _same(node, entry)):
            return None
        part = self._part(directory, name, entry)
        return self.place(directory, name, part, entry, directory.listed_until)

    async def find(self, directory: Directory, name: bytes) -> Node:
        """The file of that name; FileNotFoundError if there is none."""
        if len(name) > LONGEST:
            raise OSError(errno.ENAMETOOLONG, "the name is too long")
        part = part_of(name)
        most = MOST_LISTED if part is None else FEW  # only a listing can tell
        if not directory.is_listed and (not directory.wide or part is None):
            await self.enumerate(directory, most)
        if directory.is_listed:
            node = self.known(directory, name)
            if node:
                return node
            assert directory.listed is not None
            entry = directory.listed[name]
            assert entry
            return await self._look(directory, name, self._part(directory, name, entry))
        if part is None:
            raise _none(name)
        return await self._look(directory, name, part)

    async def current(self, directory: Directory, name: bytes) -> Node:
        """As :meth:`find`, without asking where what is known is fresh."""
        return self.known(directory, name) or await self.find(directory, name)

    async def _look(self, directory: Directory, name: bytes, part: bytes) -> Node:
        """Asks for one name."""
        key = directory.key + part
        until = time.monotonic() + FRESH_S
        found = None
        with contextlib.suppress(FileNotFoundError):
            found = await self.store.run(self.store.look, key)
        if directory.key + part != key:  # the directory got another name meanwhile
            return await self._look(directory, name, part)
        if found is None:
            if not await self.store.run(self.store.is_directory, key + b"/"):
                node = directory.children.get(name)
                if node and not node.is_local:
                    self.nodes.replaced(node)
                if node and node.is_local and not node.gone:
                    return node
                raise _none(name)
            return self.place(directory, name, part, None, until)
        node = directory.children.get(name)
        if node and (node.is_local or node.fresh_until > until):
            return node  # it may have been stored since the store was asked
        target = target_of(found.meta) if may_be_link(found.entry) else None
        kind = stat.S_IFREG if target is None else stat.S_IFLNK
        node = self.place(directory, name, part, found.entry, until, kind)
        node.target = target or b""
        node.learn(found.meta)
        return node

    def place(
        self, directory: Directory, name: bytes, part: bytes, entry: Entry | None, until: float,
        kind: int = stat.S_IFREG,
    ) -> Node:  # fmt: skip
        """The node for what the store has under a name: the one that there is, if it is still that
        version; else a new one, and the kernel lets go of what it has of the other.
        """
        kind = kind if entry else stat.S_IFDIR
        node = directory.children.get(name)
        if node:
            if node.is_local:
                return node
            if node.is_directory if entry is None else _same(node, entry):
                node.fresh_until = max(until, node.fresh_until)
                if entry and node.entry and entry.stored_ns and entry != node.entry:
                    times = {entry.stored_ns // 10**9, node.entry.stored_ns // 10**9}
                    if node.entry.stored_ns and len(times) > 1:
                        node.known = False  # its metadata may be another
                    node.entry = entry
                return node
            self.nodes.replaced(node)
        node = self.nodes.make(directory, name, part, kind)
        node.entry, node.fresh_until = entry, until
        return node

    @staticmethod
    def _part(directory: Directory, name: bytes, entry: Entry | None) -> bytes:
        if entry:
            return entry.key.rpartition(b"/")[2]
        part = directory.odd.get(name) or part_of(name)
        return name if part is None else part

    # Listings

    async def enumerate(self, directory: Directory, most: int) -> None:
        """Has all names of a directory listed, if they are no more than ``most``; else it is
        ``wide`` from now on.
        """
        while directory.reading:
            await asyncio.shield(directory.reading)
            if directory.is_listed or (directory.wide and most <= FEW):
                return
        directory.reading = asyncio.ensure_future(self._list(directory, most))
        try:
            await asyncio.shield(directory.reading)
        finally:
            if directory.reading and directory.reading.done():
                directory.reading = None

    async def _list(self, directory: Directory, most: int) -> None:
        since, key = Since(directory), directory.key
        try:
            children = self.store.storage.children(key)
            rows = await self.store.run(lambda: list(itertools.islice(children, most + 1)))
        finally:
            directory.reading = None
            since.end()
        if directory.key != key:  # it got another name meanwhile
            return await self._list(directory, most)
        if len(rows) > most:
            directory.wide = True
            return
        since.took = time.monotonic() - since.began
        self.install(directory, list(named(directory, rows)), since)

    def install(self, directory: Directory, listed: list[Listed], since: Since) -> None:
        """Takes in a whole listing, and what has happened here since it was begun."""
        names = {name: entry for name, _, entry in listed}
        directory.odd = {name: part for name, part, _ in listed if part_of(name) != part}
        for name in since.removed:
            names.pop(name, None)
        names |= since.made
        directory.listed, directory.order = names, None
        self._listings.add(directory)
        directory.stats = directory.reads = 0
        directory.wide = False
        directory.listed_until = since.began + max(FRESH_S, 10 * since.took)

    # Metadata

    async def learn(self, node: Node) -> None:
        """Asks for what is kept beside the content; ESTALE if there is another version by now."""
        parent = node.parent
        until = time.monotonic() + FRESH_S
        if isinstance(node, Directory):
            one = None
            if node.marked is not False:
                with contextlib.suppress(FileNotFoundError):
                    one = await self.store.run(self.store.look, node.key)
            self._learn_directory(node, one)
            node.fresh_until = until
            return
        key = node.key
        try:
            found = await self.store.run(self.store.look, key)
        except FileNotFoundError:
            if node.key != key:  # it got another name meanwhile
                return await self.learn(node)
            if not node.is_local:
                self.nodes.replaced(node)
            raise
        if node.key != key:
            return await self.learn(node)
        if node.is_local:
            return
        if not _same(node, found.entry) or (
            (target_of(found.meta) is not None and may_be_link(found.entry))
            != (node.kind == stat.S_IFLNK)
        ):
            self.nodes.replaced(node)
            if parent:
                parent.listed_until = 0
            raise OSError(errno.ESTALE, "the object was replaced")
        node.entry = found.entry
        node.target = target_of(found.meta) or b""
        node.learn(found.meta)
        node.fresh_until = until

    @staticmethod
    def _learn_directory(node: Directory, marker: Found | None) -> None:
        node.marked = marker is not None
        node.known = True
        if marker:
            node.learn(marker.meta)
            if node.meta.mtime_ns is None:
                node.meta = replace(node.meta, mtime_ns=marker.entry.stored_ns)

    async def learn_soon(self, node: Node) -> None:
        """As :meth:`learn`; and where one file after the other is asked for, the next ones too."""
        directory = node.parent
        if node.learning:
            await asyncio.shield(node.learning)
        if node.known:
            return
        if directory and directory.is_listed and not node.is_local:
            directory.stats += 1
            if directory.stats > 2:
                self.statting_until = time.monotonic() + _STATTING_S
                await asyncio.gather(*self.learn_all(directory, self._after(directory, node))[:1])
        if not node.known:
            await self.learn(node)

    def _after(self, directory: Directory, node: Node) -> list[tuple[bytes, Entry | None]]:
        """A file, and those behind it in the listing."""
        names = itertools.islice(directory.names_from(self.nodes.shown(node)), _LEAD)
        return [(name, directory.listed[name]) for name in names] if directory.listed else []

    @property
    def statting(self) -> bool:
        """Whether somebody is asking for the metadata of file after file."""
        return self.statting_until > time.monotonic()

    def walked(self, directory: Directory) -> None:
        """Somebody reads a directory with the metadata of what is in it.  Who has come to it from
        the one before is likely to read those behind it, too: they are asked for meanwhile.
        """
        walks = directory.key in self._coming
        coming = list(itertools.islice(self._behind(directory), _COMING))
        self._coming = [above.key + self._part(above, name, None) + b"/" for above, name in coming]
        for above, name in coming if walks else ():
            task = asyncio.ensure_future(self._read_ahead(above, name))
            self._work.add(task)
            task.add_done_callback(self._work.discard)

    def _behind(self, directory: Directory) -> Iterator[tuple[Directory, bytes]]:
        """Directories as ``find`` and ``ls -R`` come to them after this one, as far as they are
        known: those in it, those behind it; each by the one that it is in, and its name.
        """
        above: Directory | None = directory
        names: Iterator[bytes] = directory.names_from(None)
        while above:
            if above.is_listed and above.listed is not None:
                listed = above.listed
                yield from ((above, name) for name in names if listed.get(name, b"") is None)
            if above.parent:
                names = itertools.islice(above.parent.names_from(self.nodes.shown(above)), 1, None)
            above = above.parent

    async def _read_ahead(self, above: Directory, name: bytes) -> None:
        """Has a directory listed, and the metadata of what is first in it asked for."""
        try:
            node = above.children.get(name) or self.known(above, name)
            if not isinstance(node, Directory) or node.wide or node.is_listed:
                return
            self._guests.append((time.monotonic() + 2 * FRESH_S, [node]))
            await self.enumerate(node, FEW)
        except OSError as exc:
            log.info("%r is not listed ahead: %s", name, exc)
            return
        if node.listed_until > time.monotonic():
            self.learn_all(node, list(itertools.islice((node.listed or {}).items(), _LEAD)))

    def learn_all(
        self, directory: Directory, rows: list[tuple[bytes, Entry | None]]
    ) -> list[asyncio.Future[None]]:
        """Asks for the metadata of all these that is not known; when it is there."""
        futures, nodes, guests = list[asyncio.Future[None]](), list[Node](), list[Node]()
        until = max(directory.listed_until, time.monotonic() + FRESH_S)
        for name, entry in rows:
            node = directory.children.get(name)
            if node is None:
                if entry and may_be_link(entry):
                    continue
                part = self._part(directory, name, entry)
                node = self.place(directory, name, part, entry, until)
                guests.append(node)
            if node.learning:
                futures.append(node.learning)
            elif not (
                node.known
                or node.is_local
                or node.kind == stat.S_IFLNK
                or node.is_plain(self.nodes.defaults)
            ):
                nodes.append(node)
        for at in range(0, len(nodes), _CHUNK):
            chunk = nodes[at : at + _CHUNK]
            future: asyncio.Future[None] = asyncio.ensure_future(self._learn_chunk(chunk))
            for node in chunk:
                node.learning = future
            futures.append(future)
        if guests:
            self._guests.append((time.monotonic() + 2 * FRESH_S, guests))
        return futures

    def learned(self, directory: Directory, name: bytes, entry: Entry, meta: Meta) -> None:
        """What is kept beside an object came along with its content."""
        node = directory.children.get(name)
        if entry.key != directory.key + self._part(directory, name, entry):
            return  # it got another name meanwhile
        if node is None and directory.is_listed:
            node = self.place(directory, name, part_of(name) or name, entry, directory.listed_until)
            self._guests.append((time.monotonic() + 2 * FRESH_S, [node]))
        if node and not node.is_local and not node.known and _same(node, entry):
            node.learn(meta)

    async def _learn_chunk(self, nodes: list[Node]) -> None:
        until = time.monotonic() + FRESH_S
        try:
            found = await self.store.run_ahead(self.store.look_all, [node.key for node in nodes])
        finally:
            for node in nodes:
                node.learning = None
        for node, one in zip(nodes, found, strict=True):
            if node.is_local or node.known:
                continue
            if isinstance(one, Found) and one.entry.key != node.key:
                continue  # it got another name meanwhile
            if isinstance(node, Directory):
                if isinstance(one, (Found, NotFound)):
                    self._learn_directory(node, one if isinstance(one, Found) else None)
                    node.fresh_until = until
            elif isinstance(one, Found) and _same(node, one.entry) and not may_be_link(one.entry):
                node.entry = one.entry
                node.learn(one.meta)
                node.fresh_until = until

    def sweep(self) -> None:
        """Lets go of what was learned ahead and nobody asked for, and of what is not believed any
        more: the names of all directories of a large tree are too many.
        """
        now = time.monotonic()
        for directory in [one for one in self._listings if one.listed_until <= now]:
            self._listings.discard(directory)
            directory.listed = directory.order = None
            directory.places = {}
        due = [guests for until, guests in self._guests if until < now]
        self._guests = [one for one in self._guests if one[0] >= now]
        for guests in due:
            for node in guests:
                self.nodes.let_go(node)


def named(directory: Directory, rows: list[tuple[bytes, Entry | None]]) -> Iterator[Listed]:
    """The names of what was listed in a directory, which learns whether it is marked."""
    cut = len(directory.key)
    directories = {key[cut:-1] for key, entry in rows if entry is None}
    for key, entry in rows:
        part = key[cut:]
        if entry is None:
            part = part[:-1]
            yield spelled(part), part, None
        elif not part:
            directory.marked = entry.etag != ""
            if entry.size:
                yield CONTENT, part, entry
        else:
            yield spelled(part, part in directories), part, entry


def _same(node: Node, entry: Entry) -> bool:
    there = node.entry
    return there is not None and (there.size, there.etag) == (entry.size, entry.etag)


def _none(name: bytes) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "no such file")
