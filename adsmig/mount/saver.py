"""Has the store have what was written to files: now, or as soon as it takes it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from adsmig.model import Entry, Meta
from adsmig.mount.background import Begin
from adsmig.mount.drafts import Drafts
from adsmig.mount.nodes import Directory, Node, note_listing
from adsmig.mount.sender import Sender
from adsmig.mount.store import Store
from adsmig.mount.tree import Tree
from adsmig.mount.turns import Turns

log = logging.getLogger(__name__)

_AGAIN_S = 5.0
"""Seconds until what could not be stored is tried again."""


class Saver:
    """Belongs to the event loop."""

    def __init__(
        self, tree: Tree, store: Store, sender: Sender, drafts: Drafts, turns: Turns, begin: Begin
    ) -> None:
        self._tree, self._store, self._sender = tree, store, sender
        self._drafts, self._turns, self._begin = drafts, turns, begin
        self._why: dict[Node, str] = {}
        """Of files that could not be stored."""

    async def save(self, node: Node) -> None:
        """Returns when the store has all that was written; OSError if that cannot be."""
        async with self._turns.own(node):
            await self.save_locked(node)
        self._drafts.settle(node)

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
                await self._drafts.fetch_back(node, draft)
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
            note_listing(node.parent, self._tree.nodes.shown(node), entry)

    async def restate(self, node: Node, meta: Meta) -> None:
        """Gives the object of a file other metadata, or what is going to be its object."""
        async with self._turns.own(node):
            await self._restate(node, meta)
        self._drafts.settle(node)

    async def _restate(self, node: Node, meta: Meta) -> None:
        draft = node.draft
        if draft and (draft.dirty or node.writers) and not node.gone:
            self._drafts.touch(node, draft)
            node.meta = meta
            draft.note(node.key, meta)
            return
        node.check()
        if node.gone or not node.entry:
            node.meta = meta
            return
        entry = await self._store.run(self._store.copy, node.entry, node.entry.key, meta)
        node.meta = meta
        if draft:
            draft.base = entry
        self._stored(node, entry)

    def later(self, node: Node) -> None:
        """Stores a file that nobody has open to be written, and tries until that worked."""

        async def until_it_worked() -> None:
            while node.draft and node.draft.dirty and not node.gone and not node.writers:
                try:
                    await self.save(node)
                except OSError as exc:
                    log.warning("%r is not stored yet: %s", node.key, exc)
                    await asyncio.sleep(_AGAIN_S)

        self._begin(until_it_worked(), "storing")

    async def save_all(self) -> bool:
        """Stores all that is not stored; whether that worked."""
        nodes = self._dirty()
        done = await asyncio.gather(*map(self.save, nodes), return_exceptions=True)
        for node, error in zip(nodes, done, strict=True):
            if error:
                log.error("%r could not be stored: %s", node.key, error)
        return not self._dirty()

    def _dirty(self) -> list[Node]:
        nodes = self._tree.nodes.by_ino.values()
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
