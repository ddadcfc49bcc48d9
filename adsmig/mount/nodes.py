"""Files and directories as the mount knows them: a tree whose names lead to keys.

All of it belongs to one event loop.  What is known of the store is *fresh* for some seconds; what
was changed here is always right, for the change is either in the store already or in a draft.
"""

from __future__ import annotations

import asyncio
import errno
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adsmig.model import Entry, Meta
from adsmig.mount.names import spelled
from adsmig.mount.protocol import ROOT, Attributes
from adsmig.mount.store import own_meta

if TYPE_CHECKING:
    from adsmig.mount.draft import Draft

FRESH_S = 10.0
"""For how long what the store said is believed."""
MOST_LISTED = 100_000
"""Names of a directory that are kept in memory; those of larger ones pass through."""
NO_META = Meta()


@dataclass(frozen=True, slots=True)
class Defaults:
    """What files are that do not say otherwise."""

    uid: int
    gid: int
    time_ns: int
    """Of directories."""
    file_mode: int = 0o644
    directory_mode: int = 0o755
    server_times: bool = False
    """Files have the time that the store has them from, and the mode and owner of here."""


class Node:
    """A file, a symbolic link, or a directory, for as long as the kernel knows it."""

    __slots__ = (
        "_lock", "draft", "entry", "fresh_until", "gone", "handles", "ino", "kind", "known",
        "learning", "lookups", "meta", "name", "parent", "replaced", "target", "writers",
    )  # fmt: skip

    def __init__(self, ino: int, parent: Directory | None, name: bytes, kind: int) -> None:
        self.ino, self.parent, self.name, self.kind = ino, parent, name, kind
        """``name`` is a part of the key, ``kind`` one of stat's: S_IFREG and so on."""
        self.entry: Entry | None = None
        """What the store has; None for what is only here, and for most directories."""
        self.meta = NO_META
        self.known = False
        """Whether ``meta`` is what the store has, or will have."""
        self.learning: asyncio.Future[None] | None = None
        """Done when ``meta`` was asked for."""
        self.target = b""
        self.fresh_until = 0.0
        self.lookups = self.handles = self.writers = 0
        """How often the kernel was told of it; how often it is open; and open to be written."""
        self.draft: Draft | None = None
        self.gone = False
        """There is no such name any more."""
        self.replaced = False
        """It is ``gone``, and not by what was done here: the store has another object, or none."""
        self._lock: asyncio.Lock | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.ino} {self.key!r}>"

    @property
    def lock(self) -> asyncio.Lock:
        """Held while its content is on its way to the store, or it gets another name."""
        if self._lock is None:  # of most files, nobody ever wants it
            self._lock = asyncio.Lock()
        return self._lock

    @property
    def is_locked(self) -> bool:
        return self._lock is not None and self._lock.locked()

    @property
    def path(self) -> bytes:
        """The key, without the slash of a directory; '' for the mount point."""
        parts, node = [], self
        while node.parent:
            parts.append(node.name)
            node = node.parent
        return b"/".join(reversed(parts))

    @property
    def key(self) -> bytes:
        """The key, relative to the Location."""
        return self.path

    @property
    def is_directory(self) -> bool:
        return self.kind == stat.S_IFDIR

    @property
    def size(self) -> int:
        if self.draft:
            return self.draft.size
        if self.kind == stat.S_IFLNK:
            return len(self.target)
        return self.entry.size if self.entry else 0

    @property
    def is_local(self) -> bool:
        """Whether it is right as it is known here, whatever the store says: it is to be stored, or
        who has it open may write to it.
        """
        return self.gone or (self.draft is not None and (self.draft.dirty or self.writers > 0))

    @property
    def stored(self) -> Entry | None:
        """What the store has under its name: a version of it, or what it is going to replace."""
        return self.entry or (self.draft and self.draft.base) or None

    @property
    def is_fresh(self) -> bool:
        return self.is_local or self.fresh_until > time.monotonic()

    def check(self) -> None:
        """Raises ESTALE if what is changed of it could not be stored any more."""
        if self.replaced:
            raise OSError(errno.ESTALE, "the object was replaced")

    def refresh(self) -> None:
        """The store has just told us."""
        self.fresh_until = time.monotonic() + FRESH_S

    def is_plain(self, defaults: Defaults) -> bool:
        """Whether it is shown as a listing has it, whatever its metadata."""
        listed = self.entry is not None and self.entry.stored_ns > 0
        return defaults.server_times and listed and self.kind == stat.S_IFREG and not self.draft

    def is_told(self, defaults: Defaults) -> bool:
        """Whether all that stat(2) tells is here."""
        return self.known or self.is_plain(defaults)

    def attributes(self, defaults: Defaults) -> Attributes:
        """What stat(2) tells, as far as it is known."""
        plain = self.is_plain(defaults)
        meta = NO_META if plain else self.meta
        mode = meta.mode
        if self.kind == stat.S_IFLNK:
            mode = 0o777
        elif mode is None:
            mode = defaults.directory_mode if self.is_directory else defaults.file_mode
        mtime_ns = (self.draft and self.draft.written_ns) or meta.mtime_ns
        if mtime_ns is None:
            mtime_ns = self.entry.stored_ns if self.entry else defaults.time_ns
            if plain:  # a HEAD tells seconds, a listing more
                mtime_ns -= mtime_ns % 10**9
        if self.is_local:
            valid = FRESH_S
        else:
            valid = self.fresh_until - time.monotonic() if self.known or plain else 0
        return Attributes(
            self.ino,
            self.kind | mode,
            self.size,
            mtime_ns,
            defaults.uid if meta.uid is None else meta.uid,
            defaults.gid if meta.gid is None else meta.gid,
            valid,
        )

    def learn(self, meta: Meta) -> None:
        """Takes in what is kept beside the content."""
        self.meta = own_meta(meta)
        self.known = True


