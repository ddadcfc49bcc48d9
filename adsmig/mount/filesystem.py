"""The kernel's requests, told to those who can answer: one method a kind of request."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

from adsmig.mount import protocol as p
from adsmig.mount.changes import Changes
from adsmig.mount.channel import Handler, Reply, Request
from adsmig.mount.files import Files
from adsmig.mount.listings import Listings
from adsmig.mount.names import LONGEST
from adsmig.mount.nodes import Directory, Node, Nodes
from adsmig.mount.renames import Renames
from adsmig.mount.tree import Tree

Work = Coroutine[Any, Any, "bytes | Reply"]
_SIZE = 1 << 38
"""Of the file system, in blocks of 4 KiB, to whom asks: a petabyte."""


class Filesystem:
    """Answers requests.  Belongs to the event loop."""

    def __init__(self, nodes: Nodes, tree: Tree, files: Files, changes: Changes) -> None:
        self.nodes, self.tree, self.files, self.changes = nodes, tree, files, changes
        self.renames = Renames(changes)
        self._listings = Listings(nodes, tree)

    def handlers(self, writing: bool) -> dict[int, Handler]:
        """What to call for which request."""
        reading: dict[int, Handler] = {
            p.LOOKUP: self._lookup, p.FORGET: self._forget, p.BATCH_FORGET: self._forget_all,
            p.GETATTR: self._getattr, p.READLINK: self._readlink, p.OPEN: self._open,
            p.READ: self._read, p.RELEASE: self._release, p.FLUSH: self._flush,
            p.STATFS: self._statfs, p.OPENDIR: self._opendir, p.READDIR: self._readdir,
            p.READDIRPLUS: self._readdir, p.RELEASEDIR: self._releasedir,
        }  # fmt: skip
        changing: dict[int, Handler] = {
            p.SETATTR: self._setattr, p.CREATE: self._create, p.MKNOD: self._mknod,
            p.MKDIR: self._mkdir, p.SYMLINK: self._symlink, p.UNLINK: self._unlink,
            p.RMDIR: self._rmdir, p.RENAME: self._rename, p.RENAME2: self._rename,
            p.LINK: self._link, p.WRITE: self._write, p.FSYNC: self._flush,
            p.FSYNCDIR: self._nothing,
        }  # fmt: skip
        return reading | changing if writing else reading

    def abandoned(self, opcode: int, answer: bytes | Reply) -> None:
        """Nobody took the answer to what is done by now."""
        body = answer if isinstance(answer, bytes) else b"".join(answer)
        named = opcode in (p.LOOKUP, p.MKDIR, p.SYMLINK, p.MKNOD, p.CREATE)
        if named and (ino := p.number(memoryview(body))):
            self.nodes.forget(ino, 1)
        if opcode in (p.OPEN, p.CREATE):
            self.files.release(p.number(memoryview(body)[-p.OPENED :]))

    # Names

    def _node(self, ino: int) -> Node:
        node = self.nodes.by_ino.get(ino)
        if node is None:
            raise OSError(errno.ESTALE, "nobody knows that file any more")
        return node

    def _directory(self, ino: int) -> Directory:
        node = self._node(ino)
        if not isinstance(node, Directory):
            raise OSError(errno.ENOTDIR, "not a directory")
        return node

    def _entry(self, node: Node) -> bytes:
        node.lookups += 1
        at = node.attributes(self.nodes.defaults)
        # A name here is right for as long as it is fresh, and a local file's until it is changed.
        valid = 10.0 if node.is_local else node.fresh_until - time.monotonic()
        return p.entry_reply(at, valid)

    def _lookup(self, request: Request) -> bytes | Work:
        directory, name = self._directory(request.node), p.name_of(request.body)
        try:
            node = self.tree.known(directory, name)
        except FileNotFoundError:
            return p.nothing_reply(directory.listed_until - time.monotonic())
        return self._entry(node) if node else self._look_up(directory, name)

    async def _look_up(self, directory: Directory, name: bytes) -> bytes:
        return self._entry(await self.tree.find(directory, name))

    def _forget(self, request: Request) -> None:
        self.nodes.forget(request.node, p.number(request.body))

    def _forget_all(self, request: Request) -> None:
        for ino, count in p.forgets_of(request.body):
            self.nodes.forget(ino, count)

    # Metadata

    def _getattr(self, request: Request) -> bytes | Work:
        node = self._node(request.node)
        if node.is_told(self.nodes.defaults) and (node.is_fresh or node.parent is None):
            return p.attributes_reply(node.attributes(self.nodes.defaults))
        return self._attributes(node)

    async def _attributes(self, node: Node) -> bytes:
        if node.parent and not node.is_fresh and not node.gone:
            shown = self.nodes.shown(node)
            if await self.tree.current(node.parent, shown) is not node:
                raise OSError(errno.ESTALE, "the object was replaced")
        if not node.is_told(self.nodes.defaults) and not node.gone:
            entry = node.entry
            if node.handles and entry and 0 < entry.size <= self.files.small:
                await self.files.read_whole(node, entry)
            if not node.known:
                await self.tree.learn_soon(node)
        return p.attributes_reply(node.attributes(self.nodes.defaults))

    def _setattr(self, request: Request) -> Work:
        handle = struct.unpack_from("<II", request.body)[0] & 64
        return self._change(self._node(request.node), p.change_of(request.body), bool(handle))

    async def _change(self, node: Node, change: p.Change, opened: bool) -> bytes:
        await self.changes.change(node, change, opened)
        return p.attributes_reply(node.attributes(self.nodes.defaults))

    def _readlink(self, request: Request) -> bytes:
        return self._node(request.node).target

    def _statfs(self, request: Request) -> bytes:
        return p.statfs_reply(0, _SIZE, LONGEST)

    def _nothing(self, request: Request) -> bytes:
        return b""

    # Files

    def _open(self, request: Request) -> bytes | Work:
        node = self._node(request.node)
        flags, _ = p.words(request.body)
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        node.check()  # the kernel then looks the name up again
        if node.is_fresh or node.gone:
            return self._opened(node, writes)
        return self._open_current(node, writes)

    def _opened(self, node: Node, writes: bool) -> bytes:
        return p.open_reply(
            self.files.open(node, writes), p.KEEP_CACHE | (0 if writes else p.NOFLUSH)
        )

    async def _open_current(self, node: Node, writes: bool) -> bytes:
        assert node.parent
        if await self.tree.current(node.parent, self.nodes.shown(node)) is not node:
            # The kernel then looks the name up again.
            raise OSError(errno.ESTALE, "the object was replaced")
        return self._opened(node, writes)

    def _create(self, request: Request) -> Reply | Work:
        directory, name = self._directory(request.node), p.name_of(request.body, 16)
        flags, mode = p.words(request.body)
        make = partial(self._created, directory, name, flags, mode, request.uid, request.gid)
        if self.changes.is_doubtful(directory, name):
            return self._created_later(directory, name, make)
        return make()

    async def _created_later(
        self, directory: Directory, name: bytes, make: Callable[[], Reply | Work]
    ) -> bytes | Reply:
        await self.changes.look_again(directory, name)
        made = make()
        return made if isinstance(made, list) else await made

    def _created(
        self, directory: Directory, name: bytes, flags: int, mode: int, uid: int, gid: int
    ) -> Reply | Work:
        try:
            node = self.changes.create(directory, name, mode, uid, gid)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            return self._open_instead(directory, name, flags)
        return [self._entry(node), self._opened(node, True)]

    async def _open_instead(self, directory: Directory, name: bytes, flags: int) -> bytes:
        """Somebody else made it since the kernel was told that there is no such file."""
        node = await self.tree.current(directory, name)
        if node.is_directory:
            raise OSError(errno.EISDIR, "a directory")
        if node.kind != stat.S_IFREG:
            raise OSError(errno.ESTALE, "a symbolic link")  # the kernel then looks it up
        if flags & os.O_TRUNC and node.size:
            await self.files.truncate(node, 0, at_once=True)
        return self._entry(node) + self._opened(node, True)

    def _mknod(self, request: Request) -> Work:
        mode, _ = p.words(request.body)
        if mode and not stat.S_ISREG(mode):
            raise OSError(errno.EPERM, "a store holds files only")
        directory, name = self._directory(request.node), p.name_of(request.body, 16)
        return self._made_file(directory, name, mode, request.uid, request.gid)

    async def _made_file(
        self, directory: Directory, name: bytes, mode: int, uid: int, gid: int
    ) -> bytes:
        await self.changes.look_again(directory, name)
        node = self.changes.create(directory, name, mode, uid, gid)
        await self.files.saver.save(node)
        return self._entry(node)

    def _read(self, request: Request) -> Reply | Work:
        number, start, size, *_ = p.IO.unpack_from(request.body)
        return self.files.read(self.files.handles[number], start, size)

    def _write(self, request: Request) -> bytes | Work:
        number, start, size, *_ = p.IO.unpack_from(request.body)
        data = request.body[p.IO.size : p.IO.size + size]
        done = self.files.write(self.files.handles[number], start, data)
        return p.write_reply(done) if isinstance(done, int) else self._written(done)

    async def _written(self, work: Coroutine[Any, Any, int]) -> bytes:
        return p.write_reply(await work)

    def _flush(self, request: Request) -> bytes | Work:
        node = self.files.handles[p.number(request.body)].node
        if node.draft and node.draft.dirty and not node.gone:
            return self._saved(node)
        return b""

    async def _saved(self, node: Node) -> bytes:
        await self.files.saver.save(node)
        return b""

    def _release(self, request: Request) -> bytes:
        self.files.release(p.number(request.body))
        return b""

    # Directories

    def _opendir(self, request: Request) -> bytes:
        return p.open_reply(self._listings.open(self._directory(request.node)), 0)

    def _releasedir(self, request: Request) -> bytes:
        self._listings.close(p.number(request.body))
        return b""

    def _readdir(self, request: Request) -> bytes | Work:
        number, offset, size, *_ = p.IO.unpack_from(request.body)
        return self._listings.read(number, offset, size, request.opcode == p.READDIRPLUS)

    # Changes

    def _mkdir(self, request: Request) -> Work:
        mode, _ = p.words(request.body)
        directory = self._directory(request.node)
        return self._made(
            self.changes.mkdir(
                directory, p.name_of(request.body, 8), mode,
                request.uid, request.gid,
            ),
            directory,
        )  # fmt: skip

    def _symlink(self, request: Request) -> Work:
        name, target = p.names_of(request.body, 0)
        directory = self._directory(request.node)
        work = self.changes.symlink(directory, name, target, request.uid, request.gid)
        return self._made(work, directory)

    async def _made(self, work: Coroutine[Any, Any, Node], directory: Directory) -> bytes:
        with _doubts(directory):
            return self._entry(await work)

    def _unlink(self, request: Request) -> Work:
        directory, name = self._directory(request.node), p.name_of(request.body)
        return self._done(self.changes.unlink(directory, name), directory)

    def _rmdir(self, request: Request) -> Work:
        directory, name = self._directory(request.node), p.name_of(request.body)
        return self._done(self.changes.rmdir(directory, name), directory)

    def _rename(self, request: Request) -> Work:
        old, new = self._directory(request.node), self._directory(p.number(request.body))
        flags, at = 0, 8
        if request.opcode == p.RENAME2:
            flags, at = p.words(request.body[8:])[0], 16
        name, new_name = p.names_of(request.body, at)
        return self._done(self.renames.rename(old, name, new, new_name, flags), old, new)

    async def _done(self, work: Coroutine[Any, Any, None], *directories: Directory) -> bytes:
        with _doubts(*directories):
            await work
        return b""

    def _link(self, request: Request) -> bytes:
        raise OSError(errno.EPERM, "a store has no hard links")


@contextlib.contextmanager
def _doubts(*directories: Directory) -> Iterator[None]:
    """What fails may be half done: what is known of the directories is not believed any more."""
    try:
        yield
    except BaseException:
        for directory in directories:
            directory.doubt()
        raise
