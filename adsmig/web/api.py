"""What the pages do, as JSON over HTTP; and the figures, for Prometheus."""

from __future__ import annotations

import binascii
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from adsmig.errors import AdsmigError
from adsmig.ledger import Run
from adsmig.manifest import Manifest
from adsmig.output import text_of
from adsmig.web import forms
from adsmig.web.console import manifest_path
from adsmig.web.forms import NewJob
from adsmig.web.jobs import Summary
from adsmig.web.metrics import JobFigures
from adsmig.web.newjob import start
from adsmig.web.pages import Action, admitted, console_of, found, jobs_of, perform, searched
from adsmig.web.trial import begin_preview, preview, try_side

MOST_LISTED = 1000


class Problem(BaseModel):
    """Why something was not done."""

    detail: Any


_RESPONSES: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem, "description": text}
    for code, text in (
        (400, "It cannot be done: a place cannot be reached, or a request cannot be understood."),
        (401, "Nobody that is known asks."),
        (403, "A page of somebody else may have sent this."),
        (404, "There is no such thing."),
        (409, "It cannot be done with the job as it is now."),
        (422, "What was asked for makes no sense, or is not allowed."),
    )
}
router = APIRouter(prefix="/api", dependencies=[Depends(admitted)], responses=_RESPONSES)
metrics_router = APIRouter(dependencies=[Depends(admitted)], responses={401: _RESPONSES[401]})


class RunInfo(BaseModel):
    """One run of a job.  Times are Unix times in seconds; sizes are bytes."""

    run: int
    kind: str
    state: str
    started: float
    ended: float | None
    resumed: int
    message: str
    counts: dict[str, int]

    @classmethod
    def of(cls, run: Run) -> RunInfo:
        """The run as JSON has it."""
        return cls(
            run=run.id, kind=run.kind, state=run.state, started=run.started, ended=run.ended,
            resumed=run.resumed, message=run.message, counts=run.counts._asdict(),
        )  # fmt: skip


class JobInfo(BaseModel):
    """A job."""

    job: str
    state: str = Field(
        description="new, starting, running, stopping, paused, interrupted, stopped, refused,"
        " cancelled, failures, finished or unreadable"
    )
    command: str
    source: str
    destination: str
    message: str
    done: float | None = Field(description="The part of the last run that is done, 0 to 1.")
    bytes_per_second: float
    objects_per_second: float
    shards: dict[str, int]
    last_success: float | None
    last_run: RunInfo | None

    @classmethod
    def of(cls, job: Summary) -> JobInfo:
        """The job as JSON has it."""
        return cls(
            job=job.name, state=job.state, command=job.command, source=job.src,
            destination=job.dst, message=job.message, done=job.fraction,
            bytes_per_second=job.rate.bytes, objects_per_second=job.rate.objects,
            shards=job.shards, last_success=job.last_success,
            last_run=RunInfo.of(job.run._replace(counts=job.counts)) if job.run else None,
        )  # fmt: skip


class JobDetail(JobInfo):
    """A job with all of its runs, oldest first."""

    runs: list[RunInfo]


class Started(BaseModel):
    """What was begun."""

    job: str
    command_line: str


class Previewed(BaseModel):
    """A dry run, and what it has found so far."""

    preview: str
    running: bool
    command_line: str
    progress: dict[str, Any] = {}
    result: dict[str, Any] = {}
    inventory: dict[str, Any] = {}
    problems: list[str] = []


class Tried(BaseModel):
    """Whether a place can be reached."""

    good: bool
    message: str


class Failure(BaseModel):
    """An object that could not be copied, and has not been since."""

    key: str = Field(description="Bytes that are not UTF-8 are written \\xNN.")
    key_hex: str
    kind: str
    error: str
    size: int
    at: float


class Failures(BaseModel):
    """Some of the failures, by key; ask for those ``after`` the last one to go on."""

    failures: list[Failure]
    after: str | None


class Shard(BaseModel):
    """A range of keys of the last run, past ``after`` up to ``upto``, settled up to ``cursor``."""

    after: str
    upto: str | None
    cursor: str | None
    done: bool


Name = Annotated[str, Field(max_length=100)]


