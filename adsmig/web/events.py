"""Pages that change while they are looked at: server-sent events, each a piece of the page."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import StreamingResponse

from adsmig.errors import AdsmigError

EVERY_S = 1.0
QUIET = 15
"""Looks without news after which a comment tells proxies, and us, that somebody is there."""

Pieces = Mapping[str, str]
"""HTML of elements of the page, by their ids."""


def stream(
    request: Request, render: Callable[[], Pieces], may_see: Callable[[], bool]
) -> StreamingResponse:
    """Sends what ``render`` makes, and once a second what is no longer the same of it.

    Ends when nobody listens any more, when whoever does may not see it any more, or when what is
    shown is gone.
    """

    async def events() -> AsyncIterator[str]:
        sent: dict[str, str] = {}
        quiet = 0
        while not await request.is_disconnected():
            if not may_see():
                yield "event: over\ndata: {}\n\n"
                return
            try:
                pieces = await run_in_threadpool(render)
            except AdsmigError:  # it is being made, or was removed: the next look tells
                pieces = {}
            except HTTPException:  # there is no such thing any more: the page itself says so
                yield "event: over\ndata: {}\n\n"
                return
            news = {name: html for name, html in pieces.items() if sent.get(name) != html}
            sent.update(news)
            quiet = 0 if news else quiet + 1
            if news:
                yield f"event: pieces\ndata: {json.dumps(news)}\n\n"
            elif quiet % QUIET == 0:
                yield ": still here\n\n"
            await asyncio.sleep(EVERY_S)

    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(events(), media_type="text/event-stream", headers=headers)
