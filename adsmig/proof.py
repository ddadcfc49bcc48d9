"""Whether what was read is what the source has, and what is stored is what was read."""

from __future__ import annotations

import contextlib
import re

import xxhash

from adsmig.checksum import Sums, Wanted, combined_etag, joined_crc32, md5_in, parts_in
from adsmig.content import Reader
from adsmig.errors import AdsmigError, NotFound, ObjectError, SourceChanged, TransientError
from adsmig.limits import Limits
from adsmig.model import Entry, Part, Upload
from adsmig.retry import never, retry
from adsmig.storage.base import Storage, Stored

READINGS = 2
"""Of an object that seems to be damaged: it may have been on the way here."""


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
            remove_damaged(dst, key)
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


def remove_damaged(dst: Storage, key: bytes) -> None:
    """Removes a copy, as far as that can be done.  It has the size and, from now on, the time of a
    good one: a sync would believe it.
    """
    with contextlib.suppress(AdsmigError):
        dst.delete([key])


def check_sums(stored: Stored, sums: Sums) -> None:
    """Raises TransientError if what a destination says that it stored is not what was sent."""
    if stored.md5 and sums.md5 and stored.md5 != sums.md5:
        raise TransientError("the destination's MD5 does not match what was sent")
    if stored.crc32 and sums.crc32 and stored.crc32 != sums.crc32:
        raise TransientError("the destination's CRC-32 does not match what was sent")


def check_size(dst: Storage, key: bytes, entry: Entry) -> None:
    """Raises TransientError if a destination does not show a copy of the object's size."""
    try:
        there = dst.stat(key)
    except NotFound as exc:
        raise TransientError("the destination does not show the copy yet") from exc
    if there.size != entry.size:
        raise TransientError(f"the destination has {there.size} bytes instead of {entry.size}")
