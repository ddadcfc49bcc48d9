"""The page of a new job: its form, its trial, its preview, its start."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Depends
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from adsmig.credentials import account_names
from adsmig.errors import AdsmigError, UsageError
from adsmig.web import clockwork, forms
from adsmig.web.console import Console, Refused, log_path
from adsmig.web.events import stream
from adsmig.web.forms import FieldError, NewJob
from adsmig.web.pages import (
    admitted,
    console_of,
    is_program,
    may_see,
    page,
    render,
)
from adsmig.web.text import gettext as _
from adsmig.web.trial import begin_preview, preview, try_side

router = APIRouter(include_in_schema=False, dependencies=[Depends(admitted)])

SIDE_FIELDS = ("kind", "path", "provider", "endpoint", "bucket", "host", "user", "account",
               "access_key", "secret_key", "token", "password")  # fmt: skip
SECRET_FIELDS = ("access_key", "secret_key", "token", "password")
LISTS = ("include", "exclude", "include_dir", "exclude_dir")
PLAIN = ("command", "min_size", "max_size", "newer_than", "older_than", "start", "end", "compare",
         "delete", "max_delete", "bandwidth_mbps", "threads", "workers", "https",
         "accept_new_host_key", "region", "destination_region", "storage_class")  # fmt: skip
Form = Mapping[str, Any]


@router.get("/new")
def new_job_page(request: Request) -> Response:
    """An empty form."""
    return _page(request, {})


@router.post("/new")
async def new_job(request: Request) -> Response:
    """Does with the form what its button says: a trial, the command line, a preview, a start."""
    form = dict(await request.form())
    return await run_in_threadpool(_do, request, form)


def _do(request: Request, form: Form) -> Response:
    console = console_of(request)
    do = str(form.get("do", "command"))
    try:
        job = from_form(form)
        if do in ("try-src", "try-dst"):
            return _said(request, form, do, True, try_side(job, do.removeprefix("try-"), console))
        if do == "command":
            words = forms.arguments(job, console, forms.placeholder_accounts(job))
            return _said(request, form, do, True, forms.shown(words))
        accounts = forms.keep_secrets(job)
        # Should it be shown once more, it names the keys that are not to be shown.
        form = {**form, **{f"{side}_account": name for side, name in accounts.items()}}
        words = forms.arguments(job, console, accounts)
        if do == "preview":
            return _gone(request, f"/previews/{begin_preview(words, console)}")
        if do == "schedule":
            cron, name, zone = (
                str(form.get(field, "")).strip() for field in ("cron", "schedule_name", "timezone")
            )
            clockwork.add(words, cron, name, zone)
            return _gone(request, "/schedules")
        return _gone(request, f"/jobs/{start(words, console)}")
    except FieldError as exc:
        return _said(request, form, do, False, str(exc), exc.name)
    except AdsmigError as exc:
        return _said(request, form, do, False, str(exc))


def start(words: list[str], console: Console) -> str:
    """Starts a job; its name.  Raises as :func:`forms.checked`, and Refused if it is running."""
    for place in words[words.index("--") + 1 :]:  # of a preview, that may be of another console's
        if place.startswith("/"):
            console.check_path(place)
    name = forms.checked(words).id
    if console.is_busy(name):
        raise Refused(_("This job is running already: %(name)s") % {"name": name})
    console.start(name, ["-v", *words], log_path(name), {})
    return name


@router.get("/previews/{name}")
def preview_page(request: Request, name: str) -> Response:
    """What a job would do, as it is found out."""
    return page(request, "preview.html", **_previewed(request, name))


@router.get("/previews/{name}/events")
def preview_events(request: Request, name: str) -> StreamingResponse:
    """That page as it changes."""

    def pieces() -> dict[str, str]:
        return {"preview": render(request, "preview_body.html", **_previewed(request, name))}

    return stream(request, pieces, lambda: may_see(request))


@router.post("/previews/{name}/start")
def start_previewed(request: Request, name: str) -> Response:
    """Starts the job that was tried."""
    found = _previewed(request, name)["preview"]
    return RedirectResponse(f"/jobs/{start(found.words, console_of(request))}", 303)


def _previewed(request: Request, name: str) -> dict[str, Any]:
    found = preview(name, console_of(request))
    if found is None:
        raise HTTPException(404, _("There is no such preview."))
    return {"preview": found, "command_line": forms.shown(found.words)}


def from_form(form: Form) -> NewJob:
    """The job that a form describes; FieldError for a field that is not as it should be."""
    values: dict[str, Any] = {
        name: form[name] for name in PLAIN if str(form.get(name, "")).strip() != ""
    }
    for name in LISTS:
        values[name] = [line for line in re.split("\r?\n", str(form.get(name, ""))) if line.strip()]
    for name, side in (("src", "source"), ("dst", "destination")):
        kind = form.get(f"{name}_kind", "file")
        cloud = kind == "cloud"
        values[side] = {
            field: str(form[f"{name}_{field}"])
            for field in SIDE_FIELDS
            if form.get(f"{name}_{field}") and (field != "provider" or not cloud)
        }
        if kind == "cloud":
            values[side]["provider"] = str(form.get(f"{name}_cloud", ""))
        if kind == "sftp":
            values[side]["path"] = str(form.get(f"{name}_sftp_path", ""))
    try:
        return NewJob.model_validate(values)
    except ValidationError as exc:
        first = exc.errors(include_input=False)[0]
        where = [str(part) for part in first["loc"]]
        if where[0] in ("source", "destination"):
            where = ["src" if where[0] == "source" else "dst", *where[1:2]]
            name = "_".join(where)
        else:
            name = where[0]
        raise FieldError(name, first["msg"]) from None  # it would show what was sent


def _said(
    request: Request, form: Form, do: str, good: bool, message: str, field: str = ""
) -> Response:
    """The answer to a button, for the script of the page, or as the page once more."""
    said = {"do": do, "good": good, "message": message, "field": field}
    if is_program(request):
        return JSONResponse(said)
    return _page(request, form, said, 200 if good else 422)


def _gone(request: Request, to: str) -> Response:
    if is_program(request):
        return JSONResponse({"good": True, "location": to})
    return RedirectResponse(to, 303)


def _page(request: Request, form: Form, said: Form | None = None, code: int = 200) -> Response:
    secrets = [f"{side}_{field}" for side in ("src", "dst") for field in SECRET_FIELDS]
    values = {name: str(value) for name, value in form.items() if name not in secrets}
    try:
        accounts = account_names()
    except UsageError as exc:
        accounts, said = [], said or {"do": "", "good": False, "message": str(exc), "field": ""}
    return page(
        request,
        "new.html",
        code,
        form=values,
        said=said or {"do": "", "good": True, "message": "", "field": ""},
        accounts=[(name, name) for name in accounts],
        clouds=[
            (name, f"{_(text)} ({forms.DOMAINS[name]})") for name, text in forms.CLOUDS.items()
        ],
        allowed=console_of(request).allowed,
    )
