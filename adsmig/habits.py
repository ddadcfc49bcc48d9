"""What users of other tools type, and what that is here."""

from __future__ import annotations

import contextlib
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
COMMANDS = {
    **dict.fromkeys(("ls", "lsf", "lsl", "lsd", "size", "du", "ncdu", "tree"), _LISTS),
    "copyto": "adsmig cp does that: without a slash at its end, DST is the new name",
    **dict.fromkeys(("mv", "move"), _MOVES),
    **dict.fromkeys(("delete", "purge"), _REMOVES),
    "check": "adsmig verify compares SRC and DST",
    "help": "write adsmig --help, or adsmig COMMAND --help",
}


@contextlib.contextmanager
def hinted(ctx: click.Context) -> Iterator[None]:
    """Says of an option that there is not what it is called here, if another tool has it; and of
    any error, whose it is.

    click guesses by the letters, which is dangerous: ``--delete`` is not ``--delete-src``.  So no
    guess is told.
    """
    try:
        yield
    except click.NoSuchOption as exc:
        name = exc.option_name
        if name not in OPTIONS:
            raise click.NoSuchOption(name, ctx=ctx) from exc
        message = f"No such option {name!r}: {OPTIONS[name]}"
        raise click.NoSuchOption(name, message, ctx=ctx) from exc
    except click.UsageError as exc:
        exc.ctx = exc.ctx or ctx
        raise


def check_command(name: str, ctx: click.Context) -> None:
    """Fails for a command that another tool has, with what it is called here."""
    if name in COMMANDS:
        ctx.fail(f"No such command {name!r}: {COMMANDS[name]}")
