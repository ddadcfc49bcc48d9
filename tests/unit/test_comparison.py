"""What two entries of one key tell about their content."""

from __future__ import annotations

from typing import Any

import pytest

from adsmig.comparison import (
    Verdict,
    by_content,
    by_default,
    by_record,
    by_seconds,
    by_size,
    changed,
    within_tick,
)
from adsmig.model import Entry

MD5 = "0123456789abcdef" * 2
OTHER = "f" * 32


def entry(key: bytes, size: int = 1, stored: int = 0, **fields: Any) -> Entry:
    """``stored``: seconds."""
    return Entry(key, size, None, stored * 10**9)._replace(**fields)


# The same content?


def test_content_is_told_by_equal_md5s_and_else_has_to_be_read() -> None:
    def verdict(src: Entry, dst: Entry) -> Verdict:
        return by_content(src, dst)

    assert verdict(entry(b"k", 1, etag=MD5), entry(b"k", 1, etag=MD5)) == Verdict.SAME
    assert verdict(entry(b"k", 1, etag=MD5), entry(b"k", 1, etag=OTHER)) == Verdict.UNSURE
    assert verdict(entry(b"k", 1, etag=MD5), entry(b"k", 2, etag=MD5)) == Verdict.CHANGED
    assert verdict(entry(b"k"), entry(b"k")) == Verdict.UNSURE
    multipart = MD5 + "-2"
    assert verdict(entry(b"k", etag=multipart), entry(b"k", etag=multipart)) == Verdict.UNSURE
    assert verdict(entry(b"d/", 0), entry(b"d/", 0)) == Verdict.SAME
    assert verdict(entry(b"d/", 1), entry(b"d/", 1)) == Verdict.UNSURE


@pytest.mark.parametrize("compare", [by_size, by_content])
def test_links_are_equal_if_they_lead_to_the_same_place(compare: Any) -> None:
    one, other = entry(b"l", link=b"a"), entry(b"l", link=b"b")
    assert compare(one, one._replace(stored_ns=9)) == Verdict.SAME
    assert compare(one, other) == compare(one, entry(b"l")) == Verdict.CHANGED


def test_a_record_tells_by_size_time_and_etag() -> None:
    copied = Entry(b"k", 1, 5, 5, MD5)
    assert by_record(Entry(b"k", 1, 5, 9, MD5), copied) == Verdict.SAME
    assert by_record(Entry(b"k", 1, None, 5), copied) == Verdict.SAME
    for different in (
        Entry(b"k", 2, 5, 9, MD5),
        Entry(b"k", 1, 4, 9, MD5),
        Entry(b"k", 1, 5, 9, OTHER),
        Entry(b"k", 1, None, 6, MD5),
    ):
        assert by_record(different, copied) == Verdict.CHANGED


# Changed?


def test_another_size_is_a_change_whatever_else_agrees() -> None:
    assert changed(entry(b"k", 1, etag=MD5), entry(b"k", 2, etag=MD5))
    assert changed(entry(b"k", 1, 0), entry(b"k", 2, 9))


def test_md5s_decide_where_both_sides_have_one() -> None:
    newer, older = 9, 1
    assert not changed(entry(b"k", 1, newer, etag=MD5), entry(b"k", 1, older, etag=MD5))
    assert changed(entry(b"k", 1, older, etag=MD5), entry(b"k", 1, newer, etag=OTHER))


@pytest.mark.parametrize("etag", [None, MD5 + "-2", MD5[:-1], MD5.upper(), MD5 + "\n", "é" * 32])
def test_an_etag_that_is_no_md5_leaves_it_to_the_time(etag: str | None) -> None:
    for src, dst in ((MD5, etag), (etag, MD5), (etag, etag)):
        assert not changed(entry(b"k", 1, 1, etag=src), entry(b"k", 1, 2, etag=dst))
        assert changed(entry(b"k", 1, 2, etag=src), entry(b"k", 1, 1, etag=dst))


def test_between_object_stores_the_later_store_counts() -> None:
    assert changed(entry(b"k", 1, 2), entry(b"k", 1, 1))
    assert not changed(entry(b"k", 1, 1), entry(b"k", 1, 2))


