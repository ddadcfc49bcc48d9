"""Listings are exact or an error, whatever the store does: no network, a store of plain keys."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote
from xml.sax.saxutils import escape

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adsmig.errors import AdsmigError, ListingError, OrderError, TransientError
from adsmig.model import EVERYTHING, Entry, KeyRange
from adsmig.storage.listing import Fetch, flat, walk
from adsmig.storage.listpage import Page, _columns, parse, parse_time, unquote

MOST_CALLS = 500
"""Requests; a listing of the few keys here that takes more never ends."""

quick = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])


class FakeStore:
    """Lists ``keys`` as a store does that gives ``size`` items a page.

    In byte order; or, with ``by_name``, as SeaweedFS was seen to (4.48): a directory's whole
    content stands at the directory's place, the names in it are ordered without their slash, and
    what is skipped up to ``after`` includes the directory of that name, and a page never ends
    between an object and the directory of its name.
    """

    def __init__(
        self,
        keys: set[bytes],
        size: int,
        *,
        by_name: bool = False,
        tokens: bool = True,
        shows_after: bool = False,
    ) -> None:
        self.keys, self.size, self.by_name = sorted(keys), size, by_name
        self.tokens, self.shows_after = tokens, shows_after
        self.calls = 0

    def __call__(
        self, prefix: bytes, after: bytes, token: str, by_directory: bool, limit: int = 1000
    ) -> Page:
        self.calls += 1
        assert self.calls < MOST_CALLS, "the listing never ends"
        after = bytes.fromhex(token) if token else after
        if self.by_name:
            way = self._names if by_directory else self._tree
            names = way(prefix, after, not token)
        else:
            names = self._flat(prefix, after, by_directory, shown=self.shows_after and not token)
        room = min(limit, self.size)
        if self.by_name and by_directory and len(names) > room:
            room += names[room] == names[room - 1] + b"/"
        names, more = names[:room], len(names) > room
        return Page(
            [entry_of(name) for name in names if not (by_directory and self._rolled(prefix, name))],
            [name for name in names if by_directory and self._rolled(prefix, name)],
            more,
            names[-1].hex() if more and self.tokens else "",
        )

    @staticmethod
    def _rolled(prefix: bytes, name: bytes) -> bool:
        return name != prefix and name.endswith(b"/")

    def _flat(self, prefix: bytes, after: bytes, by_directory: bool, shown: bool) -> list[bytes]:
        names = [key for key in self.keys if key.startswith(prefix)]
        if by_directory:
            names = sorted({directory_of(prefix, name) for name in names})
        return [
            name
            for name in names
            # The MinIO gateway lists the directory marker that it was told to start after.
            if name > after or (shown and name == after and after.endswith(b"/")) or not after
        ]

    def _tree(self, prefix: bytes, after: bytes, whole: bool) -> list[bytes]:
        def place(name: bytes) -> list[bytes]:
            return name.split(b"/")

        names = sorted((key for key in self.keys if key.startswith(prefix)), key=place)
        return [
            name
            for name in names
            if not after
            or (place(name) > place(after) and not (whole and name.startswith(after + b"/")))
        ]

    def _names(self, prefix: bytes, after: bytes, _: bool) -> list[bytes]:
        names = {directory_of(prefix, key) for key in self.keys if key.startswith(prefix)}
        if after:
            names.discard(prefix)
        start = after[len(prefix) :].rstrip(b"/") if after.startswith(prefix) else b""
        return sorted(
            (name for name in names if not start or name[len(prefix) :].rstrip(b"/") > start),
            key=lambda name: (name.rstrip(b"/"), name) if name != prefix else (b"", b""),
        )


def directory_of(prefix: bytes, key: bytes) -> bytes:
    """What a listing of one directory shows for a key: its CommonPrefix, or the key."""
    name, slash, _ = key[len(prefix) :].partition(b"/")
    return prefix + name + slash


def entry_of(key: bytes) -> Entry:
    return Entry(key, len(key), None, 1, "etag")


# Names that sort differently with and without the slash that ends a directory.
NAMES = st.sampled_from(
    [b"a", b"a-", b"a-b", b"a.", b"a!", b"a0", b"aa", b"b", b"-", b".x", b" ", b"+", b"%2F", b"0"]
    + [text.encode() for text in ("é", "😀", "\x01", "\x7f", "\uffff")]
)
KEYS = st.builds(
    lambda names, end: b"/".join(names) + end,
    st.lists(NAMES, min_size=1, max_size=3),
    st.sampled_from([b"", b"", b"/"]),
)
ODD_KEYS = st.one_of(
    KEYS, st.sampled_from([b"a//b", b"/a", b"//", b"a/./b", b"../x", b"a/", b"a", b"a/b//"])
)


class Situation(NamedTuple):
    """A store's keys, and what is asked of it; the range is relative to the prefix."""

    keys: set[bytes]
    prefix: bytes
    within: KeyRange
    size: int
    """Items a page."""


