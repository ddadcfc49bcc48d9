"""The process of one scheduled run: starts the job, waits for it, notes its end, calls the hooks.

It is apart from the scheduler, so that a run does not depend on that; and from the job, so that the
job's end is noted whatever ends it.  SIGTERM, which comes when the machine is shut down, ends it
without a word: then the run is lost, and begun again by the next scheduler.
"""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from adsmig.errors import AdsmigError
from adsmig.hooks import post, run_command
from adsmig.launch import WORD, launch, told
from adsmig.schedule import Schedule, ScheduledRun
from adsmig.schedules import Schedules

log = logging.getLogger(__name__)
T = TypeVar("T")

PAUSE_S = 5.0
"""Between tries at what may be possible later: there may be room on a disk again."""
_TO_ITS_END = (0, 1)
_COULD_NOT_RUN = 3


def perform(schedules: Schedules, run: str, lock: int | None) -> None:
    """Sees to a run from its start to its hooks; ``lock`` is the open file of its schedule's lock.

    With ``lock`` None it is over, lost, and only the hooks are called.
    """
    found = _insist(partial(schedules.find, run))
    if not found:
        return  # removed meanwhile
    if lock is not None:
        state, code, job = _job(schedules, *found, lock)
        _insist(partial(schedules.end, run, state, code, job))
        os.close(lock)  # the hooks keep no run waiting
        found = _insist(partial(schedules.find, run))
    if found and found[1].failed:
        _call_hooks(*found)


def _job(
    schedules: Schedules, schedule: Schedule, run: ScheduledRun, lock: int
) -> tuple[str, int | None, str]:
    """Runs the job, once no other process has its manifest: state, exit code, id.

    Once more, if what it went on with had been begun before this run was due: of what had been
    settled by then, nobody has looked at what is new.
    """
    wanted = run.started if run.due is None else run.due
    while True:
        process = _insist(partial(_start, schedule, run, lock))
        _insist(partial(schedules.note, run.id, "running", process.pid))
        code = process.wait()
        word = told(run.word)
        job = word.get("job", "")
        if code in _TO_ITS_END and word.get("resumed", wanted) < wanted:
            log.warning("that was the rest of an earlier run; now for what is new since")
            run.word.unlink(missing_ok=True)
            continue
        if code != _COULD_NOT_RUN or not word.get("busy"):
            return "ended", 128 - code if code < 0 else code, job
        _insist(partial(schedules.note, run.id, "waiting", None))
        try:
            with open(f"{word['manifest']}.lock", "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH)
        except OSError:
            time.sleep(PAUSE_S)
        found = _insist(partial(schedules.find, run.id))
        if not found or (found[0].paused and run.due is not None):
            return "skipped", None, job
        run.word.unlink(missing_ok=True)


def _start(schedule: Schedule, run: ScheduledRun, lock: int) -> subprocess.Popen[bytes]:
    try:
        return launch(schedule.arguments, run.output, {WORD: str(run.word)}, [lock])
    except OSError as exc:
        raise AdsmigError(f"the job cannot be started: {exc.strerror}") from exc


def _insist(action: Callable[[], T]) -> T:
    """What ``action`` comes to, however long it cannot be done: a disk is full, or the memory."""
    said = ""
    while True:
        try:
            return action()
        except AdsmigError as exc:
            if str(exc) != said:
                said = str(exc)
                log.error("%s", exc)
            time.sleep(PAUSE_S)


def _call_hooks(schedule: Schedule, run: ScheduledRun) -> None:
    code = "" if run.exit_code is None else str(run.exit_code)
    message = run.last_line
    if schedule.on_failure:
        variables = {
            "ADSMIG_SCHEDULE": schedule.name,
            "ADSMIG_JOB": run.job,
            "ADSMIG_EXIT_CODE": code,
            "ADSMIG_LOG": str(run.output),
        }
        run_command(schedule.on_failure, variables)
    if schedule.webhook:
        body = {
            "event": "failure",
            "schedule": schedule.name,
            "job": run.job,
            "state": run.state,
            "exit_code": run.exit_code,
            "started": run.started,
            "ended": run.ended,
            "message": message,
            "log": str(run.output),
            "host": os.uname().nodename,
        }
        post(schedule.webhook, body)
