"""Cuts of ranges, over a probe that knows all keys and counts how often it is asked."""

from __future__ import annotations

import datetime
import hashlib
import random
import threading
import time as clock
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsmig import splitter as module
from adsmig.model import Entry, KeyRange
from adsmig.splitter import FAR_S, FEW, LIGHT, NEAR_PIECES, WAYS, find_cut, find_cuts, find_far_cuts

ALL = KeyRange(closed=True)
PROBES = 60
"""The most that one cut may cost."""


class Keys:
    """A sorted set of keys, probed."""

    def __init__(self, keys: Iterable[bytes]) -> None:
        self.keys = sorted(set(keys))
        self.probes = 0

    def probe(self, after: bytes) -> bytes | None:
        self.probes += 1
        at = bisect_right(self.keys, after)
        return self.keys[at] if at < len(self.keys) else None

    def ask(self, points: Sequence[bytes]) -> list[bytes | None]:
        return [self.probe(point) for point in points]

    def held(self, keys: KeyRange) -> list[bytes]:
        low = (bisect_left if keys.closed else bisect_right)(self.keys, keys.after)
        high = len(self.keys) if keys.upto is None else bisect_right(self.keys, keys.upto)
        return self.keys[low:high]

    def entries(self, keys: KeyRange = ALL, size: int = 1) -> Iterator[Entry]:
        return (Entry(key, size, None, 0) for key in self.held(keys))

    def cut(self, keys: KeyRange) -> list[KeyRange]:
        """The two pieces of a range, the cut checked."""
        before = self.probes
        (cut,) = find_cut(self.probe, keys)
        assert self.probes - before <= PROBES
        pieces = keys.cut([cut])
        assert cut in self.held(keys)
        assert all(map(self.held, pieces))
        return pieces


def dates() -> list[bytes]:
    first = datetime.date(2020, 1, 1)
    return [
        f"{first + datetime.timedelta(day):%Y/%m/%d}/{number:05}.log".encode()
        for day in range(2500)
        for number in range(20)
    ]


def hashed() -> list[bytes]:
    return [hashlib.md5(b"%d" % number).hexdigest().encode() for number in range(50_000)]


def in_gbk() -> list[bytes]:
    rows = [bytes([high, low]) for high in range(0xB0, 0xF8) for low in range(0xA1, 0xFF)]
    pick = random.Random(5)
    return [b"/".join([rows[99], b"".join(pick.choices(rows, k=3))]) for _ in range(20_000)]


SETS: dict[str, Callable[[], list[bytes]]] = {
    "numbered": lambda: [b"%08d" % number for number in range(50_000)],
    "not padded": lambda: [b"img_%d.jpg" % number for number in range(50_000)],
    "dates": dates,
    "deep prefix": lambda: [b"very/deep/" * 60 + b"%06d" % number for number in range(50_000)],
    "hashed": hashed,
    "hashed directories": lambda: [b"/".join([k[:2], k[2:4], k]) for k in hashed()],
    "labels": lambda: [
        b"train/n%08d/%08d_%d.JPEG" % (label * 37, label * 37, number)
        for label in range(1000)
        for number in range(50)
    ],
    "markers": lambda: [
        key
        for number in range(250)
        for key in (b"d%03d/" % number, *(b"d%03d/%04d" % (number, at) for at in range(100)))
    ],
    "Chinese": lambda: [f"数据/图片{number:05}".encode() for number in range(20_000)],
    "crowded directory": lambda: [b"a", *(b"m/%07d" % number for number in range(30_000)), b"z"],
    "not UTF-8": in_gbk,
}  # fmt: skip


@pytest.fixture(scope="module")
def known() -> dict[str, Keys]:
    return {name: Keys(make()) for name, make in SETS.items()}


@pytest.mark.parametrize("name", ["numbered", "not padded", "dates", "hashed"])
def test_the_larger_piece_of_the_first_cut_holds_at_most_nine_tenths(
    known: dict[str, Keys], name: str
) -> None:
    keys = known[name]
    pieces = keys.cut(ALL)
    assert max(len(keys.held(piece)) for piece in pieces) <= 0.9 * len(keys.keys)