@st.composite
def situations(draw: st.DrawFn, names: st.SearchStrategy[bytes] = KEYS) -> Situation:
    """Ranges begin and end at keys, between keys, inside directories and at their slashes."""
    prefix = draw(st.sampled_from([b"", b"", b"p/", b"a/", b"a/a-b/"]))
    inside = draw(st.sets(names, max_size=25))
    outside = draw(st.sets(names, max_size=5))
    bounds = st.sampled_from(sorted(inside)) if inside else names
    bounds = st.one_of(
        bounds,
        bounds.map(lambda key: key[:-1]),
        bounds.map(lambda key: key + b"/"),
        bounds.map(lambda key: key.rpartition(b"/")[0]),
        bounds.map(lambda key: key.partition(b"/")[0] + b"/"),
        names,
    )
    after = draw(st.one_of(st.just(b""), bounds))
    upto = draw(st.one_of(st.none(), bounds))
    within = KeyRange(after, upto, closed=not after)
    keys = {prefix + key for key in inside} | outside
    return Situation(keys, prefix, within, draw(st.integers(1, 7)))


def fits_directories(keys: set[bytes]) -> set[bytes]:
    """Those that SeaweedFS can hold together: it keeps ``a`` beside ``a/b``, but not ``a/``."""
    return {key for key in keys if key + b"/" not in keys}


def expected(keys: set[bytes], prefix: bytes, within: KeyRange) -> list[Entry]:
    below = sorted(key[len(prefix) :] for key in keys if key.startswith(prefix))
    return [entry_of(prefix + key)._replace(key=key) for key in below if key in within]


def outcome_of(entries: Iterator[Entry]) -> list[Entry] | type[AdsmigError]:
    """All entries, or the error that ended them."""
    try:
        return list(entries)
    except AdsmigError as exc:
        return type(exc)


# Exactness


@quick
@given(situations(ODD_KEYS), st.sampled_from([{}, {"tokens": False}, {"shows_after": True}]))
def test_flat_lists_exactly_the_range_of_a_store_in_byte_order(
    at: Situation, habits: dict[str, bool]
) -> None:
    store = FakeStore(at.keys, at.size, **habits)
    assert list(flat(store, at.prefix, at.within)) == expected(at.keys, at.prefix, at.within)


@pytest.mark.parametrize("keys", [{b"a/"}, {b"a/", b"a/b"}, {b"a/", b"b"}])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_marker_that_is_listed_after_itself_is_passed_over(keys: set[bytes], size: int) -> None:
    store = FakeStore(keys, size, shows_after=True)
    within = KeyRange(b"a/")
    assert list(flat(store, b"", within)) == expected(keys, b"", within)


@quick
@given(situations(), st.booleans())
def test_walk_lists_exactly_the_range_of_a_store_in_directory_order(
    at: Situation, tokens: bool
) -> None:
    keys = fits_directories(at.keys)
    store = FakeStore(keys, at.size, by_name=True, tokens=tokens)
    assert list(walk(store, at.prefix, at.within)) == expected(keys, at.prefix, at.within)


@quick
@given(situations())
def test_flat_never_lists_too_little_of_a_store_in_directory_order(at: Situation) -> None:
    keys = fits_directories(at.keys)
    store = FakeStore(keys, at.size, by_name=True)
    exact = expected(keys, at.prefix, EVERYTHING)
    assert outcome_of(flat(store, at.prefix, EVERYTHING)) in (exact, OrderError)


@quick
@given(situations(), st.booleans())
def test_walk_never_lists_wrongly_in_a_store_in_byte_order(at: Situation, tokens: bool) -> None:
    store = FakeStore(at.keys, at.size, tokens=tokens)
    exact = expected(at.keys, at.prefix, at.within)
    assert outcome_of(walk(store, at.prefix, at.within)) in (exact, ListingError, OrderError)


@quick
@given(st.sets(KEYS, min_size=1, max_size=25), st.data())
def test_the_pieces_of_a_range_list_what_the_whole_does(
    keys: set[bytes], data: st.DataObject
) -> None:
    keys = fits_directories(keys)
    cuts = data.draw(st.lists(st.sampled_from(sorted(keys)), unique=True).map(sorted))
    store = FakeStore(keys, 3, by_name=True)
    listed = [entry for piece in EVERYTHING.cut(cuts) for entry in walk(store, b"", piece)]
    assert listed == expected(keys, b"", EVERYTHING)


# Pruning


class Naming(set[bytes]):
    """Directories to prune, as a function that remembers what it was asked about."""

    def __init__(self, names: Iterable[bytes]) -> None:
        super().__init__(names)
        self.asked: list[bytes] = []

    def __call__(self, directory: bytes) -> bool:
        assert directory.endswith(b"/")
        self.asked.append(directory)
        return directory in self

    def left(self, entries: Iterable[Entry]) -> list[Entry]:
        return [entry for entry in entries if not self & set(directories(entry.key))]


def directories(key: bytes) -> list[bytes]:
    """Those that it lies in, or is, from the outermost."""
    return [key[: at + 1] for at in range(len(key)) if key[at] == ord("/")]


def named(data: st.DataObject, at: Situation) -> Naming:
    inside = (key[len(at.prefix) :] for key in at.keys if key.startswith(at.prefix))
    every = sorted({directory for key in inside for directory in directories(key)})
    return Naming(data.draw(st.sets(st.sampled_from(every))) if every else set())


@quick
@given(
    situations(ODD_KEYS), st.sampled_from([{}, {"tokens": False}, {"shows_after": True}]), st.data()
)
def test_flat_leaves_out_exactly_the_pruned_directories(
    at: Situation, habits: dict[str, bool], data: st.DataObject
) -> None:
    prune = named(data, at)
    found = list(flat(FakeStore(at.keys, at.size, **habits), at.prefix, at.within, prune=prune))
    assert found == prune.left(expected(at.keys, at.prefix, at.within))
    assert not any(set(directories(one)[:-1]) & prune for one in prune.asked)


