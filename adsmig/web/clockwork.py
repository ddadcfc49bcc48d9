"""The scheduler, where this adsmig has it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from adsmig.errors import UsageError
from adsmig.web.text import gettext as _

PRESENT = find_spec("adsmig.schedules") is not None


def schedules() -> Any:
    """All schedules of the user; UsageError where there is no scheduler."""
    if not PRESENT:
        raise UsageError(_("There is no scheduler here."))
    return importlib.import_module("adsmig.schedules").Schedules()


def scheduler() -> Any:
    """What begins their runs while the console is there; None where there is no scheduler."""
    if not PRESENT:
        return None
    return importlib.import_module("adsmig.scheduler").Scheduler(schedules())


def add(arguments: Sequence[str], cron: str, name: str, timezone: str) -> None:
    """Puts a command line on a schedule; UsageError for what is wrong with it."""
    schedules().add(arguments, cron, name=name, timezone=timezone)


def next_runs() -> dict[str, float]:
    """When each job that a schedule runs is due next, by its id; Unix times.

    Jobs are known by what their schedules ran before.
    """
    due: dict[str, float] = {}
    for one in schedules().all() if PRESENT else ():
        if one.last_run and one.last_run.job and one.next_run:
            due[one.last_run.job] = min(one.next_run, due.get(one.last_run.job, one.next_run))
    return due
