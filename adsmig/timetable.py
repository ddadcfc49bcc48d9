"""What ``adsmig schedule`` prints."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from adsmig.output import Output, text_of
from adsmig.progress import duration
from adsmig.report import clock
from adsmig.schedule import Schedule, ScheduledRun
from adsmig.schedules import Schedules
from adsmig.tables import plain, table

_COLUMNS = ("name", "cron", "next run", "last run", "took", "result", "command")


def schedule_lines(schedules: Schedules, output: Output) -> Iterator[str]:
    """All schedules, as a table, or one JSON object each."""
    found = schedules.all()
    if output.as_json:
        yield from (json.dumps(schedule_event(one)) for one in found)
    elif found:
        yield from table([_COLUMNS, *(_row(one, schedules.clock()) for one in found)])
        for run in (one.last_run for one in found):
            if run and run.failed:
                why = plain(run.last_line) or "it said nothing"
                yield f"{run.schedule}: {why}; see {run.output}"
    else:
        yield "no schedules; add one with adsmig schedule add"


def schedule_event(one: Schedule) -> dict[str, Any]:
    """A schedule as JSON has it; of its webhook no more than the host."""
    return {
        "name": one.name,
        "cron": one.cron,
        "timezone": one.timezone,
        "arguments": [text_of(os.fsencode(text)) for text in one.arguments],
        "on_failure": one.on_failure,
        "webhook": urlsplit(one.webhook).hostname or "",
        "paused": one.paused,
        "created": one.created,
        "next_run": one.next_run,
        "trouble": one.trouble,
        "last_run": run_event(one.last_run) if one.last_run else None,
    }


def run_event(run: ScheduledRun) -> dict[str, Any]:
    """A run as JSON has it."""
    return {
        "id": run.id,
        "state": run.state,
        "due": run.due,
        "again": run.again,
        "started": run.started,
        "ended": run.ended,
        "exit_code": run.exit_code,
        "job": run.job,
        "output": str(run.output),
    }


def next_run(one: Schedule, now: float) -> str:
    """When a schedule is due, or since when it has been, on the clocks of its time zone."""
    if one.next_run is None:
        return "paused" if one.paused else one.trouble
    at = datetime.fromtimestamp(one.next_run, ZoneInfo(one.timezone))
    since = "due since " if one.next_run <= now else ""
    return f"{since}{at:%Y-%m-%d %H:%M} {one.timezone}"


def _row(one: Schedule, now: float) -> tuple[str, ...]:
    run = one.last_run
    took = run and run.state == "ended" and run.ended and duration(run.ended - run.started)
    command = plain(shlex.join(one.arguments))
    start = clock(run.started) if run else ""
    return one.name, one.cron, next_run(one, now), start, took or "", _result(run), command


def _result(run: ScheduledRun | None) -> str:
    if not run:
        return ""
    if run.exit_code is None:
        return run.state
    return "good" if not run.exit_code else f"exit {run.exit_code}"
