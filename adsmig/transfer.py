"""Carries out one Action: reads, hashes on the way, writes, and checks what the other end has."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import NamedTuple, TypeVar

from adsmig import failpoint
from adsmig.checksum import NO_SUMS, Wanted, md5_in, parts_in
from adsmig.comparison import time_of
from adsmig.content import PartsMd5, Reader, digest
from adsmig.errors import (
    BLAMELESS,
    AdsmigError,
    NotFound,
    ObjectError,
    SourceChanged,
    TransientError,
)
from adsmig.limits import Limits
from adsmig.links import LINK, target_of
from adsmig.model import Entry, Meta, Outcome, Part, Upload
from adsmig.proof import check_size, check_sums, remove_damaged
from adsmig.retry import Pause, at_once, attempts, never, wait
from adsmig.storage.base import Storage, Stored
from adsmig.storage.several import Sent, overlaps

MAX_CHANGES = 3
"""An object that changed under our hands this often will go on doing so."""


SETTLED_S = 2.0
"""An object that changed longer ago than this cannot change again in the same second, nor seem to,
if its time is rounded up."""
LONG_READ_S = 1.0
"""An object that took longer to read is looked at again afterwards."""
GAVE_UP = "gave up"
"""The kind of failure of what might go well at another time."""
PERMISSIONS = ("mode", "uid", "gid")
"""The names under which objects keep a file's."""


class Manner(NamedTuple):
    """How objects are copied."""

    perms: bool = True
    """With permissions and owner."""
    prove: bool = False
    """What the destination does not vouch for by an MD5 is read back from it."""
    links: bool = False
    """Symbolic links are copied as such."""


PLAIN = Manner()
Steps = Generator[int | Pause, None, Outcome]
"""Yields the descriptor by which the answer will come that is to be waited for, or a pause."""
T = TypeVar("T")


def copy(
    src: Storage,
    dst: Storage,
    entry: Entry,
    key: bytes,
    limits: Limits | None,
    manner: Manner = PLAIN,
) -> Outcome:
    """Copies the object ``entry`` to ``key``; the Outcome, success or a failure with its reason.

    An object that changes meanwhile is looked up and read again.  Raises for what is not the
    object's fault (a full destination, nobody answering), and TransientError when asked to stop
    before the object was settled.
    """
    stopping = limits.stopping if limits else never
    return at_once(copying(src, dst, entry, key, limits, manner), stopping)


def copying(
    src: Storage,
    dst: Storage,
    entry: Entry,
    key: bytes,
    limits: Limits | None,
    manner: Manner = PLAIN,
) -> Steps:
    """As :func:`copy`; yields where that would wait for a store's answer, or before another try.

    To be closed if it is not brought to its end.
    """
    stopping = limits.stopping if limits else never
    listed, changes, doubts = entry, 0, set[str]()
    began = time.monotonic()

    def unit() -> Steps:
        nonlocal entry, changes
        try:
            if entry.link is not None:
                meta = meta_for(dst, entry, src.meta(entry), manner.perms)
                dst.write_link(key, entry.link, meta)
                return Outcome(entry.key, entry.size, time_of(entry), None, None)
            return (yield from _copy_once(src, dst, entry, key, limits, manner, doubts))
        except SourceChanged as exc:
            changes += 1
            if changes == MAX_CHANGES:
                raise ObjectError("changed", str(exc)) from exc
            entry = src.stat(entry.key)
            raise

    try:
        outcome = yield from attempts(unit, f"copying {entry.key!r}", stopping=stopping)
    except AdsmigError as exc:
        outcome = failed(exc, listed, stopping)
    return outcome._replace(seconds=time.monotonic() - began)


def settled(
    unit: Callable[[], Outcome], entry: Entry, stopping: Callable[[], bool] = never
) -> Outcome:
    """What ``unit`` returns, or the failure that its error stands for."""
    try:
        return unit()
    except AdsmigError as exc:
        return failed(exc, entry, stopping)


