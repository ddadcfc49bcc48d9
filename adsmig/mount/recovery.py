"""What a mount left that was killed: stored now, or kept, and named."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

from adsmig.errors import AdsmigError, NotFound
from adsmig.model import Entry
from adsmig.mount.draft import Left, left
from adsmig.mount.store import PART, SINGLE, Store

log = logging.getLogger(__name__)


def recover(store: Store, drafts: Path, kept: Path) -> list[str]:
    """Stores the files of an earlier mount that the store lacks; a line for each, to be told.

    Where somebody else has replaced the object meanwhile, theirs stays, and ours goes to ``kept``.
    What cannot be stored now stays where it is.
    """
    told = []
    for one in left(drafts):
        try:
            told.append(_recover(store, one, kept))
        except (AdsmigError, OSError) as exc:
            log.warning("%r cannot be stored yet: %s", one.key, exc)
            told.append(f"{_name(one)} of an earlier mount is not stored yet: it is in {one.path}")
    return [line for line in told if line]


def _recover(store: Store, one: Left, kept: Path) -> str:
    there: Entry | None
    try:
        there = store.look(one.key).entry
    except NotFound:
        there = None
    if there and _is_that(there, one):
        one.forget()
        return ""
    base = one.base and (one.base[0], one.base[1])
    if (there and (there.size, there.etag)) != base and there is not None:
        kept.mkdir(parents=True, exist_ok=True, mode=0o700)
        place = kept / f"{one.path.name}-{Path(os.fsdecode(one.key)).name[:100]}"
        os.rename(one.path, place)
        one.forget()
        return f"{_name(one)} was changed at the store, too: what was written here is in {place}"
    fd = os.open(one.path, os.O_RDWR)
    try:
        if one.upload:
            _go_on(store, one, fd)
        else:
            if one.sent:
                if not there:
                    raise NotFound(f"the beginning of {one.key!r} is gone")
                _fill(store, there, fd, one.sent)
            _store(store, one, fd)
    finally:
        os.close(fd)
    one.forget()
    return f"{_name(one)} of an earlier mount is stored now"


def _name(one: Left) -> str:
    return one.key.decode("utf-8", "backslashreplace")


def _is_that(there: Entry, one: Left) -> bool:
    """Whether the store has exactly that, and only the mount did not live to know."""
    if there.size != one.size or one.sent or one.size > SINGLE:
        return False
    digest = hashlib.md5(one.path.read_bytes(), usedforsecurity=False).hexdigest()
    return (there.etag or "").lower() == digest


def _store(store: Store, one: Left, fd: int) -> None:
    if one.size <= SINGLE:
        store.write(one.key, fd, one.size, one.meta)
        return
    upload = store.begin(one.key, one.meta, max(PART, -(-one.size // 9000)))
    size = upload.part_size
    count = -(-one.size // size)
    parts = [
        store.put_part(upload, n, fd, min(size, one.size - (n - 1) * size))
        for n in range(1, count + 1)
    ]
    store.complete(upload, parts, one.size, one.meta)


def _go_on(store: Store, one: Left, fd: int) -> None:
    """Ends an upload of which the store has some parts."""
    upload = one.upload
    assert upload
    size = upload.part_size
    count = -(-one.size // size)
    if one.size % size:
        one.parts.pop(count, None)
    if not one.sent:
        store.abort(upload)
        one.upload = None
        _store(store, one, fd)
        return
    for n in range(1, count + 1):
        if n not in one.parts:
            one.parts[n] = store.put_part(upload, n, fd, min(size, one.size - (n - 1) * size))
    parts = [one.parts[n] for n in range(1, count + 1)]
    entry = store.complete(upload, parts, one.size, one.meta)
    if entry.key != one.key:
        store.copy(entry, one.key, None)
        store.delete([entry.key])


def _fill(store: Store, entry: Entry, fd: int, size: int) -> None:
    for start in range(0, size, PART):
        data, _ = store.read(entry, start, min(PART, size - start))
        os.pwrite(fd, data, start)
