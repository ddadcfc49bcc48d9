"""Whether two names lead to one place, and whether a place is still the one that it was."""

from __future__ import annotations

import os
from collections.abc import Sequence

from adsmig.errors import NotFound, UsageError
from adsmig.job import Job
from adsmig.model import Meta
from adsmig.storage.base import Storage


def same_place(before: Sequence[int], now: Sequence[int]) -> bool:
    """Whether two ``Storage.identity()`` are of one directory, perhaps on either side of a restart
    of the machine, after which a device can have another number.
    """
    return before[1] == now[1] and (before[0] == now[0] or before[2] == now[2])


def refuse_one_place(job: Job, src: Storage, dst: Storage) -> None:
    """Raises UsageError if what is written to ``dst`` can be seen at ``src``: one directory that is
    mounted twice, one store under two names.  Both are prepared.

    With ``--delete-src``, the only copy would be removed once it was found equal to itself.  So a
    store is asked by way of an object of our own; a file system has the staging directory.
    """
    inside = b""
    if src.location.bucket and src.location.bucket == dst.location.bucket:
        inside = dst.location.path
        if not inside.startswith(src.location.path):
            return
        inside = inside[len(src.location.path) :]
    if job.single and (inside, job.single[0]) != (b"", job.single[1]):
        return
    if src.keeps_files != dst.keeps_files:
        return
    mark = os.fsencode(job.staging)
    if dst.keeps_files:
        found = _has(src, mark + b"/")
    elif job.delete_src:
        mark += b"-" + os.urandom(6).hex().encode()
        dst.write(mark, iter(()), 0, Meta())
        try:
            found = _has(src, inside + mark)
        finally:
            dst.delete([mark])
    else:
        return
    if found:
        if dst.keeps_files:
            dst.tidy()
        raise UsageError(f"{job.src} and {job.dst} are one and the same place: choose another DST")


def _has(storage: Storage, key: bytes) -> bool:
    try:
        storage.stat(key)
    except NotFound:
        return False
    return True