def failed(exc: AdsmigError, entry: Entry, stopping: Callable[[], bool] = never) -> Outcome:
    """The failure that an error stands for; raises it if it is no fault of the object's."""
    if isinstance(exc, NotFound):
        return failure(entry, "vanished", "it was removed after it had been listed")
    if isinstance(exc, ObjectError):
        return failure(entry, exc.kind, str(exc))
    if isinstance(exc, BLAMELESS) or not isinstance(exc, TransientError) or stopping():
        raise exc
    return failure(entry, GAVE_UP, str(exc))


def await_settled(
    src: Storage, dst: Storage, entry: Entry, stopping: Callable[[], bool] = never
) -> None:
    """Waits until an object that changed a moment ago is two seconds old.

    Stores tell times in whole seconds.  A copy made in the second of the last change could not be
    told, by a later sync, from one made before it.  Between local file systems times are exact, but
    for some: what is two seconds there is two of their ticks here.
    """
    if pause := unsettled_s(src, dst, entry):
        wait(pause, stopping)


def unsettled_s(src: Storage, dst: Storage, entry: Entry) -> float:
    """How many seconds :func:`await_settled` waits."""
    tick_ns = max(src.tick_ns, dst.tick_ns)
    if tick_ns > 1:
        age, settled = time.time() - time_of(entry) / 1e9, SETTLED_S * tick_ns / 1e9
        if 0 <= age < settled:  # a time in the future is another clock's
            return settled - age
    return 0.0


def failure(entry: Entry, kind: str, error: str) -> Outcome:
    """The Outcome of an object that could not be copied."""
    return Outcome(entry.key, entry.size, time_of(entry), entry.etag, None, error, kind)


def link_in(dst: Storage, entry: Entry, meta: Meta, manner: Manner) -> bytes | None:
    """Where an object of a mount leads, that is to be a symbolic link of a file system; see
    adsmig.links.  None for all else.  Raises ObjectError if links are not to be copied: a file of
    the same content would be none.
    """
    target = target_of(meta) if dst.keeps_files and entry.size == len(LINK) else None
    if target is not None and not manner.links:
        where = target.decode(errors="backslashreplace")
        raise ObjectError("link", f"a symbolic link of a mount, to {where!r}: --links makes it one")
    return target


def meta_for(dst: Storage, entry: Entry, meta: Meta, perms: bool = True) -> Meta:
    """What ``dst`` is to keep with a copy of ``entry``.

    A file gets the time of the object it is a copy of, when that kept no time of its own.
    """
    if not perms:
        user = {name: value for name, value in meta.user.items() if name not in PERMISSIONS}
        meta = replace(meta, mode=None, uid=None, gid=None, user=user)
    if dst.keeps_files and meta.mtime_ns is None:
        return replace(meta, mtime_ns=time_of(entry))
    return meta


def _copy_once(
    src: Storage,
    dst: Storage,
    entry: Entry,
    key: bytes,
    limits: Limits | None,
    manner: Manner,
    doubts: set[str],
) -> Steps:
    """One try.  ``doubts`` has the hashes of what was read, and does not match the source's ETag:
    read twice, it was not damaged on its way, but its parts are of several sizes.
    """
    checksum = None
    if pause := unsettled_s(src, dst, entry):
        yield Pause(pause)
    stored = None
    if _may_keep_all(src, entry, manner):
        if not overlaps(dst):
            stored = dst.copy_from(src, entry, key)
        elif inside := dst.send_copy(src, entry, key):
            stored = yield from _awaited(inside)
    if stored:
        md5 = md5_in(entry.etag)
        if not (stored.md5 and md5):
            check_size(dst, key, entry)
        elif stored.md5 != md5:
            raise SourceChanged("another version was copied")  # by a store without if-match
    else:
        asked = (yield from _awaited(src.ask(entry))) if overlaps(src) else None
        with asked or src.read(entry) as body:
            if (target := link_in(dst, entry, body.meta, manner)) is not None:
                dst.write_link(key, target, meta_for(dst, entry, body.meta, manner.perms))
                return Outcome(entry.key, entry.size, time_of(entry), entry.etag, None)
            parts = None if body.crc32 else parts_of(src, entry, doubts)
            reader = Reader(body, entry.size, dst.wanted(), limits, parts)
            began = time.monotonic()
            meta = meta_for(dst, entry, body.meta, manner.perms)
            sums = reader.ahead()
            failpoint.reach("object.begun")
            written = key, reader.chunks(), entry.size, meta, sums
            sent = dst.send(*written) if overlaps(dst) else None
            stored = None if sent else dst.write(*written)
        if sent:
            stored = yield from _awaited(sent)
        assert stored
        failpoint.reach("object.stored")
        check_stored(src, dst, entry, key, stored, reader, began, limits, manner)
        checksum = "xxh3:" + reader.xxh3
    return Outcome(entry.key, entry.size, time_of(entry), entry.etag, checksum)


