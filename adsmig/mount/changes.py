"""What changes names: files and directories made, removed, renamed, and given other metadata."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import stat
import time
from collections.abc import Iterable
from dataclasses import replace

from adsmig.links import LINK, link_meta
from adsmig.model import Entry, Meta
from adsmig.mount.files import Files
from adsmig.mount.names import LONGEST, MARK, part_of
from adsmig.mount.nodes import Directory, Node, forget_listing, note_listing
from adsmig.mount.protocol import NOREPLACE, Change
from adsmig.mount.store import Store
from adsmig.mount.tree import Tree
from adsmig.mount.turns import Path

log = logging.getLogger(__name__)

_TOGETHER = 16
"""Objects that are copied at once when a directory gets another name."""
_ROUNDS = 3
"""How often what others replace meanwhile is copied again."""

Copied = tuple[Entry, "Entry | None"]
"""An object, and its copy; None where there is none, or it is the marker of a directory."""


class Changes:
    """Belongs to the event loop.  Raises OSError as the system call would."""

    def __init__(self, tree: Tree, files: Files, store: Store) -> None:
        self.tree, self.files, self.store = tree, files, store
        self.turns = files.turns

    # Making

    def is_doubtful(self, directory: Directory, name: bytes) -> bool:
        """Whether there may be such a name, though the kernel thinks that there is none: what makes
        it was given up, and is not at its end, or only just.
        """
        return directory.is_doubted or self.turns.holds(_path(directory, name)())

    async def look_again(self, directory: Directory, name: bytes) -> None:
        """Has it known whether there is a name of which that :meth:`is_doubtful`."""
        if self.is_doubtful(directory, name):
            path = _path(directory, name)
            while self.turns.holds(path()):
                async with self.turns.hold(path):
                    pass
            with contextlib.suppress(FileNotFoundError):
                await self.tree.current(directory, name)

    def create(self, directory: Directory, name: bytes, mode: int, uid: int, gid: int) -> Node:
        """A new, empty file, which the store gets to know when it is closed."""
        part = self._free(directory, name)
        node = self.tree.nodes.make(directory, name, part, stat.S_IFREG)
        node.learn(Meta(time.time_ns(), mode & 0o777, uid, gid))
        try:
            node.draft = self.files.new_draft(None)
            self.files.touch(node, node.draft)
        except OSError:
            if node.draft:
                node.draft.remove()
                node.draft = None
            self.tree.nodes.detach(node)
            raise
        return node

    async def mkdir(
        self, directory: Directory, name: bytes, mode: int, uid: int, gid: int
    ) -> Directory:
        """A new directory, with a marker in the store."""
        await self.look_again(directory, name)
        part = self._free(directory, name)
        meta = Meta(time.time_ns(), mode & 0o777, uid, gid)
        async with self.turns.hold(_path(directory, name)), self.turns.change(directory):
            await self.store.run(self.store.mark, directory.key + part + b"/", meta)
            node = self.tree.nodes.make(directory, name, part, stat.S_IFDIR)
        assert isinstance(node, Directory)
        node.learn(meta)
        node.marked = True
        node.listed, node.listed_until = {}, time.monotonic() + 1
        node.refresh()
        note_listing(directory, name, None)
        return node

    async def symlink(
        self, directory: Directory, name: bytes, target: bytes, uid: int, gid: int
    ) -> Node:
        """A new symbolic link."""
        await self.look_again(directory, name)
        part = self._free(directory, name)
        meta = Meta(time.time_ns(), 0o777, uid, gid)
        kept = link_meta(target, meta)
        async with self.turns.hold(_path(directory, name)), self.turns.change(directory):
            key = directory.key + part
            entry = await self.store.run(self.store.write_bytes, key, LINK, kept)
            node = self.tree.nodes.make(directory, name, part, stat.S_IFLNK)
            node.entry, node.target = entry, target
        node.learn(kept)
        node.refresh()
        note_listing(directory, name, entry)
        return node

    def _free(self, directory: Directory, name: bytes) -> bytes:
        """The part of a key that a new name is for; raises where there cannot be such a name."""
        if len(name) > LONGEST:
            raise OSError(errno.ENAMETOOLONG, "the name is too long")
        part = part_of(name)
        if part is None or name.startswith(MARK):
            raise OSError(errno.EINVAL, "names like this stand for keys that cannot be names")
        node = directory.children.get(name)
        if node and not node.gone and node.is_fresh:
            raise OSError(errno.EEXIST, "it is there already")
        if directory.gone:
            raise OSError(errno.ENOENT, "the directory is gone")
        if problem := self.store.storage.problem(directory.key + part):
            number = errno.EILSEQ if "UTF-8" in problem else errno.ENAMETOOLONG
            raise OSError(number, problem)
        if node:
            self.tree.nodes.replaced(node)
        return part

    # Removing

    async def unlink(self, directory: Directory, name: bytes) -> None:
        """Removes a file; who has it open goes on reading it."""
        async with self.turns.hold(_path(directory, name)), self.turns.change(directory):
            await self._unlink(directory, name)

    async def _unlink(self, directory: Directory, name: bytes) -> None:
        node = await self.tree.current(directory, name)
        if node.is_directory:
            raise OSError(errno.EISDIR, "a directory")
        async with node.lock:
            await self.files.keep(node)
            # Where a try to store it has failed, the store may have it all the same.
            if node.stored or (node.draft and node.draft.offered):
                await self.mark(directory, name)
                await self._delete(directory, node.key)
            self._removed(directory, name, node)
        self.files.settle(node)

    def _removed(self, directory: Directory, name: bytes, node: Node) -> None:
        forget_listing(directory, name)
        self.files.forgive(node)
        self.tree.nodes.detach(node)
        if node.draft:
            node.draft.disowned()

    async def rmdir(self, directory: Directory, name: bytes) -> None:
        """Removes an empty directory."""
        async with self.turns.hold(_path(directory, name)), self.turns.change(directory):
            node = await self.tree.current(directory, name)
            if not isinstance(node, Directory):
                raise OSError(errno.ENOTDIR, "not a directory")
            await self._check_empty(node)
            await self.mark(directory, name)
            await self.store.run(self.store.delete, [node.key])
            forget_listing(directory, name)
            self.tree.nodes.detach(node)

    async def _check_empty(self, node: Directory) -> None:
        if any(not child.gone for child in node.children.values() if child.is_local):
            raise OSError(errno.ENOTEMPTY, "not empty")
        if not await self.store.run(self.store.is_empty, node.key):
            node.listed_until = 0
            raise OSError(errno.ENOTEMPTY, "not empty")

    async def mark(self, directory: Directory, leaving: bytes) -> None:
        """Makes sure that a directory stays when the object ``leaving`` goes, as its last may."""
        if directory.marked or directory.parent is None:
            return
        others = directory.listed if directory.is_listed and directory.listed else {}
        if any(name != leaving for name in others):
            return
        await self.store.run(self.store.mark_if_not, directory.key, directory.meta)
        directory.marked = True

    async def _delete(self, directory: Directory, key: bytes) -> None:
        """Removes an object; a directory of which it was the content stays."""
        if key == directory.key:
            await self.store.run(self.store.mark, key, directory.meta)
        else:
            await self.store.run(self.store.delete, [key])

    # Renaming

    async def rename(
        self, old: Directory, name: bytes, new: Directory, new_name: bytes, flags: int
    ) -> None:
        """Gives a file or a directory another name, in place of what has that."""
        if flags & ~NOREPLACE:
            raise OSError(errno.EINVAL, "they cannot be exchanged")
        held = self.turns.hold(_path(old, name), _path(new, new_name))
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
                await self._check_empty(target)
            part = target.name if target else self._free(new, new_name)
            if not target and await self.store.run(self.store.is_directory, new.key + part + b"/"):
                # Others have just made it: what is in it would be replaced, object by object.
                raise OSError(errno.ENOTEMPTY, "not empty")
            await self._rename_directory(old, name, node, new, new_name, part, target)
        else:
            if target and target.is_directory:
                raise OSError(errno.EISDIR, "a directory")
            part = target.name if target else self._free(new, new_name)
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
                    await self.files.keep(target)
                    await self._move_file(old, name, node, new, new_name, part, target)
                self.files.settle(target)
            else:
                await self._move_file(old, name, node, new, new_name, part, None)
        if node.draft and node.draft.dirty and not node.writers:
            self.files.later(node)
        else:
            self.files.settle(node)

    async def _move_file(
        self, old: Directory, name: bytes, node: Node, new: Directory, new_name: bytes,
        part: bytes, target: Node | None,
    ) -> None:  # fmt: skip
        """With the locks of both."""
        draft = node.draft
        if draft and draft.dirty and (node.stored or draft.sent or draft.offered):
            # What the store has under the old name, or may have, goes with it; nor may the upload
            # of another file of that name meet the one that is under way.
            await self.files.save_locked(node)
        there, copied = node.entry, None
        if there:
            copied = await self.store.run(self.store.copy, there, new.key + part, None)
            node.entry = copied  # who reads it meanwhile
            node.refresh()
            try:
                await self.mark(old, name)
                await self._delete(old, there.key)
            except BaseException:
                node.entry = there  # and what is written to it goes there, as its name says
                raise
        if target:
            self._removed(new, new_name, target)
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
                await self.mark(old, name)
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
                    await self.files.save_locked(child)
                self.files.settle(child)

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

    # Metadata

    async def change(self, node: Node, change: Change, opened: bool) -> None:
        """What a SETATTR asks for; ``opened``: it is by who has the file open to be written."""
        if not node.known:
            await self.tree.learn(node)
        if change.size is not None and node.kind == stat.S_IFREG and change.size != node.size:
            await self.files.truncate(node, change.size, at_once=not opened)
        mtime_ns = time.time_ns() if change.mtime_now else change.mtime_ns
        meta = node.meta
        if change.mode is not None and node.kind != stat.S_IFLNK:
            meta = replace(meta, mode=change.mode & 0o777)
        if change.uid is not None or change.gid is not None:
            now = node.attributes(self.tree.nodes.defaults)
            uid = now.uid if change.uid is None else change.uid
            gid = now.gid if change.gid is None else change.gid
            meta = replace(meta, uid=uid, gid=gid)
        if mtime_ns is not None:
            meta = replace(meta, mtime_ns=mtime_ns)
            if node.draft:
                node.draft.written_ns, node.draft.timed = 0, True
        if meta == node.meta:
            return
        if not isinstance(node, Directory):
            await self.files.restate(node, meta)
        elif node.parent is None:
            node.meta = meta
        else:
            async with self.turns.change(node):
                await self.store.run(self.store.mark_again, node.key, meta)
            node.meta, node.marked = meta, True
            node.refresh()


def _path(directory: Directory, name: bytes) -> Path:
    """That of a name in a directory, which may get another one meanwhile."""
    part = part_of(name) or name
    return lambda: directory.key + part


def _is(entry: Entry, other: Entry | None) -> bool:
    """Whether they are the same version of an object."""
    return other is not None and (entry.size, entry.etag) == (other.size, other.etag)
