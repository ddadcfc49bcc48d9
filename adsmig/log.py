"""How log lines look, in every process of a run."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from collections.abc import Sequence
from functools import lru_cache

from adsmig import argv
from adsmig.errors import UsageError

FORMAT = "%(levelname)s %(name)s[%(process)d]: %(message)s"

_SECRET = (
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*:/{1,2})[^\s'\"]*@"
    r"|[^\s'\"(/:@]+:[^\s'\"]+@"
)
"""What may be one, wherever it stands."""
_ADVICE = (
    "ACCESS_KEY:SECRET_KEY@",
    "ACCESS_KEY:SECRET_KEY@BUCKET",
    "USER:PASSWORD@HOST",
    "USER[:PASSWORD]@HOST:PATH",
    "[USER[:PASSWORD]@]HOST[:PORT]/PATH",
    "sftp://USER@HOST:PORT/PATH",
)
"""How messages tell what to write; a test finds what is missing here."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def redacted(text: str, words: Sequence[str] = (), paths: Sequence[str] = ()) -> str:
    """The text without what may be keys or passwords of an address: all that stands before an
    ``@``, behind a ``NAME://`` or around a colon; and without what a terminal would act upon.

    ``words`` are those of a command line that it may quote, each with an address as a whole,
    whatever blanks and quotes are in that.  ``paths`` are known to be none, and stay as they are.
    """
    for word in words:
        hidden = os.fsdecode(argv.redacted(os.fsencode(word)))
        if hidden != word and word not in paths:
            for quoted in (word, repr(word)[1:-1], os.path.normpath(word)):
                text = text.replace(quoted, hidden)
    text = _pattern(tuple(paths)).sub(_hide, text)
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


@lru_cache(maxsize=4)
def _pattern(paths: tuple[str, ...]) -> re.Pattern[str]:
    """What may be a secret, but for advice and for these paths, each as a whole."""
    plain = "|".join(map(re.escape, (*_ADVICE, *paths)))
    return re.compile(rf"(?<![^\s'\"(])(?P<plain>{plain})(?=['\")]|[,;:.]?(?:\s|\Z))|{_SECRET}")


def _hide(match: re.Match[str]) -> str:
    return match["plain"] or f"{match['scheme'] or ''}***@"


class _Formatter(logging.Formatter):
    """An exception can quote a command line, and that an address with its keys."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


class _Terminal(logging.StreamHandler):  # type: ignore[type-arg]  # Python 3.10 has none
    """Standard error, where the line of a run's progress may stand, which has no end."""

    def format(self, record: logging.LogRecord) -> str:
        erased = "\r\x1b[K" if self.stream.isatty() else ""
        return erased + super().format(record)


class _LogFile(logging.FileHandler):
    """A log that does without what it has no room for: what is logged about is what counts."""

    def __init__(self, path: str, told: bool) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self._path, self._told = path, told

    def handleError(self, record: logging.LogRecord) -> None:
        """Says once, unless others do, that what is logged is lost."""
        exc = sys.exc_info()[1]
        if not isinstance(exc, OSError):
            super().handleError(record)
        elif not self._told:
            self._told = True
            with contextlib.suppress(OSError):  # of a terminal that is gone, or the same full disk
                print(
                    f"adsmig: cannot write the log to {self._path}: {exc.strerror};"
                    " going on without it",
                    file=sys.stderr,
                    flush=True,
                )


settings: tuple[int, str | None] = (logging.WARNING, None)
"""What :func:`begin_log` was called with, for the processes that this one starts."""


def log_file() -> str:
    """The file that takes the log; '' if there is none."""
    return settings[1] or ""


def begin_log(level: int, path: str | None = None, *, told: bool = False) -> None:
    """Sends what is logged at ``level`` and above to stderr, or to the end of a file, with the
    process that logged it.  Raises UsageError for a file that cannot be written.

    If that ceases later, one line on stderr says so, and nothing is logged until there is room;
    ``told``: another process sees to that line.
    """
    global settings
    settings = level, path
    handler: logging.Handler
    try:
        # Opened for appending, so that lines of several processes do not overwrite one another.
        handler = _LogFile(path, told) if path else _Terminal()
    except OSError as exc:
        raise UsageError(f"cannot write --log-file {path}: {exc.strerror}") from exc
    form = _Formatter(f"%(asctime)s {FORMAT}" if path else FORMAT)
    handler.setFormatter(form)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # An SDK's debug log shows requests, and with them more than is anybody's business.
    for name in ("boto3", "botocore", "urllib3", "matplotlib", "PIL"):
        logging.getLogger(name).setLevel(logging.WARNING)