def _awaited(sent: Sent[T]) -> Generator[int, None, T]:
    """The answer, for which whoever goes on has waited."""
    try:
        yield sent.fd
    except BaseException:
        sent.drop()
        raise
    return sent.answer()


def check_stored(
    src: Storage,
    dst: Storage,
    entry: Entry,
    key: bytes,
    stored: Stored,
    reader: Reader,
    began: float,
    limits: Limits | None,
    manner: Manner,
) -> None:
    """Raises if a copy is not what was read since ``began``, or the source is another by now."""
    try:
        check_sums(stored, reader.sums)
    except TransientError:
        remove_damaged(dst, key)
        raise
    # Raises if it was replaced meanwhile.  No later sync would notice, for the copy was stored
    # after that.
    if time.monotonic() - began > LONG_READ_S or (src.keeps_files and not dst.keeps_files):
        src.meta(entry)
    if not (stored.md5 or stored.crc32 or dst.is_local):
        if stored.size != entry.size:
            check_size(dst, key, entry)
        if manner.prove and digest(dst, dst.stat(key), limits).xxh3 != reader.xxh3:
            remove_damaged(dst, key)
            raise TransientError("what the destination has is not what was sent")


def parts_of(src: Storage, entry: Entry, doubts: set[str]) -> PartsMd5 | None:
    """What the ETag of an object that was put in parts tells, if anything."""
    size = src.part_size(entry) if parts_in(entry.etag) else None
    return PartsMd5(size, entry.etag or "", doubts) if size else None


def _may_keep_all(src: Storage, entry: Entry, manner: Manner) -> bool:
    """Whether a copy may have all that is kept with the object, as one made by the service has."""
    return manner.perms or src.keeps_files or not src.meta(entry).user.keys() & set(PERMISSIONS)


def put_part(
    src: Storage, dst: Storage, key: bytes, upload: Upload, number: int, limits: Limits | None
) -> Part:
    """Copies one part, checked.  One try; raises as :func:`copy`'s unit does."""
    stored = dst.copy_part(src, key, upload, number)
    if stored:
        return Part(number, stored.etag or "", None, None)
    start, size = upload.span(number)
    # Perhaps the parts are the source's own, and its ETag tells what they are.
    theirs = not upload.crc32 and parts_in(upload.entry.etag) == upload.parts
    vouched = bool(upload.vouched)
    # Until the store has confirmed one CRC-32, an MD5 is at hand as well.
    confirmed = vouched and not dst.wanted().md5
    md5 = theirs or (dst.etag_is_md5 and not confirmed)
    want = Wanted(md5, vouched or bool(upload.crc32))
    with src.read(upload.entry, start, size) as body:
        reader = Reader(body, size, want, limits)
        sums = reader.ahead() if vouched else NO_SUMS
        stored = dst.put_part(key, upload, number, reader.chunks(), sums)
    failpoint.reach("part.stored")
    ours = reader.sums
    check_sums(stored, ours)
    if vouched and not (stored.crc32 or (stored.md5 and ours.md5)):
        raise TransientError("the store does not confirm the CRC-32s of parts")
    return Part(number, stored.etag or "", reader.xxh3, ours.md5, ours.crc32)