@pytest.mark.parametrize("name", SETS)
def test_cutting_the_largest_piece_again_soon_shares_the_keys_out(
    known: dict[str, Keys], name: str
) -> None:
    keys, pieces = known[name], [ALL]

    def weight(piece: KeyRange) -> int:
        return len(keys.held(piece))

    for _ in range(20):
        pieces.sort(key=weight)
        if weight(pieces[-1]) <= len(keys.keys) / 8:
            break
        pieces += keys.cut(pieces.pop())
    assert max(map(weight, pieces)) <= len(keys.keys) / 8
    assert sum(map(weight, pieces)) == len(keys.keys)


@pytest.mark.parametrize("name", SETS)
def test_many_cuts_at_once_are_ascending_keys_of_the_range(
    known: dict[str, Keys], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NEAR_PIECES", 8)
    keys = known[name]
    keys.probes = 0
    cuts = find_cuts(keys.entries(), keys.probe, ALL, 8)
    assert len(cuts) == 7
    assert cuts == sorted(set(cuts))
    assert all(map(keys.held, ALL.cut(cuts)))
    assert keys.probes <= 7 * PROBES
    assert find_cuts(keys.entries(), keys.probe, ALL, 1) == []


def test_directories_above_all_that_is_there_cost_little() -> None:
    above = [b"/".join(b"dir%02d" % at for at in range(depth)) + b"/" for depth in range(1, 11)]
    keys = Keys([*above, *(above[-1] + b"%06d" % number for number in range(50_000))])
    pieces = keys.cut(ALL)
    assert max(len(keys.held(piece)) for piece in pieces) <= 0.9 * len(keys.keys)


@pytest.mark.parametrize(
    "few",
    [
        [b"a", b"b"],
        [b"a", b"a/", b"a/b"],
        [b"a", b"a/", b"a/b", b"a/b/", b"a/b/c"],
        [b"\x00", b"\x00\x00"],
        ["é".encode(), "\U0010ffff".encode()],
        ["\ud7ff".encode(), "\ue000".encode()],
        [b"\xfe", b"\xff"],
        [b"\xf4\x90", b"\xff\xff"],
        [b"a\xff", b"\xc3", b"\xc3\xa9"],
        [b"x" * 1023 + b"0", b"x" * 1023 + b"1"],
    ],
)
def test_two_keys_are_enough_to_cut_between(few: list[bytes]) -> None:
    keys = Keys(few)
    for keys_range in (ALL, KeyRange(b"", few[-1])):
        pieces = keys.cut(keys_range)
        assert len(pieces) == 2


def test_a_range_of_fewer_than_two_keys_is_not_cut() -> None:
    keys = Keys([b"a", b"b", b"c"])
    for alone in (
        KeyRange(b"b", None),
        KeyRange(b"a", b"b"),
        KeyRange(b"", b"a", True),
        KeyRange(b"c", None),
        KeyRange(b"x", None),
        KeyRange(b"b", b"b"),
    ):
        assert find_cut(keys.probe, alone) == []
    assert find_cut(Keys([]).probe, ALL) == []


def test_keys_outside_the_range_are_left_alone() -> None:
    keys = Keys(b"%04d" % number for number in range(1000))
    (cut,) = find_cut(keys.probe, KeyRange(b"0500", b"0509"))
    assert cut is not None
    assert b"0500" < cut < b"0509"


awkward = st.lists(
    st.sampled_from(
        [b"a", b"b", b"/", b"0", b"9", b"\x00", b"\x7f", "é".encode(), "語".encode(),
         "💥".encode(), "\U0010ffff".encode(), b"\xff", b"\x80", b"\xc3", b"\xf4\x90"]
    ),
    max_size=5,
).map(b"".join)  # fmt: skip
key_sets = st.sets(
    awkward | st.binary(max_size=4) | st.text(max_size=4).map(str.encode), max_size=30
)
bounds = awkward | st.binary(max_size=3)


@given(
    key_sets,
    st.builds(KeyRange, bounds, st.none() | bounds, st.booleans()),
    st.integers(1, 9),
    st.integers(1, 20),
)
def test_a_cut_is_a_key_of_the_range_with_another_past_it(
    some: set[bytes], keys_range: KeyRange, count: int, ways: int
) -> None:
    keys = Keys(some)
    inside = keys.held(keys_range._replace(closed=False))
    near, far = find_cut(keys.probe, keys_range), find_far_cuts(keys.ask, keys_range, count, ways)
    assert bool(near) == bool(far) == (len(inside) > 1)
    assert len(near) <= 1
    assert len(far) <= count
    assert far == sorted(set(far))
    assert {*near, *far} <= set(inside[:-1])


@given(
    st.sets(st.text("a/é語💥\ud7ff\ue000\U0010ffff", max_size=5).map(str.encode), max_size=30),
    st.text("aé語", max_size=2).map(str.encode),
)
def test_keys_of_text_are_only_asked_for_past_text(some: set[bytes], after: bytes) -> None:
    keys = Keys(some)

    def ask(points: Sequence[bytes]) -> list[bytes | None]:
        for point in points:
            point.decode()  # all that an object store can be asked for
        return keys.ask(points)

    find_cut(lambda point: ask([point])[0], KeyRange(after))
    find_far_cuts(ask, KeyRange(after), 3, 5)


@pytest.mark.parametrize("name", SETS)
def test_a_far_store_is_asked_few_times_for_pieces_of_a_size(
    known: dict[str, Keys], name: str
) -> None:
    keys, steps = known[name], 0

    def ask(points: Sequence[bytes]) -> list[bytes | None]:
        nonlocal steps
        steps += 1
        return keys.ask(points)

    pieces = [ALL]
    for _ in range(3):
        largest = max(pieces, key=lambda piece: len(keys.held(piece)))
        pieces.remove(largest)
        pieces += largest.cut(find_far_cuts(ask, largest, 7))
    assert steps <= 3 * 13
    assert all(map(keys.held, pieces))
    assert max(len(keys.held(piece)) for piece in pieces) <= len(keys.keys) / 2


def test_a_far_store_is_asked_about_many_points_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keys(dates())
    alone = find_cuts(keys.entries(), keys.probe, ALL, 8)
    assert len(alone) == NEAR_PIECES - 1
    now = iter([0.0, FAR_S * 2])
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(now)))
    most, asking, lock = 0, 0, threading.Lock()

    def probe(point: bytes) -> bytes | None:
        nonlocal most, asking
        with lock:
            asking += 1
            most = max(most, asking)
        clock.sleep(0.002)
        with lock:
            asking -= 1
            return keys.probe(point)

    with ThreadPoolExecutor(WAYS) as threads:
        cuts = find_cuts(keys.entries(), probe, ALL, 8, lambda: threads)
    assert len(cuts) == 7
    assert all(map(keys.held, ALL.cut(cuts)))
    assert most > WAYS // 2


