"""What gives files and directories other names: the store copies them, and removes the old ones."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections.abc import Iterable

from adsmig.model import Entry
from adsmig.mount.changes import Changes, path_of
from adsmig.mount.nodes import Directory, Node, forget_listing, note_listing
from adsmig.mount.protocol import NOREPLACE

log = logging.getLogger(__name__)

_TOGETHER = 16
"""Objects that are copied at once when a directory gets another name."""
_ROUNDS = 3
"""How often what others replace meanwhile is copied again."""

Copied = tuple[Entry, "Entry | None"]
"""An object, and its copy; None where there is none, or it is the marker of a directory."""


class Renames:
    """Belongs to the event loop.  Raises OSError as the system call would."""

    def __init__(self, changes: Changes) -> None:
        self.changes = changes
        self.tree, self.store, self.turns = changes.tree, changes.store, changes.turns
        self.drafts, self.saver = changes.drafts, changes.saver

    async def rename(
        self, old: Directory, name: bytes, new: Directory, new_name: bytes, flags: int
    ) -> None:
        """Gives a file or a directory another name, in place of what has that."""
        if flags & ~NOREPLACE:
            raise OSError(errno.EINVAL, "they cannot be exchanged")
        held = self.turns.hold(path_of(old, name), path_of(new, new_name))
        async with held, self.turns.change(old, new):
            await self._rename(old, name, new, new_name, flags)

    async def _rename(
        self, old: Directory, name: bytes, new: Directory, new_name: bytes, flags: int
    ) -> None:
        node = await self.tree.current(old, name)
        try:
            target = await self.tree.current(new, new_name)
        except FileNotFoundError:
            target = None
        if target is node:
            return
        if target and flags & NOREPLACE:
            raise OSError(errno.EEXIST, "it is there already")
        if isinstance(node, Directory):
            if target and not isinstance(target, Directory):
                raise OSError(errno.ENOTDIR, "not a directory")
            if isinstance(target, Directory):
                await self.changes.check_empty(target)
            part = target.name if target else self.changes.free(new, new_name)
            if not target and await self.store.run(self.store.is_directory, new.key + part + b"/"):
                # Others have just made it: what is in it would be replaced, object by object.
                raise OSError(errno.ENOTEMPTY, "not empty")
            await self._rename_directory(old, name, node, new, new_name, part, target)
        else:
            if target and target.is_directory:
                raise OSError(errno.EISDIR, "a directory")
            part = target.name if target else self.changes.free(new, new_name)
            if flags & NOREPLACE:
                await self._check_free(new.key + part)
            await self._rename_file(old, name, node, new, new_name, part, target)

    async def _check_free(self, key: bytes) -> None:
        """Raises EEXIST where others have just made it."""
        with contextlib.suppress(FileNotFoundError):
            await self.store.run(self.store.look, key)
            raise OSError(errno.EEXIST, "it is there already")

    async def _rename_file(
        self, old: Directory, name: bytes, node: Node, new: Directory, new_name: bytes,
        part: bytes, target: Node | None,
    ) -> None:  # fmt: skip
        async with node.lock:
            if target:
                async with target.lock:
                    await self.drafts.keep(target)
                    await self._move_file(old, name, node, new, new_name, part, target)
                self.drafts.settle(target)
            else:
                await self._move_file(old, name, node, new, new_name, part, None)
        if node.draft and node.draft.dirty and not node.writers:
            self.saver.later(node)
        else:
            self.drafts.settle(node)

    async def _move_file(
        self, old: Directory, name: bytes, node: Node, new: Directory, new_name: bytes,
        part: bytes, target: Node | None,
    ) -> None:  # fmt: skip
        """With the locks of both."""
        draft = node.draft
        if draft and draft.dirty and (node.stored or draft.sent or draft.offered):
            # What the store has under the old name, or may have, goes with it; nor may the upload
            # of another file of that name meet the one that is under way.
            await self.saver.save_locked(node)
        there, copied = node.entry, None
        if there:
            copied = await self.store.run(self.store.copy, there, new.key + part, None)
            node.entry = copied  # who reads it meanwhile
            node.refresh()
            try:
                await self.changes.mark(old, name)
                await self.changes.delete(old, there.key)
            except BaseException:
                node.entry = there  # and what is written to it goes there, as its name says
                raise
        if target:
            self.changes.removed(new, new_name, target)
        self._moved(old, name, node, new, new_name, part)
        if copied:
            note_listing(new, new_name, copied)
            if node.draft:
                node.draft.base = copied
        elif node.draft:
            # It was never stored; what it replaces goes when it is.
            node.draft.base = target.stored if target else None
            node.draft.note(node.key, node.meta)
        forget_listing(old, name)

    def _moved(
        self, old: Directory, name: bytes, node: Node, new: Directory, new_name: bytes, part: bytes
    ) -> None:
        if old.children.get(name) is node:
            del old.children[name]
        new.children[new_name] = node
        node.parent, node.name = new, part
        self.tree.nodes.let_go(old)

    async def _rename_directory(
        self, old: Directory, name: bytes, node: Directory, new: Directory, new_name: bytes,
        part: bytes, target: Node | None,
    ) -> None:  # fmt: skip
        """All objects below are copied, then the old ones removed: whatever ends that early, each
        is in one place at least.
        """
        above: Directory | None = new
        while above:
            if above is node:
                raise OSError(errno.EINVAL, "a directory cannot be moved into itself")
            above = above.parent
        # The kernel has but one directory at a time renamed to another one: nobody who renames
        # waits for who waits for it.
        async with self.turns.move(node):
            await self._save_below(node)
            source, copy = node.key, new.key + part + b"/"
            copies = await self._copy_below(source, copy, spared=target is not None)
            if source not in copies:
                await self.store.run(self.store.mark, copy, node.meta)
            node.marked = True
            if target:
                self.tree.nodes.detach(target)
            before = node.name
            self._moved(old, name, node, new, new_name, part)
            self._rekey(node, copies.values())
            try:
                await self.changes.mark(old, name)
                # Deepest first: a store with directories removes none that is not empty.
                await self.store.run(self.store.delete, sorted(copies, reverse=True))
            except BaseException:
                # What is written below it goes there, as its name says.
                self._moved(new, new_name, node, old, name, before)
                self._rekey(node, [(there, entry) for entry, there in copies.values()])
                for child in self.tree.nodes.below(node):
                    child.fresh_until = 0.0  # it may be removed all the same
                raise
            note_listing(new, new_name, None)
            forget_listing(old, name)

    async def _copy_below(self, source: bytes, copy: bytes, spared: bool) -> dict[bytes, Copied]:
        """Copies all that is below a directory; what was copied, by key.  Where that fails, nothing
        is left of the copies, but for the marker that was there before (``spared``).
        """
        limit, made = asyncio.Semaphore(_TOGETHER), dict[bytes, Entry]()
        copies = dict[bytes, Copied]()

        async def one(entry: Entry) -> None:
            async with limit:
                made[entry.key] = entry
                copies[entry.key] = await self._copy(entry, copy + entry.key[len(source) :])

        try:
            for _ in range(_ROUNDS):
                entries = await self.store.run(self.store.all_below, source)
                # What others stored since is copied, too, before it is removed.
                new = [entry for entry in entries if not _is(entry, made.get(entry.key))]
                if not new:
                    break
                for error in await asyncio.gather(*map(one, new), return_exceptions=True):
                    if isinstance(error, BaseException):
                        raise error
        except BaseException:
            keys = {copy + key[len(source) :] for key in made} - ({copy} if spared else set())
            try:
                await self.store.run(self.store.delete, sorted(keys, reverse=True))
            except OSError as exc:
                log.warning("copies below %r are left over: %s", copy, exc)
            raise
        return copies

    async def _copy(self, entry: Entry, key: bytes) -> Copied:
        """Copies an object as it is by now: others may replace or remove it."""
        for _ in range(_ROUNDS):
            try:
                if entry.key.endswith(b"/"):
                    await self.store.run(self.store.copy_marker, entry.key, key)
                    return entry, None
                return entry, await self.store.run(self.store.copy, entry, key, None)
            except OSError as exc:
                try:
                    now, _ = await self.store.run(self.store.look, entry.key)
                except FileNotFoundError:
                    return entry, None
                if _is(entry, now):
                    # The kernel would begin again, with what is half done.
                    number = errno.EIO if exc.errno == errno.ESTALE else exc.errno
                    raise OSError(number, exc.strerror) from exc
                entry = now
        raise OSError(errno.EBUSY, "others replace it all the time")

    async def _save_below(self, directory: Directory) -> None:
        for child in self.tree.nodes.below(directory):
            if child.draft and child.draft.dirty and not child.gone:
                async with child.lock:
                    await self.saver.save_locked(child)
                self.drafts.settle(child)

    def _rekey(
        self, directory: Directory, copies: Iterable[tuple[Entry | None, Entry | None]]
    ) -> None:
        """What is known below has other keys now, and copies may have other ETags."""
        copied = {(one.key, one.size, one.etag): there for one, there in copies if one and there}
        directory.listed, directory.listed_until = None, 0
        for child in self.tree.nodes.below(directory):
            if isinstance(child, Directory):
                child.listed, child.listed_until = None, 0
                continue
            if entry := child.entry:
                there = copied.get((entry.key, entry.size, entry.etag))
                child.entry = there or entry._replace(key=child.key)
            if child.draft:
                child.draft.base = child.entry
                if child.draft.dirty:
                    child.draft.note(child.key, child.meta)


def _is(entry: Entry, other: Entry | None) -> bool:
    """Whether they are the same version of an object."""
    return other is not None and (entry.size, entry.etag) == (other.size, other.etag)
