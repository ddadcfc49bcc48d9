"""Ranges of keys: however they are cut, each key is in exactly one piece."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from adsmig.model import Entry, KeyRange
from adsmig.splitter import find_cut, find_cuts, find_far_cuts
from tests.unit.test_splitter import PROBES, Keys

NAMES = st.sampled_from(
    [b"a", b"b", b"a-", b"2026", b"01", b"\xc3\xa9", b"\xff", b"\x00", b"/", b" "]
)
KEYS = st.lists(NAMES, min_size=1, max_size=6).map(b"".join) | st.binary(min_size=1, max_size=6)
SETS = st.sets(KEYS, max_size=40)


@st.composite
def ranges(draw: st.DrawFn) -> KeyRange:
    after = draw(st.just(b"") | KEYS)
    upto = draw(st.none() | KEYS)
    if upto is not None and upto < after:
        after, upto = upto, after
    return KeyRange(after, upto, draw(st.booleans()))


def check(all_keys: Keys, keys: KeyRange, cuts: list[bytes]) -> None:
    held = all_keys.held(keys)
    assert cuts == sorted(set(cuts))
    assert set(cuts) <= set(held)
    pieces = keys.cut(cuts)
    assert [key for piece in pieces for key in all_keys.held(piece)] == held
    assert all(key in piece for piece in pieces for key in all_keys.held(piece))
    assert (pieces[0].after, pieces[-1].upto) == (keys.after, keys.upto)
    for one, two in pairwise(pieces):
        assert one.upto == two.after
        assert not two.closed
    if cuts:
        assert all_keys.held(pieces[-1]), "a cut that nothing lies past"


@given(SETS, ranges())
def test_a_cut_lies_inside_and_loses_nothing(found: set[bytes], keys: KeyRange) -> None:
    all_keys = Keys(found)
    cuts = find_cut(all_keys.probe, keys)
    # The probes begin past the first key of a closed range.
    if len(all_keys.held(keys)) > 2:
        assert cuts
    assert all_keys.probes <= PROBES * 4
    check(all_keys, keys, cuts)


@given(SETS, ranges(), st.integers(1, 9), st.integers(1, 20))
def test_many_points_at_once_lose_nothing_either(
    found: set[bytes], keys: KeyRange, count: int, ways: int
) -> None:
    all_keys = Keys(found)
    cuts = find_far_cuts(all_keys.ask, keys, count, ways)
    assert len(cuts) <= count
    if len(all_keys.held(keys)) > 2:
        assert cuts
    check(all_keys, keys, cuts)


@given(SETS, ranges(), st.integers(2, 9), st.integers(0, 1 << 30))
def test_cuts_lie_inside_and_lose_nothing(
    found: set[bytes], keys: KeyRange, pieces: int, size: int
) -> None:
    all_keys = Keys(found)
    entries = (Entry(key, size * len(key), None, 0) for key in all_keys.held(keys))
    cuts = find_cuts(entries, all_keys.probe, keys, pieces)
    assert len(cuts) < pieces
    check(all_keys, keys, cuts)


@given(SETS, ranges(), st.integers(2, 9))
def test_many_keys_are_cut_and_none_is_lost(found: set[bytes], keys: KeyRange, pieces: int) -> None:
    all_keys = Keys(key + b"%03d" % number for key in found for number in range(30))
    cuts = find_cuts(all_keys.entries(keys), all_keys.probe, keys, pieces)
    check(all_keys, keys, cuts)


@given(SETS, ranges(), KEYS)
def test_what_is_left_past_a_cursor_is_what_was_not_settled(
    found: set[bytes], keys: KeyRange, cursor: bytes
) -> None:
    all_keys = Keys(found)
    held = all_keys.held(keys)
    if cursor in keys:
        assert all_keys.held(keys.rest(cursor)) == [key for key in held if key > cursor]
