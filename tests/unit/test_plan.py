"""What is done about a key, from what both sides list."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adsmig import comparison
from adsmig.comparison import (
    Verdict,
    by_content,
    by_default,
    by_record,
    by_seconds,
    by_size,
    never,
    time_of,
)
from adsmig.errors import ListingError
from adsmig.filters import Filters
from adsmig.job import Job
from adsmig.model import Action, Entry, What
from adsmig.plan import DOUBTFUL, Rules, Run, each, everything, merge, rules_of
from adsmig.uri import parse

LARGE = 100
MD5 = "0123456789abcdef" * 2
OTHER = "f" * 32


def entry(key: bytes, size: int = 1, stored: int = 0, **fields: Any) -> Entry:
    """``stored``: seconds."""
    return Entry(key, size, None, stored * 10**9)._replace(**fields)


SIZES = Rules(by_size, everything)


def plan(src: list[Entry], dst: list[Entry] | None, rules: Rules = SIZES) -> list[Action]:
    return list(each(merge(iter(src), None if dst is None else iter(dst), rules, LARGE)))


def whats(src: list[Entry], dst: list[Entry] | None, **rules: Any) -> list[tuple[bytes, What]]:
    return [(one.src.key, one.what) for one in plan(src, dst, SIZES._replace(**rules))]


def test_everything_is_copied_where_the_destination_is_not_looked_at() -> None:
    a, b = entry(b"a"), entry(b"b")
    assert plan([a, b], None) == [Action(What.COPY, a), Action(What.COPY, b)]


def test_an_equal_entry_is_skipped_and_a_changed_or_missing_one_copied() -> None:
    same, new, other = entry(b"a"), entry(b"b"), entry(b"c", 2)
    there = [entry(b"a"), entry(b"c", 3)]
    assert plan([same, new, other], there) == [
        Action(What.SKIP, same),
        Action(What.COPY, new),
        Action(What.COPY, other, there[1]),
    ]


def test_what_only_the_destination_has_asks_for_nothing() -> None:
    here = [entry(b"b"), entry(b"d")]
    there = [entry(key) for key in (b"a", b"b", b"c", b"d", b"e")]
    assert [action.what for action in plan(here, there)] == [What.SKIP, What.SKIP]
    assert plan([], there) == []


def test_an_object_is_large_beyond_the_size_and_only_beyond() -> None:
    just, past = entry(b"a", LARGE), entry(b"b", LARGE + 1)
    assert [action.what for action in plan([just, past], None)] == [What.COPY, What.LARGE]
    assert plan([past], [entry(b"b", LARGE + 1)])[0].what == What.SKIP
    assert plan([past], [entry(b"b", 1)])[0] == Action(What.LARGE, past, entry(b"b", 1))


def test_a_problem_at_the_source_fails_whatever_the_destination_has() -> None:
    bad = entry(b"a", problem="unreadable")
    for there in (None, [], [entry(b"a")]):
        assert plan([bad], there) == [Action(What.FAIL, bad, there[0] if there else None)]


def test_a_problem_at_the_destination_is_no_reason_to_skip() -> None:
    assert plan([entry(b"a")], [entry(b"a", problem="unreadable")])[0].what == What.COPY


def test_a_directory_that_its_content_implies_is_left_out() -> None:
    here = [entry(b"d/", 0, implied=True), entry(b"d/f")]
    assert [action.src.key for action in plan(here, None)] == [b"d/f"]
    assert [action.src.key for action in plan(here, [entry(b"d/", 0)])] == [b"d/f"]


def test_an_empty_directory_is_there_when_the_destinations_is_implied() -> None:
    assert plan([entry(b"d/", 0)], [entry(b"d/", 0, implied=True)])[0].what == What.SKIP


def test_listings_are_read_no_further_than_needed() -> None:
    read = itertools.count()

    def listing() -> Iterator[Entry]:
        for number in read:
            yield entry(b"%08d" % number)

    actions = each(merge(listing(), None, SIZES, LARGE))
    assert next(actions).src.key == b"%08d" % 0
    assert next(read) == 1


def test_what_is_equal_in_a_row_comes_as_one() -> None:
    entries = [entry(b"%04d" % number) for number in range(3000)]
    there = [*entries[:1500], entry(b"1500", 2), *entries[1501:]]
    found = list(merge(iter(entries), iter(there), SIZES, LARGE))
    runs = [one.entries for one in found if isinstance(one, Run)]
    assert [one for run in runs for one in run] == [*entries[:1500], *entries[1501:]]
    assert len(runs) < 30
    assert [one for one in found if not isinstance(one, Run)] == [
        Action(What.COPY, entries[1500], there[1500])
    ]


@pytest.mark.parametrize("side", ["source", "destination"])
def test_what_was_listed_before_a_listing_failed_is_not_lost(side: str) -> None:
    entries = [entry(b"%04d" % number) for number in range(1000)]

    def broken() -> Iterator[Entry]:
        yield from entries[:700]
        raise ListingError("no more")

    sides = (broken(), iter(entries)) if side == "source" else (iter(entries), broken())
    found = list[bytes]()

    def take() -> None:
        for action in each(merge(*sides, SIZES, LARGE)):
            found.append(action.src.key)

    with pytest.raises(ListingError):
        take()
    assert found == [one.key for one in entries[:700]]


# What an option asks for


def test_only_what_is_there_already_or_only_what_is_not() -> None:
    here = [entry(b"new"), entry(b"other", 2), entry(b"same")]
    there = [entry(b"other"), entry(b"same")]
    assert whats(here, there, existing=True) == [
        (b"new", What.LEAVE), (b"other", What.COPY), (b"same", What.SKIP)
    ]  # fmt: skip
    assert whats(here, there, ignore_existing=True) == [
        (b"new", What.COPY), (b"other", What.LEAVE), (b"same", What.LEAVE)
    ]  # fmt: skip


def test_what_is_newer_at_the_destination_is_left_alone_unless_it_is_equal() -> None:
    here = [entry(b"a", 1, 5), entry(b"b", 2, 5), entry(b"c", 2, 5), entry(b"d", 2, 5)]
    there = [entry(b"a", 1, 9), entry(b"b", 1, 9), entry(b"c", 1, 5)]
    assert whats(here, there, update=True) == [
        (b"a", What.SKIP), (b"b", What.LEAVE), (b"c", What.COPY), (b"d", What.COPY)
    ]  # fmt: skip
    unsure = SIZES._replace(update=True, compare=lambda src, dst: Verdict.UNSURE)
    assert [one.what for one in plan(here, there, unsure)] == [
        What.LEAVE, What.LEAVE, What.CHECK, What.COPY
    ]  # fmt: skip


def test_what_only_its_content_can_tell_is_to_be_checked_however_large() -> None:
    rules = SIZES._replace(compare=by_content)
    here, there = entry(b"a", LARGE + 1), entry(b"a", LARGE + 1)
    assert plan([here], [there], rules) == [Action(What.CHECK, here, there)]


def test_what_is_not_selected_is_dropped_and_its_copy_stays() -> None:
    rules = {"keeps": lambda one: one.size > 1, "delete": True}
    here, there = [entry(b"a"), entry(b"b", 2)], [entry(b"a", 5), entry(b"c"), entry(b"d", 2)]
    assert whats(here, there, **rules) == [
        (b"a", What.DROP), (b"b", What.COPY), (b"d", What.DELETE)
    ]  # fmt: skip


def test_what_cannot_be_examined_fails_whatever_sizes_and_ages_are_selected() -> None:
    bad = Entry(b"d/", 0, None, 0, problem="the directory cannot be listed")
    for keeps in (lambda one: one.size >= 1, lambda one: one.stored_ns > 5):
        assert whats([bad], [], keeps=keeps) == [(b"d/", What.FAIL)]


def test_recorded_links_are_left_alone() -> None:
    link = entry(b"l", link=b"/elsewhere")
    assert whats([link], None, record=True) == [(b"l", What.LEAVE)]
    assert whats([link], None) == [(b"l", What.COPY)]


def test_directories_are_told_of_where_they_matter() -> None:
    here = [entry(b"d/", 0, implied=True), entry(b"d/f"), entry(b"e/", 0)]
    assert whats(here, None, directories=True) == [
        (b"d/", What.DIRECTORY), (b"d/f", What.COPY), (b"e/", What.COPY)
    ]  # fmt: skip
    there = [entry(b"d/", 0, implied=True)]
    assert plan(here[:1], there, SIZES._replace(directories=True)) == [
        Action(What.DIRECTORY, here[0], there[0])
    ]


# Deleting


def test_what_only_the_destination_has_is_deleted_in_order_if_asked() -> None:
    here = [entry(b"b"), entry(b"d")]
    there = [entry(key) for key in (b"a", b"b", b"c", b"d", b"e")]
    assert whats(here, there, delete=True) == [
        (b"a", What.DELETE), (b"b", What.SKIP), (b"c", What.DELETE), (b"d", What.SKIP),
        (b"e", What.DELETE),
    ]  # fmt: skip
    assert plan([], [there[0]], SIZES._replace(delete=True)) == [Action(What.DELETE, there[0])]


def test_a_directory_of_the_destination_goes_only_with_all_its_content() -> None:
    there = [entry(b"d/", 0, implied=True), entry(b"d/x"), entry(b"e/", 0, implied=True),
             entry(b"e/y")]  # fmt: skip
    assert whats([entry(b"d/z")], there, delete=True) == [
        (b"d/x", What.DELETE), (b"d/z", What.COPY), (b"e/", What.DELETE), (b"e/y", What.DELETE)
    ]  # fmt: skip


def test_what_cannot_be_examined_at_the_destination_stays() -> None:
    assert whats([], [entry(b"d/", 0, problem="unreadable")], delete=True) == []


def test_a_directory_that_was_not_copied_well_goes_as_any_other() -> None:
    assert whats([], [entry(b"d/", 0, problem=DOUBTFUL)], delete=True) == [(b"d/", What.DELETE)]


def test_nothing_goes_below_a_directory_that_cannot_be_listed() -> None:
    here = [entry(b"d/", 0, problem="unreadable"), entry(b"f")]
    there = [entry(b"d/", 0, implied=True), entry(b"d/x"), entry(b"d/y/z"), entry(b"d0")]
    assert whats(here, there, delete=True) == [
        (b"d/", What.FAIL), (b"d0", What.DELETE), (b"f", What.COPY)
    ]  # fmt: skip


def test_nothing_goes_below_a_link_that_was_not_followed() -> None:
    here = [entry(b"d", link=b"/elsewhere")]
    there = [entry(b"d-x"), entry(b"d/", 0, implied=True), entry(b"d/x")]
    assert whats(here, there, delete=True, record=True) == [
        (b"d", What.LEAVE), (b"d-x", What.DELETE)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "between",
    [entry(b"d.old", link=b"/elsewhere"), entry(b"d-1/", 0, problem="unreadable")],
    ids=["link", "unreadable"],
)
def test_nothing_goes_below_a_link_though_another_comes_between(between: Entry) -> None:
    here = [entry(b"d", link=b"/elsewhere"), between]
    found = whats(here, [entry(b"d/x"), entry(b"d0")], delete=True, record=True)
    assert (b"d/x", What.DELETE) not in found
    assert (b"d0", What.DELETE) in found


def test_nothing_goes_below_a_link_that_is_broken() -> None:
    here = [entry(b"d", 0, problem="a broken symbolic link")]
    assert whats(here, [entry(b"d/x")], delete=True) == [(b"d", What.FAIL)]


# All of it


def _tree(keys: list[bytes]) -> list[bytes]:
    """Sorted keys as a file system lists them: all directories above each are there."""
    above = {key[: at + 1] for key in keys for at, byte in enumerate(key) if byte == ord("/")}
    return sorted({*keys, *above})


@st.composite
def listings(draw: st.DrawFn, source: bool) -> list[Entry]:
    """Entries of a tree in order; below a directory that cannot be listed, there are none."""
    name = st.text("ab-", min_size=1, max_size=2)
    paths = st.lists(name, min_size=1, max_size=3).map("/".join)
    names = draw(st.lists(paths | paths.map(lambda path: path + "/"), max_size=8))
    keys = _tree([name.encode() for name in names])
    found: list[Entry] = []
    hidden = b""
    for key in keys:
        if hidden and key.startswith(hidden):
            continue
        size, stored = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        one = entry(key, size, stored)
        if key.endswith(b"/"):
            below = any(other.startswith(key) and other != key for other in keys)
            one = one._replace(size=0, implied=below)
            if draw(st.integers(0, 5)) == 0:
                hidden = key
                one = one._replace(problem="unreadable", implied=False)
        elif source and draw(st.integers(0, 9)) == 0:
            one = one._replace(problem="a pipe")
        found.append(one)
    return found


@given(
    listings(source=True),
    listings(source=False),
    st.fixed_dictionaries(
        {name: st.booleans() for name in ("existing", "ignore_existing", "update", "delete",
                                          "directories")}
    ),
    st.sampled_from([never, by_size, by_content]),
    st.integers(0, 2),
)  # fmt: skip
@settings(max_examples=500)
def test_merging_agrees_with_looking_each_key_up(
    here: list[Entry], there: list[Entry], options: dict[str, bool], compare: Any, smallest: int
) -> None:
    def keeps(one: Entry) -> bool:
        return bool(one.problem) or one.size >= smallest

    rules = Rules(compare, keeps if smallest else everything, **options)
    found = plan(here, there, rules)
    src, dst = ({one.key: one for one in side} for side in (here, there))
    order = [one.src.key for one in found]
    assert order == sorted(set(order))
    expected: dict[bytes, tuple[What, Entry | None]] = {}
    for key, one in src.items():
        if one.implied:
            if rules.directories:
                expected[key] = What.DIRECTORY, dst.get(key)
            continue
        what = _alone(one, dst.get(key), rules)
        expected[key] = what, None if what == What.SKIP else dst.get(key)
    unknown = (one for one in here if one.problem or (one.link is not None and rules.record))
    guards = [one.key.removesuffix(b"/") + b"/" for one in unknown]
    for key, one in dst.items():
        gone = rules.delete and key not in src and not one.problem and rules.keeps(one)
        guarded = any(key.startswith(guard) for guard in guards)
        holds = key.endswith(b"/") and any(other.startswith(key) for other in src)
        if gone and not guarded and not holds:
            expected[key] = What.DELETE, None
    told = {one.src.key: (one.what, None if one.what == What.SKIP else one.dst) for one in found}
    assert told == expected
    for one in found:
        side = dst if one.what == What.DELETE else src
        assert one.src is side[one.src.key]


oddly = st.fixed_dictionaries(
    {},
    optional={
        "size": st.sampled_from([0, 1, 2]),
        "mtime_ns": st.sampled_from([None, 0, 1, 10**9]),  # 0 is a time, too
        "stored_ns": st.sampled_from([0, 10**9, 2 * 10**9]),
        "etag": st.sampled_from([None, "", MD5, OTHER, MD5.upper(), f"{MD5}-2", f"{MD5}\n"]),
        "implied": st.booleans(),
        "problem": st.sampled_from(["", "a pipe"]),
        "link": st.sampled_from([None, b"to"]),
    },
)
"""How an entry may be another than those around it."""


@given(
    st.lists(st.tuples(oddly | st.just({}), oddly | st.just({}), st.booleans()), max_size=9),
    st.sampled_from([by_default, by_seconds, by_content, by_size, by_record]),
    st.sampled_from([{}, {"mtime_ns": 10**9}, {"mtime_ns": 0}, {"mtime_ns": None, "etag": MD5}]),
    st.booleans(),
)
@settings(max_examples=1000)
def test_many_that_are_alike_are_told_as_each_alone_would_be(
    pairs: list[tuple[dict[str, Any], dict[str, Any], bool]],
    compare: Any,
    kept: dict[str, Any],
    files: bool,
) -> None:
    plain = entry(b"", stored=1, etag=MD5)
    if files:
        plain = plain._replace(mtime_ns=1, etag=None)
    here = [plain._replace(key=b"%d" % at, **odd) for at, (odd, _, _) in enumerate(pairs)]
    there = [
        plain._replace(key=b"%d" % at, **(odd if same else other))._replace(**kept)
        for at, (odd, other, same) in enumerate(pairs)
    ]
    rules = Rules(compare, everything)
    at_once = {one.src.key: one.what for one in plan(here, there, rules)}
    singly = {
        one.src.key: one.what
        for this, that in zip(here, there, strict=True)
        for one in plan([this], [that], rules)
    }
    assert at_once == singly


@pytest.mark.parametrize(
    ("compare", "files"),
    [
        (by_default, False),
        (by_seconds, False),
        (by_content, False),
        (by_record, False),
        (by_default, True),
    ],
)
def test_many_that_are_alike_are_not_looked_at_alone(
    compare: Any, files: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = [entry(b"%04d" % number, etag=MD5) for number in range(2000)]
    if files:
        here = [one._replace(mtime_ns=1, etag=None) for one in here]
    kept: dict[str, Any] = {"mtime_ns": 0} if compare is by_record else {}
    there = [one._replace(**kept) for one in here]
    looked: list[Entry] = []
    blocks: list[int] = []

    def told(ours: Entry, theirs: Entry) -> Verdict:
        looked.append(ours)
        return Verdict(compare(ours, theirs))

    def in_columns(ours: Any, theirs: Any) -> bool:
        blocks.append(len(ours[0]))
        return comparison._IN_COLUMNS[compare](ours, theirs)

    monkeypatch.setitem(comparison._IN_COLUMNS, told, in_columns)
    found = plan(here, there, Rules(told, everything))
    assert [one.what for one in found] == [What.SKIP] * 2000
    assert len(looked) < 20
    there[1234] = there[1234]._replace(size=2, etag=OTHER)
    found = plan(here, there, Rules(told, everything))
    assert [one.src.key for one in found if one.what != What.SKIP] == [b"1234"]
    blocks.clear()
    other: dict[str, Any] = {"size": 2} if files else {"etag": OTHER}  # what tells them apart
    there = [one._replace(**other) if at % 2 else one for at, one in enumerate(there)]
    found = plan(here, there, Rules(told, everything))
    assert sum(one.what == What.SKIP for one in found) == 1000 - 1
    assert len(blocks) < 20  # each is looked at so once, whatever comes of it


def _alone(here: Entry, there: Entry | None, rules: Rules) -> What:
    """What is to be done about one key that the source has."""
    if not rules.keeps(here):
        return What.DROP
    if here.problem:
        return What.FAIL
    if (rules.existing and there is None) or (rules.ignore_existing and there is not None):
        return What.LEAVE
    if there is not None and not there.problem:
        verdict = rules.compare(here, there)
        if verdict == Verdict.SAME:
            return What.SKIP
        if rules.update and time_of(there) > time_of(here):
            return What.LEAVE
        if verdict == Verdict.UNSURE:
            return What.CHECK
    return What.COPY


@given(listings(source=True), listings(source=False), st.data())
@settings(max_examples=300)
def test_nothing_is_deleted_that_the_source_has_or_might_have(
    here: list[Entry], there: list[Entry], data: st.DataObject
) -> None:
    rules = SIZES._replace(delete=True)
    gone = {one.src.key for one in plan(here, there, rules) if one.what == What.DELETE}
    assert not gone & {one.key for one in here}
    for one in here:
        if one.problem and one.key.endswith(b"/"):
            assert not any(key.startswith(one.key) for key in gone)
        assert not any(key.endswith(b"/") and one.key.startswith(key) for key in gone)
    # Nor is anything that the destination does not list, or that is to be copied.
    assert gone <= {one.key for one in there if not one.problem}


# The rules of a job


def rules(command: str = "sync", dst: str | None = "/dst/", **options: Any) -> Rules:
    return rules_of(Job(command, parse("/src/"), parse(dst) if dst else None, **options))


def test_each_command_compares_in_its_own_way() -> None:
    assert rules("cp").compare is never
    assert rules("sync").compare(entry(b"k", 1, 1), entry(b"k", 1, 9)) == Verdict.SAME
    assert rules("sync").compare(entry(b"k", 1, 9), entry(b"k", 1, 1)) == Verdict.CHANGED
    assert rules("verify").compare is by_content
    for command in ("cp", "sync"):
        assert rules(command, compare="size").compare is by_size
        assert rules(command, compare="checksum").compare is by_content
    assert rules("sync", compare="manifest").compare is by_record


def test_without_a_manifest_what_is_equal_is_taken_for_copied() -> None:
    for command, compare in (("cp", ""), ("sync", ""), ("sync", "manifest")):
        rebuilding = rules(command, compare=compare, rebuild=True)
        assert rebuilding.compare(entry(b"k", 1, 1), entry(b"k", 1, 9)) == Verdict.SAME
        assert rebuilding.compare(entry(b"k", 1, 1), entry(b"k", 2, 9)) == Verdict.CHANGED
    assert rules("cp", delete_src=True, rebuild=True).compare is by_content
    assert rules("cp", compare="size", rebuild=True).compare is by_size


def test_a_record_is_compared_by_what_it_has() -> None:
    compare = rules("verify", against="/m.db").compare
    assert compare(entry(b"k", 1, etag="xxh3:00"), entry(b"k", 1)) == Verdict.UNSURE
    assert compare(entry(b"k", 1, etag="xxh3:00"), entry(b"k", 2)) == Verdict.CHANGED
    assert compare(entry(b"k", 1), entry(b"k", 1)) == Verdict.SAME
    assert compare(entry(b"d/", 0, etag="xxh3:00"), entry(b"d/", 0)) == Verdict.SAME
    assert not rules("verify", against="/m.db").delete


def test_a_source_is_deleted_only_for_what_is_equal_by_content() -> None:
    assert rules("sync", delete_src=True).compare is by_content
    assert rules("cp", delete_src=True).compare is never


def test_extraneous_keys_matter_to_those_who_delete_or_report_them() -> None:
    assert rules("sync", delete_dst=True).delete
    assert rules("verify").delete
    assert rules("inventory").delete
    assert not rules("inventory", dst=None).delete
    assert not rules("rm", dst=None).delete
    for command in ("cp", "sync"):
        assert not rules(command).delete
        assert not rules(command, delete_src=True).delete


def test_the_options_of_a_job_are_its_rules() -> None:
    plain = rules()
    assert (plain.existing, plain.ignore_existing, plain.update, plain.record) == (False,) * 4
    assert rules(existing=True).existing
    assert rules(ignore_existing=True).ignore_existing
    assert rules(update=True).update
    assert rules(links="record", record="/links").record
    assert plain.directories
    assert not rules(dst="s3://b.h/").directories
    assert not rules("verify").directories
    assert not rules(dryrun=True).directories
    assert rules_of(Job("rm", parse("/src/"), filters=Filters())).keeps(entry(b"k"))


def test_whole_seconds_are_compared_where_one_side_is_sftp() -> None:
    places = [parse(text) for text in ("/a", "sftp://me@host/b")]
    assert rules_of(Job("sync", *places)).compare is by_seconds
    assert rules_of(Job("sync", *reversed(places))).compare is by_seconds
