"""How log lines look, in every process of a run."""

from __future__ import annotations

import logging
import re

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


settings: tuple[int, str | None] = (logging.WARNING, None)
"""What :func:`begin_log` was called with, for the processes that this one starts."""


def log_file() -> str:
    """The file that takes the log; '' if there is none."""
    return settings[1] or ""


def begin_log(level: int, path: str | None = None) -> None:
    """Sends what is logged at ``level`` and above to stderr, or to the end of a file, with the
    process that logged it.  Raises UsageError for a file that cannot be written.
    """
    global settings
    settings = level, path
    handler: logging.Handler
    try:
        # Opened for appending, so that lines of several processes do not overwrite one another.
        handler = logging.FileHandler(path, encoding="utf-8") if path else logging.StreamHandler()
    except OSError as exc:
        raise UsageError(f"cannot write --log-file {path}: {exc.strerror}") from exc
    form = _Formatter(f"%(asctime)s {FORMAT}" if path else FORMAT)
    handler.setFormatter(form)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # An SDK's debug log shows requests, and with them more than is anybody's business.
    for name in ("boto3", "botocore", "urllib3", "matplotlib", "PIL"):
        logging.getLogger(name).setLevel(logging.WARNING)
