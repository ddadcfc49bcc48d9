"""Figures about any number of objects, which stay the same however the keys are split."""

from __future__ import annotations

import json
import pickle
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsmig import inventory, job
from adsmig.inventory import (
    AGES,
    MOST_DIRECTORIES,
    MOST_EXTENSIONS,
    SIZES,
    Inventory,
)
from adsmig.storage.base import part_size_for
from adsmig.tally import LARGE_SIZE, MOST_NAMES, OTHER, Tally

NOW_NS = 1_790_000_000 * 10**9
DAY_NS = 86400 * 10**9
Object = tuple[bytes, int, int, str]

keys = st.lists(
    st.sampled_from([b"a", b"b", b"", b"c.TXT", b"\xff", b".rc", b"d.tar.gz", b"e."]), max_size=5
).map(b"/".join)
objects = st.tuples(
    keys,
    st.one_of(st.sampled_from([0, 1, 999, 1000, 10**12]), st.integers(0, 10**13)),
    st.integers(-(10**19), 10**19),
    st.sampled_from(["", "STANDARD", "GLACIER"]),
)
verdicts = st.tuples(st.sampled_from(["new", "changed", "left"]), st.integers(0, 10**9))
troubles = st.tuples(st.sampled_from(["long name", "not UTF-8"]), keys)


def filled(
    found: list[Object],
    depth: int = 1,
    decided: list[tuple[str, int]] | None = None,
    odd: list[tuple[str, bytes]] | None = None,
) -> Inventory:
    made = Inventory(NOW_NS, depth)
    for one in found:
        made.add(*one)
    for name, size in decided or []:
        made.forecast.verdict(name, size)
    for kind, key in odd or []:
        made.forecast.trouble(kind, key)
    return made


@given(st.lists(objects, max_size=30, unique_by=lambda one: one[0]), st.integers(0, 3))
def test_many_at_once_are_as_one_after_the_other(found: list[Object], depth: int) -> None:
    found.sort()
    alone, together = filled(found, depth), Inventory(NOW_NS, depth)
    for start in range(0, len(found), 11):
        columns = [list(column) for column in zip(*found[start : start + 11], strict=True)]
        together.add_all(*columns)  # type: ignore[arg-type]
    state, wanted = vars(together).copy(), vars(alone).copy()
    for one in (state, wanted):
        del one["_at"], one["_here"], one["forecast"]
    assert state == wanted


def of(key: bytes, size: int = 1, age_ns: int = DAY_NS) -> Object:
    return key, size, NOW_NS - age_ns, ""


# What is counted


def test_nothing_is_nothing() -> None:
    empty = Inventory(NOW_NS)
    assert (empty.objects, empty.size, empty.empty) == (0, 0, 0)
    assert empty.total == Tally(0, 0)
    assert (empty.first_ns, empty.last_ns) == (None, None)
    assert empty.by_directory() == empty.by_extension() == empty.by_storage_class() == []
    assert empty.largest() == empty.forecast.troubles() == empty.forecast.by_verdict() == []
    assert json.loads(json.dumps(empty.to_json()))["objects"] == 0


def test_directories_have_their_extremes_and_come_with_most_bytes_first() -> None:
    made = filled([of(b"a/x", 5), of(b"a/y/z", 7), of(b"b/x", 100), of(b"top", 1), of(b"/x", 2)])
    assert made.by_directory() == [
        (b"b/", Tally(1, 100, 100, 100)),
        (b"a/", Tally(2, 12, 5, 7)),
        (b"/", Tally(1, 2, 2, 2)),
        (b"", Tally(1, 1, 1, 1)),
    ]
    assert made.total == Tally(5, 115, 1, 100)
    assert made.total.average == 23


@pytest.mark.parametrize(
    ("depth", "names"),
    [
        (0, {b""}),
        (1, {b"", b"a/"}),
        (2, {b"", b"a/", b"a/b/", b"a//"}),
        (3, {b"", b"a/", b"a/b/", b"a/b/c/", b"a//"}),
    ],
)
def test_a_directory_is_the_first_directories_of_a_key(depth: int, names: set[bytes]) -> None:
    found = [of(key) for key in (b"a", b"a/x", b"a/b/x", b"a/b/y", b"a/b/c/x", b"a//x", b"ab")]
    assert {name for name, _ in filled(found, depth).by_directory()} == names


@pytest.mark.parametrize(
    ("key", "extension"),
    [
        (b"a/b.TXT", "txt"),
        (b"a.tar.gz", "gz"),
        (b"a.b/c", "(none)"),
        (b".profile", "(none)"),
        (b"a/.profile", "(none)"),
        (b"a/.profile.bak", "bak"),
        (b"a.", "(none)"),
        (b"a.not-one", "(none)"),
        ("a.é".encode(), "(none)"),
        (b"a.0123456789abcdef", "0123456789abcdef"),
        (b"a.0123456789abcdefg", "(none)"),
        (b"a.(other)", "(none)"),
        (b"a.txt/", "(none)"),
    ],
)
def test_an_extension_is_letters_and_digits_of_the_last_name(key: bytes, extension: str) -> None:
    assert filled([of(key)]).by_extension() == [(extension, Tally(1, 1))]


