"""Command lines of migrations: what may stand in them, and what one asks for that runs later."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adsmig.asked import against, job_asked
from adsmig.errors import AdsmigError, UsageError
from adsmig.habits import check_command, hinted
from adsmig.log import redacted
from adsmig.options import (
    ADDRESS,
    COMPARISON,
    DELETION,
    DRYRUN,
    LINKS,
    LOG,
    PROGRESS,
    REBUILD,
    REPORT,
    SAMPLE,
    SELECTION,
    SPEED,
    STORING,
    Command,
    together,
)
from adsmig.words import leading, name_of, names_of

if TYPE_CHECKING:
    from adsmig.job import Job

_SRC, _DST = click.argument("src"), click.argument("dst")

MIGRATION = together(
    _SRC, _DST,
    SELECTION, COMPARISON, DELETION, DRYRUN, REPORT, STORING, LINKS, ADDRESS, SPEED, PROGRESS,
    REBUILD, LOG,
)  # fmt: skip
INVENTORY = together(
    _SRC,
    click.option("--for", "dst", metavar="DST", help="What a sync to DST would do."),
    REPORT, SELECTION, ADDRESS, SPEED, LOG,
)  # fmt: skip
VERIFICATION = together(
    click.argument("src", metavar="SRC|JOB"),
    click.argument("dst", metavar="[DST]", required=False),
    SELECTION, SAMPLE, LINKS, ADDRESS, SPEED, PROGRESS, LOG,
)  # fmt: skip

_FILES = ("files_from", "manifest", "log_file", "record", "html", "prices", "ca_bundle")
"""Options that name files."""


class Commands(click.Group):
    """A group that takes the options of its commands in front of them as well, as ads-cli does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Moves what stands before the command behind it."""
        own = names_of(self.get_params(ctx)).known
        names = names_of(one for command in self.commands.values() for one in command.params)
        options, rest = leading(args, names)
        if asked := [one for one in options if name_of(one) in own]:
            return super().parse_args(ctx, asked[0])  # for help, or the version
        if rest and rest[0] in self.commands:
            before = [word for option in options for word in option]
            return super().parse_args(ctx, [rest[0], *before, *rest[1:]])
        if unknown := [one for one in options if name_of(one) not in names.known]:
            with hinted(ctx):
                return super().parse_args(ctx, unknown[0])
        if options and not rest:
            ctx.fail("Missing command.")
        if rest:
            check_command(rest[0], ctx)
        return super().parse_args(ctx, list(rest))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands in the order of their use, each once."""
        rows = [
            (name, command.get_short_help_str(60))
            for name, command in self.commands.items()
            if name == command.name
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def check_migration(options: dict[str, Any]) -> None:
    """Raises UsageError for options that a dry run has and a real one has not, or the reverse."""
    if options["dryrun"]:
        if options["rebuild"]:
            raise UsageError("--dryrun keeps no manifest: leave out --rebuild-manifest")
        return
    for name in ("info", "depth", "rate", "prices", "html", "as_csv"):
        if options[name]:
            option = {"as_csv": "csv"}.get(name, name)
            raise UsageError(f"--{option} belongs to the report of --dryrun; add that")


def check_sample(dst: str | None, options: dict[str, Any]) -> None:
    """Raises UsageError for a number of objects where nobody knows how many there are."""
    if isinstance(options["sample"], int) and dst is not None:
        raise UsageError("--sample N needs to know how many there are, as a JOB does: say N%")


def job_later(arguments: Sequence[str]) -> Job:
    """What ``adsmig ARGUMENTS...`` would do; neither place is looked at, but a JOB's manifest is.

    Raises UsageError for a command line that is wrong, or means something else at another time and
    place: one with a relative path, or with a secret, which would have to be kept.
    """
    from adsmig.job import Job

    try:
        job = _later.main(list(arguments), prog_name="adsmig", standalone_mode=False)
    except click.ClickException as exc:
        text = redacted(exc.format_message().rstrip("."), arguments)
        raise UsageError(f"{text} (what is to run is cp, sync, inventory or verify)") from exc
    assert isinstance(job, Job)
    return job


@click.group(cls=Commands, add_help_option=False, no_args_is_help=False)
def _later() -> None:
    pass


def _job(command: str, src: str, dst: str | None, options: dict[str, Any]) -> Job:
    from adsmig.storage.aws import check_account
    from adsmig.uri import parse

    for side, text in (("src", src), ("dst", dst)):
        if text is None:
            continue
        at = parse(text)
        if at.credentials:
            raise UsageError(
                f"{at}: a schedule keeps no secrets; put these into ~/.config/adsmig/credentials as"
                f" [NAME], and write --{side}-profile NAME"
            )
        if at.scheme == "file" and not text.startswith(("/", "~", "file:")):
            raise UsageError(f"{text!r} depends on the current directory: write {at}")
    if options.get("dryrun") and options.get("delete_src"):
        raise UsageError("--dryrun --delete-src removes the source, as rm does; leave one out")
    _check_files(options)
    job = job_asked(command, src, dst, options)
    try:
        for one in filter(None, (job.src, job.dst)):
            check_account(one)
    except AdsmigError as exc:
        raise UsageError(str(exc)) from exc
    return job


def _check_files(options: dict[str, Any]) -> None:
    from adsmig.keylist import is_stream

    if is_stream(options["files_from"]):
        raise UsageError("--files-from has nobody to read from later: name a file that stays")
    for name in _FILES:
        if options.get(name):
            _check_path(options[name])


def _check_path(file: str | Path) -> None:
    if not os.path.isabs(file):
        raise UsageError(f"{str(file)!r} depends on the current directory: write a whole path")


@_later.command("cp", cls=Command, add_help_option=False)
@MIGRATION
def _copy(src: str, dst: str, **options: Any) -> Job:
    check_migration(options)
    return _job("cp", src, dst, options)


@_later.command("sync", cls=Command, add_help_option=False)
@MIGRATION
def _sync(src: str, dst: str, **options: Any) -> Job:
    check_migration(options)
    return _job("sync", src, dst, options)


@_later.command("inventory", cls=Command, add_help_option=False)
@INVENTORY
def _inventory(src: str, dst: str | None, **options: Any) -> Job:
    return _job("inventory", src, dst, {**options, "dryrun": True})


@_later.command("verify", cls=Command, add_help_option=False)
@VERIFICATION
def _verify(src: str, dst: str | None, **options: Any) -> Job:
    from adsmig import jobs

    check_sample(dst, options)
    if dst is not None:
        return _job("verify", src, dst, options)
    if os.path.isfile(src):
        _check_path(src)
    _check_files(options)
    return against(*jobs.open_job(src, None), options)


for _name in ("copy", "pcopy"):
    _later.add_command(_copy, _name)
