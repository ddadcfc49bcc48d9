"""What a mount left that was killed: stored now, or kept, and named."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from dataclasses import replace
from pathlib import Path

from adsmig.errors import AdsmigError, NotFound, SourceChanged
from adsmig.model import Entry, Meta
from adsmig.mount.draft import Left, damaged, left
from adsmig.mount.store import PART, SINGLE, Store

log = logging.getLogger(__name__)

_CHANGED = "was changed at the store, too"
_RESTARTED = "was not stored when the machine stopped, and the store has what was there before"

_PERHAPS = "; it may be short or have holes, for the machine stopped before it was stored"


def recover(store: Store, drafts: Path, kept: Path) -> list[str]:
    """Stores the files of an earlier mount that the store lacks; a line for each, to be told.

    Where somebody else has replaced the object meanwhile, theirs stays, and ours goes to ``kept``.
    So it does where the machine was restarted and there is an object to be replaced: nothing of
    ours was flushed, and what is left of it may have holes, or end early.  Where there is none,
    what is left is stored, and called that.
    What cannot be stored now stays where it is.  Of what has a damaged journal, nobody knows whose
    it is: that goes to ``kept``, too.
    """
    told = []
    for path in damaged(drafts):
        with contextlib.suppress(OSError):  # then it stays where it is, and the log says so
            told.append(_keep_unnamed(path, kept))
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
        _restate(store, there, one)
        one.forget()
        return ""
    fd = os.open(one.path, os.O_RDWR)
    try:
        if done := _completed(store, one, fd):
            if done.key == one.key:
                _restate(store, done, one)
                one.forget()
                return ""
            if there and (there.size, there.etag) != one.base:
                one.forget()
                return f"{_name(one)} {_CHANGED}: what was written here is {_text(done.key)} there"
            _rename(store, done, one)
            one.forget()
            return _stored(one)
        if there and (there.size, there.etag) != one.base:
            return _keep(store, one, kept, _CHANGED)
        if there and one.restarted:
            return _keep(store, one, kept, _RESTARTED)
        if one.upload:
            try:
                _go_on(store, one, fd)
            except NotFound:
                # The store has given the upload up, as its rules may say.
                if one.sent:
                    one.upload = None
                    return _keep(store, one, kept, "of an earlier mount cannot be stored")
                _store(store, one, fd)
        else:
            if one.sent and not there:
                return _keep(store, one, kept, "was removed from the store")
            if one.sent and there:
                _fill(store, there, fd, one.sent)
            _store(store, one, fd)
    finally:
        os.close(fd)
    one.forget()
    return _stored(one) + (_PERHAPS if one.restarted else "")


def _stored(one: Left) -> str:
    return f"{_name(one)} of an earlier mount is stored now"


def _keep(store: Store, one: Left, kept: Path, why: str) -> str:
    """Has it in ``kept``; the line that says so, and what is not there."""
    kept.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = one.key.rstrip(b"/").rpartition(b"/")[2].replace(b"\0", b"%00")[:100]
    place = kept / f"{one.path.name}-{name.decode(errors='ignore')}"
    if one.sent:
        place = place.with_name(f"{place.name}.from-byte-{one.sent}")
    line = f"{_name(one)} {why}: what was written here is in {place}"
    # In this order: a draft without a journal is taken for one that nobody needs.
    os.replace(one.path, place)
    if not one.sent or not one.upload:
        _give_up(store, one)
        one.forget()
        return f"{line}, but for its first {one.sent} bytes, which are lost" if one.sent else line
    os.replace(one.path.with_suffix(".json"), f"{place}.json")
    return (
        f"{line}, but for its first {one.sent} bytes: the store has those in the parts of the"
        f" upload {one.upload.upload_id}, as {place}.json lists them, until somebody gives that up"
    )


def _keep_unnamed(path: Path, kept: Path) -> str:
    kept.mkdir(parents=True, exist_ok=True, mode=0o700)
    place = kept / path.name
    os.replace(path, place)
    os.replace(path.with_suffix(".json"), f"{place}.json")
    return (
        f"what was written to a file of an earlier mount is in {place}: its name is not known, for"
        f" its journal {place}.json is damaged"
    )


def _name(one: Left) -> str:
    return _text(one.key)


def _text(key: bytes) -> str:
    return key.decode("utf-8", "backslashreplace")


def _restate(store: Store, entry: Entry, one: Left) -> None:
    """Gives the object what was chosen for it since it was stored, or its upload begun."""
    if meta := _chosen(store, entry, one):
        store.copy(entry, entry.key, meta)


def _chosen(store: Store, entry: Entry, one: Left) -> Meta | None:
    """What was answered for while it was open; None where the object has that."""
    meta = store.look(entry.key).meta
    mtime_ns = one.meta.mtime_ns if one.timed else meta.mtime_ns
    chosen = replace(one.meta, mtime_ns=mtime_ns)
    return chosen if _facts(chosen) != _facts(meta) else None


def _facts(meta: Meta) -> tuple[int | None, ...]:
    return meta.mode, meta.uid, meta.gid, meta.mtime_ns


def _is_that(there: Entry, one: Left) -> bool:
    """Whether the store has exactly that, and only the mount did not live to know."""
    if there.size != one.size or one.sent or one.size > SINGLE:
        return False  # see _completed
    digest = hashlib.md5(one.path.read_bytes(), usedforsecurity=False).hexdigest()
    return (there.etag or "").lower() == digest


def _completed(store: Store, one: Left, fd: int) -> Entry | None:
    """The object that its upload has become, and only the mount did not live to know."""
    if not one.upload:
        return None
    try:
        return store.completed(one.upload, one.parts, fd, one.size)
    except SourceChanged:
        return None


def _rename(store: Store, entry: Entry, one: Left) -> None:
    """Gives the object the name that the file has since its upload was opened."""
    store.copy(entry, one.key, _chosen(store, entry, one))
    store.delete([entry.key])


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
        _give_up(store, one)
        _store(store, one, fd)
        return
    for n in range(1, count + 1):
        if n not in one.parts:
            one.parts[n] = store.put_part(upload, n, fd, min(size, one.size - (n - 1) * size))
    parts = [one.parts[n] for n in range(1, count + 1)]
    entry = store.complete(upload, parts, one.size, one.meta)
    if entry.key != one.key:
        _rename(store, entry, one)
    else:
        _restate(store, entry, one)


def _give_up(store: Store, one: Left) -> None:
    """Has the store forget the parts that it has: all is here."""
    if one.upload:
        try:
            store.abort(one.upload)
        except AdsmigError as exc:  # who may store a file, may not always do that
            log.warning("an upload of %r is left over: %s", one.key, exc)
        one.upload = None


def _fill(store: Store, entry: Entry, fd: int, size: int) -> None:
    for start in range(0, size, PART):
        data, _ = store.read(entry, start, min(PART, size - start))
        os.pwrite(fd, data, start)
