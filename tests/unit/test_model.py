"""Ranges of keys, held against every key of a small alphabet; the nouns that travel."""

from __future__ import annotations

import itertools
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsmig.model import (
    LAST,
    Budget,
    Counts,
    Entry,
    KeyRange,
    Meta,
    Outcome,
    Part,
    PartsResult,
    SliceResult,
    Stop,
    Upload,
    UploadResult,
)

ALPHABET = (b"\x00", b"/", b"a", b"\xff")
KEYS = sorted(
    b"".join(key) for size in range(5) for key in itertools.product(ALPHABET, repeat=size)
)
"""Every key of at most four bytes; the bounds drawn below have at most three, so that there is
always a key just past a bound."""

bounds = st.lists(st.sampled_from(ALPHABET), max_size=3).map(b"".join)
ranges = st.builds(KeyRange, bounds, st.none() | bounds, st.booleans())


def held(keys: KeyRange) -> list[bytes]:
    """The keys of the range, by the words of its definition."""
    after, upto, closed = keys
    return [
        key
        for key in KEYS
        if (key > after or (closed and key == after)) and (upto is None or not key > upto)
    ]


@given(ranges)
def test_a_range_holds_what_is_past_its_begin_up_to_its_end(keys: KeyRange) -> None:
    assert [key for key in KEYS if key in keys] == held(keys)


@given(ranges, bounds)
def test_ends_before_is_true_of_keys_past_all_of_the_range(keys: KeyRange, key: bytes) -> None:
    assert keys.ends_before(key) == (keys.upto is not None and key > keys.upto)
    if keys.ends_before(key):
        assert all(one < key for one in held(keys))


@given(ranges, bounds)
def test_may_hold_is_exact_for_ranges_that_are_not_empty(keys: KeyRange, prefix: bytes) -> None:
    some = any(key.startswith(prefix) for key in held(keys))
    if some:
        assert keys.may_hold(prefix)
    elif held(keys):
        assert not keys.may_hold(prefix)


@given(ranges, st.data())
def test_rest_is_what_lies_past_the_cursor(keys: KeyRange, data: st.DataObject) -> None:
    inside = held(keys)
    cursor = data.draw(st.sampled_from(inside) if inside else st.just(keys.after))
    assert held(keys.rest(cursor)) == [key for key in inside if key > cursor]


@given(ranges, st.data())
def test_cut_makes_adjoining_pieces_that_hold_each_key_once(
    keys: KeyRange, data: st.DataObject
) -> None:
    inside = held(keys)
    some = st.lists(st.sampled_from(inside), unique=True, max_size=4) if inside else st.just([])
    cuts = sorted(data.draw(some))
    pieces = keys.cut(cuts)
    assert len(pieces) == len(cuts) + 1
    assert [key for piece in pieces for key in held(piece)] == inside
    assert [piece.upto for piece in pieces] == [*cuts, keys.upto]
    assert [held(piece)[-1] for piece in pieces[:-1]] == cuts


def test_a_range_takes_only_bytes_for_keys() -> None:
    with pytest.raises(AssertionError):
        assert "a" in KeyRange()


def test_the_default_range_holds_all_but_the_empty_key() -> None:
    assert b"" not in KeyRange()
    assert b"" in KeyRange(closed=True)
    assert b"\x00" in KeyRange()
    assert b"\xff" * 1024 in KeyRange()


@given(st.text(), st.text(st.characters(max_codepoint=0x10FFFE, exclude_categories=["Cs"])))
def test_last_is_past_text_that_begins_alike(prefix: str, rest: str) -> None:
    assert (prefix + rest).encode() <= prefix.encode() + LAST


def test_counts_add_up_field_by_field() -> None:
    one, two = Counts(1, 2, 3, 4, 5, 6, 7), Counts(10, 20, 30, 40, 50, 60, 70)
    assert one + two == Counts(11, 22, 33, 44, 55, 66, 77)
    assert sum([one, two], Counts()) == one + two


@given(st.integers(0, 10**13), st.integers(1, 10**10))
def test_the_parts_of_an_upload_cover_the_object_once(size: int, part_size: int) -> None:
    upload = Upload(Entry(b"k", size, None, 0), "id", part_size)
    assert upload.parts >= 1
    assert upload.span(1)[0] == 0
    start, length = upload.span(upload.parts)
    assert start + length == size
    assert 0 <= length <= part_size
    assert length or not size
    for number in {1, max(1, upload.parts // 2)} - {upload.parts}:
        begin, length = upload.span(number)
        assert length == part_size
        assert upload.span(number + 1)[0] == begin + length


def test_what_crosses_processes_is_picklable() -> None:
    entry = Entry(b"\xff", 1, None, 2, "e")
    outcome = Outcome(b"\xff", 1, 2, None, None, "why", "kind")
    upload = Upload(entry, "id", 5)
    stop = Stop("message", 3, "Kind")
    for value in (
        KeyRange(b"a", b"b", True),
        Budget(1.5, 3),
        SliceResult(b"k", False, Counts(1), [outcome], [entry], stop, 1, 2.0, 3.0),
        PartsResult([Part(1, "e", None, None)], 5, outcome, True, stop),
        UploadResult(upload, outcome, stop),
        Meta(1, 0o644, 0, 0, {"content-type": "x"}, {"a": "b"}),
    ):
        assert pickle.loads(pickle.dumps(value)) == value