@pytest.mark.parametrize(
    ("size", "name"),
    [
        (0, "empty"),
        (1, "under 1 kB"),
        (999, "under 1 kB"),
        (1000, "1–10 kB"),
        (999_999, "100 kB–1 MB"),
        (10**6, "1–10 MB"),
        (10**12 - 1, "100 GB–1 TB"),
        (10**12, "over 1 TB"),
        (10**18, "over 1 TB"),
    ],
)
def test_the_lower_bound_of_a_size_is_part_of_its_class(size: int, name: str) -> None:
    found = [one for one, tally in filled([of(b"k", size)]).by_size() if tally.objects]
    assert found == [name]


@pytest.mark.parametrize(
    ("age_ns", "name"),
    [
        (-1, "in the future"),
        (0, "under a day"),
        (DAY_NS - 1, "under a day"),
        (DAY_NS, "1–7 days"),
        (89 * DAY_NS, "30–90 days"),
        (365 * DAY_NS, "1–3 years"),
        (10 * 365 * DAY_NS, "over 10 years"),
        (10**30, "over 10 years"),
    ],
)
def test_ages_are_relative_to_now(age_ns: int, name: str) -> None:
    found = [one for one, tally in filled([of(b"k", 1, age_ns)]).by_age() if tally.objects]
    assert found == [name]


def test_every_class_is_listed_in_its_order() -> None:
    made = Inventory(NOW_NS)
    assert tuple(name for name, _ in made.by_size()) == SIZES
    assert tuple(name for name, _ in made.by_age()) == AGES


def test_a_directory_marker_is_no_object() -> None:
    made = filled([of(b"a/", 0), of(b"a/b/", 3), of(b"a/c", 0)])
    assert made.directories_marked == 1
    assert made.objects == 2
    assert made.empty == 1
    assert sum(tally.objects for _, tally in made.by_extension()) == 2


def test_an_unnamed_storage_class_is_the_usual_one() -> None:
    made = Inventory(NOW_NS)
    for name in ("", "STANDARD", "GLACIER"):
        made.add(b"k", 1, NOW_NS, name)
    assert made.by_storage_class() == [("STANDARD", Tally(2, 2)), ("GLACIER", Tally(1, 1))]


def test_the_largest_are_the_first_of_equals() -> None:
    found = [of(b"%03d" % number, 7) for number in range(100)] + [of(b"z", 9), of(b"y", 6)]
    random.Random(1).shuffle(found)
    assert filled(found).largest() == [(b"z", 9), *((b"%03d" % at, 7) for at in range(19))]


@pytest.mark.parametrize("size", [LARGE_SIZE + 1, 10**9, 160 * 10**9, 5 * 10**12])
def test_large_objects_are_counted_with_the_parts_they_will_have(size: int) -> None:
    made = filled([of(b"k", size), of(b"l", LARGE_SIZE)])
    assert made.large_objects == 1
    assert made.large_parts == -(-size // part_size_for(size))
    assert LARGE_SIZE == job.LARGE_SIZE


# Merging


@given(
    st.lists(st.tuples(objects, st.integers(0, 2)), max_size=40),
    st.lists(st.tuples(verdicts, st.integers(0, 2)), max_size=10),
    st.lists(st.tuples(troubles, st.integers(0, 2)), max_size=20),
    st.integers(0, 3),
    st.booleans(),
)
def test_figures_are_the_same_however_keys_are_split(
    found: list[tuple[Object, int]],
    decided: list[tuple[tuple[str, int], int]],
    odd: list[tuple[tuple[str, bytes], int]],
    depth: int,
    to_the_left: bool,
) -> None:
    whole = filled(
        [one for one, _ in found], depth, [one for one, _ in decided], [one for one, _ in odd]
    )
    first, second, third = (
        filled(
            [one for one, part in found if part == at],
            depth,
            [one for one, part in decided if part == at],
            [one for one, part in odd if part == at],
        )
        for at in range(3)
    )
    if to_the_left:
        first.merge(second)
        first.merge(third)
    else:
        second.merge(third)
        first.merge(second)
    assert first.to_json() == whole.to_json()


@given(st.lists(objects, max_size=20), st.lists(objects, max_size=20))
def test_an_inventory_can_be_filled_after_a_merge(one: list[Object], two: list[Object]) -> None:
    made, other = filled(one, 2), filled(two, 2)
    before = other.to_json()
    made.merge(other)
    assert other.to_json() == before
    for more in two:
        made.add(*more)
    assert made.to_json() == filled(one + two + two, 2).to_json()


def test_too_many_directories_are_folded_the_same_way_however_they_are_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inventory, "MOST_DIRECTORIES", 20)
    rng = random.Random(5)
    for count in (3, 15, 60, 400):
        found = [
            of(b"%d/%d/%d/x" % (rng.randrange(3), rng.randrange(4), rng.randrange(count)), size)
            for size in range(300)
        ]
        whole = filled(found, 3)
        parts = [filled(found[at::4], 3) for at in range(4)]
        for part in parts[1:]:
            parts[0].merge(part)
        assert parts[0].to_json() == whole.to_json()
        deep = max(
            depth
            for depth in range(4)
            if len({b"/".join(key.split(b"/")[:depth]) for key, *_ in found}) <= 20
        )
        assert whole.depth == deep


