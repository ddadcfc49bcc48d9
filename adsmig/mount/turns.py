"""Takes turns: while a directory gets another name, nothing below it is made, stored or removed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator

from adsmig.mount.nodes import Directory, Node

Path = Callable[[], bytes]
"""Gives the path of a name: what that is in may get another one meanwhile."""
Paths = tuple[Path, ...]


class Turns:
    """Who has a turn may not ask for another one; a node's lock is taken within it, and names are
    held before.  Belongs to the event loop.
    """

    def __init__(self) -> None:
        self._busy: list[Node] = []
        """What is being changed: files, and directories in which names are."""
        self._moving: list[Directory] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._held = Counter[bytes]()
        """The paths of names that are held, and how often."""
        self._above = Counter[bytes]()
        """The paths of all that these are in."""
        self._queue: list[Paths] = []
        """Those of who waits for them, in the order in which they came."""

    @contextlib.asynccontextmanager
    async def hold(self, *paths: Path) -> AsyncIterator[None]:
        """While nobody else makes, stores, renames or removes what has one of these names, or is in
        it, or what it is in.  The kernel sees to most of that; but what was given up, as a signal
        came or the store did not answer, has its last request under way when the kernel lets others
        go on.
        """
        self._queue.append(paths)
        try:
            # In this order: of who waits, most wait for one that has what all theirs are in.
            while any(self._is_held(path()) for path in paths) or self._is_late(paths):
                await self._ended()
        finally:
            self._queue.remove(paths)
            self._wake()
        held = [path() for path in paths]
        above = [one for path in held for one in _above(path)]
        self._held.update(held)
        self._above.update(above)
        try:
            yield
        finally:
            for counter, gone in ((self._held, held), (self._above, above)):
                for path in gone:
                    counter[path] -= 1
                    if not counter[path]:
                        del counter[path]
            self._wake()

    def _is_late(self, paths: Paths) -> bool:
        """Whether somebody else waits for one of these names and was first."""
        others = itertools.takewhile(lambda one: one is not paths, self._queue)
        return any(_meet(path(), other()) for one in others for other in one for path in paths)

    def holds(self, path: bytes) -> bool:
        """Whether somebody has just this name."""
        return path in self._held

    def _is_held(self, path: bytes) -> bool:
        return path in self._held or path in self._above or any(map(self._held.get, _above(path)))

    @contextlib.asynccontextmanager
    async def change(self, *nodes: Node) -> AsyncIterator[None]:
        """While these files, or what is in these directories, may be changed under their keys."""
        while self.is_moving(*nodes):
            await self._ended()
        self._busy += nodes
        try:
            yield
        finally:
            for node in nodes:
                self._busy.remove(node)
            self._wake()

    @contextlib.asynccontextmanager
    async def own(self, node: Node) -> AsyncIterator[None]:
        """While nobody else changes, stores, renames or removes a file, or another of its name;
        with its lock.
        """
        async with self.hold(lambda: node.path), self.change(node), node.lock:
            yield

    @contextlib.asynccontextmanager
    async def move(self, directory: Directory) -> AsyncIterator[None]:
        """While nobody else changes anything below a directory, by who may change what it is in
        and what it goes to.
        """
        self._moving.append(directory)
        try:
            while directory in _ways(self._busy):
                await self._ended()
            yield
        finally:
            self._moving.remove(directory)
            self._wake()

    def is_moving(self, *nodes: Node) -> bool:
        """Whether something that one of these is in is getting another name."""
        return bool(self._moving) and any(one in self._moving for one in _ways(nodes))

    async def _ended(self) -> None:
        """Returns when somebody's turn has ended."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()


def _meet(one: bytes, other: bytes) -> bool:
    """Whether they are the same path, or one is in the other."""
    return one == other or one.startswith(other + b"/") or other.startswith(one + b"/")


def _above(path: bytes) -> Iterator[bytes]:
    """The paths of the directories that one is in, but for the mount point."""
    at = path.rfind(b"/")
    while at >= 0:
        yield path[:at]
        at = path.rfind(b"/", 0, at)


def _ways(nodes: Iterator[Node] | list[Node] | tuple[Node, ...]) -> Iterator[Node]:
    """Each node, and all that it is in."""
    for node in nodes:
        above: Node | None = node
        while above:
            yield above
            above = above.parent
