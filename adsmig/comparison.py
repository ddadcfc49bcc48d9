"""What two entries of one key tell about their content.  No I/O."""

from __future__ import annotations

import enum
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

from adsmig.model import Entry

_MD5 = re.compile(r"[0-9a-f]{32}\Z")
_MD5S = re.compile(r"(?:[0-9a-f]{32}\n)*[0-9a-f]{32}")


class Verdict(enum.Enum):
    """What two entries of one key tell about their content."""

    SAME = "same"
    CHANGED = "changed"
    UNSURE = "unsure"
    """To be told from the content."""


Compare = Callable[[Entry, Entry], Verdict]
Columns = tuple[tuple[Any, ...], ...]
"""What some entries have in each of their fields."""


def never(src: Entry, dst: Entry) -> Verdict:
    """For ``cp``, to which nothing at the destination is equal."""
    return Verdict.CHANGED


def by_default(src: Entry, dst: Entry) -> Verdict:
    """As :func:`changed`."""
    return Verdict.CHANGED if changed(src, dst) else Verdict.SAME


def without_etags(compare: Compare) -> Compare:
    """The same, where ETags of a side may look like an MD5 and be none (UCloud's are not).

    What is on record of a file's source is the source's own, and tells all the same.
    """

    def without(src: Entry, dst: Entry) -> Verdict:
        return compare(src, dst if dst.mtime_ns is not None else dst._replace(etag=None))

    return without


def within_tick(compare: Compare, tick_ns: int) -> Compare:
    """The same, where a copy's time may be one such tick off, as far as its file system tells them.

    What changes after it was copied is two ticks younger; see transfer.await_settled.
    """

    def within(src: Entry, dst: Entry) -> Verdict:
        time_ns = dst.mtime_ns
        return compare(
            src, dst if time_ns is None else dst._replace(mtime_ns=time_ns + tick_ns - 1)
        )

    return within


def by_seconds(src: Entry, dst: Entry) -> Verdict:
    """As :func:`changed`, where a file system of one side tells its owner's times in whole seconds,
    and none of when a file was stored.

    A copy of an object has the time of the object there, or that of the file which the object is a
    copy of, which only the object itself can tell.
    """
    src = src if src.mtime_ns is None else src._replace(mtime_ns=_floor(src.mtime_ns))
    dst = dst if dst.mtime_ns is None else dst._replace(mtime_ns=_floor(dst.mtime_ns))
    if src.mtime_ns is not None or dst.mtime_ns is None:
        return by_default(src, dst)
    if changed(src._replace(mtime_ns=_floor(src.stored_ns)), dst):
        return Verdict.UNSURE if src.size == dst.size and src.link == dst.link else Verdict.CHANGED
    return Verdict.SAME


def _floor(time_ns: int) -> int:
    return time_ns - time_ns % 1_000_000_000


def by_size(src: Entry, dst: Entry) -> Verdict:
    """For ``--size-only``."""
    differ = src.link != dst.link or src.size != dst.size
    return Verdict.CHANGED if differ else Verdict.SAME


def by_content(src: Entry, dst: Entry) -> Verdict:
    """For ``--checksum``: by the MD5 where both sides carry one, else the content has to tell.

    An ETag of that form is none where objects are encrypted with keys of KMS
    (docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html), so only equal ones tell something.
    """
    if src.size != dst.size or src.link != dst.link:
        return Verdict.CHANGED
    if src.link is not None or (src.key.endswith(b"/") and not src.size):
        return Verdict.SAME
    if src.etag and src.etag == dst.etag and _MD5.match(src.etag):
        return Verdict.SAME
    return Verdict.UNSURE


def by_record(src: Entry, dst: Entry) -> Verdict:
    """For ``--compare manifest``: whether the source is what it was when it was copied."""
    differ = (
        src.size != dst.size
        or time_of(src) != time_of(dst)
        or bool(src.etag and dst.etag and src.etag != dst.etag)
    )
    return Verdict.CHANGED if differ else Verdict.SAME


def is_copy(src: Entry, dst: Entry, record: Entry) -> bool:
    """Whether what was found equal is certain to be a copy of ``src`` as it is, and not of what is
    on ``record``: a file has the time of what it is a copy of; an object may have its ETag.
    """
    if dst.mtime_ns is None:
        return bool(src.etag) and src.etag == dst.etag != record.etag
    if src.mtime_ns is None or time_of(src) == time_of(record):
        return False
    return dst.mtime_ns in (src.mtime_ns, _floor(src.mtime_ns))


