"""How a mount ends: while bytes move, what is not stored is waited for, and else not for long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

from adsmig.mount.daemon import Ending, save_the_rest
from adsmig.mount.nodes import Defaults, Node, Nodes
from adsmig.mount.saver import Saver

PATIENCE_S = 0.2


class Unsaved:
    """Files of which one is not stored, until ``save`` says so."""

    def __init__(self, save: Callable[[], Awaitable[bool]]) -> None:
        nodes = Nodes(Defaults(0, 0, 0))
        self.unsaved: dict[Node, str] = {nodes.make(nodes.root, b"f", b"f", 0): "no answer"}
        self.tries = 0
        self._save = save

    async def save_all(self) -> bool:
        self.tries += 1
        if await self._save():
            self.unsaved = {}
        return not self.unsaved


def end_of(saver: Unsaved, progress: Callable[[], float]) -> list[str]:
    async def ending() -> list[str]:
        return await save_the_rest(cast(Saver, saver), Ending(progress, PATIENCE_S))

    return asyncio.run(ending())


def test_who_waits_for_a_store_that_does_not_answer_is_told_what_is_not_stored() -> None:
    async def never() -> bool:
        await asyncio.Event().wait()
        return True

    (line,) = end_of(Unsaved(never), lambda: 0.0)
    assert line.startswith("f: no answer; it is kept in")


def test_what_is_still_being_stored_is_waited_for_however_long_it_takes() -> None:
    moved: dict[str, Any] = {"at": 0.0}

    async def slowly() -> bool:
        for _ in range(10):
            await asyncio.sleep(PATIENCE_S / 4)
            moved["at"] = time.monotonic()
        return True

    assert end_of(Unsaved(slowly), lambda: moved["at"]) == []


def test_a_store_that_takes_bytes_and_refuses_them_is_not_tried_for_ever() -> None:
    async def refused() -> bool:
        await asyncio.sleep(PATIENCE_S / 4)
        return False

    saver = Unsaved(refused)
    assert end_of(saver, time.monotonic)
    assert saver.tries > 1


def test_what_failed_once_is_tried_again() -> None:
    results = [False, True]

    async def second() -> bool:
        return results.pop(0)

    assert end_of(Unsaved(second), lambda: 0.0) == []