@quick
@given(situations(), st.booleans(), st.data())
def test_walk_leaves_out_exactly_the_pruned_directories(
    at: Situation, tokens: bool, data: st.DataObject
) -> None:
    keys, prune = fits_directories(at.keys), named(data, at)
    store = FakeStore(keys, at.size, by_name=True, tokens=tokens)
    found = list(walk(store, at.prefix, at.within, prune=prune))
    assert found == prune.left(expected(keys, at.prefix, at.within))
    assert not any(set(directories(one)[:-1]) & prune for one in prune.asked)


@quick
@given(situations(), st.data())
def test_flat_with_pruning_never_lists_too_little_of_a_store_in_directory_order(
    at: Situation, data: st.DataObject
) -> None:
    keys, prune = fits_directories(at.keys), named(data, at)
    store = FakeStore(keys, at.size, by_name=True)
    exact = prune.left(expected(keys, at.prefix, EVERYTHING))
    assert outcome_of(flat(store, at.prefix, EVERYTHING, prune=prune)) in (exact, OrderError)


@quick
@given(situations(), st.booleans(), st.data())
def test_walk_with_pruning_never_lists_wrongly_in_a_store_in_byte_order(
    at: Situation, tokens: bool, data: st.DataObject
) -> None:
    prune, store = named(data, at), FakeStore(at.keys, at.size, tokens=tokens)
    exact = prune.left(expected(at.keys, at.prefix, at.within))
    found = outcome_of(walk(store, at.prefix, at.within, prune=prune))
    assert found in (exact, ListingError, OrderError)


def test_a_directory_is_asked_about_once() -> None:
    keys = {b"%d/%d/%d" % (a, b, c) for a in range(3) for b in range(3) for c in range(9)}
    prune = Naming({b"1/", b"2/1/"})
    assert len(list(flat(FakeStore(keys, 4), b"", EVERYTHING, prune=prune))) == 45
    assert prune.asked == [
        b"0/",
        b"0/0/",
        b"0/1/",
        b"0/2/",
        b"1/",
        b"2/",
        b"2/0/",
        b"2/1/",
        b"2/2/",
    ]


LARGE = {b"ex/%05d" % number for number in range(10_000)} | {b"a", b"ex-", b"f", b"f/g"}


@pytest.mark.parametrize("prefix", [b"", b"p/"])
@pytest.mark.parametrize(
    ("within", "most"),
    [
        (EVERYTHING, 2),
        (KeyRange(b"ex/00500"), 1),
        (KeyRange(b"ex/00500", b"ex/09000"), 0),
        (KeyRange(b"ex/"), 1),
        (KeyRange(b"ex-", b"ex/00500"), 1),
        (KeyRange(b"ex-", b"f"), 2),
        (KeyRange(b"a", b"ex0"), 2),
    ],
)
def test_a_pruned_directory_costs_at_most_two_pages(
    within: KeyRange, most: int, prefix: bytes
) -> None:
    keys, prune = {prefix + key for key in LARGE}, Naming({b"ex/"})
    store = FakeStore(keys, 1000)
    left = prune.left(expected(keys, prefix, within))
    assert list(flat(store, prefix, within, prune=prune)) == left
    assert store.calls <= most
    store = FakeStore(keys, 1000, by_name=True)
    assert list(walk(store, prefix, within, prune=prune)) == left
    assert store.calls <= 2 + (b"f/g" in within)


def test_many_small_pruned_directories_cost_no_more_than_listing_them() -> None:
    keys = {b"%03d/%s/%d" % (a, b, c) for a in range(100) for b in (b"tmp", b"x") for c in range(9)}
    prune = Naming({b"%03d/tmp/" % number for number in range(100)})
    store = FakeStore(keys, 100)
    assert len(list(flat(store, b"", EVERYTHING, prune=prune))) == 900
    assert store.calls <= 18


def test_a_store_that_goes_back_after_a_pruned_directory_is_found_out() -> None:
    first = page_of(b"a", b"d/1", b"d/2", more=True)
    for second in (page_of(b"a"), page_of(b"d/1", b"e"), page_of(b"b", b"e")):
        store = given_in_turn(first, second)
        assert outcome_of(flat(store, b"", EVERYTHING, prune=Naming({b"d/"}))) is OrderError
    # What it should have skipped does no harm.
    store = given_in_turn(first, page_of(b"d/3", b"e"))
    found = flat(store, b"", EVERYTHING, prune=Naming({b"d/"}))
    assert [entry.key for entry in found] == [b"a", b"e"]


def test_a_store_that_gives_a_pruned_page_again_and_again_is_an_error() -> None:
    first = page_of(b"d/1", b"d/2", more=True)
    for token in ("", "t"):
        store = given_in_turn(first._replace(token=token))
        found = outcome_of(flat(store, b"", EVERYTHING, prune=Naming({b"d/"})))
        assert found in (OrderError, ListingError)


def test_walk_does_not_list_directories_outside_the_range() -> None:
    keys = {b"%02d/%d" % (directory, name) for directory in range(50) for name in range(5)}
    store = FakeStore(keys, 1000, by_name=True)
    listed = list(walk(store, b"", KeyRange(b"20/3", b"22/1")))
    assert [entry.key for entry in listed] == [
        b"20/4", b"21/0", b"21/1", b"21/2", b"21/3", b"21/4", b"22/0", b"22/1",
    ]  # fmt: skip
    assert store.calls < 10