def by_checksum(src: Entry, dst: Entry) -> Verdict:
    """For ``verify JOB``: what is on record, with a checksum for an ETag, and what is there.

    A link has no checksum, and as an object of a mount it had another size.
    """
    if dst.link is not None and not src.etag:
        return Verdict.SAME
    if src.size != dst.size:
        return Verdict.CHANGED
    directory = src.key.endswith(b"/") and not src.size
    return Verdict.SAME if directory or not src.etag else Verdict.UNSURE


def changed(src: Entry, dst: Entry) -> bool:
    """Whether ``src`` has to be copied over ``dst``, by size, then content, then time.

    A file whose object is on record as having had another ETag is an old copy, whatever its ctime,
    which is when it was stored: that moves with every chmod.  Content decides where both sides
    carry an MD5.  Between file systems, which both keep the owner's mtime, the newer one
    is compared; otherwise when the destination's copy was stored.
    """
    if src.size != dst.size or src.link != dst.link:
        return True
    if src.link is not None or (src.key.endswith(b"/") and not src.size):
        return False  # a link to the same place; a directory: being there is all there is to it
    if src.etag and dst.etag:
        if dst.mtime_ns is not None:
            if src.etag != dst.etag:
                return True
        elif _MD5.match(src.etag):
            if src.etag == dst.etag:
                return False
            if _MD5.match(dst.etag):
                return True
    if src.mtime_ns is None:
        # Stores tell times in whole seconds, rounded down; see transfer.await_settled.
        return src.stored_ns + 1_000_000_000 > dst.stored_ns
    return src.mtime_ns > (dst.stored_ns if dst.mtime_ns is None else dst.mtime_ns)


def time_of(entry: Entry) -> int:
    """When the content was last changed, as far as the storage knows; Unix nanoseconds."""
    return entry.stored_ns if entry.mtime_ns is None else entry.mtime_ns


def times_in(mtimes: Sequence[int | None], stored: Sequence[int]) -> Sequence[int]:
    """:func:`time_of` of many, of which these are the columns ``mtime_ns`` and ``stored_ns``."""
    if mtimes.count(None) == len(mtimes):  # of a store
        return stored
    return [at if when is None else when for when, at in zip(mtimes, stored, strict=True)]


def alike(ours: Sequence[Entry], theirs: Sequence[Entry], compare: Compare) -> bool:
    """Whether as many of both are equal, two by two, as far as that can be told of one field of all
    of them after the other, which takes less than half the time.
    """
    tells = _IN_COLUMNS.get(compare)
    if not tells or compare(ours[0], theirs[0]) is not Verdict.SAME:
        return False
    if tells is _same_md5s and not ours[0].etag:
        return False
    here: Columns
    here, there = (tuple(zip(*entries, strict=True)) for entries in (ours, theirs))
    for *_, implied, problems, links in (here, there):
        if any(implied) or any(problems) or links.count(None) < len(links):
            return False
    return here[0] == there[0] and here[1] == there[1] and tells(here, there)


def _same_md5s(ours: Columns, theirs: Columns) -> bool:
    etags = ours[4]
    return (
        etags == theirs[4]
        and None not in etags
        and ours[2].count(None) + theirs[2].count(None) == 2 * len(etags)  # nor are these files
        and _MD5S.fullmatch("\n".join(etags)) is not None
    )


def _unchanged(ours: Columns, theirs: Columns) -> bool:
    """Of files, which have no ETags, none may be newer than its copy."""
    if ours[4][0]:
        return _same_md5s(ours, theirs)
    stored = theirs[2].count(None)
    if None in ours[2] or ours[4].count(None) < len(ours[4]) or stored not in (0, len(theirs[2])):
        return False
    return all(map(operator.le, ours[2], theirs[3] if stored else theirs[2]))


def _as_recorded(ours: Columns, theirs: Columns) -> bool:
    without = ours[2].count(None)
    if without not in (0, len(ours[2])):
        return False
    times = ours[3] if without else ours[2]
    return times == theirs[2] and ours[4] == theirs[4]


_IN_COLUMNS: dict[Compare, Callable[[Columns, Columns], bool]] = {
    by_default: _unchanged,
    by_seconds: _same_md5s,
    by_content: _same_md5s,
    by_record: _as_recorded,
}
"""What tells that many entries are SAME, of those by which it can be told."""
