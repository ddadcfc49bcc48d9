"""Takes turns: while a directory gets another name, nothing below it is made, stored or removed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

from adsmig.mount.nodes import Directory, Node


class Turns:
    """Who has a turn may not ask for another one; a node's lock is taken within it.  Belongs to
    the event loop.
    """

    def __init__(self) -> None:
        self._busy: list[Node] = []
        """What is being changed: files, and directories in which names are."""
        self._moving: list[Directory] = []
        self._waiting: list[asyncio.Future[None]] = []

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


def _ways(nodes: Iterator[Node] | list[Node] | tuple[Node, ...]) -> Iterator[Node]:
    """Each node, and all that it is in."""
    for node in nodes:
        above: Node | None = node
        while above:
            yield above
            above = above.parent