class Since:
    """What was made and removed in a directory here since a listing of it was begun, which may tell
    of that or not.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self.began = time.monotonic()
        self.took = 0.0
        """Seconds that the store has needed for it."""
        self.made: dict[bytes, Entry | None] = {}
        self.removed = set[bytes]()
        directory.since += (self,)

    def end(self) -> None:
        """The listing has ended, or nobody wants it any more."""
        directory = self._directory
        directory.since = tuple(one for one in directory.since if one is not self)


class Directory(Node):
    """A directory, with the names in it that are known."""

    __slots__ = ("children", "doubted_until", "fetching", "listed", "listed_until", "marked", "odd",
                 "opened", "order", "places", "reading", "reads", "since", "stats", "wide",
    )  # fmt: skip

    def __init__(self, ino: int, parent: Directory | None, name: bytes) -> None:
        super().__init__(ino, parent, name, stat.S_IFDIR)
        self.children: dict[bytes, Node] = {}
        """Those that the kernel knows, or that are only here; by name."""
        self.listed: dict[bytes, Entry | None] | None = None
        """All that the store has, by name: objects with their entries, directories with None."""
        self.listed_until = 0.0
        self.doubted_until = 0.0
        """For how long the kernel may think that there is no such name, where there is one."""
        self.order: list[bytes] | None = None
        self.places: dict[bytes, int] = {}
        """The names of the listing, and where each of them is, if somebody wanted to know."""
        self.odd: dict[bytes, bytes] = {}
        """The parts of keys that the names of directories stand for and do not tell."""
        self.since: tuple[Since, ...] = ()
        """What was made and removed here since each listing that is under way was begun."""
        self.marked: bool | None = None
        """Whether there is an object for the directory itself, if that is known."""
        self.wide = False
        """It has too many names to be listed for one of them."""
        self.reading: asyncio.Task[None] | None = None
        """Lists it."""
        self.stats = self.reads = 0
        """How many of its files were asked for their metadata, or small ones for their content,
        that had to be fetched for that."""
        self.opened = 0.0
        """When one of its files was, last; monotonic."""
        self.fetching = False
        """Its small files are being fetched ahead."""

    @property
    def key(self) -> bytes:
        return self.path + b"/" if self.parent else b""

    def doubt(self) -> None:
        """What is known of its names may not be so, here and by the kernel."""
        self.doubted_until = max(self.listed_until, time.monotonic() + FRESH_S)
        self.listed_until = 0.0
        for node in self.children.values():
            node.fresh_until = 0.0

    @property
    def is_doubted(self) -> bool:
        """Whether something failed in it that may be half done."""
        return self.doubted_until > time.monotonic()

    @property
    def is_listed(self) -> bool:
        """Whether all names are known, and fresh."""
        return self.listed is not None and self.listed_until > time.monotonic()

    def names_from(self, first: bytes | None) -> Iterator[bytes]:
        """The names that are listed, from this one on, or all; none where it is not among them."""
        listed = self.listed or {}
        if self.order is None:
            self.order = list(listed)
            self.places = {name: at for at, name in enumerate(self.order)}
        at = 0 if first is None else self.places.get(first, len(self.order))
        order = self.order
        return (order[n] for n in range(at, len(order)) if order[n] in listed)


class Nodes:
    """All nodes, by their numbers, which are never used again."""

    def __init__(self, defaults: Defaults) -> None:
        self.defaults = defaults
        self.root = Directory(ROOT, None, b"")
        self.root.known = True
        self.root.marked = True
        self.root.lookups = 1
        self._last = ROOT
        self.by_ino: dict[int, Node] = {ROOT: self.root}

    def make(self, parent: Directory, shown: bytes, part: bytes, kind: int) -> Node:
        """A new node, under the name ``shown``, for the part ``part`` of a key."""
        self._last += 1
        node: Node
        if kind == stat.S_IFDIR:
            node = Directory(self._last, parent, part)
        else:
            node = Node(self._last, parent, part, kind)
        self.by_ino[node.ino] = node
        parent.children[shown] = node
        return node

    def forget(self, ino: int, count: int) -> None:
        """The kernel knows of it so many times less."""
        if node := self.by_ino.get(ino):
            node.lookups -= count
            self.let_go(node)

    def let_go(self, node: Node) -> None:
        """Drops a node that nobody can ask for; a directory stays as long as it holds others."""
        if node.lookups > 0 or node.handles or node.draft or node.ino == ROOT:
            return
        if isinstance(node, Directory) and node.children:
            return
        self.by_ino.pop(node.ino, None)
        parent = node.parent
        if parent and not node.gone:
            shown = self.shown(node)
            if parent.children.get(shown) is node:
                del parent.children[shown]
            self.let_go(parent)

    @staticmethod
    def shown(node: Node) -> bytes:
        """The name under which its parent has it."""
        assert node.parent
        children = node.parent.children
        for name in (node.name, spelled(node.name), spelled(node.name, True)):
            if children.get(name) is node:
                return name
        for name, one in children.items():  # a detached one, or of a very long name
            if one is node:
                return name
        return node.name

    def detach(self, node: Node) -> None:
        """Takes the name from a node that may be open: another object has it, or none."""
        if node.parent:
            shown = self.shown(node)
            if node.parent.children.get(shown) is node:
                del node.parent.children[shown]
        node.gone = True
        self.let_go(node)

    def replaced(self, node: Node) -> None:
        """As :meth:`detach`, where that was not done here: nobody may go on writing to it."""
        node.replaced = True
        self.detach(node)

    def below(self, directory: Directory) -> Iterator[Node]:
        """Every known node below a directory, parents first."""
        for child in list(directory.children.values()):
            yield child
            if isinstance(child, Directory):
                yield from self.below(child)


def forget_listing(directory: Directory, shown: bytes) -> None:
    """A name was removed here."""
    for since in directory.since:
        since.made.pop(shown, None)
        since.removed.add(shown)
    if directory.listed is not None:
        directory.listed.pop(shown, None)


def note_listing(directory: Directory, shown: bytes, entry: Entry | None) -> None:
    """A name was made or changed here, and the store has it."""
    for since in directory.since:
        since.made[shown] = entry
        since.removed.discard(shown)
    if directory.listed is not None:
        directory.listed[shown] = entry