def test_a_listing_is_streamed() -> None:
    store = FakeStore({b"%04d" % number for number in range(1000)}, 10)
    entries = flat(store, b"", EVERYTHING)
    assert [next(entries).key for _ in range(25)][-1] == b"0024"
    assert store.calls == 3


# Stores that misbehave

ALL = {b"a", b"a-b", b"b/x", b"b/y", b"c", b"d/e/f", b"e"}


def given_in_turn(*pages: Page) -> Fetch:
    """Answers with one page after the other, and then from the first again."""
    turns = itertools.cycle(pages)
    return lambda *_, **__: next(turns)


class Stuck:
    """Answers every request with the first page, which says that there is more."""

    def __init__(self, store: FakeStore, token: str) -> None:
        self.store, self.token = store, token

    def __call__(self, prefix: bytes, after: bytes, token: str, *args: Any, **options: Any) -> Page:
        page = self.store(prefix, b"", "", *args, **options)
        return page._replace(truncated=True, token=self.token)


def both_ways(store: Fetch, within: KeyRange = EVERYTHING) -> list[Any]:
    return [outcome_of(flat(store, b"", within)), outcome_of(walk(store, b"", within))]


@pytest.mark.parametrize("within", [EVERYTHING, KeyRange(b"a-b", b"d/e/f")])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_truncated_without_a_token_goes_on_after_the_last_key(size: int, within: KeyRange) -> None:
    exact = expected(ALL, b"", within)
    assert list(flat(FakeStore(ALL, size, tokens=False), b"", within)) == exact
    assert list(walk(FakeStore(ALL, size, by_name=True, tokens=False), b"", within)) == exact


@pytest.mark.parametrize("within", [EVERYTHING, KeyRange(b"a"), KeyRange(b"a-"), KeyRange(b"b/x")])
@pytest.mark.parametrize("token", ["", "00"])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("by_name", [False, True])
def test_a_page_that_is_given_again_and_again_is_an_error(
    size: int, token: str, within: KeyRange, by_name: bool
) -> None:
    store = Stuck(FakeStore(ALL, size, by_name=by_name), token)
    assert set(both_ways(store, within)) <= {ListingError, OrderError}


@pytest.mark.parametrize("keys", [{b"a"}, {b"a/b"}, {b"a/"}])
@pytest.mark.parametrize("within", [EVERYTHING, KeyRange(b"a"), KeyRange(b"a/b"), KeyRange(b"Z")])
def test_a_page_of_one_key_that_is_given_again_and_again_is_an_error(
    keys: set[bytes], within: KeyRange
) -> None:
    store = Stuck(FakeStore(keys, 7, by_name=True), "00")
    assert set(both_ways(store, within)) <= {ListingError, OrderError}


def test_a_token_given_twice_is_no_error_while_the_keys_go_on() -> None:
    class Lazy(FakeStore):
        """Takes a token for a question after its own last answer, and always calls it ``t``."""

        last: Page | None = None

        def __call__(self, prefix: bytes, after: bytes, token: str, *args: Any, **kw: Any) -> Page:
            if token:
                assert self.last is not None
                after = max(e.key for e in self.last.entries)
            self.last = super().__call__(prefix, after, "", *args, **kw)
            return self.last._replace(token="t" if self.last.truncated else "")

    assert list(flat(Lazy(ALL, 2), b"", EVERYTHING)) == expected(ALL, b"", EVERYTHING)


def page_of(*names: bytes, more: bool = False) -> Page:
    """A page with these keys, and directories where they end in a slash."""
    entries = [entry_of(name) for name in names if not name.endswith(b"/")]
    return Page(entries, [name for name in names if name.endswith(b"/")], more, "t" * more)


def test_keys_that_are_not_in_order_are_an_error() -> None:
    store = given_in_turn(page_of(b"a", b"c", b"b"))
    assert outcome_of(flat(store, b"", EVERYTHING)) is OrderError


def test_pages_that_are_not_in_order_are_an_error() -> None:
    store = given_in_turn(page_of(b"d", b"e", more=True), page_of(b"a"))
    assert outcome_of(flat(store, b"", EVERYTHING)) is OrderError
    for second in (page_of(b"a"), page_of(b"a/"), page_of(b"e/", b"x"), page_of(b"f/")):
        store = given_in_turn(page_of(b"d", b"e", b"f/", more=True), second)
        assert outcome_of(walk(store, b"", EVERYTHING)) in (ListingError, OrderError)


@pytest.mark.parametrize("within", [EVERYTHING, KeyRange(b"Z"), KeyRange(b"a")])
def test_a_key_listed_twice_is_an_error(within: KeyRange) -> None:
    for way in (flat, walk):
        store = given_in_turn(page_of(b"b", b"b"))
        assert outcome_of(way(store, b"", within)) in (ListingError, OrderError)


def test_keys_outside_the_prefix_are_an_error() -> None:
    page = Page([entry_of(b"p/a"), entry_of(b"q")], [], False, "")
    assert outcome_of(flat(lambda *_, **__: page, b"p/", EVERYTHING)) is ListingError
    assert outcome_of(walk(lambda *_, **__: page, b"p/", EVERYTHING)) is ListingError
    page = Page([], [b"q/"], False, "")
    assert outcome_of(walk(lambda *_, **__: page, b"p/", EVERYTHING)) is ListingError


