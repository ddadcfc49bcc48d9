"""Finds files by their names, and keeps what is known of them in step with the store."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import stat
import time
from collections.abc import Iterator
from dataclasses import replace

from adsmig.model import Entry
from adsmig.mount.names import CONTENT, LONGEST, part_of, spelled
from adsmig.mount.nodes import FRESH_S, Directory, Node, Nodes
from adsmig.mount.store import Store, may_be_link, target_of

log = logging.getLogger(__name__)

FEW = 2000
"""Names of a directory that is listed to find one of them."""
_LEAD = 512
"""Files whose metadata is asked for ahead of who asks for one after the other."""

Listed = tuple[bytes, bytes, "Entry | None"]
"""What is in a directory: its name, the part of the key, and its entry; None for a directory."""


class Tree:
    """The nodes, and the store behind them.  Belongs to the event loop."""

    def __init__(self, nodes: Nodes, store: Store) -> None:
        self.nodes, self.store = nodes, store
        self._work = set[asyncio.Task[None]]()
        self._guests: list[tuple[float, list[Node]]] = []

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
                self.nodes.detach(node)
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
        if not directory.is_listed and not directory.wide:
            await self.enumerate(directory, FEW)
        if directory.is_listed:
            node = self.known(directory, name)
            if node:
                return node
            assert directory.listed is not None
            entry = directory.listed[name]
            assert entry
            return await self._look(directory, name, self._part(directory, name, entry))
        part = part_of(name)
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
        try:
            found = await self.store.run(self.store.look, key)
        except FileNotFoundError:
            if not await self.store.run(self.store.is_directory, key + b"/"):
                node = directory.children.get(name)
                if node and not node.is_local:
                    self.nodes.detach(node)
                if node and node.is_local and not node.gone:
                    return node
                raise _none(name) from None
            return self.place(directory, name, part, None, until)
        node = directory.children.get(name)
        if node and node.is_local:
            return node
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
            self.nodes.detach(node)
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
            if directory.is_listed or directory.wide:
                return
        directory.reading = asyncio.ensure_future(self._list(directory, most))
        try:
            await asyncio.shield(directory.reading)
        finally:
            if directory.reading and directory.reading.done():
                directory.reading = None

    async def _list(self, directory: Directory, most: int) -> None:
        directory.changed = set()
        began = time.monotonic()
        try:
            children = self.store.storage.children(directory.key)
            rows = await self.store.run(lambda: list(itertools.islice(children, most + 1)))
        finally:
            directory.reading = None
        if len(rows) > most:
            directory.wide = True
            return
        self.install(directory, list(named(directory, rows)), began)

    def install(self, directory: Directory, listed: list[Listed], began: float) -> None:
        """Takes in a whole listing that was begun then."""
        names = {name: entry for name, _, entry in listed}
        directory.odd = {name: part for name, part, _ in listed if part_of(name) != part}
        for name in directory.changed:
            node = directory.children.get(name)
            if not node or node.gone:
                names.pop(name, None)
            elif node.is_directory or node.entry:
                names[name] = node.entry
        directory.listed = names
        directory.wide = False
        took = time.monotonic() - began
        directory.listed_until = began + max(FRESH_S, 10 * took)

    # Metadata

    async def learn(self, node: Node) -> None:
        """Asks for what is kept beside the content; ESTALE if there is another version by now."""
        parent = node.parent
        until = time.monotonic() + FRESH_S
        if isinstance(node, Directory):
            if node.marked is not False:
                try:
                    found = await self.store.run(self.store.look, node.key)
                except FileNotFoundError:
                    node.marked = False
                else:
                    node.marked = True
                    node.entry = None
                    node.learn(found.meta)
                    if node.meta.mtime_ns is None:
                        node.meta = replace(node.meta, mtime_ns=found.entry.stored_ns)
            node.known = True
            node.fresh_until = until
            return
        try:
            found = await self.store.run(self.store.look, node.key)
        except FileNotFoundError:
            if not node.is_local:
                self.nodes.detach(node)
            raise
        if node.is_local:
            return
        if not _same(node, found.entry) or (
            (target_of(found.meta) is not None and may_be_link(found.entry))
            != (node.kind == stat.S_IFLNK)
        ):
            self.nodes.detach(node)
            if parent:
                parent.listed_until = 0
            raise OSError(errno.ESTALE, "the object was replaced")
        node.entry = found.entry
        node.target = target_of(found.meta) or b""
        node.learn(found.meta)
        node.fresh_until = until

    def ask_ahead(self, node: Node) -> None:
        """Somebody wanted metadata that was not known: the files behind may be next."""
        directory = node.parent
        if directory is None:
            return
        directory.stats += 1
        if directory.stats < 2 or not directory.is_listed or directory.ahead:
            return
        assert directory.listed is not None
        if len(directory.listed) < 3:
            return
        directory.ahead = True
        task = asyncio.ensure_future(self._learn_all(directory, node.name))
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _learn_all(self, directory: Directory, first: bytes) -> None:
        """Learns of the files of a directory, from ``first`` on, at some distance before whoever
        asks for them; ends when nobody does.
        """
        assert directory.listed is not None
        names = list(directory.listed.items())
        at = next((i for i, (name, _) in enumerate(names) if name == first), 0)
        names = names[at:] + names[:at]
        begun, done = directory.stats, 0
        guests: list[Node] = []
        limit = asyncio.Semaphore(12)

        async def one(node: Node) -> None:
            try:
                await self.learn(node)
            except OSError as exc:
                log.debug("%r: %s", node, exc)
            finally:
                limit.release()

        running = set[asyncio.Task[None]]()
        try:
            for name, entry in names:
                idle = 0
                while done > directory.stats - begun + _LEAD:
                    seen = directory.stats
                    await asyncio.sleep(0.02)
                    idle = idle + 1 if directory.stats == seen else 0
                    if idle > 100:
                        return
                done += 1
                node = directory.children.get(name)
                if node and (node.known or node.is_local):
                    continue
                if not node:
                    if entry and may_be_link(entry):
                        continue
                    until = time.monotonic() + FRESH_S
                    part = self._part(directory, name, entry)
                    node = self.place(directory, name, part, entry, until)
                    guests.append(node)
                await limit.acquire()
                task = asyncio.ensure_future(one(node))
                running.add(task)
                task.add_done_callback(running.discard)
        finally:
            await asyncio.gather(*running, return_exceptions=True)
            directory.ahead = False
            directory.stats = 0
            self._guests.append((time.monotonic() + 2 * FRESH_S, guests))

    def sweep(self) -> None:
        """Lets go of what was learned ahead and nobody asked for."""
        now = time.monotonic()
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
