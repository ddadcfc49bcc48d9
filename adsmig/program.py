"""The program as a whole: its exit codes, and every error in one line."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from functools import partial

import click

from adsmig.cli import cli
from adsmig.errors import AdsmigError
from adsmig.interruption import INTERRUPTED
from adsmig.log import redacted

INTERNAL_ERROR = 3
NO_OUTPUT = 3
"""What was printed, as to a full disk, is lost, whatever became of the job."""
NO_READER = 141
"""As of a command that SIGPIPE ended."""


def run(arguments: Sequence[str]) -> int:
    """Runs the program with these arguments; the exit code.  Prints every error in one line."""
    name = os.path.basename(sys.argv[0])
    name = name if name in ("adsmig", "ads-cli") else "adsmig"
    tell = partial(_tell, arguments)
    verbose = any(one in ("-v", "-vv", "--verbose") for one in arguments)
    try:
        code = cli.main(list(arguments), prog_name=name, standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message())
        return 2
    except click.ClickException as exc:
        ctx = exc.ctx if isinstance(exc, click.UsageError) else None
        where = ctx.command_path if ctx else name
        tell(f"{name}: {exc.format_message().rstrip('.')} (see {where} --help)")
        return exc.exit_code
    except AdsmigError as exc:
        tell(f"{name}: {exc}")
        logging.getLogger(__name__).debug("this is where it came from", exc_info=exc)
        return exc.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):  # which is what click makes of it
        _give_up_output()
        return NO_READER
    except Exception as exc:
        if isinstance(exc, OSError) and (why := _output_problem()):
            _give_up_output()
            tell(f"{name}: cannot write to standard output: {why}")
            return NO_OUTPUT
        if isinstance(exc, PermissionError) and exc.filename:
            tell(f"{name}: cannot use {os.fsdecode(exc.filename)}: {exc.strerror}")
            return AdsmigError.exit_code
        if verbose:
            logging.getLogger(__name__).exception("internal error")
        tell(
            f"{name}: internal error: {type(exc).__name__}: {exc}; nothing that was recorded is"
            " lost: run it again, with -v for details"
        )
        return INTERNAL_ERROR


def _output_problem() -> str:
    """Why standard output does not take what was printed; '' if it does."""
    try:
        sys.stdout.flush()
        # Without a buffer (PYTHONUNBUFFERED), what could not be written is not tried again.
        os.write(sys.stdout.fileno(), b"\n")
    except OSError as exc:
        return exc.strerror or str(exc)
    return ""


def _give_up_output() -> None:
    """Has what could not be printed vanish, instead of being tried again at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell(arguments: Sequence[str], message: str) -> None:
    """Prints an error, which may quote an argument, as an address where none is expected."""
    from adsmig.uri import paths_among

    with contextlib.suppress(OSError):  # of a terminal that is gone
        click.echo(redacted(message, arguments, paths_among(arguments)), err=True)