def test_the_start_of_a_range_that_lies_past_the_prefix_lists_nothing() -> None:
    store = FakeStore({b"p/a", b"q"}, 3)
    assert list(flat(store, b"p/", KeyRange(b"b"))) == []
    store = FakeStore({b"p/a", b"q"}, 3, by_name=True)
    assert list(walk(store, b"p/", KeyRange(b"b"))) == []


@pytest.mark.parametrize("tokens", [[""], ["t"], ["1", "2", "3"]], ids=["no", "one", "new"])
def test_empty_pages_without_end_are_an_error(
    tokens: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adsmig.storage.listing.MAX_EMPTY_PAGES", 20)
    for way in (flat, walk):
        store = given_in_turn(*(Page([], [], True, token) for token in tokens))
        assert outcome_of(way(store, b"", EVERYTHING)) is ListingError


def test_empty_pages_on_the_way_are_passed_over() -> None:
    class Pausing(FakeStore):
        """Answers every other question with an empty page and a token for the same place."""

        def __call__(self, prefix: bytes, after: bytes, token: str, *args: Any, **kw: Any) -> Page:
            at, _, paused = token.partition(":")
            if not paused:
                return Page([], [], True, f"{at or after.hex()}:now")
            page = super().__call__(prefix, bytes.fromhex(at), "", *args, **kw)
            return page

    exact = expected(ALL, b"", EVERYTHING)
    assert list(flat(Pausing(ALL, 2), b"", EVERYTHING)) == exact
    assert list(walk(Pausing(ALL, 2, by_name=True), b"", EVERYTHING)) == exact
    middle = KeyRange(b"b/x", b"e")
    assert list(walk(Pausing(ALL, 2, by_name=True), b"", middle)) == expected(ALL, b"", middle)


def test_a_transient_error_passes_through() -> None:
    def broken(*_: Any, **__: Any) -> Page:
        raise TransientError("no answer")

    for way in (flat, walk):
        with pytest.raises(TransientError):
            list(way(broken, b"", EVERYTHING))


# Documents, as the servers sent them

SEAWEEDFS = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bkt</Name><Prefix></Prefix>\
<MaxKeys>2</MaxKeys><Delimiter>/</Delimiter><IsTruncated>true</IsTruncated><Contents>\
<Key>a+b%2Bc%252F%26%3C%F0%9F%98%80</Key><ETag>&#34;5d41402abc4b2a76b9719d911017c592&#34;</ETag>\
<Size>5</Size><StorageClass>STANDARD</StorageClass><LastModified>2026-11-23T01:21:40Z\
</LastModified></Contents><CommonPrefixes><Prefix>dir/</Prefix></CommonPrefixes>\
<NextContinuationToken>dir/</NextContinuationToken><EncodingType>url</EncodingType>\
<KeyCount>2</KeyCount></ListBucketResult>"""

MINIO = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bkt</Name><Prefix></Prefix>\
<NextContinuationToken>ZGlyLw==</NextContinuationToken><KeyCount>2</KeyCount><MaxKeys>2</MaxKeys>\
<Delimiter>/</Delimiter><IsTruncated>true</IsTruncated><Contents>\
<Key>a+b%2Bc%252F%26%3C%F0%9F%98%80</Key><LastModified>2026-11-23T01:21:40.745Z</LastModified>\
<ETag>&#34;5d41402abc4b2a76b9719d911017c592&#34;</ETag><Size>5</Size>\
<StorageClass>STANDARD</StorageClass></Contents><CommonPrefixes><Prefix>dir/</Prefix>\
</CommonPrefixes><EncodingType>url</EncodingType></ListBucketResult>"""

MOTO = """<?xml version="1.0" encoding="utf-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>true</IsTruncated>\
<Contents><Key>a%20b%2Bc%252F%26%3C%F0%9F%98%80</Key><LastModified>2026-11-23T01:21:40.000Z\
</LastModified><ETag>"5d41402abc4b2a76b9719d911017c592"</ETag><Size>5</Size>\
<StorageClass>STANDARD</StorageClass></Contents><Name>bkt</Name><Prefix/><Delimiter>/</Delimiter>\
<MaxKeys>2</MaxKeys><CommonPrefixes><Prefix>dir/</Prefix></CommonPrefixes>\
<EncodingType>url</EncodingType><KeyCount>2</KeyCount>\
<NextContinuationToken>a31e441cb3888c8dce1048fb6270e086</NextContinuationToken>\
</ListBucketResult>"""

SECOND = 1_795_396_900 * 10**9
ETAG = "5d41402abc4b2a76b9719d911017c592"
KEY = "a b+c%2F&<😀".encode()


@pytest.mark.parametrize(
    ("document", "stored_ns", "token"),
    [
        (SEAWEEDFS, SECOND, "dir/"),
        (MINIO, SECOND + 745 * 10**6, "ZGlyLw=="),
        (MOTO, SECOND, "a31e441cb3888c8dce1048fb6270e086"),
    ],
    ids=["seaweedfs", "minio", "moto"],
)
def test_a_page_is_read_as_the_servers_write_it(document: str, stored_ns: int, token: str) -> None:
    assert parse(document.encode()) == Page(
        [Entry(KEY, 5, None, stored_ns, ETAG)], [b"dir/"], True, token
    )


ODD = st.text(st.sampled_from("a/ +%2F&<>'\"\t\n\ré\U0001f600]")) | st.text(max_size=9)


TIMES = (
    "2026-11-23T01:21:40.745Z",
    "2026-11-23T01:21:40Z",
    "2026-11-23T01:21:40.745&#90;",
    "2026-11-23T01:21:40.745\x01",
    "2026-11-23\n01:21:40.7",
    "never",
    "",
)


@st.composite
def objects(draw: st.DrawFn) -> str:
    """A few objects, all or most written in one order of their fields, escaped as servers do."""
    names = draw(st.permutations(["Key", "Size", "LastModified", "ETag", "StorageClass", "Owner"]))
    given = ""
    for _ in range(draw(st.integers(1, 4))):
        values = {
            "Key": escape(draw(ODD), {"\r": "&#xD;"}),
            "Size": str(draw(st.integers(0, 10**15))),
            "LastModified": draw(st.sampled_from(TIMES)),
            "ETag": draw(st.sampled_from(["&#34;a1&#34;", '"a1-2"', "&quot;&quot;", "a1", ""])),
            "StorageClass": draw(st.sampled_from(["STANDARD", "COLD", ""])),
            "Owner": "<ID>7</ID><DisplayName>é</DisplayName>",
        }
        kept = names[: draw(st.sampled_from([6, 6, 6, 5, 4]))]
        fields = "".join(f"<{name}>{values[name]}</{name}>" for name in kept)
        given += f"<Contents{draw(st.sampled_from(['', '', ' ']))}>{fields}</Contents>"
    return given


@given(objects(), st.booleans())
@settings(max_examples=300)
def test_the_quick_way_to_read_a_page_reads_what_the_xml_parser_does(
    contents: str, encoded: bool
) -> None:
    more = "<IsTruncated>false</IsTruncated>" + "<EncodingType>url</EncodingType>" * encoded
    document = document_of(contents, more)
    slowly = document.replace(b"<IsTruncated>", b"<!-- not the quick way --><IsTruncated>")
    assert result_of(document) == result_of(slowly)


def result_of(document: bytes) -> Page | str:
    try:
        return parse(document)
    except TransientError as exc:
        return str(exc).partition("(")[0]  # columns differ


def test_a_page_as_servers_write_it_takes_the_quick_way() -> None:
    for document in (SEAWEEDFS, MINIO, MOTO):
        columns, rest = _columns(document.encode())
        assert [len(column) for column in columns] == [1] * 5
        assert b"<Contents>" not in rest


def test_keys_are_decoded_only_when_the_store_says_that_it_encoded_them() -> None:
    plain = MINIO.replace("<EncodingType>url</EncodingType>", "")
    assert parse(plain.encode()).entries[0].key == b"a+b%2Bc%252F%26%3C%F0%9F%98%80"
    contents = "<Contents><Key>a +%2F&amp;é\t</Key><Size>1</Size></Contents>"
    contents += "<CommonPrefixes><Prefix>+/</Prefix></CommonPrefixes>"
    page = parse(document_of(contents))
    assert (page.entries[0].key, page.prefixes) == ("a +%2F&é\t".encode(), [b"+/"])


def document_of(contents: str, more: str = "<IsTruncated>false</IsTruncated>") -> bytes:
    """A page without a namespace, as some stores send it."""
    return f"<ListBucketResult>{more}{contents}</ListBucketResult>".encode()


def test_a_page_without_a_namespace_and_with_nothing_in_it_is_an_empty_end() -> None:
    assert parse(document_of("")) == Page([], [], False, "")


@pytest.mark.parametrize(
    "more",
    ["", "<IsTruncated/>", "<IsTruncated>maybe</IsTruncated>", "<Truncated>false</Truncated>"],
)
def test_a_page_that_does_not_say_whether_it_is_the_last_is_an_error(more: str) -> None:
    with pytest.raises((TransientError, ListingError)):
        parse(document_of("<Contents><Key>a</Key><Size>3</Size></Contents>", more))


def test_a_storage_class_is_told_where_it_was_chosen() -> None:
    given = ("STANDARD", "", "GLACIER_IR", None)
    contents = "".join(
        "<Contents><Key>a</Key><Size>3</Size>"
        + ("" if name is None else f"<StorageClass>{name}</StorageClass>")
        + "</Contents>"
        for name in given
    )
    entries = parse(document_of(contents)).entries
    assert [entry.storage_class for entry in entries] == ["", "", "GLACIER_IR", ""]


def test_what_an_object_lacks_beside_its_key_and_size_is_left_out() -> None:
    page = parse(document_of("<Contents><Key>a</Key><Size>3</Size></Contents>"))
    assert page.entries == [Entry(b"a", 3, None, 0, None)]


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"not XML",
        b"<html><body>Service Unavailable</body></html>",
        b"<ListBucketResult><Contents><Key>a</Key>",
        b"<Error><Code>SlowDown</Code></Error>",
        b'<?xml version="1.0"?><ListBucketResult><Contents><Key>\x01</Key></Contents>',
        b"\xff\xfe",
    ],
)
def test_what_is_no_page_is_worth_another_try(document: bytes) -> None:
    with pytest.raises(TransientError):
        parse(document)


