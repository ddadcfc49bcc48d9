"""Which keys are selected: by name, directory, size and age."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adsmig.errors import UsageError
from adsmig.filters import Filters, Selection, parse_size, parse_time
from adsmig.model import Entry

NOW_NS = 1_800_000_000 * 10**9
DAY_NS = 86400 * 10**9


def selection(**options: Any) -> Selection:
    return Selection(Filters(**options), NOW_NS)


def kept(keys: list[str], **options: Any) -> list[str]:
    chosen = selection(**options)
    return [key for key in keys if chosen.keeps_key(key.encode())]


def entry(key: bytes = b"k", size: int = 1, age_ns: int = 0) -> Entry:
    return Entry(key, size, NOW_NS - age_ns, 0)


# By name


@pytest.mark.parametrize(
    ("options", "keeps"),
    [
        ({}, ["a.jpg", "a.tmp", "d/a.jpg", "d/keep.tmp"]),
        ({"include": (r"\.jpg$",)}, ["a.jpg", "d/a.jpg"]),
        ({"include": (r"\.jpg$", "keep")}, ["a.jpg", "d/a.jpg", "d/keep.tmp"]),
        ({"exclude": (r"\.tmp$",)}, ["a.jpg", "d/a.jpg"]),
        ({"exclude": (r"\.tmp$", "^d/")}, ["a.jpg"]),
        ({"exclude": (r"\.tmp$",), "include": ("keep",)}, ["a.jpg", "d/a.jpg", "d/keep.tmp"]),
        ({"exclude": ("",), "include": ("^d/",)}, ["d/a.jpg", "d/keep.tmp"]),
        ({"include": ("^a",)}, ["a.jpg", "a.tmp"]),
        ({"include": ("jpg|keep",)}, ["a.jpg", "d/a.jpg", "d/keep.tmp"]),
        ({"include": ("(?i)JPG",)}, ["a.jpg", "d/a.jpg"]),
        ({"include": ("nothing",)}, []),
    ],
)
def test_a_key_is_dropped_if_it_matches_an_exclude_and_no_include(
    options: dict[str, Any], keeps: list[str]
) -> None:
    assert kept(["a.jpg", "a.tmp", "d/a.jpg", "d/keep.tmp"], **options) == keeps


@pytest.mark.parametrize(
    ("options", "keeps"),
    [
        ({"include_dir": ("^d$",)}, ["d/", "d/f", "d/e/", "d/e/f"]),
        ({"include_dir": ("e",)}, ["d/e/", "d/e/f", "e/f", "de/f"]),
        ({"include_dir": ("d/e$",)}, ["d/e/", "d/e/f"]),
        ({"exclude_dir": ("^d$",)}, ["d", "f", "e/f", "de/f"]),
        ({"exclude_dir": ("e$",)}, ["d", "d/", "d/f", "f"]),
        ({"exclude_dir": ("^d$",), "include_dir": ("^d/e$",)},
         ["d", "d/e/", "d/e/f", "f", "e/f", "de/f"]),
        ({"exclude_dir": ("",)}, ["d", "f"]),
    ],
)  # fmt: skip
def test_a_key_goes_by_all_the_directories_that_it_lies_in(
    options: dict[str, Any], keeps: list[str]
) -> None:
    keys = ["d", "d/", "d/f", "d/e/", "d/e/f", "f", "e/f", "de/f"]
    assert kept(keys, **options) == keeps


def test_names_and_directories_both_have_to_be_selected() -> None:
    options = {"include": (r"\.jpg$",), "exclude_dir": ("^tmp$",)}
    assert kept(["a.jpg", "a", "tmp/a.jpg", "d/a.jpg"], **options) == ["a.jpg", "d/a.jpg"]


def test_odd_keys_are_searched_as_they_are() -> None:
    assert kept(["a//b", "a/b"], include=("a//b",)) == ["a//b"]
    assert kept(["/x", "x"], exclude_dir=("^$",)) == ["/x", "x"]
    assert kept(["a\nb", "ab"], include=(r"a\nb",)) == ["a\nb"]
    assert kept(["💥/é", "e"], include=("^.",), exclude_dir=("💥",)) == ["e"]
    latin = selection(include=("^\udce9$",))
    assert latin.keeps_key(b"\xe9")
    assert not latin.keeps_key("é".encode())
    assert selection(exclude=(os.fsdecode(b"\xff"),)).keeps_key(b"x")
    assert not selection(exclude=(os.fsdecode(b"\xff"),)).keeps_key(b"a\xff")


def test_patterns_are_each_on_their_own() -> None:
    # Joined into one, the second would refer to the group of the first.
    assert kept(["aa", "bb", "ab"], include=(r"(a)\1", r"(b)\1")) == ["aa", "bb"]
    assert kept(["A", "a", "b"], include=("(?i)a", "b")) == ["A", "a", "b"]
    assert kept(["B", "b"], include=("(?i)a", "b")) == ["b"]


def test_what_no_option_is_about_is_selected() -> None:
    chosen = selection()
    assert chosen.keeps_key(b"")
    assert chosen.keeps(entry(size=0, age_ns=10**18))
    assert chosen.reason(entry()) == ""
    assert chosen.prune is None
    assert not Filters()
    assert all(
        Filters(**option)
        for option in ({"include": ("",)}, {"min_size": 0}, {"older_than": "1d"})
    )  # fmt: skip


# Against the words of the specification

PATTERNS = st.lists(
    st.sampled_from(["a", "b$", "^a", "^a/b", "b/a", ".$", ".", "a.b", r"\.", "é", "/"]), max_size=2
).map(tuple)
KEYS = st.text("ab/.é", max_size=8).map(str.encode) | st.binary(max_size=4)


def naive(filters: Filters, key: bytes) -> bool:
    """As the specification words it."""

    def found(patterns: tuple[str, ...], texts: list[str]) -> bool:
        return any(re.search(pattern, text) for pattern in patterns for text in texts)

    def keeps(include: tuple[str, ...], exclude: tuple[str, ...], texts: list[str]) -> bool:
        if include and exclude:
            return not found(exclude, texts) or found(include, texts)
        if include:
            return found(include, texts)
        return not found(exclude, texts)

    directories, inside = [], key.rpartition(b"/")[0]
    while inside:
        directories.append(os.fsdecode(inside))
        inside = inside.rpartition(b"/")[0] if b"/" in inside else b""
    by_name = keeps(filters.include, filters.exclude, [os.fsdecode(key)])
    return by_name and keeps(filters.include_dir, filters.exclude_dir, directories)


@given(PATTERNS, PATTERNS, PATTERNS, PATTERNS, st.lists(KEYS, max_size=8))
@example((), (), (), ("^a",), [b"a//b", b"a/b", b"b/a/", b"/a"])
@settings(max_examples=500)
def test_a_selection_agrees_with_the_words_of_the_specification(
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    include_dir: tuple[str, ...],
    exclude_dir: tuple[str, ...],
    keys: list[bytes],
) -> None:
    filters = Filters(include, exclude, include_dir, exclude_dir)
    chosen = Selection(filters, NOW_NS)
    # In any order, and again: nothing depends on what was asked before.
    for key in [*keys, *sorted(keys)]:
        assert chosen.keeps_key(key) == naive(filters, key), key


@given(PATTERNS, PATTERNS, PATTERNS, PATTERNS, KEYS, KEYS)
@settings(max_examples=500)
def test_nothing_selected_lies_below_a_directory_that_is_pruned(
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    include_dir: tuple[str, ...],
    exclude_dir: tuple[str, ...],
    directory: bytes,
    below: bytes,
) -> None:
    chosen = Selection(Filters(include, exclude, include_dir, exclude_dir), NOW_NS)
    prune, directory = chosen.prune, directory + b"/"
    if prune and prune(directory):
        assert not chosen.keeps_key(directory)
        assert not chosen.keeps_key(directory + below)


def test_directories_are_pruned_where_nothing_below_them_can_be_selected() -> None:
    chosen = selection(exclude_dir=("^tmp$",))
    assert chosen.prune
    assert chosen.prune(b"tmp/")
    assert chosen.prune(b"tmp/d/")
    assert not chosen.prune(b"d/")
    assert not chosen.prune(b"d/tmp/")
    # What is included may lie below what is excluded.
    assert selection(exclude_dir=("^tmp$",), include_dir=("^tmp/keep$",)).prune is None
    assert selection(exclude=("^tmp/",)).prune is None


def interrupted(selection: Selection, key: bytes, others: list[bytes]) -> bool:
    """What it answers about ``key`` if at every line others are asked about, as by threads."""
    asking: list[bool] = []

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        if frame.f_code.co_filename.endswith("filters.py") and event == "line" and not asking:
            asking.append(True)
            for other in others:
                selection.keeps_key(other)
            asking.clear()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return selection.keeps_key(key)
    finally:
        sys.settrace(before)


def test_threads_may_ask_at_once() -> None:
    chosen = selection(exclude_dir=("^tmp$",))
    assert interrupted(chosen, b"d/f", [b"tmp/f"])
    assert not interrupted(chosen, b"tmp/f", [b"d/f"])


# By size and age


def test_sizes_are_inclusive() -> None:
    chosen = selection(min_size=5, max_size=7)
    assert [size for size in range(10) if chosen.keeps(entry(size=size))] == [5, 6, 7]
    assert selection(max_size=0).keeps(entry(size=0))
    assert not selection(max_size=0).keeps(entry(size=1))
    assert selection(min_size=0).keeps(entry(size=0))


def test_ages_count_from_the_beginning_of_the_run() -> None:
    newer, older = selection(newer_than="1d"), selection(older_than="1d")
    assert newer.keeps(entry(age_ns=DAY_NS - 1))
    assert not newer.keeps(entry(age_ns=DAY_NS))
    assert older.keeps(entry(age_ns=DAY_NS + 1))
    assert not older.keeps(entry(age_ns=DAY_NS))
    both = selection(newer_than="3d", older_than="1d")
    assert [days for days in range(5) if both.keeps(entry(age_ns=days * DAY_NS))] == [2]


def test_an_object_without_a_time_of_its_own_is_as_old_as_when_it_was_stored() -> None:
    chosen = selection(newer_than="1d")
    assert chosen.keeps(Entry(b"k", 1, None, NOW_NS))
    assert not chosen.keeps(Entry(b"k", 1, None, NOW_NS - 2 * DAY_NS))
    assert not chosen.keeps(Entry(b"k", 1, NOW_NS - 2 * DAY_NS, NOW_NS))


def test_names_do_not_matter_to_sizes_and_ages_nor_the_other_way_round() -> None:
    chosen = selection(include=("x",), min_size=5)
    assert chosen.keeps(entry(b"a", 5))
    assert chosen.keeps_key(b"x")


# Why it is dropped


@pytest.mark.parametrize(
    ("options", "one", "reason"),
    [
        ({"include": ("a", "b")}, entry(b"k"), "--include 'a' --include 'b'"),
        ({"exclude": ("k",)}, entry(b"k"), "--exclude 'k'"),
        ({"exclude_dir": ("^d$",)}, entry(b"d/k"), "--exclude-dir '^d$'"),
        ({"include_dir": ("e",)}, entry(b"d/k"), "--include-dir 'e'"),
        ({"min_size": 5}, entry(size=4), "--min-size 5"),
        ({"max_size": 5}, entry(size=6), "--max-size 5"),
        ({"newer_than": "1d"}, entry(age_ns=2 * DAY_NS), "--newer-than 1d"),
        ({"older_than": "2026-01-01"}, entry(), "--older-than 2026-01-01"),
    ],
)
def test_the_option_that_drops_an_object_is_named(
    options: dict[str, Any], one: Entry, reason: str
) -> None:
    assert selection(**options).reason(one) == reason


@given(
    st.builds(
        Filters,
        include=PATTERNS, exclude=PATTERNS, include_dir=PATTERNS, exclude_dir=PATTERNS,
        min_size=st.none() | st.integers(0, 3), max_size=st.none() | st.integers(3, 5),
        newer_than=st.sampled_from(["", "2d"]), older_than=st.sampled_from(["", "1d"]),
    ),
    KEYS, st.integers(0, 6), st.integers(0, 4),
)  # fmt: skip
def test_there_is_a_reason_exactly_for_what_is_not_selected(
    filters: Filters, key: bytes, size: int, days: int
) -> None:
    chosen, one = Selection(filters, NOW_NS), entry(key, size, days * DAY_NS)
    assert (chosen.keeps_key(key) and chosen.keeps(one)) == (not chosen.reason(one))


# What the user wrote


@pytest.mark.parametrize("name", ["include", "exclude", "include_dir", "exclude_dir"])
@pytest.mark.parametrize("pattern", ["*.jpg", "(", "a{9999999999}", "[z-a]"])
def test_a_pattern_that_is_none_is_refused_by_its_option(name: str, pattern: str) -> None:
    with pytest.raises(UsageError) as caught:
        Filters(**{name: ("fine", pattern)})
    said = str(caught.value)
    assert "--" + name.replace("_", "-") in said
    assert pattern in said
    assert "\n" not in said


def test_a_smallest_size_beyond_the_largest_is_refused() -> None:
    with pytest.raises(UsageError, match="--min-size 2 is more than --max-size 1"):
        Filters(min_size=2, max_size=1)
    assert Filters(min_size=2, max_size=2)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("1000", 1000), ("10k", 10 << 10), ("10K", 10 << 10), ("5M", 5 << 20),
        ("1.5MiB", 3 << 19), ("2G", 2 << 30), ("2GB", 2 << 30), ("1T", 1 << 40), ("1P", 1 << 50),
        ("7b", 7), (" 1 k ", 1 << 10),
    ],
)  # fmt: skip
def test_sizes_are_powers_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "k", "-1", "1e3", "1x", "1 000", "1,5k", "10kk"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--min-size .* is no size"):
        parse_size(text, "--min-size")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90), ("90s", 90), ("1.5m", 90), ("12h", 43200), ("1d12h", 129600), ("2w", 1209600),
        ("6M", 6 * 30 * 86400), ("1y", 365 * 86400), ("0s", 0),
    ],
)  # fmt: skip
def test_an_age_is_before_the_run(text: str, seconds: float) -> None:
    assert parse_time(text, NOW_NS) == NOW_NS - int(seconds * 10**9)


def test_a_time_is_local_unless_it_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-8")
    time.tzset()
    try:
        at = int(datetime(2026, 1, 31, 12, tzinfo=timezone.utc).timestamp()) * 10**9
        assert parse_time("2026-01-31T12:00:00Z", NOW_NS) == at
        assert parse_time("2026-01-31T12:00+00:00", NOW_NS) == at
        assert parse_time("2026-01-31T20:00", NOW_NS) == at
        assert parse_time("2026-01-31", NOW_NS) == at - 20 * 3600 * 10**9
        assert parse_time("2026-01-31T12:00:00.25Z", NOW_NS) == at + 250_000_000
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", ["yesterday", "1x", "1d2", "-1d", "2026-13-01", "d", "1 d"])
def test_what_is_neither_age_nor_time_is_refused_where_it_is_written(text: str) -> None:
    for name, option in (("newer_than", "--newer-than"), ("older_than", "--older-than")):
        with pytest.raises(UsageError, match=f"{option} .* is neither an age"):
            replace(Filters(), **{name: text})  # type: ignore[arg-type]
