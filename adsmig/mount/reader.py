"""What is read of objects: from the cache, or from the store in ranges, some of them ahead."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections import OrderedDict
from collections.abc import Callable

from adsmig.errors import AdsmigError
from adsmig.model import Entry, Meta
from adsmig.mount.blocks import BLOCK, Blocks
from adsmig.mount.store import Store

log = logging.getLogger(__name__)

Data = bytes | bytearray
Buffers = list["bytes | memoryview"]
_RUN = 16
"""Blocks that are asked for with one request, if so many are wanted."""
_MOST_AHEAD = 48
"""Blocks that are read ahead of who reads from the beginning to the end."""
_SOME = 8
"""Runs, and one in so many, of which a jumping reader has wanted something: the next ones too."""
_NEAR_S = 0.01
"""A store that has given a block within that time has all around it at hand as soon."""
_RECENT = 64
"""Blocks in memory, for where the disk has no room for a cache."""


class Sight:
    """How far one reader has come in an object, and what it may want next."""

    __slots__ = ("asked", "at", "met", "window")

    def __init__(self) -> None:
        self.at = 0
        """Where the next bytes begin if it reads on."""
        self.window = 0
        """Blocks to read ahead; 0 while it jumps."""
        self.asked = 0
        """The first block that was not asked for ahead."""
        self.met = set[int]()
        """The runs of blocks of which it wanted one, out of order, that was not here."""


class Reader:
    """Reads versions of objects, named as in blocks.version_of.  Belongs to the event loop."""

    def __init__(self, store: Store, blocks: Blocks) -> None:
        self._store, self._blocks = store, blocks
        self._flying: dict[tuple[bytes, int], asyncio.Future[Data]] = {}
        self._recent: OrderedDict[tuple[bytes, int], Data] = OrderedDict()
        self._work = set[asyncio.Task[None]]()
        self._block_s = 1.0
        """How long the last block took that was fetched alone."""

    def at_hand(self, version: bytes, start: int, size: int) -> Buffers | None:
        """The bytes, if all of them are here."""
        parts: Buffers = []
        while size:
            number, offset = divmod(start, BLOCK)
            count = min(size, BLOCK - offset)
            part = self._one(version, number, offset, count)
            if part is None or len(part) != count:
                return None
            parts.append(part)
            start, size = start + count, size - count
        return parts

    def _one(
        self, version: bytes, number: int, offset: int, count: int
    ) -> bytes | memoryview | None:
        if data := self._recent.get((version, number)):
            return memoryview(data)[offset : offset + count]
        return self._blocks.get(version, number, offset, count)

    async def read(
        self, entry: Entry, version: bytes, start: int, size: int,
        learn: Callable[[Meta], None] | None = None,
    ) -> Buffers:  # fmt: skip
        """The bytes; ``learn`` is told what is kept beside them, if that came along.

        Raises OSError, ESTALE if there is another version by now.
        """
        while (parts := self.at_hand(version, start, size)) is None:
            first, last = start // BLOCK, (start + size - 1) // BLOCK
            futures = self._ask(entry, version, first, last + 1, learn)
            for future in futures:
                try:
                    await asyncio.shield(future)
                except BlockingIOError:
                    continue  # it was not fetched ahead: now somebody waits for it
        return parts

    def drop(self) -> None:
        """Gives back the room of all that was kept."""
        self._blocks.drop()

    def look_ahead(self, sight: Sight, entry: Entry, version: bytes, start: int, size: int) -> None:
        """Takes note of what is being read, and asks for what may be next."""
        near = abs(start - sight.at) <= BLOCK
        sight.at = start + size
        if not near:
            sight.window, sight.asked = 0, 0
            number = start // BLOCK
            if not self._here(version, number):
                self._ask(entry, version, number, number + 1, None)
                run, blocks = number // _RUN, -(-entry.size // BLOCK)
                many = len(sight.met) >= max(_SOME, blocks // _RUN // _SOME)
                if run in sight.met or (many and self._block_s < _NEAR_S):
                    # It jumps about densely: the next one may be any of those around.
                    upto = min((run + 1) * _RUN, blocks)
                    self._ask(entry, version, run * _RUN, upto, None)
                sight.met.add(run)
            return
        sight.window = min(max(2 * sight.window, 2), _MOST_AHEAD)
        here = (start + size) // BLOCK
        first = max(sight.asked, start // BLOCK)
        upto = min(here + sight.window, -(-entry.size // BLOCK))
        last = upto * BLOCK >= entry.size
        if upto - first >= min(_RUN, sight.window) or (last and upto > first):
            sight.asked = upto
            self._ask(entry, version, first, upto, None)

    def _ask(
        self, entry: Entry, version: bytes, first: int, upto: int,
        learn: Callable[[Meta], None] | None,
    ) -> list[asyncio.Future[Data]]:  # fmt: skip
        """Asks for those blocks that are neither here nor on their way; what is on its way."""
        futures, run = [], list[int]()
        for number in range(first, upto):
            name = version, number
            if future := self._flying.get(name):
                futures.append(future)
            elif not (name in self._recent or self._blocks.has(version, number)):
                run.append(number)
                if len(run) == _RUN:
                    futures += self._fetch(entry, version, run, learn)
                    run = []
                continue
            if run:
                futures += self._fetch(entry, version, run, learn)
                run = []
        if run:
            futures += self._fetch(entry, version, run, learn)
        return futures

    async def fetch_small(
        self, wanted: list[tuple[Entry, bytes]], learn: Callable[[Entry, Meta], None]
    ) -> None:
        """Has small objects, with their versions, in the cache, one after the other by one thread;
        those that cannot be had are left out.
        """
        loop = asyncio.get_running_loop()
        futures: dict[bytes, asyncio.Future[Data]] = {}
        for _, version in wanted:
            futures[version] = self._flying[version, 0] = loop.create_future()
            futures[version].add_done_callback(_seen)

        def came(entry: Entry, version: bytes, data: Data, meta: Meta) -> None:
            self._remember(version, 0, data)
            self._flying.pop((version, 0), None)
            futures[version].set_result(data)
            learn(entry, meta)

        def work() -> None:
            for entry, version in wanted:
                try:
                    data, meta = self._store.read(entry, 0, entry.size)
                except AdsmigError as exc:
                    log.info("%r is not fetched ahead: %s", entry.key, exc)
                    continue
                self._blocks.put(version, 0, data)
                loop.call_soon_threadsafe(came, entry, version, data, meta)

        try:
            await self._store.run_ahead(work)
        finally:
            for version, future in futures.items():
                if not future.done():
                    self._flying.pop((version, 0), None)
                    future.set_exception(OSError(errno.EAGAIN, "not fetched ahead"))

    def has(self, version: bytes) -> bool:
        """Whether the beginning of that version is here, or on its way."""
        return self._here(version, 0)

    def _here(self, version: bytes, number: int) -> bool:
        return self._blocks.has(version, number) or (version, number) in self._flying

    def _remember(self, version: bytes, number: int, data: Data) -> None:
        self._recent[version, number] = data
        while len(self._recent) > _RECENT:
            self._recent.popitem(last=False)

    def _fetch(
        self, entry: Entry, version: bytes, run: list[int], learn: Callable[[Meta], None] | None
    ) -> list[asyncio.Future[Data]]:
        loop = asyncio.get_running_loop()
        futures = {number: loop.create_future() for number in run}
        for number, future in futures.items():
            self._flying[version, number] = future
            future.add_done_callback(_seen)

        def came(number: int, data: bytes | bytearray) -> None:
            self._remember(version, number, data)
            if self._flying.get((version, number)) is futures[number]:
                del self._flying[version, number]
            if not futures[number].done():
                futures[number].set_result(data)

        def give(at: int, data: bytearray) -> None:
            number = at // BLOCK
            loop.call_soon_threadsafe(came, number, data)
            self._blocks.put(version, number, data)

        def whole() -> Meta:
            data, meta = self._store.read(entry, 0, entry.size)
            give(0, data)
            return meta

        async def work() -> None:
            error: BaseException | None = None
            try:
                if entry.size <= BLOCK:
                    meta = await self._store.run(whole)
                    if learn:
                        learn(meta)
                else:
                    start = run[0] * BLOCK
                    size = min(len(run) * BLOCK, entry.size - start)
                    began = loop.time()
                    await self._store.run(self._store.stream, entry, start, size, BLOCK, give)
                    if len(run) == 1:
                        self._block_s = loop.time() - began
            except Exception as exc:  # whatever it is, somebody waits for an answer
                error = exc
            for number, future in futures.items():
                if not future.done() and error:
                    self._flying.pop((version, number), None)
                    future.set_exception(error)

        task = asyncio.ensure_future(work())
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return list(futures.values())


def _seen(future: asyncio.Future[Data]) -> None:
    """Nobody may have waited for what was read ahead."""
    if not future.cancelled():
        future.exception()
