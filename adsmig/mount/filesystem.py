"""The kernel's requests, told to those who can answer: one method a kind of request."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import logging
import os
import stat
import struct
import time
from collections.abc import Coroutine, Iterator
from typing import Any

from adsmig.model import Entry
from adsmig.mount import protocol as p
from adsmig.mount.changes import Changes
from adsmig.mount.channel import Handler, Reply, Request
from adsmig.mount.files import Files
from adsmig.mount.links import may_be_link
from adsmig.mount.names import LONGEST
from adsmig.mount.nodes import MOST_LISTED, Directory, Node, Nodes
from adsmig.mount.tree import Listed, Tree, named

log = logging.getLogger(__name__)

Work = Coroutine[Any, Any, "bytes | Reply"]
_PAGE = 1000
_SIZE = 1 << 38
"""Of the file system, in blocks of 4 KiB, to whom asks: a petabyte."""


class Listing:
    """A directory that is open: its names, as they are asked for."""

    def __init__(self, directory: Directory) -> None:
        self.directory, self.key = directory, directory.key
        self.rows: Iterator[tuple[bytes, Entry | None]] | None = None
        """What is still to come from the store."""
        self.names: list[Listed] = []
        self.first = 0
        """How many names came before these."""
        self.ours = {
            name for name, node in directory.children.items() if node.draft and not node.gone
        }
        """Names of files that may be here only: those that the store has not told of so far."""
        self.all: list[Listed] | None = []
        """All names, as long as they may become what is known of the directory."""
        self.began = 0.0
        self.done = False

    def restart(self) -> None:
        """Begins again."""
        self.__init__(self.directory)  # type: ignore[misc]


class Filesystem:
    """Answers requests.  Belongs to the event loop."""

    def __init__(self, nodes: Nodes, tree: Tree, files: Files, changes: Changes) -> None:
        self.nodes, self.tree, self.files, self.changes = nodes, tree, files, changes
        self._listings: dict[int, Listing] = {}
        self._last = 0

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
        if opcode in (p.LOOKUP, p.MKDIR, p.SYMLINK, p.MKNOD, p.CREATE):
            if ino := p.number(memoryview(body)):
                self.nodes.forget(ino, 1)
        elif opcode == p.OPEN:
            self.files.release(p.number(memoryview(body)))

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
        if self._is_told(node) and (node.is_fresh or node.parent is None):
            return p.attributes_reply(node.attributes(self.nodes.defaults))
        return self._attributes(node)

    def _is_told(self, node: Node) -> bool:
        """Whether all that stat(2) tells is here."""
        return node.known or node.is_plain(self.nodes.defaults)

    async def _attributes(self, node: Node) -> bytes:
        if node.parent and not node.is_fresh and not node.gone:
            shown = self.nodes.shown(node)
            if await self.tree.current(node.parent, shown) is not node:
                raise OSError(errno.ESTALE, "the object was replaced")
        if not self._is_told(node) and not node.gone:
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
        try:
            node = self.changes.create(directory, name, mode, request.uid, request.gid)
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
        opened = self._opened(node, True)
        if flags & os.O_TRUNC:
            await self.files.truncate(node, 0)
        return self._entry(node) + opened

    def _mknod(self, request: Request) -> Work:
        mode, _ = p.words(request.body)
        if mode and not stat.S_ISREG(mode):
            raise OSError(errno.EPERM, "a store holds files only")
        directory = self._directory(request.node)
        node = self.changes.create(
            directory, p.name_of(request.body, 16), mode, request.uid, request.gid
        )
        return self._saved_entry(node)

    async def _saved_entry(self, node: Node) -> bytes:
        await self.files.save(node)
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
        await self.files.save(node)
        return b""

    def _release(self, request: Request) -> bytes:
        self.files.release(p.number(request.body))
        return b""

    # Directories

    def _opendir(self, request: Request) -> bytes:
        self._last += 1
        self._listings[self._last] = Listing(self._directory(request.node))
        return p.open_reply(self._last, 0)

    def _releasedir(self, request: Request) -> bytes:
        self._listings.pop(p.number(request.body), None)
        return b""

    def _readdir(self, request: Request) -> bytes | Work:
        number, offset, size, *_ = p.IO.unpack_from(request.body)
        listing = self._listings[number]
        plus = request.opcode == p.READDIRPLUS
        if offset == 0:
            listing.restart()
        if listing.directory.is_listed and offset == 0:
            self._take_known(listing)
        # The kernel asks for more than the first names in this way if these were asked about.
        if plus and (offset or self.tree.statting):
            return self._read_known(listing, offset, size)
        if offset < listing.first + len(listing.names) or listing.done:
            return self._dirents(listing, offset, size, plus)
        return self._read_on(listing, offset, size, plus)

    async def _read_known(self, listing: Listing, offset: int, size: int) -> bytes:
        """As :meth:`_read_on`, with the metadata of all that is read."""
        directory = listing.directory
        await self._load(listing, offset)
        at = max(offset - listing.first, 0)
        count = size // 160 + 1
        rows = [(name, entry) for name, _, entry in listing.names[at : at + 2 * count]]
        wanted = self.tree.learn_all(directory, rows[:count])
        self.tree.learn_all(directory, rows[count:])
        if offset == 0:
            self.tree.walked(directory)
        if wanted:
            await asyncio.wait(wanted)
        return self._dirents(listing, offset, size, True)

    def _take_known(self, listing: Listing) -> None:
        directory = listing.directory
        assert directory.listed is not None
        listing.names = [(name, b"", entry) for name, entry in directory.listed.items()]
        listing.ours.difference_update(directory.listed)
        self._finish(listing)

    def _finish(self, listing: Listing) -> None:
        """Adds what is only here."""
        for name in sorted(listing.ours):
            node = listing.directory.children.get(name)
            if node and not node.gone:
                listing.names.append((name, node.name, node.entry or Entry(b"", 0, None, 0)))
        listing.done = True

    async def _read_on(self, listing: Listing, offset: int, size: int, plus: bool) -> bytes:
        await self._load(listing, offset)
        return self._dirents(listing, offset, size, plus)

    async def _load(self, listing: Listing, offset: int) -> None:
        """Has the names from ``offset`` on."""
        directory = listing.directory
        store = self.tree.store
        if directory.reading and offset == 0:
            with contextlib.suppress(OSError):  # then it is asked for again
                await asyncio.shield(directory.reading)
            if directory.is_listed:
                self._take_known(listing)
        while not listing.done and offset >= listing.first + len(listing.names):
            if listing.rows is None:
                listing.began = time.monotonic()
                if directory.reading is None:
                    directory.changed = set()
                else:
                    listing.all = None
                listing.rows = store.storage.children(directory.key)
            rows = listing.rows
            page = await store.run(lambda rows=rows: list(itertools.islice(rows, _PAGE)))
            if directory.key != listing.key:  # it got another name meanwhile
                listing.restart()
                continue
            listing.first += len(listing.names)
            listing.names = [one for one in named(directory, page) if self._there(directory, one)]
            if listing.ours:
                listing.ours.difference_update(name for name, _, _ in listing.names)
            if listing.all is not None:
                listing.all += listing.names
                if len(listing.all) > MOST_LISTED:
                    listing.all, directory.wide = None, True
            if len(page) < _PAGE:
                if listing.all is not None:
                    self.tree.install(directory, listing.all, listing.began)
                self._finish(listing)
        await self._types(listing)

    @staticmethod
    def _there(directory: Directory, one: Listed) -> bool:
        """Whether it was not removed while it was listed."""
        name = one[0]
        return name not in directory.changed or name in directory.children

    async def _types(self, listing: Listing) -> None:
        """Looks at what may be symbolic links."""
        directory = listing.directory
        for name, _, entry in listing.names:
            if entry and may_be_link(entry):
                try:
                    await self.tree.current(directory, name)
                except OSError as exc:
                    log.info("%r: %s", name, exc)

    def _dirents(self, listing: Listing, offset: int, size: int, plus: bool) -> bytes:
        directory, parts, left = listing.directory, list[bytes](), size
        children, defaults = directory.children, self.nodes.defaults
        until = directory.listed_until - time.monotonic()
        for at in range(max(offset - listing.first, 0), len(listing.names)):
            name, _, entry = listing.names[at]
            node = children.get(name)
            kind = node.kind if node else stat.S_IFREG if entry else stat.S_IFDIR
            ino = node.ino if node else 0xFFFFFFFF
            next_at = listing.first + at + 1
            if plus:
                known = None
                if node and self._is_told(node) and node.is_fresh:
                    known = node.attributes(defaults)
                part = p.direntplus(known, until, ino, next_at, kind, name)
            else:
                known = None
                part = p.dirent(ino, next_at, kind, name)
            left -= len(part)
            if left < 0:
                break
            if known and node:
                node.lookups += 1
            parts.append(part)
        return b"".join(parts)

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
        return self._done(self.changes.rename(old, name, new, new_name, flags), old, new)

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
