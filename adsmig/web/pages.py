"""The pages: what a browser asks for, and what its forms send."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)

from adsmig.errors import AdsmigError
from adsmig.manifest import Manifest
from adsmig.web import clockwork, text
from adsmig.web.access import COOKIE, LONGEST_S, SAFE, Access, Session, is_foreign
from adsmig.web.console import Console, Refused, log_path, manifest_path
from adsmig.web.events import stream
from adsmig.web.jobpage import Filter, job_pieces, job_view
from adsmig.web.jobs import Jobs, Summary
from adsmig.web.reports import failures_csv, history_csv, report_json
from adsmig.web.shown import state_word
from adsmig.web.text import gettext as _

ACTIONS = ("pause", "resume", "cancel", "again", "retry")
Action = Literal["pause", "resume", "cancel", "again", "retry"]
REPORT_HEADERS = {
    # Its own style, and none of the console's rights.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
}


async def admitted(request: Request) -> Session:
    """Who makes the request; the dependency of everything that is not open to anybody.

    401 for nobody known, 403 for what another site's page may have sent.
    """
    access: Access = request.app.state.access
    session = access.session(request)
    if session is None:
        raise HTTPException(401, _("Log in first."), {"WWW-Authenticate": "Bearer"})
    if request.method not in SAFE:
        csrf = request.headers.get("x-csrf-token", "")
        kind = request.headers.get("content-type", "")
        if not csrf and kind.startswith(
            ("application/x-www-form-urlencoded", "multipart/form-data")
        ):
            csrf = str((await request.form()).get("csrf", ""))
        if access.is_forged(request, session, csrf):
            raise HTTPException(403, _("This was not sent by a page of the console."))
    request.state.session = session
    return session


open_router = APIRouter(include_in_schema=False)
router = APIRouter(include_in_schema=False, dependencies=[Depends(admitted)])


def page(
    request: Request, name: str, code: int = 200, headers: Any = None, **values: object
) -> HTMLResponse:
    """A page made from a template."""
    return HTMLResponse(render(request, name, **values), code, headers)


def render(request: Request, name: str, **values: object) -> str:
    """A template, or a part of a page, as HTML."""
    session: Session | None = getattr(request.state, "session", None)
    theme = request.cookies.get("theme", "")
    made: str = request.app.state.templates.get_template(name).render(
        values,
        here=request.url.path,
        csrf=session.csrf if session else "",
        lang=text.language.get(),
        languages=text.LANGUAGES,
        theme=theme if theme in ("light", "dark") else "",
        schedules=clockwork.PRESENT,
    )
    return made


def is_program(request: Request) -> bool:
    """Whether JSON is wanted, not a page."""
    path = request.url.path
    wanted = request.headers.get("accept", "")
    return path.startswith(("/api/", "/metrics")) or wanted.startswith("application/json")


def jobs_of(request: Request) -> Jobs:
    """What there is."""
    jobs: Jobs = request.app.state.jobs
    return jobs


def console_of(request: Request) -> Console:
    """What can be done about it."""
    console: Console = request.app.state.console
    return console


def found(request: Request, name: str) -> Summary:
    """The job of a name; 404 if there is none."""
    job = jobs_of(request).one(name)
    if job is None:
        raise HTTPException(404, _("There is no such job."))
    return job


# Coming in


@open_router.get("/login")
def login_page(request: Request, token: str = "", next: str = "/") -> Response:
    """Asks for the token or the password; an address with the token is let in at once."""
    if token:
        return _log_in(request, token, next)
    return _login_form(request, next)


@open_router.post("/login")
def log_in(
    request: Request, given: Annotated[str, Form()] = "", next: Annotated[str, Form()] = "/"
) -> Response:
    """Lets in whoever gives the right token or password."""
    if is_foreign(request):  # somebody else's page would have us work in its author's session
        raise HTTPException(403, _("This was not sent by a page of the console."))
    # A token is copied with what stands around it; a password may begin or end with a blank.
    by_password = bool(request.app.state.access.password)
    return _log_in(request, given if by_password else given.strip(), next)


@router.post("/logout")
def log_out(request: Request) -> Response:
    """Ends the session."""
    request.app.state.access.log_out(request)
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE)
    return answer


def _log_in(request: Request, given: str, following: str) -> Response:
    access: Access = request.app.state.access
    address = request.client.host if request.client else ""
    if wait := access.waits(address):
        return _login_form(
            request, following, 429, _("Too many attempts. Try again in a minute."), wait
        )
    cookie = access.log_in(given, address)
    if cookie is None:
        wrong = _("This password is wrong.") if access.password else _("This token is wrong.")
        return _login_form(request, following, 401, wrong)
    inside = following.startswith("/") and not following.startswith(("//", "/\\"))
    answer = RedirectResponse(following if inside else "/", 303)
    answer.set_cookie(
        COOKIE, cookie, max_age=LONGEST_S, httponly=True, samesite="lax",
        secure=request.url.scheme == "https",
    )  # fmt: skip
    return answer


def _login_form(
    request: Request, following: str, code: int = 200, wrong: str = "", wait: float = 0
) -> Response:
    headers = {"Retry-After": f"{wait:.0f}"} if wait else None
    by_password = bool(request.app.state.access.password)
    return page(
        request, "login.html", code, headers, by_password=by_password, wrong=wrong, next=following
    )


@open_router.post("/appearance")
def appearance(
    request: Request,
    language: Annotated[str, Form()] = "",
    theme: Annotated[str, Form()] = "",
    back: Annotated[str, Form()] = "/",
) -> Response:
    """Remembers the language, or light or dark, in a cookie."""
    inside = back.startswith("/") and not back.startswith(("//", "/\\"))
    answer = RedirectResponse(back if inside else "/", 303)
    for name, value, known in (
        ("language", language, text.LANGUAGES), ("theme", theme, ("light", "dark")),
    ):  # fmt: skip
        if value in known:
            answer.set_cookie(name, value, max_age=365 * 86400, samesite="lax")
    return answer


# Jobs


@router.get("/")
def start_page() -> Response:
    """The jobs are what people come for."""
    return RedirectResponse("/jobs", 303)


@router.get("/jobs")
def job_list(request: Request, q: str = "") -> Response:
    """All jobs, or those that a search finds."""
    return page(request, "jobs.html", **_listed(request, q))


@router.get("/jobs/events")
def job_list_events(request: Request, q: str = "") -> StreamingResponse:
    """The rows of that page as they change."""

    def pieces() -> dict[str, str]:
        listed = _listed(request, q)
        rows = {
            f"job-{job.name}": render(request, "jobs_row.html", **{**listed, "job": job})
            for job in listed["jobs"]
        }
        names = " ".join(job.name for job in listed["jobs"])
        return {**rows, "jobs-sum": render(request, "jobs_sum.html", **listed), "#rows": names}

    return stream(request, pieces, lambda: may_see(request))


def _listed(request: Request, q: str) -> dict[str, Any]:
    jobs = jobs_of(request).all()
    words = q.lower().split()
    chosen = [one for one in jobs if all(word in searched(one) for word in words)]
    return {"jobs": chosen, "all_jobs": jobs, "q": q, "upcoming": clockwork.next_runs()}


def searched(job: Summary) -> str:
    """What a search looks at."""
    return (
        f"{job.name} {job.state} {state_word(job.state)} {job.command} {job.src} {job.dst}".lower()
    )


def may_see(request: Request) -> bool:
    """Whether whoever asked is still logged in."""
    return request.app.state.access.session(request, used=False) is not None


@router.get("/jobs/{name}")
def job_page(request: Request, name: str, kind: str = "", q: str = "", after: str = "") -> Response:
    """A job: what it does, how far it is, what failed, and all of its runs."""
    chosen = Filter(kind, q, after)
    return page(request, "job.html", **job_view(found(request, name), console_of(request), chosen))


@router.get("/jobs/{name}/events")
def job_events(
    request: Request, name: str, kind: str = "", q: str = "", after: str = ""
) -> StreamingResponse:
    """The pieces of that page as they change."""
    found(request, name)
    chosen = Filter(kind, q, after)

    def pieces() -> dict[str, str]:
        view = job_view(found(request, name), console_of(request), chosen)
        return {f"job-{piece}": render(request, f"job_{piece}.html", **view)
                for piece in job_pieces}  # fmt: skip

    return stream(request, pieces, lambda: may_see(request))


@router.post("/jobs/{name}/{action}")
def act(request: Request, name: str, action: Action, back: Annotated[str, Form()] = "") -> Response:
    """Pauses, resumes, cancels, runs again or retries."""
    perform(request, name, action)
    return RedirectResponse("/jobs" if back == "list" else f"/jobs/{name}", 303)


def perform(request: Request, name: str, action: Action) -> None:
    """Does it; Refused where that makes no sense now, UsageError for a path not allowed."""
    console, job = console_of(request), found(request, name)
    if action == "pause":
        console.pause(name)
        return
    if action != "cancel":
        if job.command == "rm":
            raise Refused(
                _("What is deleted is asked about first, on a terminal: adsmig %(verb)s %(name)s")
                % {"verb": action, "name": name}
            )
        for side in (job.src, job.dst):
            if side.startswith("/"):
                console.check_path(side)
    console.run(name, action)


# What can be taken home


@router.get("/jobs/{name}/report.html")
async def report_html(request: Request, name: str) -> Response:
    """The report with plots; ``adsmig status --html`` writes it, in a process of its own."""
    await run_in_threadpool(found, request, name)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "report.html"
        manifest = str(manifest_path(name))
        command = [sys.executable, "-m", "adsmig", "status", "--manifest", manifest]
        command += ["--html", str(path)]
        done = await run_in_threadpool(
            subprocess.run, command, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode:
            raise AdsmigError(done.stderr.strip().removeprefix("adsmig: "))
        return HTMLResponse(path.read_text(encoding="utf-8"), headers=REPORT_HEADERS)


@router.get("/jobs/{name}/report.json")
def report_as_json(request: Request, name: str) -> Response:
    """The job and all of its runs."""
    with Manifest(manifest_path(found(request, name).name)) as manifest:
        return _download(report_json(manifest), f"{name}.json", "application/json")


@router.get("/jobs/{name}/report.csv")
def report_as_csv(request: Request, name: str) -> Response:
    """A line for each run."""
    return _download(history_csv(found(request, name).runs), f"{name}.csv", "text/csv")


@router.get("/jobs/{name}/failures.csv")
def failures_as_csv(request: Request, name: str) -> Response:
    """A line for each failure, as many as there are."""
    path = manifest_path(found(request, name).name)

    def lines() -> Iterator[str]:
        with Manifest(path) as manifest:
            yield from failures_csv(manifest)

    rows = lines()
    first = list(islice(rows, 2))  # what cannot be read is an error, not the end of a file
    return StreamingResponse(
        chain(first, rows), media_type="text/csv", headers=_as_file(f"{name}-failures.csv")
    )


@router.get("/jobs/{name}/log")
def log(request: Request, name: str) -> Response:
    """All that the job's processes printed."""
    path = log_path(found(request, name).name)
    if not path.exists():
        raise HTTPException(404, _("There is no log: the job was begun on a command line."))
    return FileResponse(path, media_type="text/plain; charset=utf-8")


def _download(content: str, name: str, kind: str) -> Response:
    return PlainTextResponse(content, media_type=kind, headers=_as_file(name))


def _as_file(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}
