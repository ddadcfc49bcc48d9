"""The pages of schedules: which job runs when, and what can be done about it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from typing import Literal

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from adsmig.commandline import job_later
from adsmig.tables import plain
from adsmig.web.clockwork import schedules
from adsmig.web.events import stream
from adsmig.web.pages import admitted, console_of, may_see, page, render

router = APIRouter(
    prefix="/schedules", include_in_schema=False, dependencies=[Depends(admitted)]
)  # fmt: skip


@router.get("")
def schedule_list(request: Request) -> Response:
    """All schedules."""
    return page(request, "schedules.html", schedules_=schedules().all(), shown=_shown)


@router.get("/events")
def schedule_events(request: Request) -> StreamingResponse:
    """That page as it changes."""

    def pieces() -> dict[str, str]:
        values = {"schedules_": schedules().all(), "shown": _shown}
        return {"schedules": render(request, "schedules_list.html", **values)}

    return stream(request, pieces, lambda: may_see(request))


@router.post("/{name}/{action}")
def act_on_schedule(
    request: Request, name: str, action: Literal["pause", "resume", "remove", "run-now"]
) -> Response:
    """Pauses, resumes, removes, or runs now; UsageError for a path not allowed."""
    known, console = schedules(), console_of(request)
    if console.allowed and action in ("resume", "run-now"):
        job = job_later(known.get(name).arguments)
        for at in (job.src, job.dst):
            if at and at.scheme == "file":
                console.check_path(os.fsdecode(at.path))
    {
        "pause": known.pause,
        "resume": known.resume,
        "remove": known.remove,
        "run-now": known.run_now,
    }[action](name)
    return RedirectResponse("/schedules", 303)


def _shown(arguments: Sequence[str]) -> str:
    return plain(shlex.join(["adsmig", *(word for word in arguments if word != "--")]))