def test_of_two_changes_within_a_second_neither_is_taken_for_the_other() -> None:
    assert changed(entry(b"k", 1, 1), entry(b"k", 1, 1))
    assert changed(entry(b"k", 1, 1), Entry(b"k", 1, 9, 1_999_999_999))


def test_between_file_systems_the_owners_times_count() -> None:
    def at(mtime: int, stored: int) -> Entry:
        return Entry(b"k", 1, mtime, stored)

    assert changed(at(2, 0), at(1, 9))
    assert not changed(at(1, 9), at(1, 0))
    assert not changed(at(1, 9), at(2, 0))


def test_a_file_is_held_against_when_the_object_was_stored() -> None:
    assert changed(Entry(b"k", 1, 5, 9), Entry(b"k", 1, None, 4))
    assert not changed(Entry(b"k", 1, 5, 9), Entry(b"k", 1, None, 5))


def test_an_object_is_held_against_when_the_file_was_stored_not_its_own_time() -> None:
    assert changed(entry(b"k", 1, 5), Entry(b"k", 1, 9 * 10**9, 4 * 10**9))
    assert not changed(entry(b"k", 1, 5), Entry(b"k", 1, 1, 6 * 10**9))


def test_a_directory_that_is_there_is_unchanged() -> None:
    assert not changed(entry(b"d/", 0, 9), entry(b"d/", 0, 1))
    assert changed(entry(b"d/", 1, 9), entry(b"d/", 1, 1))
    assert changed(entry(b"f", 0, 9), entry(b"f", 0, 1))


@pytest.mark.parametrize(
    ("src", "dst", "verdict"),
    [
        # A file here, its copy there, which lost the fraction of a second.
        ({"mtime_ns": 1_999_999_999}, {"mtime_ns": 1_000_000_000}, Verdict.SAME),
        ({"mtime_ns": 2_000_000_000}, {"mtime_ns": 1_000_000_000}, Verdict.CHANGED),
        ({"mtime_ns": 1_000_000_000}, {"mtime_ns": 1_999_999_999}, Verdict.SAME),
        ({"mtime_ns": 1, "size": 2}, {"mtime_ns": 1}, Verdict.CHANGED),
        # A file, and an object that was stored later, or earlier.
        ({"mtime_ns": 1_000_000_000}, {"stored": 2}, Verdict.SAME),
        ({"mtime_ns": 3_000_000_000}, {"stored": 2}, Verdict.CHANGED),
        # An object, and a copy with its time; with an earlier one, perhaps of the file in it.
        ({"stored": 5}, {"mtime_ns": 5_000_000_000}, Verdict.SAME),
        ({"stored": 5}, {"mtime_ns": 4_000_000_000}, Verdict.UNSURE),
        ({"stored": 5, "size": 2}, {"mtime_ns": 4_000_000_000}, Verdict.CHANGED),
    ],
)
def test_where_times_are_whole_seconds(
    src: dict[str, Any], dst: dict[str, Any], verdict: Verdict
) -> None:
    assert by_seconds(entry(b"a", **src), entry(b"a", **dst)) == verdict


@pytest.mark.parametrize("tick_ns", [100, 10**9, 2 * 10**9])
@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("compare", [by_default, by_seconds])
def test_where_a_copy_has_the_time_of_its_tick(tick_ns: int, up: bool, compare: Any) -> None:
    compare = within_tick(compare, tick_ns)
    for written in (7 * 10**9, 7 * 10**9 + 1, 8 * 10**9 + 999_999_999):
        there = entry(b"a", mtime_ns=(written + up * (tick_ns - 1)) // tick_ns * tick_ns)
        assert compare(entry(b"a", mtime_ns=written), there) == Verdict.SAME
        if compare is by_default or tick_ns >= 10**9:
            later = entry(b"a", mtime_ns=written + 2 * tick_ns)  # what was waited for
            assert compare(later, there) == Verdict.CHANGED
        assert compare(entry(b"a", size=2, mtime_ns=written), there) == Verdict.CHANGED
    assert compare(entry(b"a", stored=5), entry(b"a", stored=7)) == Verdict.SAME
