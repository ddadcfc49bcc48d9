"""What is to be done: two sorted listings in, one Action for each key out.  No I/O."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from adsmig.job import Job
from adsmig.model import Action, Entry, What

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


FIRST_BLOCK, MOST_BLOCK = 1, 1024
"""Entries that are read at once, at first and at last."""


def everything(entry: Entry) -> bool:
    """Whether an object is selected, where all are."""
    return True


class Rules(NamedTuple):
    """What is to be done about which keys."""

    compare: Compare
    keeps: Callable[[Entry], bool]
    """Whether a source object is selected, by its size and age."""
    existing: bool = False
    ignore_existing: bool = False
    update: bool = False
    delete: bool = False
    """Keys that only the destination has are to be removed."""
    record: bool = False
    """Links are not to be copied."""
    directories: bool = False
    """Directories that their content implies are of interest, too."""


def rules_of(job: Job, keeps: Callable[[Entry], bool] = everything) -> Rules:
    """The rules that a job's options come to."""
    compare: Compare
    if job.against:
        return Rules(by_checksum, keeps)
    if job.compare == "size":
        compare = by_size
    elif job.compare == "checksum" or job.command == "verify":
        compare = by_content
    elif job.by_record:
        compare = by_record
    elif job.command == "cp" and not job.rebuild:
        compare = never
    else:
        seconds = any(at and at.tells_seconds for at in (job.src, job.dst))
        compare = by_content if job.delete_src else by_seconds if seconds else by_default
    if compare is not by_record and not job.etags_tell:
        compare = without_etags(compare)
    delete = job.delete_dst or job.command in ("verify", "inventory")
    return Rules(
        compare,
        keeps,
        job.existing,
        job.ignore_existing,
        job.update,
        delete and job.dst is not None,
        bool(job.record),
        job.keeps_directories or job.delete_src,
    )


class Run(NamedTuple):
    """Objects about which the same is decided, one right after the other; at least one."""

    entries: list[Entry]
    """The source's."""
    what: What = What.SKIP
    """Or COPY, of objects that are only to be counted."""


class _Listing:
    """Entries, looked at a block at a time: what comes from an iterator at once, comes quickly."""

    def __init__(self, entries: Iterator[Entry]) -> None:
        self._entries, self._size = entries, FIRST_BLOCK
        self._error: BaseException | None = None
        self.block: list[Entry] = []
        self.at = 0
        """Where in the block the next one is."""
        self.mixed = False
        """Not all of the block is equal to what is at the other side."""

    def more(self) -> bool:
        """Whether there is a next one; raises what the listing does, once it is its turn."""
        if self.at < len(self.block):
            return True
        if self._error:
            raise self._error
        self.block, self.at, self.mixed = [], 0, False
        try:
            self.block.extend(islice(self._entries, self._size))  # also those before an error
        except BaseException as exc:
            if not self.block:
                raise
            self._error = exc
        self._size = min(2 * self._size, MOST_BLOCK)
        return bool(self.block)

    def peek(self) -> Entry | None:
        """The next one."""
        return self.block[self.at] if self.more() else None


def merge(
    src: Iterator[Entry], dst: Iterator[Entry] | None, rules: Rules, large_size: int
) -> Iterator[Action | Run]:
    """One Action for each entry of ``src`` and, if they are to be removed, each that only ``dst``
    has, in the order of their keys, in which both sides come; but one Run for those that are equal
    in a row.

    ``dst`` None stands for a destination that is not looked at: everything is copied.  Objects of
    more than ``large_size`` bytes are LARGE.  Directories that their content implies are left out,
    unless they are to be removed, or ``rules`` ask for them.  What lies below a directory that
    cannot be listed, or that was not followed, is never to be removed.
    """
    if dst is None:
        for here in src:
            if not here.implied:
                yield Action(_decide(here, None, rules, large_size), here)
            elif rules.directories:
                yield Action(What.DIRECTORY, here)
        return
    ours, theirs = _Listing(src), _Listing(dst)
    guarded: list[bytes] = []  # directories of which the source does not tell what they hold

    def extraneous(entry: Entry, here: Entry | None) -> bool:
        if not rules.delete or not rules.keeps(entry):
            return False
        if entry.problem and entry.key.endswith(b"/"):
            return False  # nobody knows what it holds
        if any(entry.key.startswith(directory) for directory in guarded):
            return False
        # A directory is there as long as there is something in it.
        return not (here and entry.key.endswith(b"/") and here.key.startswith(entry.key))

    while ours.more():
        if theirs.more() and (count := _equal(ours, theirs, rules)):
            yield Run(ours.block[ours.at : ours.at + count])
            ours.at += count
            theirs.at += count
            continue
        here = ours.block[ours.at]
        ours.at += 1
        while (there := theirs.peek()) is not None and there.key < here.key:
            if extraneous(there, here):
                yield Action(What.DELETE, there)
            theirs.at += 1
        if here.problem or (here.link is not None and rules.record):
            # "d.old" comes between "d" and "d/x".
            guarded = [one for one in guarded if one > here.key or here.key.startswith(one)]
            guarded.append(here.key.removesuffix(b"/") + b"/")
        same = there if there is not None and there.key == here.key else None
        if not here.implied:
            yield Action(_decide(here, same, rules, large_size), here, same)
        elif rules.directories:
            yield Action(What.DIRECTORY, here, same)
        theirs.at += same is not None
    while (there := theirs.peek()) is not None:
        if extraneous(there, None):
            yield Action(What.DELETE, there)
        theirs.at += 1


