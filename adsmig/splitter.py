"""Where to cut a range of keys that nobody has seen yet, so that its pieces share the work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import islice
from typing import Protocol

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
"""Points that such a one is asked about at once, where one would do after the other."""


def find_cuts(
    entries: Iterator[Entry],
    probe: Probe,
    keys: KeyRange,
    pieces: int,
    threads: Callable[[], Executor] | None = None,
) -> list[bytes]:
    """Ascending keys of the range, at which to cut it into up to ``pieces``, if that is soon done.

    ``entries`` is the listing of ``keys``, of which no more than a page is taken.  Costs some tens
    of probes a cut, which ``threads`` make at once if the store is far away; the caller ends them.
    Nothing is assumed about the keys' alphabet or depth: a poor guess only means that the larger
    piece is cut again when a worker next falls idle.
    """
    began = time.monotonic()
    seen = list(islice(entries, FEW + 1))
    if len(seen) <= FEW:
        return _by_size(seen, pieces)
    if threads and time.monotonic() - began > FAR_S:
        ask, ways = _together(probe, threads()), WAYS
    else:
        ask, ways, pieces = _singly(probe), 1, min(pieces, NEAR_PIECES)
    ranges, found = [keys], list[bytes]()
    while ranges and len(found) < pieces - 1:
        chosen, ranges = ranges[: pieces - 1 - len(found)], ranges[pieces - 1 - len(found) :]
        for piece, cut in zip(chosen, _cut_each(ask, chosen, ways), strict=True):
            if cut is not None:
                found.append(cut)
                ranges += piece.cut([cut])
    return sorted(found)


def _cut_each(ask: Ask, ranges: Sequence[KeyRange], ways: int) -> list[bytes | None]:
    if ways == 1 or len(ranges) == 1:
        return [find_cut(ask, piece, ways) for piece in ranges]
    with ThreadPoolExecutor(len(ranges), "cut") as cutters:  # which only wait for the probes
        return list(cutters.map(lambda piece: find_cut(ask, piece, ways), ranges))


def _singly(probe: Probe) -> Ask:
    return lambda points: [probe(point) for point in points]


def _together(probe: Probe, threads: Executor) -> Ask:
    return lambda points: list(threads.map(probe, points))


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


def find_cut(ask: Ask, keys: KeyRange, ways: int = 1) -> bytes | None:
    """A key of the range, near its middle, that at least one other of its keys is past.

    None where there are fewer than two keys.  The keys are seen as a tree of characters.
    Bisecting, or asking about more points at once, as many ``ways`` as there are, finds how far
    they all agree, then the highest of the characters that follow; the cut is the first key in the
    upper half of those that can follow.
    """
    after, upto = keys.after, keys.upto

    def past_each(points: Sequence[bytes]) -> list[bytes | None]:
        found = ask([max(point, after) for point in points])
        return [None if key is None or (upto is not None and key > upto) else key for key in found]

    def past(point: bytes) -> bytes | None:
        return past_each([point])[0]

    fallback = None
    while (first := past(after)) is not None and (second := past(first)) is not None:
        fallback = fallback or first
        units: _Units = _Characters() if _is_text(first) and _is_text(second) else _Bytes()
        if past(first + units.last) is None:
            after = first  # all others begin with it, as what is in a directory does
            continue
        shared = _agreement(past_each, first, units, ways)
        low = units.after(first, shared)
        high = _highest(past_each, shared, low, units, ways)
        while low < high:
            middle = (low + high + 1) // 2
            cut = past(shared + units.encode(middle))
            if cut is not None and past(cut) is not None:
                return cut
            high = middle - 1  # a lone key, the last one, is up there: look lower
        # The others all have the lowest character, or are that character.
        narrower = shared + units.encode(low) + units.last
        if upto is not None and narrower >= upto:
            return second if past(second) is not None else fallback
        upto = narrower
    return fallback


def _agreement(past: Ask, first: bytes, units: _Units, ways: int) -> bytes:
    """The longest prefix of ``first``, in whole units, with which all keys past it begin too.

    The longer a prefix, the likelier a key beyond all that begin with it, so it can be bisected.
    """
    ends = units.ends(first)
    low, high = 0, len(ends) - 1
    while low < high:
        numbers = _spread(low, high, ways)
        beyond = past([first[: ends[number]] + units.last for number in numbers])
        for number, key in zip(numbers, beyond, strict=True):
            if key is not None:
                high = number - 1
                break
            low = number
    return first[: ends[low]]


def _highest(past: Ask, shared: bytes, low: int, units: _Units, ways: int) -> int:
    """The highest unit that follows ``shared`` in some key."""
    high = units.highest if past([shared + b"\x7f"])[0] is not None else 0x7F
    while low < high:
        numbers = _spread(low, high, ways)
        found = past([shared + units.encode(number) for number in numbers])
        for number, key in zip(numbers, found, strict=True):
            if key is None:
                high = max(number - 1, low)
                break
            low = max(low, number, units.after(key, shared))
    return low


def _spread(low: int, high: int, ways: int) -> list[int]:
    """Up to ``ways`` numbers above ``low``, the last at most ``high``, that cut the way into even
    pieces.
    """
    ways = min(ways, high - low)
    step = high - low + 1
    return [low + max(step * number // (ways + 1), 1) for number in range(1, ways + 1)]


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

    def encode(self, unit: int) -> bytes: ...


class _Characters:
    """Of UTF-8: an object store cannot be asked for keys past anything else."""

    highest = 0x10FFFF
    last = LAST

    def ends(self, key: bytes) -> list[int]:
        return [at for at in range(len(key)) if key[at] & 0xC0 != 0x80] + [len(key)]

    def after(self, key: bytes, shared: bytes) -> int:
        return ord(key[len(shared) : len(shared) + 4].decode(errors="replace")[:1] or "\0")

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

    def encode(self, unit: int) -> bytes:
        return bytes([unit])
