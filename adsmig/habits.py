"""What users of other tools type, and what that is here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import click

_ALL = "directories are copied with all that is below them; leave it out"
_PROGRESS = "progress is shown anyway, but for -q; leave it out"
_THREADS = "write --threads N"
_LISTS = "adsmig inventory --info says what is there"
_MOVES = "adsmig sync --delete-src removes at SRC what was copied and verified"
_REMOVES = "adsmig rm deletes, and asks first"

OPTIONS = {
    "--delete": "what rsync and aws call so is --delete-dst: it removes at DST what SRC lacks",
    **dict.fromkeys(("--recursive", "-r", "-R", "-a", "--archive"), _ALL),
    **dict.fromkeys(("--dryrun", "--dry-run"), "this command has no dry run"),
    "-n": "write --dryrun",
    **dict.fromkeys(("--progress", "-P", "--stats"), _PROGRESS),
    **dict.fromkeys(("--transfers", "--checkers"), _THREADS),
    "--profile": "write --src-profile or --dst-profile",
    "--endpoint-url": "write --src-endpoint or --dst-endpoint",
    "--no-sign-request": "write --anonymous 0 for SRC, --anonymous 1 for DST",
}
COMMANDS = {
    **dict.fromkeys(("ls", "lsf", "size", "du"), _LISTS),
    **dict.fromkeys(("mv", "move"), _MOVES),
    **dict.fromkeys(("delete", "purge"), _REMOVES),
    "check": "adsmig verify compares SRC and DST",
    "help": "write adsmig --help, or adsmig COMMAND --help",
}


@contextlib.contextmanager
def hinted(ctx: click.Context) -> Iterator[None]:
    """Says of an option that there is not what it is called here, if another tool has it; and of
    any error, whose it is.

    click guesses by the letters, which is dangerous: ``--delete`` is not ``--delete-src``.
    """
    try:
        yield
    except click.NoSuchOption as exc:
        name = exc.option_name
        if name not in OPTIONS:
            raise
        message = f"No such option {name!r}: {OPTIONS[name]}"
        raise click.NoSuchOption(name, message, ctx=ctx) from exc
    except click.UsageError as exc:
        exc.ctx = exc.ctx or ctx
        raise


def check_command(name: str, ctx: click.Context) -> None:
    """Fails for a command that another tool has, with what it is called here."""
    if name in COMMANDS:
        ctx.fail(f"No such command {name!r}: {COMMANDS[name]}")
