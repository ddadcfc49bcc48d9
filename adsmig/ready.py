"""A job made ready for its workers: what they need to know of the run, and of its files."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from adsmig.errors import AdsmigError
from adsmig.job import Job
from adsmig.keylist import STREAM, check_names, copy_names, sort_keys
from adsmig.ledger import Ledger, Run
from adsmig.location import one_line
from adsmig.log import log_file
from adsmig.manifest import Manifest
from adsmig.output import Output
from adsmig.storage.paths import below

BESIDE = ("", "-wal", "-shm", "-journal", ".lock", ".shared", ".keys", ".names")
"""What the names of a manifest's files end in."""


@contextlib.contextmanager
def names_read(job: Job) -> Iterator[Job]:
    """The job with a copy of what ``--files-from`` can read only once; before a manifest is made,
    so that a name that was a mistake is in none.
    """
    if job.names:
        with tempfile.TemporaryDirectory(prefix="adsmig-") as directory:
            copy_names(job.names, f"{directory}/names")
            yield replace(job, names=f"{directory}/names")
        return
    if job.files_from not in ("", STREAM):
        check_names(job.files_from)
    yield job


def names_known(job: Job, path: Path | None) -> Job:
    """The job with the copy of those that it was begun with, which is kept beside its manifest, if
    it is gone on with.
    """
    if job.files_from != STREAM or not path or job.names:
        return job
    kept = f"{path}.names"
    if not os.path.exists(kept):
        raise AdsmigError(
            f"what --files-from named is no longer there, in {kept}: give the whole command again"
        )
    return replace(job, names=kept)


def keep_names(job: Job, path: Path | None) -> None:
    """Keeps a copy there for who goes on with the run, which has begun: until then, the one of an
    earlier run may still be wanted.
    """
    if job.names and path and job.names != f"{path}.names":
        copy_names(job.names, f"{path}.names")


@contextlib.contextmanager
def readied(job: Job, manifest: Manifest, run: Run, path: Path | None) -> Iterator[Job]:
    """The job with what its workers need to know of the run and of files."""
    job = replace(
        job,
        began_ns=int(run.started * 1e9),
        known=str(path) if path else job.known,
        own=_own_files(str(path or job.known), job.record),
        doubts=_has_failures(manifest, path, job),
        retries=run.kind == "retry",
    )
    if not job.files_from:
        yield job
        return
    if path:
        keys_file = f"{path}.keys"
    else:
        fd, keys_file = tempfile.mkstemp(prefix="adsmig-", suffix=".keys")
        os.close(fd)
    try:
        names = job.names or job.files_from
        sort_keys(names, keys_file, job.src.is_path, called=job.files_from)
        yield replace(job, keys_file=keys_file)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(keys_file)


def _has_failures(manifest: Manifest, path: Path | None, job: Job) -> bool:
    """Whether the job's manifest has any; of a dry run, the one that a real run would go by."""
    if path or not job.known:
        return bool(manifest.failure_kinds(1))
    with Ledger(Path(job.known)) as known:
        return bool(known.failure_kinds(1))


def _own_files(manifest: str, record: str) -> tuple[bytes, ...]:
    """The real paths of a manifest and what is kept beside it, of the log, and of ``record``."""
    names = [f"{manifest}{suffix}" for suffix in BESIDE] if manifest else []
    names += filter(None, [log_file(), record])
    return tuple(os.fsencode(os.path.realpath(name)) for name in names)


def tell_own(job: Job, output: Output) -> None:
    """Says which of the run's own files lie among the data, and are none."""
    for at in (job.src, job.dst):
        told: list[bytes] = []
        if at is None or at.scheme != "file":
            continue
        for key in sorted(below(at.path, job.own)):
            # A manifest's own, and then what is beside it.
            if not any(map(key.startswith, told)):
                told.append(key)
                output.note(
                    f"{one_line(os.path.join(at.path, key))} is this run's, and is left out"
                )
