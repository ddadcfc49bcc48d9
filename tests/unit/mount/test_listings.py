"""Directories that are read while files in them are made and removed, and while stores fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from adsmig.errors import TransientError
from adsmig.model import Entry
from adsmig.mount.listings import _PAGE, Listings
from tests.unit.mount.mounted import At, Bucket, Gate

LAST = b"%04d" % _PAGE
"""The only name on the second page."""


class Paged(Bucket):
    """Which tells of a page what there is when that is asked for."""

    def children(self, key: bytes) -> Iterator[tuple[bytes, Entry | None]]:
        last = b""
        while page := [one for one in Bucket.children(self, key) if one[0] > last][:_PAGE]:
            yield from page
            last = page[-1][0]


class Reading:
    """Somebody who reads the mounted directory itself."""

    def __init__(self, at: At, listings: Listings) -> None:
        self._listings, self._number = listings, listings.open(at.root)

    async def page(self, offset: int) -> bytes:
        """The names from the ``offset``-th on, as far as one answer tells them."""
        answer = self._listings.read(self._number, offset, 1 << 20, False)
        return answer if isinstance(answer, bytes) else await answer


@pytest.fixture
def bucket() -> Bucket:
    bucket = Paged()
    for number in range(_PAGE + 1):
        bucket.put(b"%04d" % number, b"")
    return bucket


async def make(at: At, name: bytes) -> None:
    node, number = at.create(name)
    await at.write(number, b"content")
    await at.close_file(number)
    node.fresh_until = 0.0


@pytest.mark.parametrize("forgotten", [False, True])
def test_what_is_made_and_removed_while_a_directory_is_listed_is_so_afterwards(
    at: At, bucket: Bucket, forgotten: bool
) -> None:
    async def work() -> None:
        listings = Listings(at.nodes, at.tree)
        one, other = Reading(at, listings), Reading(at, listings)
        await one.page(0)
        await make(at, b"+")  # which the page has not told of
        await make(at, b"~")  # which the next one does tell of
        await at.node(b"0000")
        await at.changes.unlink(at.root, b"0000")
        if forgotten:  # by the kernel, which needs the memory
            for name in (b"+", b"~"):
                node = at.root.children[name]
                at.nodes.forget(node.ino, node.lookups)
        # Who asks meanwhile does not make it forgotten.
        await other.page(0)
        await at.tree.enumerate(at.root, 1 << 20)
        assert b"~" in await one.page(_PAGE)
        assert at.root.is_listed
        assert (await at.node(b"+")).size == (await at.node(b"~")).size == 7
        with pytest.raises(FileNotFoundError):
            await at.node(b"0000")

    asyncio.run(work())


def test_a_directory_that_somebody_reads_slowly_is_not_believed_for_longer(at: At) -> None:
    async def work() -> None:
        reading = Reading(at, Listings(at.nodes, at.tree))
        began = time.monotonic()
        await reading.page(0)
        await asyncio.sleep(1.5)
        await reading.page(_PAGE)
        assert at.root.listed is not None
        assert at.root.listed_until < began + 12

    asyncio.run(work())


def test_a_listing_that_failed_in_its_middle_has_not_ended_there(
    at: At, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    children = bucket.children

    def failing(key: bytes) -> Iterator[tuple[bytes, Entry | None]]:
        for number, one in enumerate(children(key)):
            if number == _PAGE:
                monkeypatch.setattr(bucket, "children", children)
                raise TransientError("busy")
            yield one

    async def work() -> None:
        monkeypatch.setattr(bucket, "children", failing)
        reading = Reading(at, Listings(at.nodes, at.tree))
        await reading.page(0)
        with pytest.raises(OSError, match="busy"):
            await reading.page(_PAGE)
        assert LAST in await reading.page(_PAGE)
        assert (await at.node(LAST)).size == 0

    asyncio.run(work())


def test_nothing_is_kept_of_changes_that_nobody_asks_about(at: At) -> None:
    async def work() -> None:
        listings = Listings(at.nodes, at.tree)
        number = listings.open(at.root)
        answer = listings.read(number, 0, 1 << 20, False)
        assert not isinstance(answer, bytes)
        await answer
        listings.close(number)
        await make(at, b"+")
        assert not at.root.since

    asyncio.run(work())


def test_who_goes_back_in_a_long_listing_gets_the_names_from_there(at: At) -> None:
    async def work() -> None:
        reading = Reading(at, Listings(at.nodes, at.tree))
        await reading.page(0)
        assert LAST in await reading.page(_PAGE)
        answer = await reading.page(5)
        assert b"0004" not in answer
        assert b"0005" in answer

    asyncio.run(work())


def test_a_page_that_comes_after_its_reader_has_gone_does_not_become_what_is_known(
    at: At, bucket: Bucket, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    children = bucket.children

    def slow(key: bytes) -> Iterator[tuple[bytes, Entry | None]]:
        for number, one in enumerate(children(key)):
            if number == _PAGE:
                gate.stop()
            yield one

    async def work() -> None:
        monkeypatch.setattr(bucket, "children", slow)
        listings = Listings(at.nodes, at.tree)
        number = listings.open(at.root)
        first, second = (listings.read(number, at, 1 << 20, False) for at in (0, _PAGE))
        assert not isinstance(first, bytes)
        assert not isinstance(second, bytes)
        await first
        reading = asyncio.ensure_future(second)
        await gate.reached()
        listings.close(number)
        await make(at, b"+")
        node = at.root.children[b"+"]
        at.nodes.forget(node.ino, node.lookups)
        gate.open()
        await reading
        assert (await at.node(b"+")).size == 7
        assert not at.root.since

    asyncio.run(work())
