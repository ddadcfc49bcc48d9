"""Carries out one Action: reads, hashes on the way, writes, and checks what the other end has."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import NamedTuple, TypeVar

import xxhash

from adsmig import failpoint
from adsmig.checksum import NO_SUMS, Sums, Wanted, combined_etag, joined_crc32, md5_in, parts_in
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
from adsmig.retry import Pause, at_once, attempts, never, retry, wait
from adsmig.storage.base import Storage, Stored
from adsmig.storage.several import Sent, overlaps

MAX_CHANGES = 3
"""An object that changed under our hands this often will go on doing so."""


SETTLED_S = 2.0
"""An object that changed longer ago than this cannot change again in the same second, nor seem to,
if its time is rounded up."""
LONG_READ_S = 1.0
"""An object that took longer to read is looked at again afterwards."""


READINGS = 2
"""Of an object that seems to be damaged: it may have been on the way here."""
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
        outcome = yield from attempts(unit, str(entry.key), stopping=stopping)
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
            _check_size(dst, key, entry)
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
        _check_sums(stored, reader.sums)
    except TransientError:
        _remove_damaged(dst, key)
        raise
    # Raises if it was replaced meanwhile.  No later sync would notice, for the copy was stored
    # after that.
    if time.monotonic() - began > LONG_READ_S or (src.keeps_files and not dst.keeps_files):
        src.meta(entry)
    if not (stored.md5 or stored.crc32 or dst.is_local):
        if stored.size != entry.size:
            _check_size(dst, key, entry)
        if manner.prove and digest(dst, dst.stat(key), limits).xxh3 != reader.xxh3:
            _remove_damaged(dst, key)
            raise TransientError("what the destination has is not what was sent")


def _remove_damaged(dst: Storage, key: bytes) -> None:
    """It has the size and, from now on, the time of a good copy: a sync would believe it."""
    with contextlib.suppress(AdsmigError):
        dst.delete([key])


def parts_of(src: Storage, entry: Entry, doubts: set[str]) -> PartsMd5 | None:
    """What the ETag of an object that was put in parts tells, if anything."""
    size = src.part_size(entry) if parts_in(entry.etag) else None
    return PartsMd5(size, entry.etag or "", doubts) if size else None


def prove_source(src: Storage, upload: Upload, parts: list[Part]) -> None:
    """Holds the parts that were read against the CRC-32 that the source tells, or else against the
    ETag of one that was put in such parts.

    Raises SourceChanged if they are not what it says.
    """
    entry = upload.entry
    if upload.crc32:
        whole = joined_crc32((part.crc32, upload.span(part.number)[1]) for part in parts)
        if whole and whole != upload.crc32:
            raise SourceChanged("what was read does not match the source's CRC-32")
        return
    if parts_in(entry.etag) != upload.parts or src.part_size(entry) != upload.part_size:
        return
    ours = combined_etag(part.md5 or md5_in(part.etag) for part in parts)
    if ours and ours != (entry.etag or "").lower() and src.part_size(entry, sure=True):
        raise SourceChanged("what was read does not match the source's ETag")


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
    _check_sums(stored, ours)
    if vouched and not (stored.crc32 or (stored.md5 and ours.md5)):
        raise TransientError("the store does not confirm the CRC-32s of parts")
    return Part(number, stored.etag or "", reader.xxh3, ours.md5, ours.crc32)


def prove_parts(
    dst: Storage, key: bytes, upload: Upload, parts: list[Part], limits: Limits | None
) -> None:
    """Reads back the parts for which the destination has not vouched by a CRC-32 or an MD5.

    Raises ObjectError if one is not what was sent, and removes the object.  Parts copied inside the
    service are its word.
    """
    doubtful = [
        part
        for part in parts
        if part.checksum
        and not (upload.vouched and part.crc32)
        and not (part.md5 and md5_in(part.etag) == part.md5)
    ]
    if not doubtful or dst.is_local:
        return
    there = dst.stat(key)
    for part in doubtful:
        span = upload.span(part.number)
        if all(_read_back(dst, there, limits, *span) != part.checksum for _ in range(READINGS)):
            _remove_damaged(dst, key)
            raise ObjectError("damaged", "what the destination has is not what was sent")


def _read_back(dst: Storage, there: Entry, limits: Limits | None, start: int, size: int) -> str:
    """The xxh3 of a span of an object, hexadecimal."""
    with dst.read(there, start, size) as body:
        body.md5 = body.crc32 = None  # what it is to be held against, is not what the store says
        reader = Reader(body, size, Wanted(), limits)
        for _ in reader.chunks():
            pass
    return reader.xxh3


def holds(dst: Storage, there: Entry, checksum: str, limits: Limits | None) -> bool:
    """Whether an object still has the checksum of an Outcome.  It is read again before that is
    denied.  Tries again; raises what reading raises, SourceChanged for one that is being written.
    """
    form = re.fullmatch(r"xxh3:[0-9a-f]{16}(?:-(\d{1,5})x(\d{1,15}))?", checksum)
    if not form:
        raise ObjectError("checksum", f"{checksum!r} is no checksum that this adsmig knows")
    upload = Upload(there, "", max(1, int(form[2] or there.size)))

    def unit() -> str | None:
        numbers = range(1, upload.parts + 1)
        spans = (_read_back(dst, there, limits, *upload.span(number)) for number in numbers)
        if not form[1]:
            return f"xxh3:{next(spans)}"
        parts = zip(numbers, spans, strict=True)
        return combined_checksum(upload, [Part(number, "", xxh3, None) for number, xxh3 in parts])

    what, stopping = f"reading {there.key!r}", limits.stopping if limits else never
    final = (SourceChanged,)
    return any(
        retry(unit, what, stopping=stopping, final=final) == checksum for _ in range(READINGS)
    )


def combined_checksum(upload: Upload, parts: list[Part]) -> str | None:
    """``xxh3:HEX-COUNTxSIZE``: the hash of the parts' hashes, as parts are read in any order."""
    whole = xxhash.xxh3_64()
    for part in parts:
        if part.checksum is None:
            return None
        whole.update(bytes.fromhex(part.checksum))
    return f"xxh3:{whole.hexdigest()}-{len(parts)}x{upload.part_size}"


def _check_sums(stored: Stored, sums: Sums) -> None:
    if stored.md5 and sums.md5 and stored.md5 != sums.md5:
        raise TransientError("the destination's MD5 does not match what was sent")
    if stored.crc32 and sums.crc32 and stored.crc32 != sums.crc32:
        raise TransientError("the destination's CRC-32 does not match what was sent")


def _check_size(dst: Storage, key: bytes, entry: Entry) -> None:
    try:
        there = dst.stat(key)
    except NotFound as exc:
        raise TransientError("the destination does not show the copy yet") from exc
    if there.size != entry.size:
        raise TransientError(f"the destination has {there.size} bytes instead of {entry.size}")