@given(key_sets)
def test_cutting_to_the_end_leaves_single_keys(some: set[bytes]) -> None:
    keys = Keys(some)
    cuts: list[bytes] = []
    ranges = [ALL]
    while ranges:
        piece = ranges.pop()
        found = find_cut(keys.probe, piece)
        cuts += found
        ranges += piece.cut(found) if found else ()
    assert len(set(cuts)) == len(cuts)
    # No probe ever finds the empty key: nothing comes before it.
    assert len(cuts) == max(0, len(keys.keys) - (b"" in some) - 1)


# Ranges of few objects are cut by what was seen of them.


@given(
    st.lists(st.integers(0, 2 * LIGHT), max_size=FEW), st.integers(1, 20)
)  # fmt: skip
def test_few_objects_are_cut_without_a_probe(sizes: list[int], pieces: int) -> None:
    entries = [Entry(b"%03d" % at, size, None, 0) for at, size in enumerate(sizes)]
    keys = Keys(entry.key for entry in entries)
    cuts = find_cuts(iter(entries), keys.probe, ALL, pieces)
    assert keys.probes == 0
    assert len(cuts) <= pieces - 1
    assert cuts == sorted(set(cuts))
    assert all(map(keys.held, ALL.cut(cuts))) or not cuts
    if sum(sizes) < LIGHT:
        assert cuts == []


def test_few_objects_are_shared_out_by_their_bytes() -> None:
    entries = [Entry(b"%03d" % at, LIGHT // 10, None, 0) for at in range(100)]
    cuts = find_cuts(iter(entries), Keys([]).probe, ALL, 4)
    assert cuts == [b"024", b"049", b"074"]


def test_of_many_objects_no_more_than_a_page_is_listed() -> None:
    keys = Keys(b"%08d" % number for number in range(50_000))
    entries = keys.entries()
    assert find_cuts(entries, keys.probe, ALL, 2)
    assert next(entries).key <= b"%08d" % 1000
