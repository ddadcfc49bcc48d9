"""Who waits for whom."""

from __future__ import annotations

import asyncio

from adsmig.mount.turns import Turns


def test_who_wants_a_directory_does_not_wait_for_who_comes_later_and_wants_what_is_in_it() -> None:
    async def work() -> None:
        turns, order, begun, go_on = Turns(), list[str](), asyncio.Event(), asyncio.Event()

        async def hold(what: str, *paths: bytes) -> None:
            async with turns.hold(*(lambda path=path: path for path in paths)):
                order.append(what)
                if what == "first":
                    begun.set()
                    await go_on.wait()

        first = asyncio.ensure_future(hold("first", b"d/x/file"))
        await begun.wait()
        given_up = asyncio.ensure_future(hold("given up", b"d"))
        waiting = [
            asyncio.ensure_future(hold(what, *paths))
            for what, *paths in (
                ("directory", b"d", b"e"),
                ("in it", b"d/y/file"),
                ("in what it is called then", b"e/file"),
                ("elsewhere", b"dd"),
            )
        ]
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.sleep(0)
        assert order == ["first", "elsewhere"]
        go_on.set()
        await asyncio.wait_for(asyncio.gather(first, *waiting), 5)
        assert order[2] == "directory"
        assert sorted(order[3:]) == ["in it", "in what it is called then"]
        async with turns.hold(lambda: b"d"):  # nobody has anything any more
            pass
        assert [*turns._held, *turns._above, *turns._queue] == []

    asyncio.run(work())


def test_many_who_wait_for_a_directory_cost_others_little() -> None:
    async def work() -> None:
        turns, go_on, count, asked = Turns(), asyncio.Event(), 300, 0

        def path(number: int) -> bytes:
            nonlocal asked
            asked += 1
            return b"d/%d" % number

        async def move() -> None:
            async with turns.hold(lambda: b"d", lambda: b"e"):
                await go_on.wait()

        async def save(number: int) -> None:
            async with turns.hold(lambda: path(number)):
                pass

        tasks = [asyncio.ensure_future(move())]
        await asyncio.sleep(0)
        tasks += [asyncio.ensure_future(save(number)) for number in range(count)]
        await asyncio.sleep(0)
        asked = 0
        async with turns.hold(lambda: b"elsewhere"):
            pass
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.wait_for(asyncio.gather(*tasks), 5)
        assert asked < 20 * count

    asyncio.run(work())