@pytest.mark.parametrize(
    "contents",
    [
        "",
        "<Size>5</Size>",
        "<Key></Key><Size>5</Size>",
        "<Key>a</Key>",
        "<Key>a</Key><Size>many</Size>",
    ],
)
def test_an_object_without_a_key_or_a_size_is_an_error(contents: str) -> None:
    document = document_of(f"<Contents>{contents}</Contents>")
    with pytest.raises((TransientError, ListingError)):
        list(flat(lambda *_, **__: parse(document), b"", EVERYTHING))


@pytest.mark.parametrize(
    "given", ["<CommonPrefixes/>", "<CommonPrefixes><Prefix/></CommonPrefixes>"]
)
def test_a_directory_without_a_name_is_an_error(given: str) -> None:
    with pytest.raises((TransientError, ListingError)):
        list(walk(lambda *_, **__: parse(document_of(given)), b"", EVERYTHING))


@given(st.binary(max_size=40))
def test_any_key_survives_being_escaped_for_a_url(key: bytes) -> None:
    everything = "".join(f"%{byte:02X}" for byte in key)
    assert unquote(everything.encode()) == key


def test_a_plus_in_an_escaped_key_is_a_blank() -> None:
    assert unquote(b"a+b%2Bc%20d") == b"a b+c d"


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("2026-11-23T01:21:40Z", SECOND),
        ("2026-11-23T01:21:40.745Z", SECOND + 745_000_000),
        ("2026-11-23T01:21:40.123456789Z", SECOND + 123_456_789),
        ("2026-11-23T01:21:40.1234567891Z", SECOND + 123_456_789),
        ("2026-11-23T01:21:40", SECOND),
        ("1970-01-01T00:00:00.000Z", 0),
        ("1969-12-31T23:59:59.000Z", -(10**9)),
        ("2024-02-29T12:00:00Z", 1_709_208_000 * 10**9),
        ("", 0),
        ("yesterday", 0),
        ("2026-11-23", 0),
    ],
)
def test_times_are_read_to_the_nanosecond(text: str, nanoseconds: int) -> None:
    assert parse_time(text.encode()) == nanoseconds


