"""What is to be done: two sorted listings in, one Action for each key out.  No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from adsmig.comparison import (
    Compare,
    Verdict,
    alike,
    by_checksum,
    by_content,
    by_default,
    by_record,
    by_seconds,
    by_size,
    never,
    time_of,
    within_tick,
    without_etags,
)
from adsmig.job import Job
from adsmig.links import may_be_link
from adsmig.model import Action, Entry, KeyRange, What

DOUBTFUL = "not copied well"
"""The problem of what is at the destination, and may be what a copy that failed has left."""
LOST = "not on the disk"
"""And of what looks whole and may be gone once it is not in memory any more."""
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
    keeps_there: Callable[[Entry], bool] | None = None
    """The same of what only the destination has, if it is not that."""
    directories: bool = False
    """Directories that their content implies are of interest, too."""


def rules_of(
    job: Job,
    keeps: Callable[[Entry], bool] = everything,
    keeps_there: Callable[[Entry], bool] | None = None,
) -> Rules:
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
        if compare is not by_content and job.tick_ns > 1:
            compare = within_tick(compare, job.tick_ns)
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
        keeps_there,
        job.keeps_directories or job.delete_src,
    )


class Run(NamedTuple):
    """Objects about which the same is decided, one right after the other; at least one."""

    entries: list[Entry]
    """The source's."""
    what: What = What.SKIP
    """Or COPY, of objects that are only to be counted."""
    there: Sequence[Entry] = ()
    """The destination's, as many, which those that are skipped were found equal to."""

    def within(self, keys: KeyRange) -> Run:
        """Those of a range; perhaps none."""
        entries = [one for one in self.entries if one.key in keys]
        return Run(entries, self.what, [one for one in self.there if one.key in keys])


class Past(NamedTuple):
    """There is nothing more to be done about keys up to this one."""

    key: bytes


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
        if not rules.delete or not (rules.keeps_there or rules.keeps)(entry):
            return False
        if entry.problem not in ("", DOUBTFUL, LOST) and entry.key.endswith(b"/"):
            return False  # nobody knows what it holds
        if any(entry.key.startswith(directory) for directory in guarded):
            return False
        # A directory is there as long as there is something in it.
        return not (here and entry.key.endswith(b"/") and here.key.startswith(entry.key))

    while ours.more():
        if theirs.more() and (count := _equal(ours, theirs, rules)):
            there_on = theirs.block[theirs.at : theirs.at + count]
            yield Run(ours.block[ours.at : ours.at + count], What.SKIP, there_on)
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
        if alike(here_on[:both], there_on[:both], compare):
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


def each(actions: Iterable[Action | Run | Past]) -> Iterator[Action]:
    """The same, with one Action for each object of a Run, and nothing else."""
    for one in actions:
        if isinstance(one, Past):
            continue
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
    kept = rules.ignore_existing and same and same.problem != LOST
    if (rules.existing and not same) or kept:
        return What.LEAVE
    # A copy that failed leaves no file, and would have the time of its source.
    a_file = same and same.problem == DOUBTFUL and same.mtime_ns is not None
    if rules.update and same and a_file and time_of(same) > time_of(here):
        return What.LEAVE
    if same and not same.problem:
        verdict = rules.compare(here, same)
        if verdict == Verdict.SAME:
            return What.SKIP
        if same.link is not None and here.link is None and may_be_link(here):
            verdict = Verdict.UNSURE  # one of a mount, which only its metadata tells
        if rules.update and time_of(same) > time_of(here):
            return What.LEAVE
        if verdict == Verdict.UNSURE:
            return What.CHECK
    return What.LARGE if here.size > large_size else What.COPY
