"""Small files, fetched before anybody asks for them: of a directory of which some were read."""

from __future__ import annotations

import asyncio
import time

from adsmig.links import may_be_link
from adsmig.model import Entry, Meta
from adsmig.mount.background import Begin
from adsmig.mount.blocks import BLOCK, version_of
from adsmig.mount.nodes import Directory, Node
from adsmig.mount.reader import Reader
from adsmig.mount.tree import Tree

_SOME = 3
"""Small files of a directory that are read before the others are fetched."""
_FETCHING, _TOGETHER = 12, 4
"""Threads that do so at once, and how many of the files each one fetches one after the other."""
_IDLE_S = 1.0
"""Without a file of the directory being opened, after which no more are fetched."""


class Ahead:
    """Has ``most`` bytes of a directory fetched at once, no more.  Belongs to the event loop."""

    def __init__(self, tree: Tree, reader: Reader, begin: Begin, most: int) -> None:
        self._tree, self._reader, self._begin, self._most = tree, reader, begin, most

    def read(self, node: Node) -> None:
        """Somebody reads a small file: the others beside it may be next, in any order."""
        directory = node.parent
        if directory is None or not directory.is_listed or directory.fetching:
            return
        directory.reads += 1
        if directory.reads >= _SOME:
            directory.fetching = True
            self._begin(self._fetch_all(directory), "fetching small files")

    async def _fetch_all(self, directory: Directory) -> None:
        left, chunk, size = self._most, list[tuple[Entry, bytes]](), 0
        names = dict[bytes, bytes]()
        limit = asyncio.Semaphore(_FETCHING)

        def learn(entry: Entry, meta: Meta) -> None:
            self._tree.learned(directory, names.pop(entry.key), entry, meta)

        async def fetch(chunk: list[tuple[Entry, bytes]]) -> None:
            try:
                await self._reader.fetch_small(chunk, learn)
            finally:
                limit.release()

        tasks = set[asyncio.Task[None]]()
        try:
            for name, entry in list((directory.listed or {}).items()):
                if not entry or not 0 < entry.size <= BLOCK or may_be_link(entry):
                    continue
                version = version_of(entry)
                if self._reader.has(version):
                    continue
                left -= entry.size
                if left < 0 or _is_idle(directory):
                    break
                names[entry.key] = name
                chunk.append((entry, version))
                size += entry.size
                if len(chunk) == _TOGETHER or size > BLOCK:
                    await limit.acquire()
                    task = asyncio.ensure_future(fetch(chunk))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                    chunk, size = [], 0
            if chunk:
                await limit.acquire()
                tasks.add(asyncio.ensure_future(fetch(chunk)))
        finally:
            await asyncio.gather(*tasks, return_exceptions=True)
            directory.fetching, directory.reads = False, 0


def _is_idle(directory: Directory) -> bool:
    return time.monotonic() - directory.opened > _IDLE_S
