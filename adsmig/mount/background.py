"""Work that nobody waits for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)

Begin = Callable[[Coroutine[Any, Any, Any], str], "asyncio.Task[None]"]
"""Has work done without anybody waiting; what it is, for the log."""


class Background:
    """What is under way of it.  Belongs to the event loop."""

    def __init__(self) -> None:
        self._work = set[asyncio.Task[None]]()

    def begin(self, work: Coroutine[Any, Any, Any], what: str) -> asyncio.Task[None]:
        """Has it done; an OSError goes to the log, with ``what``."""

        async def doing() -> None:
            try:
                await work
            except OSError as exc:
                log.warning("%s: %s", what, exc)

        task = asyncio.ensure_future(doing())
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task

    async def end(self, patience_s: float) -> None:
        """Waits so long for what is under way, when nothing more is begun."""
        if self._work:
            await asyncio.wait(self._work, timeout=patience_s)
