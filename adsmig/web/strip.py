"""The keyspace as a strip: every range of a run's keys in its place, with what became of it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import NamedTuple

MOST = 240
"""Segments that can be told apart; more shards than that share them."""
WIDTH = 1200
"""Of the whole strip, in its own units."""

Shard = tuple[bytes, "bytes | None", "bytes | None", bool]
"""After, upto, cursor and whether it is done, as manifest.shards has them."""


class Segment(NamedTuple):
    """A piece of the strip: one shard, or some neighbours."""

    left: float
    width: float
    filled: float
    """The part of ``width`` that is settled."""
    state: str
    """``done``, ``begun`` or ``waiting``."""
    failed: bool
    """Something in it could not be copied."""
    first: bytes
    """Keys past this one."""
    last: bytes | None
    """The last key that may lie in it; None: the last there is."""
    cursor: bytes | None
    shards: int


def segments(shards: Sequence[Shard], failed: Iterable[bytes] = ()) -> list[Segment]:
    """The shards of a run, in the order of their keys, each as wide as the others.

    Where the keys lie within a range nobody knows before they are listed, so that a shard's width
    says nothing; how far it is filled goes by where its cursor lies between its ends.
    """
    count = min(len(shards), MOST)
    starts = [shard[0] for shard in shards]
    bad = {max(0, bisect_left(starts, key) - 1) for key in failed}
    found = []
    for at in range(count):
        low, high = at * len(shards) // count, (at + 1) * len(shards) // count
        group = shards[low:high]
        states = {_state(shard) for shard in group}
        state = states.pop() if len(states) == 1 else "begun"
        cursors = [cursor for _, _, cursor, done in group if cursor is not None and not done]
        width = WIDTH / count
        filled = width * sum(_filled(shard) for shard in group) / len(group)
        touched = any(low <= one < high for one in bad)
        found.append(
            Segment(
                round(width * at, 2), round(width, 2), round(filled, 2), state, touched,
                group[0][0], group[-1][1], cursors[0] if cursors else None, len(group),
            )
        )  # fmt: skip
    return found


def _state(shard: Shard) -> str:
    _, _, cursor, done = shard
    return "done" if done else "waiting" if cursor is None else "begun"


def _filled(shard: Shard) -> float:
    after, upto, cursor, done = shard
    return 1.0 if done else 0.0 if cursor is None else between(after, cursor, upto)


def between(low: bytes, key: bytes, high: bytes | None) -> float:
    """Where a key lies from ``low`` to ``high``, 0 to 1, by its bytes past those that both share.

    Without ``high``, up to the last key of ASCII characters.
    """
    high = b"\x7f" if high is None else high
    pairs = zip(low, high, strict=False)
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    tails = [one[shared:] for one in (low, key, high)]
    alike = len({_alphabet(tail[0]) if tail else None for tail in tails}) == 1
    start, at, end = (_number(tail, alike) for tail in tails)
    return min(max((at - start) / (end - start), 0.0), 1.0) if end > start else 0.0


def _number(tail: bytes, alike: bool) -> float:
    """A key as a fraction; after a digit come nine others, after a letter those of its case."""
    value, width = 0.0, 1.0
    for place, byte in enumerate(tail[:10]):
        first, size = _alphabet(byte) if place or alike else (0, 256)
        width /= size
        value += (byte - first) * width
    return value


def _alphabet(byte: int) -> tuple[int, int]:
    """The first of the characters that are likely at this one's place, and how many they are."""
    for first, size in ((0x30, 10), (0x61, 26), (0x41, 26)):
        if first <= byte < first + size:
            return first, size
    return 0, 256
