"""What makes and removes files and directories, and gives them other metadata; see also renames."""

from __future__ import annotations

import contextlib
import errno
import logging
import stat
import time
from dataclasses import replace

from adsmig.links import LINK, link_meta
from adsmig.model import Meta
from adsmig.mount.files import Files
from adsmig.mount.names import LONGEST, MARK, part_of
from adsmig.mount.nodes import Directory, Node, forget_listing, note_listing
from adsmig.mount.protocol import Change
from adsmig.mount.store import Store
from adsmig.mount.tree import Tree
from adsmig.mount.turns import Path

log = logging.getLogger(__name__)


class Changes:
    """Belongs to the event loop.  Raises OSError as the system call would."""

    def __init__(self, tree: Tree, files: Files, store: Store) -> None:
        self.tree, self.files, self.store = tree, files, store
        self.drafts, self.saver, self.turns = files.drafts, files.saver, files.turns

    # Making

    def is_doubtful(self, directory: Directory, name: bytes) -> bool:
        """Whether there may be such a name, though the kernel thinks that there is none: what makes
        it was given up, and is not at its end, or only just.
        """
        return directory.is_doubted or self.turns.holds(path_of(directory, name)())

    async def look_again(self, directory: Directory, name: bytes) -> None:
        """Has it known whether there is a name of which that :meth:`is_doubtful`."""
        if self.is_doubtful(directory, name):
            path = path_of(directory, name)
            while self.turns.holds(path()):
                async with self.turns.hold(path):
                    pass
            with contextlib.suppress(FileNotFoundError):
                await self.tree.current(directory, name)

    def create(self, directory: Directory, name: bytes, mode: int, uid: int, gid: int) -> Node:
        """A new, empty file, which the store gets to know when it is closed."""
        part = self.free(directory, name)
        node = self.tree.nodes.make(directory, name, part, stat.S_IFREG)
        node.learn(Meta(time.time_ns(), mode & 0o777, uid, gid))
        try:
            node.draft = self.drafts.new(None)
            self.drafts.touch(node, node.draft)
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
        part = self.free(directory, name)
        meta = Meta(time.time_ns(), mode & 0o777, uid, gid)
        async with self.turns.hold(path_of(directory, name)), self.turns.change(directory):
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
        part = self.free(directory, name)
        meta = Meta(time.time_ns(), 0o777, uid, gid)
        kept = link_meta(target, meta)
        async with self.turns.hold(path_of(directory, name)), self.turns.change(directory):
            key = directory.key + part
            entry = await self.store.run(self.store.write_bytes, key, LINK, kept)
            node = self.tree.nodes.make(directory, name, part, stat.S_IFLNK)
            node.entry, node.target = entry, target
        node.learn(kept)
        node.refresh()
        note_listing(directory, name, entry)
        return node

    def free(self, directory: Directory, name: bytes) -> bytes:
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
        async with self.turns.hold(path_of(directory, name)), self.turns.change(directory):
            await self._unlink(directory, name)

    async def _unlink(self, directory: Directory, name: bytes) -> None:
        node = await self.tree.current(directory, name)
        if node.is_directory:
            raise OSError(errno.EISDIR, "a directory")
        async with node.lock:
            await self.drafts.keep(node)
            # Where a try to store it has failed, the store may have it all the same.
            if node.stored or (node.draft and node.draft.offered):
                await self.mark(directory, name)
                await self.delete(directory, node.key)
            self.removed(directory, name, node)
        self.drafts.settle(node)

    def removed(self, directory: Directory, name: bytes, node: Node) -> None:
        """Notes that a name is gone; who has the file open reads on, and nobody stores it."""
        forget_listing(directory, name)
        self.saver.forgive(node)
        self.tree.nodes.detach(node)
        if node.draft:
            node.draft.disowned()

    async def rmdir(self, directory: Directory, name: bytes) -> None:
        """Removes an empty directory."""
        async with self.turns.hold(path_of(directory, name)), self.turns.change(directory):
            node = await self.tree.current(directory, name)
            if not isinstance(node, Directory):
                raise OSError(errno.ENOTDIR, "not a directory")
            await self.check_empty(node)
            await self.mark(directory, name)
            await self.store.run(self.store.delete, [node.key])
            forget_listing(directory, name)
            self.tree.nodes.detach(node)

    async def check_empty(self, node: Directory) -> None:
        """Raises ENOTEMPTY if there is something in a directory, here or in the store."""
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

    async def delete(self, directory: Directory, key: bytes) -> None:
        """Removes an object; a directory of which it was the content stays."""
        if key == directory.key:
            await self.store.run(self.store.mark, key, directory.meta)
        else:
            await self.store.run(self.store.delete, [key])

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
            await self.saver.restate(node, meta)
        elif node.parent is None:
            node.meta = meta
        else:
            async with self.turns.change(node):
                await self.store.run(self.store.mark_again, node.key, meta)
            node.meta, node.marked = meta, True
            node.refresh()


def path_of(directory: Directory, name: bytes) -> Path:
    """What gives the path of a name in a directory, which may get another one meanwhile."""
    part = part_of(name) or name
    return lambda: directory.key + part