@router.get("/jobs")
def list_jobs(request: Request, q: str = "") -> list[JobInfo]:
    """All jobs, or those in which all words of ``q`` are found; the last used first."""
    words = q.lower().split()
    jobs = jobs_of(request).all()
    return [JobInfo.of(job) for job in jobs if all(word in searched(job) for word in words)]


@router.post("/jobs", status_code=201)
def start_job(request: Request, job: NewJob) -> Started:
    """Starts a job.  Keys and passwords go to the credentials file, and stay there."""
    console = console_of(request)
    words = forms.arguments(job, console, forms.keep_secrets(job))
    return Started(job=start(words, console), command_line=forms.shown(words))


@router.post("/command-line")
def command_line(request: Request, job: NewJob) -> dict[str, str]:
    """The command that would do the same; nothing is kept or looked at."""
    words = forms.arguments(job, console_of(request), forms.placeholder_accounts(job))
    return {"command_line": forms.shown(words)}


@router.post("/trials/{side}")
def try_connection(request: Request, side: forms.SideName, job: NewJob) -> Tried:
    """Reaches for the source (``src``) or the destination (``dst``) of a job."""
    try:
        return Tried(good=True, message=try_side(job, side, console_of(request)))
    except AdsmigError as exc:
        return Tried(good=False, message=str(exc))


@router.post("/previews", status_code=202)
def start_preview(request: Request, job: NewJob) -> Previewed:
    """Begins a dry run."""
    console = console_of(request)
    words = forms.arguments(job, console, forms.keep_secrets(job))
    name = begin_preview(words, console)
    return Previewed(preview=name, running=True, command_line=forms.shown(words))


@router.get("/previews/{name}")
def get_preview(request: Request, name: Name) -> Previewed:
    """What a dry run has found so far."""
    known = preview(name, console_of(request))
    if known is None:
        raise HTTPException(404, "no such preview")
    return Previewed(
        preview=name, running=known.running, command_line=forms.shown(known.words),
        progress=known.progress, result=known.result, inventory=known.inventory,
        problems=known.problems,
    )  # fmt: skip


@router.get("/jobs/{name}")
def get_job(request: Request, name: Name) -> JobDetail:
    """One job with its runs."""
    job = found(request, name)
    return JobDetail(**JobInfo.of(job).model_dump(), runs=[RunInfo.of(run) for run in job.runs])


@router.post("/jobs/{name}/{action}", status_code=202)
def act_on_job(request: Request, name: Name, action: Action) -> JobInfo:
    """Pauses, resumes, cancels, runs again or retries; what came of it shows in the state."""
    perform(request, name, action)
    return JobInfo.of(found(request, name))


@router.get("/jobs/{name}/failures")
def get_failures(
    request: Request,
    name: Name,
    kind: str = "",
    q: str = "",
    after: Annotated[str, Query(pattern="^([0-9a-f]{2})*$", description="A ``key_hex``.")] = "",
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 100,
) -> Failures:
    """What failed, of a kind, or with a text in the key or the reason."""
    past = binascii.unhexlify(after) if after else None
    with Manifest(manifest_path(found(request, name).name)) as manifest:
        rows = manifest.failures_like(kind, q, past, limit + 1)
    failures = [
        Failure(key=text_of(key), key_hex=key.hex(), kind=kind, error=error, size=size, at=at)
        for key, kind, error, size, at in rows[:limit]
    ]
    return Failures(failures=failures, after=failures[-1].key_hex if len(rows) > limit else None)


@router.get("/jobs/{name}/shards")
def get_shards(request: Request, name: Name) -> list[Shard]:
    """The ranges of keys of the last run, in order."""
    job = found(request, name)
    if not job.run:
        return []
    with Manifest(manifest_path(job.name)) as manifest:
        rows = manifest.shards(job.run.id)
    return [
        Shard(after=text_of(after), upto=_text(upto), cursor=_text(cursor), done=done)
        for after, upto, cursor, done in rows
    ]


def _text(key: bytes | None) -> str | None:
    return None if key is None else text_of(key)


@metrics_router.get("/metrics", response_class=Response, responses={
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}}
})  # fmt: skip
async def metrics(request: Request) -> Response:
    """The figures of all jobs in Prometheus' text form."""
    jobs = await run_in_threadpool(jobs_of(request).all)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(JobFigures(jobs))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
