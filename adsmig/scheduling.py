"""The commands ``schedule`` and ``scheduler``."""

from __future__ import annotations

import logging
from typing import Any

import click

from adsmig.log import begin_log
from adsmig.options import LOG, Command, together
from adsmig.output import begin, print_lines

_NAME = click.argument("name")


@click.group("schedule", short_help="Have jobs run again and again: add, list, run-now, …")
def schedule_group() -> None:
    """Keeps the list of jobs that run again and again, while `adsmig scheduler` runs."""


@schedule_group.command(
    "add",
    cls=Command,
    short_help="Add a schedule.",
    # What follows COMMAND is COMMAND's, with or without the "--".
    context_settings={"allow_interspersed_args": False},
)
@together(
    click.option("--cron", required=True, metavar="FIELDS",
                 help="When, as '0 2 1 * *' (minute, hour, day, month, weekday), or @monthly."),
    click.option("--name", default="", metavar="NAME", help="What to call it [COMMAND-NUMBER]."),
    click.option("--timezone", default="", metavar="AREA/CITY",
                 help="Whose clocks are meant [this machine's]."),
    click.option("--on-failure", default="", metavar="COMMAND",
                 help="Have the shell run COMMAND when a run has failed."),
    click.option("--webhook", default="", metavar="URL", help="Send URL word of it, as JSON."),
    click.argument("arguments", metavar="-- COMMAND SRC [DST] [OPTIONS]", nargs=-1,
                   type=click.UNPROCESSED),
    LOG,
)  # fmt: skip
def schedule_add(cron: str, arguments: tuple[str, ...], **options: Any) -> int:
    """Has adsmig run COMMAND, which is cp, sync, inventory or verify, whenever FIELDS say.

    \b
    Example:
      adsmig schedule add --cron '0 2 1 * *' -- sync s3://bucket/ /data/

    It is checked now, as far as the command line goes. It keeps no secrets: name --src-profile
    and --dst-profile.
    """
    from adsmig import timetable
    from adsmig.schedules import Schedules
    from adsmig.triggers import short_months

    output = begin(options)
    names = ("name", "timezone", "on_failure", "webhook")
    schedules = Schedules()
    one = schedules.add(arguments, cron, **{name: options[name] for name in names})
    output.event("schedule", **timetable.schedule_event(one))
    due = timetable.next_run(one, schedules.clock())
    output.result(f"{one.name} is due {due}; adsmig scheduler or adsmig web has to be running then")
    if short := short_months(cron):
        months = ", ".join(short)
        output.note(f"not due in {months}, for want of such a day; L is the last of any month")
    return 0


@schedule_group.command("list", cls=Command, short_help="List the schedules.")
@together(LOG)
def schedule_list(**options: Any) -> int:
    """Lists the schedules: when they are due, and how their last runs ended."""
    from adsmig import timetable
    from adsmig.schedules import Schedules

    return print_lines(timetable.schedule_lines(Schedules(), begin(options)))


@schedule_group.command("pause", cls=Command, short_help="Have NAME begin no more runs.")
@together(_NAME, LOG)
def schedule_pause(name: str, **options: Any) -> int:
    """Has NAME begin no more runs; one that is under way goes on."""
    from adsmig.schedules import Schedules

    begin(options)
    Schedules().pause(name)
    return 0


@schedule_group.command("resume", cls=Command, short_help="Have NAME begin runs again.")
@together(_NAME, LOG)
def schedule_resume(name: str, **options: Any) -> int:
    """Has NAME begin runs again. What was due while it was paused is not made up for."""
    from adsmig.schedules import Schedules

    begin(options)
    Schedules().resume(name)
    return 0


@schedule_group.command("remove", cls=Command, short_help="Forget NAME.")
@together(_NAME, LOG)
def schedule_remove(name: str, **options: Any) -> int:
    """Forgets NAME, and what its runs printed. A run that is under way goes on."""
    from adsmig.schedules import Schedules

    output = begin(options)
    schedules = Schedules()
    run = schedules.get(name).last_run
    schedules.remove(name)
    if run and run.ended is None:
        output.note(f"its last run goes on, as process {run.pid}, and prints to {run.output}")
    return 0


@schedule_group.command("run-now", cls=Command, short_help="Begin a run of NAME.")
@together(_NAME, LOG)
def schedule_run_now(name: str, **options: Any) -> int:
    """Begins a run of NAME, and leaves it to itself. Needs no scheduler."""
    from adsmig import timetable
    from adsmig.schedules import Schedules

    output = begin(options)
    run = Schedules().run_now(name)
    output.event("run", **timetable.run_event(run))
    output.result(f"{name} has begun; it prints to {run.output}")
    return 0


@schedule_group.command("perform", hidden=True)
@click.argument("run")
@click.argument("lock", type=int, required=False)
def schedule_perform(run: str, lock: int | None) -> int:
    """Sees to a run that was noted, in a process of its own."""
    from adsmig import runner
    from adsmig.schedules import Schedules

    begin_log(logging.WARNING)
    runner.perform(Schedules(), run, lock)
    return 0


@click.command("scheduler", cls=Command, short_help="Run what is scheduled when it is due.")
@together(LOG)
def scheduler_command(**options: Any) -> int:
    """Runs the jobs of `adsmig schedule` when they are due, until it is ended.

    Ctrl-C or SIGTERM ends it at once, and leaves the jobs that it began to themselves.
    """
    from adsmig import scheduler

    begin({**options, "verbose": options["verbose"] or 1})
    scheduler.serve()
    return 0
