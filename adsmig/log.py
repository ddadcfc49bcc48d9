"""How log lines look, in every process of a run."""

from __future__ import annotations

import logging

from adsmig.errors import UsageError

FORMAT = "%(levelname)s %(name)s[%(process)d]: %(message)s"

settings: tuple[int, str | None] = (logging.WARNING, None)
"""What :func:`begin_log` was called with, for the processes that this one starts."""


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
    form = logging.Formatter(f"%(asctime)s {FORMAT}" if path else FORMAT)
    handler.setFormatter(form)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # An SDK's debug log shows requests, and with them more than is anybody's business.
    for name in ("boto3", "botocore", "urllib3", "matplotlib", "PIL"):
        logging.getLogger(name).setLevel(logging.WARNING)
