"""Open files: what is read of them, and what is written to them."""

from __future__ import annotations

import errno
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from adsmig.model import Entry, Meta
from adsmig.mount.ahead import Ahead
from adsmig.mount.background import Background
from adsmig.mount.blocks import BLOCK, version_of
from adsmig.mount.draft import Draft
from adsmig.mount.drafts import Drafts
from adsmig.mount.nodes import Node
from adsmig.mount.reader import Buffers, Reader, Sight
from adsmig.mount.saver import Saver
from adsmig.mount.sender import Sender
from adsmig.mount.store import Store
from adsmig.mount.tree import Tree
from adsmig.mount.turns import Turns


class Handle:
    """A file that is open."""

    __slots__ = ("entry", "node", "sight", "version", "writes")

    def __init__(self, node: Node, writes: bool) -> None:
        self.node, self.writes = node, writes
        self.sight = Sight()
        self.entry = node.entry
        self.version = version_of(node.entry) if node.entry else b""


class Files:
    """Belongs to the event loop.  ``drafts`` is a directory for what is written; no more than
    ``ahead_most`` bytes of small files are fetched ahead at once.
    """

    small = BLOCK
    """Bytes of an object that is read whole, with its metadata, rather than in parts."""

    def __init__(
        self, tree: Tree, store: Store, reader: Reader, drafts: Path, ahead_most: int
    ) -> None:
        self.store, self.reader = store, reader
        self.turns, self.background = Turns(), Background()
        begin = self.background.begin
        self._sender = Sender(store, begin)
        self._ahead = Ahead(tree, reader, begin, ahead_most)
        self.drafts = Drafts(drafts, tree, reader, self._sender)
        self.saver = Saver(tree, store, self._sender, self.drafts, self.turns, begin)
        self.handles: dict[int, Handle] = {}
        self._last = 0

    # Opening

    def open(self, node: Node, writes: bool) -> int:
        """A handle."""
        self._last += 1
        self.handles[self._last] = Handle(node, writes)
        node.handles += 1
        if node.parent:
            node.parent.opened = time.monotonic()
        node.writers += writes
        return self._last

    def release(self, number: int) -> None:
        """Nobody has that handle any more."""
        handle = self.handles.pop(number)
        node = handle.node
        node.handles -= 1
        node.writers -= handle.writes
        if node.draft and node.draft.dirty and not node.gone:
            if not node.writers:
                self.saver.later(node)
        else:
            self.drafts.settle(node)

    # Reading

    def read(self, handle: Handle, start: int, size: int) -> Buffers | Coroutine[Any, Any, Buffers]:
        """The bytes from ``start``, at most ``size`` of them; none past the end."""
        node = handle.node
        if draft := node.draft:
            if start < draft.sent:
                return self._read_sent(handle, start, size)
            return [draft.read(start, size)]
        entry = handle.entry
        if handle.entry is not node.entry and node.entry and not node.gone:
            handle.entry = entry = node.entry  # it was stored here since
            handle.version = version_of(entry)
        if entry is None:
            return []
        size = min(size, entry.size - start)
        if size <= 0:
            return []
        parts = self.reader.at_hand(handle.version, start, size)
        if entry.size > BLOCK:
            self.reader.look_ahead(handle.sight, entry, handle.version, start, size)
        if parts is not None:
            return parts
        if entry.size <= BLOCK:
            self._ahead.read(node)
        return self.reader.read(entry, handle.version, start, size, node.learn)

    async def read_whole(self, node: Node, entry: Entry) -> None:
        """Has a small object here; so its metadata, too, becomes known."""
        self._ahead.read(node)
        await self.reader.read(entry, version_of(entry), 0, entry.size, node.learn)

    async def _read_sent(self, handle: Handle, start: int, size: int) -> Buffers:
        node = handle.node
        async with self.turns.own(node):
            if node.draft and start < node.draft.sent:
                await self.drafts.fetch_back(node, node.draft)
        found = self.read(handle, start, size)  # of the object, if it was stored meanwhile
        return found if isinstance(found, list) else await found

    # Writing

    def write(self, handle: Handle, start: int, data: memoryview) -> int | Coroutine[Any, Any, int]:
        """Takes bytes, of a buffer that is used again; how many."""
        node = handle.node
        self._check_size(start + len(data))
        if node.is_locked or not (draft := self.drafts.of(node)) or start < draft.sent:
            return self._write_later(node, start, bytes(data))
        if draft.upload and start + len(data) > draft.upload.entry.size:
            raise OSError(errno.EFBIG, "more than the parts of an upload can hold")
        try:
            self.drafts.put(node, draft, start, data)
        except OSError as exc:
            if exc.errno != errno.ENOSPC or start > draft.filled:
                raise
            return self._write_in_need(node, start, bytes(data))
        # What its directory is going to be called, the store does not know yet.
        if not self.turns.is_moving(node) and self._sender.ship(node, draft):
            return self._taken(draft, len(data))
        return len(data)

    def _check_size(self, size: int) -> None:
        if size > self.store.storage.profile.max_size:
            raise OSError(errno.EFBIG, "more than an object can hold")

    async def _taken(self, draft: Draft, size: int) -> int:
        await self._sender.wait_for_room(draft)
        return size

    async def _write_in_need(self, node: Node, start: int, data: bytes) -> int:
        async with self.turns.own(node):
            draft = await self.drafts.fetched(node)  # it may have been stored meanwhile
            await self.drafts.put_in_need(node, draft, start, data)
        return len(data)

    async def _write_later(self, node: Node, start: int, data: bytes) -> int:
        async with self.turns.own(node):
            draft = await self.drafts.fetched(node)
            if start < draft.sent:
                await self.drafts.fetch_back(node, draft)
            self.drafts.put(node, draft, start, data)
        return len(data)

    async def truncate(self, node: Node, size: int, at_once: bool = False) -> None:
        """Cuts a file off, or fills it up with zeros; ``at_once``: in the store, too.  Where that
        fails, it is not done at all, unless there is something else that the store lacks.
        """
        self._check_size(size)
        async with self.turns.own(node):
            node.check()  # who reads what was replaced, is to have all of it
            meta, stored = node.meta, not (node.gone or (node.draft and node.draft.dirty))
            try:
                draft = await self.drafts.fetched(node, size)
                if draft.sent and size < draft.sent:
                    await self.drafts.fetch_back(node, draft)
                self.drafts.touch(node, draft)
                draft.truncate(size)
                draft.written_ns = time.time_ns()
                if at_once:
                    await self.saver.save_locked(node)
            except BaseException:
                if stored and node.draft:
                    self._undo(node, node.draft, meta)
                raise
        if at_once:
            self.drafts.settle(node)

    def _undo(self, node: Node, draft: Draft, meta: Meta) -> None:
        """The file is what the store has, whatever that is by now."""
        node.draft, node.meta, node.fresh_until = None, meta, 0.0
        self.saver.forgive(node)
        self.drafts.drop(draft)
