"""The file that takes the paths of links which were not followed."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from adsmig.errors import UsageError
from adsmig.job import Job
from adsmig.ledger import Ledger


def check_file(job: Job) -> None:
    """Raises UsageError if the file that the user named cannot be written; what it holds stays."""
    # A pipe is left alone: its reader would take this for the end.
    if not job.record or Path(job.record).is_fifo():
        return
    try:
        with open(job.record, "ab"):
            pass
    except OSError as exc:
        raise UsageError(f"cannot write --recordName {job.record}: {exc.strerror}") from exc


def record_links(job: Job, manifest: Ledger) -> str:
    """Writes there the paths of the links that the last run did not follow, unless that was dry.

    Returns what to tell the user if that cannot be; else nothing.
    """
    if not job.record or job.dryrun:
        return ""
    try:
        with open(job.record, "wb") as file:
            for key in manifest.links():
                file.write(os.path.join(job.src.path, key) + b"\n")
    except OSError as exc:
        return (
            f"cannot write --recordName {job.record}: {exc.strerror}; the links are on record:"
            f' sqlite3 {shlex.quote(str(manifest.path))} "SELECT key FROM links"'
        )
    return ""