# Bounds


def test_more_directories_than_fit_are_told_apart_less_deep() -> None:
    made = Inventory(NOW_NS, 2)
    for number in range(MOST_DIRECTORIES):
        made.add(b"%d/%d/x" % (number % 7, number), 1, NOW_NS, "")
    assert (made.depth, len(made.by_directory())) == (2, MOST_DIRECTORIES)
    made.add(b"0/one more/x", 5, NOW_NS, "")
    assert (made.depth, made.wanted_depth, len(made.by_directory())) == (1, 2, 7)
    assert made.total == Tally(MOST_DIRECTORIES + 1, MOST_DIRECTORIES + 5, 1, 5)
    assert sum(tally.objects for _, tally in made.by_directory()) == made.objects


def test_hostile_keys_leave_it_small() -> None:
    made = Inventory(NOW_NS, 3)
    for number in range(2 * MOST_DIRECTORIES):
        text = b"%d" % number
        made.add(b"/".join([text * 30] * 3) + b"." + text, number, number, text.decode())
        made.forecast.verdict(text.decode(), number)
        made.forecast.trouble(text.decode(), text * 100)
    assert made.depth == 0
    assert made.by_directory() == [(b"", made.total)]
    assert len(made.by_extension()) <= MOST_EXTENSIONS + 1
    assert len(made.by_storage_class()) == len(made.forecast.by_verdict()) == MOST_NAMES + 1
    assert len(made.forecast.troubles()) == MOST_NAMES + 1
    assert len(made.largest()) == 20
    for group in (made.by_extension(), made.by_storage_class(), made.forecast.by_verdict()):
        assert OTHER in dict(group)
        assert sum(tally.objects for _, tally in group) == made.objects
    assert len(pickle.dumps(made)) < 150_000


def test_merging_keeps_within_the_bounds() -> None:
    made, other = Inventory(NOW_NS), Inventory(NOW_NS)
    for number in range(700):
        made.add(b"x.a%d" % number, 1, NOW_NS, f"a{number}")
        other.add(b"x.b%d" % number, 1, NOW_NS, f"b{number}")
    made.merge(other)
    assert made.objects == sum(tally.objects for _, tally in made.by_extension()) == 1400
    assert len(made.by_extension()) <= MOST_EXTENSIONS + 1
    assert len(made.by_storage_class()) <= MOST_NAMES + 1


# Passing it on


@given(st.lists(objects, max_size=20), st.lists(troubles, max_size=5))
def test_it_survives_a_trip_to_another_process(
    found: list[Object], odd: list[tuple[str, bytes]]
) -> None:
    made = filled(found, 2, [("new", 3)], odd)
    copy = pickle.loads(pickle.dumps(made))
    assert copy.to_json() == made.to_json()
    for one in found:
        copy.add(*one)
        made.add(*one)
    assert copy.to_json() == made.to_json()


@given(st.lists(objects, max_size=10), st.lists(troubles, max_size=5))
def test_it_can_be_written_as_json(found: list[Object], odd: list[tuple[str, bytes]]) -> None:
    text = json.dumps(filled(found, 1, [], odd).to_json(), allow_nan=False)
    assert json.loads(text)["bytes"] == sum(size for _, size, _, _ in found)


def test_json_names_what_it_counts() -> None:
    made = filled([of(b"a/\xff.txt", 10**8), of(b"b", 0)], decided=[("new", 5)])
    made.forecast.trouble("not UTF-8", b"a/\xff.txt")
    found = made.to_json()
    assert found["objects"] == 2
    assert found["bytes"] == 10**8
    assert (found["min"], found["max"], found["average"]) == (0, 10**8, 5 * 10**7)
    assert found["last"] == "2026-09-20T14:13:20Z"
    assert found["directories"][0] == {
        "name": "a/", "objects": 1, "bytes": 10**8, "min": 10**8, "max": 10**8, "average": 1e8,
    }  # fmt: skip
    assert found["largest"][0] == {"key": "a/\\xff.txt", "bytes": 10**8}
    assert found["verdicts"] == [{"name": "new", "objects": 1, "bytes": 5}]
    assert found["troubles"] == [
        {"kind": "not UTF-8", "objects": 1, "examples": ["a/\\xff.txt"]}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (None, None),
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59Z"),
        (10**30, str(10**21)),
        (-(10**30), str(-(10**21))),
    ],
)
def test_times_no_calendar_reaches_are_seconds(time_ns: int | None, text: str | None) -> None:
    assert inventory.when(time_ns) == text