def _equal(ours: _Listing, theirs: _Listing, rules: Rules) -> int:
    """How many of the next ones, as far as both listings were read, are equal beyond doubt."""
    compare, keeps, count = rules.compare, rules.keeps, 0
    if rules.ignore_existing or compare is never:
        return 0
    anything = keeps is everything
    here_on, there_on = ours.block[ours.at :], theirs.block[theirs.at :]
    both = min(len(here_on), len(there_on))
    if anything and both > 1 and not (ours.mixed or theirs.mixed):
        if _alike(here_on[:both], there_on[:both], compare):
            return both
        ours.mixed = theirs.mixed = True
    for here, there in zip(here_on, there_on, strict=False):
        if (
            here[0] != there[0]
            or here.implied
            or here.problem
            or there.problem
            or here.link is not None
            or not (anything or keeps(here))
            or compare(here, there) is not Verdict.SAME
        ):
            break
        count += 1
    return count


def _alike(ours: Sequence[Entry], theirs: Sequence[Entry], compare: Compare) -> bool:
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


def _as_recorded(ours: Columns, theirs: Columns) -> bool:
    without = ours[2].count(None)
    if without not in (0, len(ours[2])):
        return False
    times = ours[3] if without else ours[2]
    return times == theirs[2] and ours[4] == theirs[4]


def counted(src: Iterator[Entry], rules: Rules, large_size: int) -> Iterator[Action | Run]:
    """As :func:`merge` without a destination, where nothing will come of it but figures."""
    listing = _Listing(src)
    while listing.more():
        block, listing.block = listing.block, []
        plain = not any(entry.implied or entry.problem or entry.link is not None for entry in block)
        if plain and rules.keeps is everything:
            yield Run(block, What.COPY)
        else:
            yield from merge(iter(block), None, rules, large_size)


def each(actions: Iterable[Action | Run]) -> Iterator[Action]:
    """The same, with one Action for each object of a Run."""
    for one in actions:
        if isinstance(one, Run):
            for entry in one.entries:
                yield Action(one.what, entry)
        else:
            yield one


def _decide(here: Entry, same: Entry | None, rules: Rules, large_size: int) -> What:
    if here.problem:
        return What.FAIL  # nobody knows its size and age
    if not rules.keeps(here):
        return What.DROP
    if here.link is not None and rules.record:
        return What.LEAVE
    if (rules.existing and not same) or (rules.ignore_existing and same):
        return What.LEAVE
    if same and not same.problem:
        verdict = rules.compare(here, same)
        if verdict == Verdict.SAME:
            return What.SKIP
        if rules.update and time_of(same) > time_of(here):
            return What.LEAVE
        if verdict == Verdict.UNSURE:
            return What.CHECK
    return What.LARGE if here.size > large_size else What.COPY


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


def by_checksum(src: Entry, dst: Entry) -> Verdict:
    """For ``verify JOB``: what is on record, with a checksum for an ETag, and what is there."""
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


_IN_COLUMNS: dict[Compare, Callable[[Columns, Columns], bool]] = {
    by_default: _same_md5s,
    by_seconds: _same_md5s,
    by_content: _same_md5s,
    by_record: _as_recorded,
}
"""What tells that many entries are SAME, of those by which it can be told."""


def time_of(entry: Entry) -> int:
    """When the content was last changed, as far as the storage knows; Unix nanoseconds."""
    return entry.stored_ns if entry.mtime_ns is None else entry.mtime_ns
