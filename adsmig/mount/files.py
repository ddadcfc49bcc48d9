"""Open files: what is read of them, what is written to them, and when that is stored."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import stat
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from adsmig.model import Entry, Meta
from adsmig.mount.ahead import Ahead
from adsmig.mount.blocks import BLOCK, version_of
from adsmig.mount.draft import Draft
from adsmig.mount.nodes import Directory, Node, note_listing
from adsmig.mount.reader import Buffers, Reader, Sight
from adsmig.mount.sender import Sender
from adsmig.mount.store import Store
from adsmig.mount.tree import Tree
from adsmig.mount.turns import Turns

log = logging.getLogger(__name__)
T = TypeVar("T")

_RESERVE = 128 << 10
_AGAIN_S = 5.0
"""Seconds until what could not be stored is tried again."""


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
        self.tree, self.store, self.reader, self.drafts = tree, store, reader, drafts
        self.turns = Turns()
        self.handles: dict[int, Handle] = {}
        self._last = 0
        self._sender = Sender(store, self.begin)
        self._ahead = Ahead(tree, reader, self.begin, ahead_most)
        self._work = set[asyncio.Task[None]]()
        self._reserve = drafts.parent / "reserve"
        self._set_aside()
        self._why: dict[Node, str] = {}
        """Of files that could not be stored."""

    def _set_aside(self) -> None:
        """Keeps some room for when there is none."""
        with contextlib.suppress(OSError), open(self._reserve, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, _RESERVE)

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
                self.later(node)
        else:
            self.settle(node)

    def settle(self, node: Node) -> None:
        """Drops what is not needed of a file that is not open, and lacks nothing in the store."""
        if node.handles or node.is_locked:
            return
        if node.draft and (node.gone or not node.draft.dirty):
            draft, node.draft = node.draft, None
            self._sender.forget(draft)
            draft.remove()
        self.tree.nodes.let_go(node)

    def begin(self, work: Coroutine[Any, Any, Any], what: str) -> asyncio.Task[None]:
        """Has it done without anybody waiting."""

        async def doing() -> None:
            try:
                await work
            except OSError as exc:
                log.warning("%s: %s", what, exc)

        task = asyncio.ensure_future(doing())
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task

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
        async with self._own(node):
            if node.draft and start < node.draft.sent:
                await self._fetch_back(node, node.draft)
        found = self.read(handle, start, size)  # of the object, if it was stored meanwhile
        return found if isinstance(found, list) else await found

    # Writing

    def draft_of(self, node: Node) -> Draft | None:
        """The file's draft, if nothing need be fetched for that, nor asked."""
        if node.draft is None and node.size == 0 and node.known and node.is_fresh:
            node.draft = self.new_draft(node.entry)
        return node.draft

    def new_draft(self, base: Entry | None) -> Draft:
        """A draft of nothing yet."""
        return self._with_room(lambda: Draft(self.drafts, base))

    def _with_room(self, work: Callable[[], T]) -> T:
        """What ``work`` returns; what was kept for reading makes room for what is written."""
        try:
            return work()
        except OSError as exc:
            if exc.errno != errno.ENOSPC:
                raise
            self.reader.drop()
            return work()

    async def fetched(self, node: Node, upto: int | None = None) -> Draft:
        """The draft of a file, with all of its content, or ``upto`` bytes; under its lock."""
        if draft := self.draft_of(node):
            return draft
        entry = node.entry
        assert entry
        if not (node.known and node.is_fresh):
            # All of it may be in the cache, and replaced long ago.
            try:
                await self.tree.learn(node)
            except FileNotFoundError as exc:
                raise OSError(errno.ESTALE, "the object was removed") from exc
        draft = self.new_draft(entry)
        try:
            await self._fill(draft, entry, min(entry.size, entry.size if upto is None else upto))
        except BaseException:
            draft.remove()
            raise
        draft.version = 0
        node.draft = draft
        return draft

    async def _fill(self, draft: Draft, entry: Entry, size: int) -> None:
        version = version_of(entry)
        for start in range(0, size, 8 * BLOCK):
            count = min(8 * BLOCK, size - start)
            ahead = min(start + 2 * count, size) - start
            parts = await self.reader.read(entry, version, start, min(count, ahead))
            for part in parts:
                self._with_room(partial(draft.write, start, part))
                start += len(part)

    def touch(self, node: Node, draft: Draft) -> None:
        """Something of it is about to change: the journal has to tell first.  Raises ESTALE where
        the store has another object by now, or none.
        """
        node.check()
        if not draft.dirty and not node.gone:
            self._with_room(lambda: draft.note(node.key, node.meta))
            draft.dirty = True

    def write(self, handle: Handle, start: int, data: memoryview) -> int | Coroutine[Any, Any, int]:
        """Takes bytes, of a buffer that is used again; how many."""
        node = handle.node
        self._check_size(start + len(data))
        if node.is_locked or not (draft := self.draft_of(node)) or start < draft.sent:
            return self._write_later(node, start, bytes(data))
        if draft.upload and start + len(data) > draft.upload.entry.size:
            raise OSError(errno.EFBIG, "more than the parts of an upload can hold")
        try:
            self._put(node, draft, start, data)
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

    def _put(self, node: Node, draft: Draft, start: int, data: bytes | memoryview) -> None:
        self.touch(node, draft)
        self._with_room(lambda: draft.write(start, data))
        draft.written_ns = time.time_ns()

    async def _write_in_need(self, node: Node, start: int, data: bytes) -> int:
        """Where there is no room: what is written from beginning to end goes to the store first."""
        async with self._own(node):
            draft = await self.fetched(node)  # it may have been stored meanwhile
            self._reserve.unlink(missing_ok=True)
            try:
                while True:
                    if start < draft.sent:
                        await self._fetch_back(node, draft)
                    if not await self._sender.send_off(node, draft, start):
                        raise OSError(errno.ENOSPC, "no room in the cache directory")
                    with contextlib.suppress(OSError):
                        self._put(node, draft, start, data)
                        return len(data)
            finally:
                self._set_aside()

    async def _write_later(self, node: Node, start: int, data: bytes) -> int:
        async with self._own(node):
            draft = await self.fetched(node)
            if start < draft.sent:
                await self._fetch_back(node, draft)
            self._put(node, draft, start, data)
        return len(data)

    async def truncate(self, node: Node, size: int, at_once: bool = False) -> None:
        """Cuts a file off, or fills it up with zeros; ``at_once``: in the store, too.  Where that
        fails, it is not done at all, unless there is something else that the store lacks.
        """
        self._check_size(size)
        async with self._own(node):
            node.check()  # who reads what was replaced, is to have all of it
            meta, stored = node.meta, not (node.gone or (node.draft and node.draft.dirty))
            try:
                draft = await self.fetched(node, size)
                if draft.sent and size < draft.sent:
                    await self._fetch_back(node, draft)
                self.touch(node, draft)
                draft.truncate(size)
                draft.written_ns = time.time_ns()
                if at_once:
                    await self.save_locked(node)
            except BaseException:
                if stored and node.draft:
                    self._undo(node, node.draft, meta)
                raise
        if at_once and not node.handles:
            self.settle(node)

    def _undo(self, node: Node, draft: Draft, meta: Meta) -> None:
        """The file is what the store has, whatever that is by now."""
        node.draft, node.meta, node.fresh_until = None, meta, 0.0
        self._why.pop(node, None)
        self._sender.forget(draft)
        draft.remove()

    async def _fetch_back(self, node: Node, draft: Draft) -> None:
        """Has all of a file here again, of which the beginning is in an upload: that becomes the
        object as far as it is written, and is read again.
        """
        if draft.upload:
            draft.base = await self._sender.finish(node, draft)
            draft.upload, draft.parts = None, {}
            draft.note(node.key, node.meta)
        assert draft.base
        version = draft.version
        await self._fill(draft, draft.base, draft.sent)
        draft.version, draft.sent = version, 0
        draft.note(node.key, node.meta)

    # Storing

    @contextlib.asynccontextmanager
    async def _own(self, node: Node) -> AsyncIterator[None]:
        """While nobody else changes, stores, renames or removes a file, or another of its name."""
        async with (
            self.turns.hold(lambda: node.path),
            self.turns.change(node),
            node.lock,
        ):
            yield

    async def save(self, node: Node) -> None:
        """Returns when the store has all that was written; OSError if that cannot be."""
        async with self._own(node):
            await self.save_locked(node)
        if not node.handles:
            self.settle(node)

    async def save_locked(self, node: Node) -> None:
        """As :meth:`save`, by who has the lock, a turn, and the name."""
        draft = node.draft
        if not draft or not draft.dirty or node.gone:
            return
        natural = bool(draft.written_ns)
        if natural:
            node.meta = replace(node.meta, mtime_ns=draft.written_ns)
        meta = node.meta
        try:
            if draft.sent and not draft.upload:
                await self._fetch_back(node, draft)
            entry, kept = await self._sender.store(node, draft, meta, natural)
            if kept is not meta:
                node.meta = kept
        except OSError as exc:
            self._why[node] = exc.strerror or str(exc)
            raise
        self._why.pop(node, None)
        draft.written_ns = 0
        if draft.sent:
            # It is not here any more; whoever reads it, reads the object.
            node.draft = None
            draft.settled(entry)
            draft.remove()
        else:
            draft.settled(entry)
        self._sender.settled(draft)
        self._stored(node, entry)

    def _stored(self, node: Node, entry: Entry) -> None:
        node.entry = entry
        node.known = True
        node.refresh()
        if isinstance(node.parent, Directory):
            note_listing(node.parent, self.tree.nodes.shown(node), entry)

    def later(self, node: Node) -> None:
        """Stores a file that nobody has open to be written, and tries until that worked."""

        async def until_it_worked() -> None:
            while node.draft and node.draft.dirty and not node.gone and not node.writers:
                try:
                    await self.save(node)
                except OSError as exc:
                    log.warning("%r is not stored yet: %s", node.key, exc)
                    await asyncio.sleep(_AGAIN_S)

        self.begin(until_it_worked(), "storing")

    async def save_all(self) -> bool:
        """Stores all that is not stored; whether that worked."""
        nodes = self._dirty()
        done = await asyncio.gather(*map(self.save, nodes), return_exceptions=True)
        for node, error in zip(nodes, done, strict=True):
            if error:
                log.error("%r could not be stored: %s", node.key, error)
        return not self._dirty()

    def _dirty(self) -> list[Node]:
        nodes = self.tree.nodes.by_ino.values()
        return [one for one in nodes if one.draft and one.draft.dirty and not one.gone]

    def forgive(self, node: Node) -> None:
        """It need not be stored any more."""
        self._why.pop(node, None)

    @property
    def unsaved(self) -> dict[Node, str]:
        """Files that are not stored, with the reasons."""
        return {
            node: self._why.get(node, "there was no time to store it") for node in self._dirty()
        }

    async def end(self, patience_s: float) -> None:
        """Ends what is under way, when nobody can open a file any more; waits for so long."""
        if self._work:
            await asyncio.wait(self._work, timeout=patience_s)

    async def keep(self, node: Node) -> None:
        """Has the content of an open file here, because its object is about to go."""
        if node.handles and node.kind == stat.S_IFREG and not node.draft:
            await self.fetched(node)
        elif node.handles and node.draft and node.draft.sent:
            await self._fetch_back(node, node.draft)

    async def restate(self, node: Node, meta: Meta) -> None:
        """Gives the object of a file other metadata."""
        async with self._own(node):
            await self._restate(node, meta)
        if not node.handles:
            self.settle(node)

    async def _restate(self, node: Node, meta: Meta) -> None:
        draft = node.draft
        if draft and (draft.dirty or node.writers) and not node.gone:
            self.touch(node, draft)
            node.meta = meta
            draft.note(node.key, meta)
            return
        node.check()
        if node.gone or not node.entry:
            node.meta = meta
            return
        entry = await self.store.run(self.store.copy, node.entry, node.entry.key, meta)
        node.meta = meta
        if draft:
            draft.base = entry
        self._stored(node, entry)
