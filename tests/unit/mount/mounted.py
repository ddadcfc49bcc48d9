"""A mount without the kernel, and a store that it is of."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast
from uuid import uuid4

from adsmig.errors import NotFound
from adsmig.location import Location
from adsmig.model import Entry, Meta, Upload
from adsmig.mount.blocks import Blocks
from adsmig.mount.changes import Changes
from adsmig.mount.files import Files
from adsmig.mount.nodes import Defaults, Directory, Node, Nodes
from adsmig.mount.protocol import Change
from adsmig.mount.reader import Reader
from adsmig.mount.renames import Renames
from adsmig.mount.store import Store
from adsmig.mount.tree import Tree
from adsmig.storage.memory import MemoryStorage
from adsmig.storage.s3 import S3Storage

PAGE = 4096


class Bucket(MemoryStorage):
    """What the mount asks of a store beyond what copies need."""

    def __init__(self) -> None:
        super().__init__(Location("memory", b"", bucket=uuid4().hex))
        self.profile = SimpleNamespace(min_part=PAGE, max_parts=10_000, max_size=1 << 40)
        self.before_copy: Callable[[bytes], None] = lambda _key: None

    def put(self, key: bytes, content: bytes) -> None:
        """As another mount would."""
        self.write(key, iter([memoryview(content)]), len(content), Meta())

    def look(self, key: bytes) -> tuple[Entry, Meta]:
        return self.stat(key), self._bucket.objects[key].meta

    def children(self, key: bytes) -> Iterator[tuple[bytes, Entry | None]]:
        found = dict[bytes, "Entry | None"]()
        for one in [one for one in self._bucket.keys if one.startswith(key)]:
            name, slash, _ = one[len(key) :].partition(b"/")
            found[key + name + slash] = None if slash else self.stat(one)
        return iter(found.items())

    def holds_below(self, key: bytes) -> bool:
        return any(one.startswith(key) for one in self._bucket.keys)

    def begin_beside(self, key: bytes, entry: Entry, meta: Meta) -> Upload:
        return self.begin_upload(key, entry, meta)

    def copy_within(self, entry: Entry, key: bytes, meta: Meta | None) -> Entry:
        self.before_copy(entry.key)
        found = self._bucket.objects.get(entry.key)
        if not found:
            raise NotFound("no such object")
        self.read(entry)
        self._put(key, found.content, found.etag, found.meta if meta is None else meta)
        return self.stat(key)

    def contents(self) -> dict[str, bytes]:
        """All but the markers of directories."""
        objects = self._bucket.objects.items()
        return {key.decode(): one.content for key, one in objects if key[-1:] != b"/"}


class At:
    """A mount of a Bucket, without the kernel."""

    def __init__(self, path: Path, bucket: Bucket) -> None:
        self.store = Store(cast(S3Storage, bucket))
        self.nodes = Nodes(Defaults(0, 0, 0))
        self.root = self.nodes.root
        self.tree = Tree(self.nodes, self.store)
        (path / "drafts").mkdir()
        self._blocks = Blocks(path, 1 << 30)
        reader = Reader(self.store, self._blocks)
        self.files = Files(self.tree, self.store, reader, path / "drafts", 0)
        self.changes = Changes(self.tree, self.files, self.store)
        self.renames = Renames(self.changes)

    def close(self) -> None:
        self._blocks.close()
        self.store.close()

    async def node(self, name: bytes, directory: Directory | None = None) -> Node:
        node = await self.tree.current(directory or self.root, name)
        node.lookups += 1
        return node

    def create(self, name: bytes, directory: Directory | None = None) -> tuple[Node, int]:
        """A new file, open to be written."""
        node = self.changes.create(directory or self.root, name, 0o644, 0, 0)
        node.lookups += 1
        return node, self.files.open(node, True)

    async def write(self, number: int, data: bytes, start: int = 0) -> None:
        done = self.files.write(self.files.handles[number], start, memoryview(data))
        if not isinstance(done, int):
            await done

    async def read(self, number: int, size: int) -> bytes:
        found = self.files.read(self.files.handles[number], 0, size)
        return b"".join(found if isinstance(found, list) else await found)

    async def close_file(self, number: int) -> None:
        await self.files.saver.save(self.files.handles[number].node)
        self.files.release(number)

    async def rename(self, name: bytes, new_name: bytes) -> None:
        await self.renames.rename(self.root, name, self.root, new_name, 0)

    def doubt(self) -> None:
        """As when what the store said is too old to be believed."""
        for node in [self.root, *self.nodes.below(self.root)]:
            node.fresh_until = 0.0
            if isinstance(node, Directory):
                node.doubt()


Work = Callable[[At], Coroutine[Any, Any, None]]
During = Callable[[Work], None]
"""Has work done with a mount, and ends that."""


class Gate:
    """Where a call of another thread stops, until it is let through."""

    def __init__(self) -> None:
        self._reached, self._opened = threading.Event(), threading.Event()

    def stop(self, *_: object) -> None:
        self._reached.set()
        assert self._opened.wait(20)

    async def reached(self) -> None:
        """Returns when somebody stands there."""
        await asyncio.to_thread(self._reached.wait)

    def open(self) -> None:
        self._opened.set()


async def errno_of(work: Coroutine[Any, Any, Any]) -> int:
    """The errno of what must fail."""
    try:
        await work
    except OSError as exc:
        return exc.errno or 0
    raise AssertionError("it worked")


def change(**fields: int) -> Change:
    """A SETATTR of these."""
    nothing = dict.fromkeys(("mode", "uid", "gid", "size", "mtime_ns"))
    return Change(**{**nothing, "mtime_now": False, **fields})  # type: ignore[arg-type]


def disk_is_full(*_: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "no room")


async def write_pages(at: At, number: int, first: int, upto: int) -> bytes:
    """Pages of a file, each of its own bytes; the file's content."""
    for page in range(first, upto):
        await at.write(number, bytes([page + 1]) * PAGE, page * PAGE)
        await asyncio.sleep(0.01)
    return b"".join(bytes([page + 1]) * PAGE for page in range(upto))
