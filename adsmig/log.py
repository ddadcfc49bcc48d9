"""How log lines look, in every process of a run."""

from __future__ import annotations

import contextlib
import logging
import re
import sys

from adsmig.errors import UsageError

FORMAT = "%(levelname)s %(name)s[%(process)d]: %(message)s"

_SECRET = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]*:/{1,2})[^\s'\"]*@"
    r"|(?!ACCESS_KEY)[^\s'\"/:@]+:[^\s'\"@]+@"
)


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def redacted(text: str) -> str:
    """The text without what may be keys or passwords of an address: all that stands before an
    ``@``, behind a ``NAME://`` or around a colon; and without what a terminal would act upon.
    """
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], _SECRET.sub(r"\1***@", text))


class _Formatter(logging.Formatter):
    """An exception can quote a command line, and that an address with its keys."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


class _LogFile(logging.FileHandler):
    """A log that does without what it has no room for: what is logged about is what counts."""

    def __init__(self, path: str, told: bool) -> None:
        super().__init__(path, encoding="utf-8")
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
        handler = _LogFile(path, told) if path else logging.StreamHandler()
    except OSError as exc:
        raise UsageError(f"cannot write --log-file {path}: {exc.strerror}") from exc
    form = _Formatter(f"%(asctime)s {FORMAT}" if path else FORMAT)
    handler.setFormatter(form)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # An SDK's debug log shows requests, and with them more than is anybody's business.
    for name in ("boto3", "botocore", "urllib3", "matplotlib", "PIL"):
        logging.getLogger(name).setLevel(logging.WARNING)
