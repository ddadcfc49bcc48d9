"""Removes objects, each only if what made that right is still so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from adsmig import failpoint
from adsmig.comparison import time_of
from adsmig.crew import Crew
from adsmig.errors import BLAMELESS, NotFound, ObjectError, TransientError
from adsmig.model import Deletion
from adsmig.storage.base import Storage


class Copies(NamedTuple):
    """Where the copies of a source's objects are."""

    storage: Storage
    key_of: Callable[[bytes], bytes]
    """The key there of a source's."""


def remove(
    src: Storage,
    side: Storage,
    deletions: Sequence[Deletion],
    key_at: Callable[[bytes], bytes],
    crew: Crew,
    copies: Copies | None = None,
) -> tuple[list[bytes], dict[bytes, str]]:
    """Removes objects of ``side``, where ``key_at`` names their keys.

    ``copies`` are those of the source's objects: what has none there any more stays.
    Returns the keys that are gone, and for those that could not be removed, the reasons.  In
    neither are keys that came back at the source meanwhile.  Raises if the source cannot be read:
    once it is unmounted, it would seem to lack whatever it is asked for.
    """
    src.prepare()
    sure, problems = [one.key for one in deletions if not one.checked], dict[bytes, str]()
    if len(sure) < len(deletions):
        _check(src, deletions, sure, problems, crew, copies)
        src.prepare()
    wanted = set(sure)
    keys = [deletion.key for deletion in deletions if deletion.key in wanted]
    failpoint.reach("delete.before")
    errors = side.delete([key_at(key) for key in keys]) if keys else {}
    failpoint.reach("delete.after")
    for key in keys:
        if why := errors.get(key_at(key)):
            problems[key] = why
    return [key for key in keys if key not in problems], problems


def _check(
    src: Storage,
    deletions: Sequence[Deletion],
    sure: list[bytes],
    problems: dict[bytes, str],
    crew: Crew,
    copies: Copies | None,
) -> None:
    lock = threading.Lock()

    def look_at(deletion: Deletion) -> None:
        try:
            if deletion.at_source:
                good, why = True, _why_to_stay(src, deletion, copies)
            else:
                good, why = _absent(src, deletion), ""
        except BLAMELESS:
            raise
        except (ObjectError, NotFound, TransientError) as exc:
            good, why = False, f"it cannot be looked up at the source: {exc}"
        with lock:
            if why:
                problems[deletion.key] = why
            elif good:
                sure.append(deletion.key)

    crew.each((one for one in deletions if one.checked), look_at)


def _why_to_stay(src: Storage, deletion: Deletion, copies: Copies | None) -> str:
    """Why a source's object may not go; '' for one that is what was copied and is at the
    destination, and for one that is gone.
    """
    key = deletion.key
    try:
        entry = src.stat(key)
    except NotFound:
        return ""
    if key.endswith(b"/") and src.keeps_files:
        return ""  # a directory goes only if it is empty
    # A HEAD tells whole seconds, where a listing may tell more.
    unit = 1 if src.is_local else src.tick_ns
    now = (entry.size, entry.etag, time_of(entry) // unit)
    if now != (deletion.size, deletion.etag, deletion.time_ns // unit):
        return "it changed after it had been copied"
    if not copies or key.endswith(b"/"):
        return ""
    try:
        return copies.storage.missing(copies.key_of(key), entry.size, src, key)
    except BLAMELESS:
        raise
    except (ObjectError, TransientError) as exc:
        return f"its copy cannot be looked up: {exc}"


def _absent(src: Storage, deletion: Deletion) -> bool:
    """Whether the source has no such key, nor, for a directory, anything below it."""
    key = deletion.key
    if src.problem(key):
        return True  # it cannot even have such a key
    if src.hides(key):
        return False
    if key.endswith(b"/") and (below := src.probe(key)) is not None and below.startswith(key):
        return False
    try:
        src.stat(key)
    except NotFound:
        return True
    return False