@pytest.mark.parametrize(
    "text", ["2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z", "0000-01-01T00:00:00Z"]
)
def test_an_impossible_date_is_no_time(text: str) -> None:
    assert parse_time(text.encode()) == 0


# Version 1


class MarkerStore(FakeStore):
    """As FakeStore, of version 1: its pages are read from what it would send.

    ``names_next``: it names the next marker, which else the client has to tell from the last key.
    """

    def __init__(self, keys: set[bytes], size: int, *, names_next: bool) -> None:
        super().__init__(keys, size, tokens=False)
        self.names_next = names_next

    def __call__(
        self, prefix: bytes, after: bytes, token: str, by_directory: bool, limit: int = 1000
    ) -> Page:
        marker = token.encode("utf-8", "surrogateescape") or after
        if by_directory and marker.endswith(b"/") and marker != prefix:
            marker += b"\xff"  # the directory, with all that is in it, is behind
        page = super().__call__(prefix, marker, "", by_directory, limit)
        items = "".join(
            f"<Contents><Key>{quote(entry.key)}</Key><Size>{entry.size}</Size></Contents>"
            for entry in page.entries
        ) + "".join(
            f"<CommonPrefixes><Prefix>{quote(one)}</Prefix></CommonPrefixes>"
            for one in page.prefixes
        )
        last = max([*(entry.key for entry in page.entries), *page.prefixes, b""])
        named = f"<NextMarker>{quote(last)}</NextMarker>" if self.names_next else ""
        more = f"<IsTruncated>{str(page.truncated).lower()}</IsTruncated>"
        text = f"<EncodingType>url</EncodingType>{more}{named if page.truncated else ''}{items}"
        return parse(f"<ListBucketResult>{text}</ListBucketResult>".encode(), 1)


@pytest.mark.parametrize("names_next", [True, False])
@given(situations(ODD_KEYS))
@quick
def test_version_1_lists_exactly_the_range(names_next: bool, at: Situation) -> None:
    store = MarkerStore(at.keys, at.size, names_next=names_next)
    listed = [entry.key for entry in flat(store, at.prefix, at.within)]
    assert listed == [entry.key for entry in expected(at.keys, at.prefix, at.within)]


@pytest.mark.parametrize("names_next", [True, False])
@given(situations(KEYS))
@quick
def test_version_1_is_never_listed_wrongly_by_directory(names_next: bool, at: Situation) -> None:
    store = MarkerStore(at.keys, at.size, names_next=names_next)
    exact = [entry.key for entry in expected(at.keys, at.prefix, at.within)]
    listed = outcome_of(walk(store, at.prefix, at.within))
    assert listed in (ListingError, OrderError) or [entry.key for entry in listed] == exact


def answer_of(*keys: str, marker: str = "", more: str = "true", prefix: str = "") -> bytes:
    items = "".join(f"<Contents><Key>{key}</Key><Size>1</Size></Contents>" for key in keys)
    items += f"<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>" if prefix else ""
    named = f"<NextMarker>{marker}</NextMarker>" if marker else ""
    text = f"<IsTruncated>{more}</IsTruncated>{named}{items}"
    return f"<ListBucketResult>{text}</ListBucketResult>".encode()


