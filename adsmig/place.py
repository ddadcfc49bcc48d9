"""Whether two places are one, or lie within one another, and whether one is what it was."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from adsmig.errors import AdsmigError, NotFound, ObjectError, UsageError
from adsmig.job import Job
from adsmig.ledger import Ledger
from adsmig.location import Location
from adsmig.model import EVERYTHING, Meta
from adsmig.storage import open_storage
from adsmig.storage.base import Storage
from adsmig.storage.paths import above

log = logging.getLogger(__name__)


def same_place(before: Sequence[int], now: Sequence[int]) -> bool:
    """Whether two ``Storage.identity()`` are of one directory, perhaps on either side of a restart
    of the machine, after which a device can have another number.
    """
    return before[1] == now[1] and (before[0] == now[0] or before[2] == now[2])


def refuse_overlap(job: Job, src: Storage, dst: Storage) -> None:
    """Raises UsageError if what is written to ``dst`` can be seen at ``src``, or the other way
    round: one directory that is mounted twice, a link to what is around it, one store under two
    names.  Both are prepared.

    With ``--delete-src``, the only copy would be removed once it was found equal to itself; with
    ``--delete-dst``, what was not selected at the source.  That the destination lies below the
    source of a directory tree is only told by listing that: see storage.tree.
    """
    if src.keeps_files != dst.keeps_files:
        return
    if dst.keeps_files:
        one, around = _is_directory_of(job, src), not job.single and _is_below(job, src.location)
    else:
        one, around = _is_prefix_of(job, src, dst)
    if not (one or around):
        return
    if dst.keeps_files:
        dst.tidy()
    what = "are one and the same place" if one else "lie within one another"
    raise UsageError(f"{job.src} and {job.dst} {what}: choose another DST")


def why_nowhere(job: Job, manifest: Ledger) -> str:
    """Why a run that found nothing had no source, if that is why, and no run before it had one.

    A store has no directories: a prefix that is mistyped looks like one that is empty.  A bucket
    that is empty is there, and so is what once held something.
    """
    if job.command == "rm" or job.against or job.src.is_path or not job.src.path:
        return ""
    states = {run.state for run in manifest.runs()}
    if job.dryrun and job.known:
        with Ledger(Path(job.known)) as kept:
            states |= {run.state for run in kept.runs()}
    if "finished" in states or next(open_storage(job.src, job).list(EVERYTHING), None):
        return ""
    return f"nothing is at {job.src}: no object's key begins with that prefix"


def why_emptied(job: Job, manifest: Ledger) -> str:
    """Why a run that found nothing looked at another directory than the last one that came to its
    end, if it did: a disk that is not mounted seems to hold nothing.
    """
    if job.yes or not job.identities[0]:
        return ""
    before = manifest.places_of_last()
    if job.dryrun and job.known:
        with Ledger(Path(job.known)) as kept:
            before = kept.places_of_last()
    if not before or not before[0] or same_place(before[0], job.identities[0]):
        return ""
    return elsewhere(job.src)


def elsewhere(at: Location | None) -> str:
    """What is told of a directory that is another one than before."""
    return (
        f"{at} is not the directory that it was when the job was last at work: not mounted, or"
        " replaced? Mount it, or say --yes to do all of it anew"
    )


def _is_directory_of(job: Job, src: Storage) -> bool:
    """Whether the source has the staging directory that the destination has at its top."""
    if job.single and job.single[0] != job.single[1]:
        return False
    return _has(src, os.fsencode(job.staging) + b"/")


def _is_below(job: Job, src: Location) -> bool:
    """Whether a directory above the source has it."""
    mark = os.fsencode(job.staging)
    if src.scheme == "file":
        return any(
            os.path.lexists(os.path.join(one, mark)) for one in above(os.path.realpath(src.path))
        )
    from adsmig.storage import sftpplace

    return sftpplace.is_below(src, job, mark)


def _is_prefix_of(job: Job, src: Storage, dst: Storage) -> tuple[bool, bool]:
    """Whether two prefixes are one, and whether one lies within the other, in one bucket under two
    names.  A store has to be asked that by way of an object of our own, so it is asked only where
    something would be removed, or copies be copied again.
    """
    here, there = src.location, dst.location
    inside = there.path.startswith(here.path)
    deeper = inside and there.path != here.path and there.bucket == here.bucket
    if not (job.delete_src or job.delete_dst or deeper):
        return False, False
    if not (inside or here.path.startswith(there.path)):
        return False, False
    if job.single and here.path + job.single[0] != there.path + job.single[1]:
        return False, False
    mark = os.fsencode(f"{job.staging}-{os.urandom(6).hex()}")
    store, key = src, there.path[len(here.path) :] + mark
    if not inside:
        store = open_storage(replace(here, path=b"", trailing_slash=True), job)
        key = there.path + mark
    dst.write(mark, iter(()), 0, Meta())
    try:
        found = _has(store, key)
    except ObjectError:  # what is above the source may be nobody's business here
        found = False
    finally:
        for why in dst.delete([mark]).values():
            log.warning("%s stays at %s: %s", mark.decode(), dst.location, why)
    return found and here.path == there.path, found


def has_links(job: Job, stopping: Callable[[], bool]) -> bool:
    """Whether there are symbolic links in the source's directories, as far as can be seen before
    ``stopping`` turns true; True as well if that cannot be found out.
    """
    if job.src.scheme == "file":
        waiting = [job.src.path]
        while waiting and not stopping():
            try:
                with os.scandir(waiting.pop()) as found:
                    for one in found:
                        if one.is_symlink():
                            return True
                        if one.is_dir():
                            waiting.append(one.path)
            except OSError:
                continue  # what cannot be listed is not copied, either
        return False
    try:
        entries = open_storage(job.src, replace(job, links="copy")).list(EVERYTHING)
        return any(one.link is not None or stopping() for one in entries)
    except AdsmigError:
        return True


def _has(storage: Storage, key: bytes) -> bool:
    try:
        storage.stat(key)
    except NotFound:
        return False
    return True
