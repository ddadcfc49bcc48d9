"""What is asked of the store for who reads one file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from adsmig.model import Entry
from adsmig.mount.blocks import BLOCK, Blocks, version_of
from adsmig.mount.reader import _MOST_AHEAD, _RUN, Reader, Sight
from adsmig.mount.store import Store

PAGE = 4096


class Zeros:
    """A store of zeros, that keeps what it was asked for, in blocks."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    def stream(
        self, entry: Entry, start: int, size: int, step: int, give: Callable[[int, bytearray], None]
    ) -> None:
        self.asked.append((start // BLOCK, size // BLOCK))
        for at in range(start, start + size, step):
            give(at, bytearray(step))


def asked_by(tmp_path: Path, starts: list[int], blocks: int) -> list[tuple[int, int]]:
    """The ranges, as first block and count, asked for when a page is read at each of the places."""

    async def reading() -> None:
        sight, version = Sight(), version_of(entry)
        for start in starts:
            reader.look_ahead(sight, entry, version, start, PAGE)
            await reader.read(entry, version, start, PAGE)

    store, kept = Zeros(), Blocks(tmp_path, 1 << 30)
    reader = Reader(cast(Store, store), kept)
    entry = Entry(b"key", blocks * BLOCK, None, 0, "etag")
    asyncio.run(reading())
    kept.close()
    return store.asked


def test_who_reads_here_and_there_gets_a_block_each_time(tmp_path: Path) -> None:
    numbers = [_RUN * at + 5 for at in (9, 2, 30, 17, 4)]
    starts = [number * BLOCK for number in numbers]
    assert asked_by(tmp_path, starts, 1000) == [(number, 1) for number in numbers]


def test_who_comes_back_to_where_it_was_gets_what_is_around(tmp_path: Path) -> None:
    asked = asked_by(tmp_path, [5 * BLOCK, 90 * BLOCK, 9 * BLOCK], 1000)
    assert asked[:3] == [(5, 1), (90, 1), (9, 1)]
    assert sorted(asked[3:]) == [(0, 5), (6, 3), (10, _RUN - 10)]


def test_who_wants_something_of_many_parts_gets_what_is_around_at_once(tmp_path: Path) -> None:
    starts = [(run * _RUN + 5) * BLOCK for run in range(0, 20, 2)]
    asked = asked_by(tmp_path, starts, 20 * _RUN)
    assert asked[:8] == [(run * _RUN + 5, 1) for run in range(0, 16, 2)]
    around = [one for run in (16, 18) for one in ((run * _RUN, 5), (run * _RUN + 6, _RUN - 6))]
    assert sorted(asked[8:]) == sorted([*around, *((run * _RUN + 5, 1) for run in (16, 18))])


def test_in_a_long_object_that_takes_more_of_them(tmp_path: Path) -> None:
    starts = [(run * _RUN + 5) * BLOCK for run in range(0, 60, 2)]
    assert {count for _, count in asked_by(tmp_path, starts, 10_000)} == {1}


def test_who_reads_on_is_never_far_behind_and_nothing_is_asked_for_twice(tmp_path: Path) -> None:
    asked = asked_by(tmp_path, [PAGE * at for at in range(40 * BLOCK // PAGE)], 200)
    numbers = [first + at for first, count in asked for at in range(count)]
    assert numbers == list(range(len(numbers)))
    assert 40 < len(numbers) <= 40 + _MOST_AHEAD + 1
    assert max(count for _, count in asked) <= _RUN