@pytest.mark.parametrize(
    ("document", "token"),
    [
        (answer_of("a", "b"), "b"),
        (answer_of("a", "b", marker="b"), "b"),
        (answer_of("a", "b", marker="c"), "b"),
        (answer_of(marker="c"), "c"),
        (answer_of("a", prefix="d/"), "d/"),
        (answer_of("a", prefix="d/", marker="d"), "d/"),
        (answer_of("a", prefix="d/", marker="d/e"), "d/e"),
        (answer_of("a", prefix="d/", marker="e"), "d/"),
        (answer_of("a", marker="b", more="false"), ""),
    ],
)
def test_the_last_key_is_the_next_marker_where_none_is_named(document: bytes, token: str) -> None:
    assert parse(document, 1).token == token


def test_a_next_marker_that_is_not_escaped_as_keys_are_leaves_none_out() -> None:
    """``d%2Fb``, taken for escaped, is ``d/b``, past ``d-c``; ``c+d`` has a blank."""
    keys = {b"c", b"c+d", b"d%2Fa", b"d%2Fb", b"d-c", b"d/a"}

    def fetch(
        prefix: bytes, after: bytes, token: str, by_directory: bool, limit: int = 1000
    ) -> Page:
        names = sorted(key for key in keys if key > (token.encode() or after))
        items = [quote(key) for key in names[:2]]
        more = str(len(names) > 2).lower()
        marker = max(names[:2], default=b"").decode()
        text = answer_of(*items, marker=marker, more=more).decode()
        escaped = text.replace("<IsTruncated>", "<EncodingType>url</EncodingType><IsTruncated>")
        return parse(escaped.encode(), 1)

    assert [entry.key for entry in flat(fetch, b"", EVERYTHING)] == sorted(keys)


def test_a_next_marker_before_the_last_key_is_an_error() -> None:
    with pytest.raises(ListingError, match="go on from b'a'"):
        parse(answer_of("a", "b", marker="a"), 1)


def test_a_store_that_ignores_the_marker_is_found_out() -> None:
    def ignores(
        prefix: bytes, after: bytes, token: str, by_directory: bool, limit: int = 1000
    ) -> Page:
        return parse(answer_of("a", "b"), 1)

    for way in (flat, walk):
        with pytest.raises(ListingError):
            list(way(ignores, b"", EVERYTHING))


def test_version_1_that_goes_on_with_nothing_is_an_error() -> None:
    with pytest.raises(ListingError, match="not where"):
        list(flat(lambda *_, **__: parse(answer_of(), 1), b"", EVERYTHING))


@pytest.mark.parametrize("write", ["{:c}", "&#x{:x};", "&#x0{:X};", "&#{};"])
@pytest.mark.parametrize("way", [flat, walk])
def test_keys_that_xml_cannot_hold_are_read_where_a_store_escapes_none(
    way: Any, write: str
) -> None:
    """As AWS lists them, if it is not asked to escape."""
    controls = [one for one in range(1, 32) if one not in b"\t\n\r"]
    raw = {
        key.encode()
        for key in ("a0", "a&", "b\u00e9", "c<d", *(f"a{chr(one)}b" for one in controls))
    }

    def fetch(
        prefix: bytes, after: bytes, token: str, by_directory: bool, limit: int = 1000
    ) -> Page:
        names = sorted(key for key in raw if key > (token.encode() or after))
        texts = (name.decode().replace("&", "&amp;").replace("<", "&#60;") for name in names[:7])
        items = ["".join(write.format(ord(c)) if c < " " else c for c in text) for text in texts]
        return parse(answer_of(*items, more=str(len(names) > 7).lower()), 1)

    assert [entry.key for entry in way(fetch, b"", EVERYTHING)] == sorted(raw)


@pytest.mark.parametrize("text", ["\ufdd0\1", "&#xFDD0;\1", "&#64976;&#1;", "a\1<", "\1&#xffff;"])
def test_what_cannot_be_told_from_them_is_a_broken_page(text: str) -> None:
    with pytest.raises(TransientError, match="broken XML"):
        parse(answer_of(text))


class Stutterer:
    """Gives one page again in place of the next, once."""

    def __init__(self, store: FakeStore) -> None:
        self.store, self.pages = store, list[Page]()

    def __call__(
        self, prefix: bytes, after: bytes, token: str, by_directory: bool, limit: int = 1000
    ) -> Page:
        self.pages.append(self.store(prefix, after, token, by_directory, limit))
        return self.pages[1] if len(self.pages) == 3 else self.pages[-1]


@pytest.mark.parametrize("way", [flat, walk])
def test_a_page_that_comes_twice_is_asked_for_again(way: Any) -> None:
    keys = {b"%02d" % number for number in range(20)}
    listed = way(Stutterer(FakeStore(keys, 4)), b"", EVERYTHING)
    assert [entry.key for entry in listed] == sorted(keys)


@pytest.mark.parametrize(
    "within", [EVERYTHING, KeyRange(b"a-b/c"), KeyRange(b"a-b"), KeyRange(b"a")]
)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_walk_lists_a_store_in_byte_order_as_well(size: int, within: KeyRange) -> None:
    keys = {b"a-", b"a-b/c", b"a-b/d", b"a/c", b"a/d", b"a0", b"b"}
    listed = walk(FakeStore(keys, size), b"", within)
    assert [entry.key for entry in listed] == sorted(key for key in keys if key in within)
