"""What users of other tools type, and what that is here."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import click

_ALL = "directories are taken with all that is below them; leave it out"
_PROGRESS = "progress is shown anyway, but for -q; leave it out"
_DELETES = "write --delete-dst"
_PATTERNS = "write regular expressions, as --include RE and --exclude RE"
_MOUNTS = "what is mounted below SRC is copied too, unless --exclude-dir RE names it"
_LISTS = "adsmig inventory --info counts what is there; no command lists keys"
_MOVES = "adsmig sync --delete-src removes at SRC what was copied and verified"
_REMOVES = "adsmig rm deletes, and asks first"

_MANY = "of many files, name the directory and choose with --include RE or --files-from FILE"
_EXTRA = "Got unexpected extra argument"  # click's own words

_ANOTHER = re.compile(r"--[a-z][a-z-]+")

OPTIONS = {
    "--delete": "what rsync and aws call so is --delete-dst: it removes at DST what SRC lacks",
    **dict.fromkeys(("--recursive", "-r", "-R", "-a", "--archive"), _ALL),
    **dict.fromkeys(("--dryrun", "--dry-run"), "this command has no dry run"),
    "-n": "write --dryrun",
    **dict.fromkeys(("--progress", "-P", "--stats"), _PROGRESS),
    "--transfers": "write --threads N",
    "--checkers": "both sides are listed in as many ranges as are of use; leave it out",
    **dict.fromkeys(("--delete-after", "--delete-before", "--delete-during"), _DELETES),
    "--delete-excluded": "what is excluded is never removed",
    "--remove-source-files": "write --delete-src",
    "--filter": _PATTERNS,
    **dict.fromkeys(("--exclude-from", "--include-from"), _PATTERNS),
    **dict.fromkeys(("-x", "--one-file-system"), _MOUNTS),
    **dict.fromkeys(("-z", "--compress"), "nothing is compressed; leave it out"),
    "--partial": "large files go on where they were; leave it out",
    **dict.fromkeys(("--perms", "--times"), "they are kept anyway; leave it out"),
    "--profile": "write --src-profile or --dst-profile",
    "--endpoint-url": "write --src-endpoint or --dst-endpoint",
    "--no-sign-request": "write --anonymous 0 for SRC, --anonymous 1 for DST",
}
"""Of each option, what to say to who writes it; told only where there are those that it names."""
COMMANDS = {
    **dict.fromkeys(("ls", "lsf", "lsl", "lsd", "size", "du", "ncdu", "tree"), _LISTS),
    "copyto": "adsmig cp does that: without a slash at its end, DST is the new name",
    **dict.fromkeys(("mv", "move"), _MOVES),
    **dict.fromkeys(("delete", "purge"), _REMOVES),
    "check": "adsmig verify compares SRC and DST",
    "help": "write adsmig --help, or adsmig COMMAND --help",
}
"""Of each command, what to say to who calls it."""


@contextlib.contextmanager
def hinted(ctx: click.Context) -> Iterator[None]:
    """Says of an option that there is not what it is called here, if another tool has it; of more
    places than there can be, as a shell makes of ``*``, how to choose; of any error, whose it is.

    click guesses by the letters, which is dangerous: ``--delete`` is not ``--delete-src``.  So no
    guess is told.
    """
    try:
        yield
    except click.NoSuchOption as exc:
        name = exc.option_name
        hint = OPTIONS.get(name, "")
        told = f"No such option {name!r}: {hint}" if hint and _has(ctx.command, hint) else None
        raise click.NoSuchOption(name, told, ctx=ctx) from exc
    except click.UsageError as exc:
        exc.ctx = exc.ctx or ctx
        if exc.message.startswith(_EXTRA) and _has(ctx.command, _MANY):
            raise click.UsageError(f"{exc.message.rstrip('.')}: {_MANY}", exc.ctx) from exc
        raise


def _has(command: click.Command, hint: str) -> bool:
    """Whether a command has what a hint names; of one that is yet to be named, nobody knows."""
    there = {name for one in command.params for name in one.opts}
    return isinstance(command, click.Group) or there.issuperset(_ANOTHER.findall(hint))


def check_command(name: str, ctx: click.Context) -> None:
    """Fails for a command that another tool has, with what it is called here."""
    if name in COMMANDS:
        ctx.fail(f"No such command {name!r}: {COMMANDS[name]}")
