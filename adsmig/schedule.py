"""A schedule and a run of it: what is known of them, how it is kept, and what is no good one."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from adsmig.errors import UsageError
from adsmig.schema import Schema

_OPEN = ("running", "waiting")
_MESSAGE_SIZE = 1000
"""Bytes of the end of what a run printed, in which its last line is looked for."""
_HOOKS = "ERROR adsmig.hooks["
"""How a line begins that is about what was called when it had failed."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

SCHEDULES = Schema(
    "schedules",
    0x41445332,
    1,
    frozenset({"schedules", "runs"}),
    {
        # arguments: a JSON list, without secrets.  since: what came due later is yet to be run.
        "schedules": (
            {
                "name": str,
                "cron": str,
                "timezone": str,
                "arguments": str,
                "on_failure": str,
                "webhook": str,
                "paused": int,
                "created": float,
                "since": float,
            },
            "name",
        ),
        # state: running, waiting (for another process that has the job's manifest), ended,
        # skipped (paused while it waited), lost (killed with all that was to note its
        # end).  again: in place of one that was lost.
        "runs": (
            {
                "id": str,
                "schedule": str,
                "state": str,
                "due": float,
                "again": int,
                "started": float,
                "ended": float,
                "exit_code": int,
                "pid": int,
                "job": str,
            },
            "id",
        ),
    },
)


@dataclass(frozen=True, slots=True)
class ScheduledRun:
    """One run of a schedule.  Times are Unix times."""

    id: str
    schedule: str
    state: str
    """``running``, ``waiting`` (for another process on the same manifest), ``ended``; ``skipped``:
    the schedule was paused while it waited; ``lost``: killed without a result."""
    due: float | None
    """The time that it was for; None if it was asked for by hand."""
    again: bool
    """It is in place of one that was lost."""
    started: float
    ended: float | None
    exit_code: int | None
    """Of adsmig; 128 and the signal's number if one ended it; None unless ``ended``."""
    pid: int | None
    """Its process, which takes SIGTERM as Ctrl-C; None before it has one."""
    job: str
    """The job's id, as ``adsmig jobs`` has it; empty until it is known."""
    output: Path
    """What it printed; only its owner can read it."""

    @property
    def word(self) -> Path:
        """Where its process leaves word of its job; see :func:`adsmig.launch.tell`."""
        return self.output.with_suffix(".json")

    @property
    def last_line(self) -> str:
        """What it said last, which tells why it failed, or how to go on."""
        try:
            with open(self.output, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _MESSAGE_SIZE))
                lines = file.read().decode("utf-8", "replace").split("\n")
        except OSError:
            return ""
        told = (line for line in reversed(lines) if line.strip() and not line.startswith(_HOOKS))
        return next(told, "")

    @property
    def failed(self) -> bool:
        """Whether somebody ought to be told: it was lost, or ended neither well nor by Ctrl-C."""
        return self.state == "lost" or self.exit_code not in (None, 0, 130)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A job that is to run again and again."""

    name: str
    cron: str
    timezone: str
    """An IANA name."""
    arguments: tuple[str, ...]
    """Of ``adsmig``; the first may be an option, too."""
    on_failure: str
    """A command for the shell, or ''."""
    webhook: str
    """A URL, which may be a secret in itself, or ''."""
    paused: bool
    created: float
    next_run: float | None
    """Unix time, in the past if it has been missed; None while it is paused, or in ``trouble``."""
    trouble: str
    """Why nobody can say when it is due: a time zone that this machine does not know any more."""
    last_run: ScheduledRun | None

    @property
    def running(self) -> bool:
        """Whether its last run is under way."""
        return bool(self.last_run and self.last_run.state in _OPEN)

    def calls(self, now: float) -> bool:
        """Whether there is something for :meth:`Schedules.begin` to do."""
        lost = self.last_run and self.last_run.state == "lost" and self.last_run.ended is None
        return bool(lost) or (self.next_run is not None and self.next_run <= now)


def check_name(name: str) -> None:
    """Raises UsageError for what cannot name a schedule; '' is for any name."""
    if name and not _NAME.fullmatch(name):
        raise UsageError(
            f"--name {name!r}: a name is made of letters, digits, '.', '-' and '_', begins with a"
            " letter or a digit, and has 64 characters at most"
        )


def check_webhook(url: str) -> None:
    """Raises UsageError for what is no URL to send to.  It does not show it: it may be a secret."""
    if not url:
        return
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        good = good and re.fullmatch("[!-~]+", url) is not None and "@" not in parts.netloc
    except ValueError:
        good = False
    if not good:
        raise UsageError(
            "--webhook takes a URL that begins with http:// or https://, without a user's name in"
            " it, and with all but plain characters escaped"
        )
