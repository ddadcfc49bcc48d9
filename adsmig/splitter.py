"""Where to cut a range of keys that nobody has seen yet, so that its pieces share the work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import islice, repeat
from typing import Any, Protocol

from adsmig.model import LAST, Entry, KeyRange

Probe = Callable[[bytes], "bytes | None"]
"""The first key past a point, or None: one small request."""

Ask = Callable[[Sequence[bytes]], "list[bytes | None]"]
"""The same for several points."""

FEW = 200
"""Objects; a range of fewer is cut by their sizes, for they were all seen."""
LIGHT = 64 << 20
"""Bytes; a range of few objects and less than this is done sooner than it is shared out."""


NEAR_PIECES = 4
"""The most that a range is cut into with one probe after the other: who is to work on the pieces
waits meanwhile."""
FAR_S = 0.01
"""Seconds that the beginning of a listing takes of a store that is far away, or slow."""
WAYS = 16
"""Points that such a one is asked about at once."""
ASCII = 0x7F
"""Its highest character."""


def find_cuts(
    entries: Iterator[Entry],
    probe: Probe,
    keys: KeyRange,
    pieces: int,
    threads: Callable[[], Executor] | None = None,
) -> list[bytes]:
    """Ascending keys of the range, at which to cut it into up to ``pieces``, if that is soon done.

    ``entries`` is the listing of ``keys``, of which no more than a page is taken.  Costs some tens
    of probes a cut; of a store that is far away, ``threads`` ask about many points at once, and
    several cuts come of that.  The caller ends the threads.  Nothing is assumed about the keys'
    alphabet or depth: a poor guess only means that the larger piece is cut again when a worker next
    falls idle.
    """
    began = time.monotonic()
    seen = list(islice(entries, FEW + 1))
    if len(seen) <= FEW:
        return _by_size(seen, pieces)
    if threads and time.monotonic() - began > FAR_S:
        ask = _together(probe, threads())
    else:
        ask, pieces = None, min(pieces, NEAR_PIECES)
    ranges, found = [keys], list[bytes]()
    while ranges and len(found) < pieces - 1:
        wanted = pieces - 1 - len(found)
        chosen, ranges = ranges[:wanted], ranges[wanted:]
        if ask:
            each = _cut_each(ask, chosen, wanted)
        else:
            each = [find_cut(probe, piece) for piece in chosen]
        for piece, cuts in zip(chosen, each, strict=True):
            found += cuts
            ranges += piece.cut(cuts) if cuts else ()
    return sorted(found)


def _together(probe: Probe, threads: Executor) -> Ask:
    return lambda points: list(threads.map(probe, points))


def _cut_each(ask: Ask, ranges: Sequence[KeyRange], count: int) -> list[list[bytes]]:
    """Cuts all at once, ``count`` times in all."""
    shares = [(count + at) // len(ranges) for at in range(len(ranges))]
    if len(ranges) == 1:
        return [find_far_cuts(ask, ranges[0], count)]
    with ThreadPoolExecutor(len(ranges), "cut") as cutters:  # which only wait for the probes
        return list(cutters.map(find_far_cuts, repeat(ask), ranges, shares))


def _by_size(entries: list[Entry], pieces: int) -> list[bytes]:
    """Cuts a range that holds just these into pieces of about as many bytes."""
    total = sum(entry.size for entry in entries)
    if total < LIGHT:
        return []
    cuts: list[bytes] = []
    done = 0
    for entry in entries[:-1]:
        done += entry.size
        if done * pieces >= total * (len(cuts) + 1):
            cuts.append(entry.key)
    return cuts[: pieces - 1]


def find_cut(probe: Probe, keys: KeyRange) -> list[bytes]:
    """A key of the range, near its middle, that at least one other of its keys is past; nothing
    where there are fewer than two keys.  Raises what ``probe`` does, as all of these.

    The keys are seen as a tree of characters.  Bisecting
    finds how far they all agree, then the highest of the characters that follow; the cut is the
    first key in the upper half of those that can follow.
    """
    after, upto = keys.after, keys.upto

    def past(point: bytes) -> bytes | None:
        found = probe(max(point, after))
        return None if found is None or (upto is not None and found > upto) else found

    fallback = list[bytes]()
    while (first := past(after)) is not None and (second := past(first)) is not None:
        fallback = fallback or [first]
        text = _is_text(first) and _is_text(second)
        units: _Units = _Characters() if text else _Bytes()
        if past(first + units.last) is None:
            after = first  # all others begin with it, as what is in a directory does
            continue
        shared = _agreement(past, first, units)
        low = units.after(first, shared)
        high = _highest(past, shared, low, units)
        while low < high:
            middle = (low + high + 1) // 2
            cut = past(shared + units.encode(middle))
            if cut is not None and past(cut) is not None:
                return [cut]
            high = middle - 1  # a lone key, the last one, is up there: look lower
        # The others all have the lowest character, or are that character.
        narrower = shared + units.encode(low) + units.last
        if upto is not None and narrower >= upto:
            return [second] if past(second) is not None else fallback
        upto = narrower
    return fallback


def _agreement(past: Probe, first: bytes, units: _Units) -> bytes:
    """The longest prefix of ``first``, in whole units, with which all keys past it begin too.

    The longer a prefix, the likelier a key beyond all that begin with it, so it can be bisected.
    """
    ends = units.ends(first)
    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if past(first[: ends[middle]] + units.last) is None:
            low = middle
        else:
            high = middle - 1
    return first[: ends[low]]


def _highest(past: Probe, shared: bytes, low: int, units: _Units) -> int:
    """The highest unit that follows ``shared`` in some key."""
    high = units.highest if past(shared + units.encode(ASCII)) is not None else ASCII
    while low < high:
        middle = (low + high + 1) // 2
        key = past(shared + units.encode(middle))
        if key is None:
            high = middle - 1
        else:
            low = max(middle, units.after(key, shared))
    return low


# Of a store that is far away, each answer takes its time, but many come at once.


def find_far_cuts(ask: Ask, keys: KeyRange, count: int, ways: int = WAYS) -> list[bytes]:
    """Up to ``count`` ascending keys of the range, each of which another of its keys is past; at
    least one where there are two keys.

    The same tree is looked at, some ``ways`` points at once.  One step tells what the first key has
    in common with all others; two more tell which keys come first with each of the characters that
    follow, and those cut the range.
    """
    after, upto = keys.after, keys.upto
    fallback = list[bytes]()
    text = True

    def past(*points: bytes) -> list[bytes | None]:
        found = ask([max(point, after) for point in points])
        return [None if key is None or (upto is not None and key > upto) else key for key in found]

    (first,) = past(after)
    while first is not None:
        units: _Units = _Characters() if text and _is_text(first) else _Bytes()
        prefixes = [first[:end] for end in units.ends(first)]
        longer = [prefixes[at] + units.last for at in _spread(0, len(prefixes) - 1, ways)]
        second, *beyond = past(first, *longer)
        if second is None:
            break
        fallback = fallback or [first]
        other = next(filter(None, beyond), None) or past(first + units.last)[0]
        if other is None:
            after, first = first, second  # all others begin with it
            continue
        if text and not (_is_text(second) and _is_text(other)):
            text = False
            continue
        shared, found = _branches(past, units, first, other, ways)
        if len(found) > 1:
            return _evenly(found, count)
        if not found or past(*found)[0] is not None:
            return found or fallback
        # But for a lone key, the last, all have the lowest character, or are that character.
        narrower = shared + units.encode(units.after(first, shared)) + units.last
        if upto is not None and narrower >= upto:
            return [second] if past(second)[0] is not None else fallback
        upto = narrower
    return fallback


def _branches(
    past: Callable[..., list[Any]], units: _Units, first: bytes, other: bytes | None, ways: int
) -> tuple[bytes, list[bytes]]:
    """What all keys from ``first`` on begin with, as far as ``other`` tells, and those that come
    first with one of the characters that follow, or with one of some that are spread among many;
    but for ``first`` itself.
    """
    shared, higher = first, other
    while higher is not None:
        longer, shared = shared, units.common(first, higher)
        if len(shared) >= len(longer):
            return shared, []  # keys that are no text, among others
        low = units.after(first, shared)
        some = _spread(low, ASCII, ways)
        points = [units.encode(at) for at in (*some, ASCII)]
        *found, further, higher = past(*(shared + at for at in points), shared + units.last)
    high = ASCII if further is None else units.highest
    for at, key in zip(some, found, strict=True):
        if key is None:
            high = min(high, at - 1)
    rest = [at for at in _spread(low, high, ways) if at not in some]
    found += past(*(shared + units.encode(at) for at in rest))
    return shared, sorted({key for key in (*found, further) if key is not None})


def _evenly(keys: Sequence[bytes], count: int) -> list[bytes]:
    """Up to ``count`` of them, with about as many left out before, between and after; not the last,
    which may have none past it.
    """
    count = min(count, len(keys) - 1)
    return [keys[(len(keys) + 1) * at // (count + 1) - 1] for at in range(1, count + 1)]


def _spread(low: int, high: int, ways: int) -> list[int]:
    """Up to ``ways`` numbers above ``low``, the last at most ``high``, that cut the way into even
    pieces.
    """
    ways = min(ways, high - low)
    step = high - low + 1
    return [low + max(step * number // (ways + 1), 1) for number in range(1, ways + 1)]


def _common(key: bytes, other: bytes) -> bytes:
    """What both begin with."""
    pairs = enumerate(zip(key, other, strict=False))
    return key[: next((at for at, (one, two) in pairs if one != two), min(len(key), len(other)))]


def _is_text(key: bytes) -> bool:
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return True


class _Units(Protocol):
    """What keys are taken to be made of."""

    highest: int
    last: bytes
    """Behind a prefix, past every key that begins with it."""

    def ends(self, key: bytes) -> list[int]:
        """Where each unit of ``key`` begins, and its length."""
        ...

    def after(self, key: bytes, shared: bytes) -> int:
        """The unit that follows ``shared`` in ``key``."""
        ...

    def common(self, key: bytes, other: bytes) -> bytes:
        """The units that both begin with."""
        ...

    def encode(self, unit: int) -> bytes: ...


class _Characters:
    """Of UTF-8: an object store cannot be asked for keys past anything else."""

    highest = 0x10FFFF
    last = LAST

    def ends(self, key: bytes) -> list[int]:
        return [at for at in range(len(key)) if key[at] & 0xC0 != 0x80] + [len(key)]

    def after(self, key: bytes, shared: bytes) -> int:
        return ord(key[len(shared) : len(shared) + 4].decode(errors="replace")[:1] or "\0")

    def common(self, key: bytes, other: bytes) -> bytes:
        return _common(key, other).decode(errors="ignore").encode()

    def encode(self, unit: int) -> bytes:
        return chr(0xE000 if 0xD800 <= unit <= 0xDFFF else unit).encode()  # no surrogates


class _Bytes:
    """For names of files, which need not be text."""

    highest = 0xFF
    last = b"\xff" * 256

    def ends(self, key: bytes) -> list[int]:
        return list(range(len(key) + 1))

    def after(self, key: bytes, shared: bytes) -> int:
        return key[len(shared)] if len(key) > len(shared) else 0

    def common(self, key: bytes, other: bytes) -> bytes:
        return _common(key, other)

    def encode(self, unit: int) -> bytes:
        return bytes([unit])
