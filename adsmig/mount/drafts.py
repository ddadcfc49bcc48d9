"""The drafts of files: made, filled from the store as far as they must be, written to, dropped."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from adsmig.model import Entry
from adsmig.mount.blocks import BLOCK, version_of
from adsmig.mount.draft import Draft
from adsmig.mount.nodes import Node
from adsmig.mount.reader import Reader
from adsmig.mount.sender import Sender
from adsmig.mount.tree import Tree

T = TypeVar("T")

_RESERVE = 128 << 10


class Drafts:
    """Belongs to the event loop; what waits is called with the file's lock.  ``directory`` is for
    what is written; beside it lies some room for when there is none.
    """

    def __init__(self, directory: Path, tree: Tree, reader: Reader, sender: Sender) -> None:
        self._directory, self._tree, self._reader, self._sender = directory, tree, reader, sender
        self._reserve = directory.parent / "reserve"
        self._set_aside()

    def of(self, node: Node) -> Draft | None:
        """The file's draft, if nothing need be fetched for that, nor asked."""
        if node.draft is None and node.size == 0 and node.known and node.is_fresh:
            node.draft = self.new(node.entry)
        return node.draft

    def new(self, base: Entry | None) -> Draft:
        """A draft of nothing yet."""
        return self._with_room(lambda: Draft(self._directory, base))

    async def fetched(self, node: Node, upto: int | None = None) -> Draft:
        """The draft of a file, with all of its content, or ``upto`` bytes."""
        if draft := self.of(node):
            return draft
        entry = node.entry
        assert entry
        if not (node.known and node.is_fresh):
            # All of it may be in the cache, and replaced long ago.
            try:
                await self._tree.learn(node)
            except FileNotFoundError as exc:
                raise OSError(errno.ESTALE, "the object was removed") from exc
        draft = self.new(entry)
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
            parts = await self._reader.read(entry, version, start, min(count, ahead))
            for part in parts:
                self._with_room(partial(draft.write, start, part))
                start += len(part)

    async def fetch_back(self, node: Node, draft: Draft) -> None:
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

    async def keep(self, node: Node) -> None:
        """Has the content of an open file here, because its object is about to go."""
        if node.handles and node.kind == stat.S_IFREG and not node.draft:
            await self.fetched(node)
        elif node.handles and node.draft and node.draft.sent:
            await self.fetch_back(node, node.draft)

    def touch(self, node: Node, draft: Draft) -> None:
        """Something of it is about to change: the journal has to tell first.  Raises ESTALE where
        the store has another object by now, or none.
        """
        node.check()
        if not draft.dirty and not node.gone:
            self._with_room(lambda: draft.note(node.key, node.meta))
            draft.dirty = True

    def put(self, node: Node, draft: Draft, start: int, data: bytes | memoryview) -> None:
        """Writes bytes that begin at ``draft.sent`` or behind; OSError if there is no room, and as
        :meth:`touch`.
        """
        self.touch(node, draft)
        self._with_room(lambda: draft.write(start, data))
        draft.written_ns = time.time_ns()

    async def put_in_need(self, node: Node, draft: Draft, start: int, data: bytes) -> None:
        """As :meth:`put`, where there is no room: what is written from beginning to end goes to the
        store first.
        """
        self._reserve.unlink(missing_ok=True)
        try:
            while True:
                if start < draft.sent:
                    await self.fetch_back(node, draft)
                if not await self._sender.send_off(node, draft, start):
                    raise OSError(errno.ENOSPC, "no room in the cache directory")
                with contextlib.suppress(OSError):
                    self.put(node, draft, start, data)
                    return
        finally:
            self._set_aside()

    def _set_aside(self) -> None:
        """Keeps some room for when there is none."""
        with contextlib.suppress(OSError), open(self._reserve, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, _RESERVE)

    def _with_room(self, work: Callable[[], T]) -> T:
        """What ``work`` returns; what was kept for reading makes room for what is written."""
        try:
            return work()
        except OSError as exc:
            if exc.errno != errno.ENOSPC:
                raise
            self._reader.drop()
            return work()

    def settle(self, node: Node) -> None:
        """Drops what is not needed of a file that is not open, and lacks nothing in the store."""
        if node.handles or node.is_locked:
            return
        if node.draft and (node.gone or not node.draft.dirty):
            draft, node.draft = node.draft, None
            self.drop(draft)
        self._tree.nodes.let_go(node)

    def drop(self, draft: Draft) -> None:
        """Nobody wants what is in it, which is no file's any more."""
        self._sender.forget(draft)
        draft.remove()
