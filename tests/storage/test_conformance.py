"""The contract in storage.base, clause by clause, for every driver."""

from __future__ import annotations

import hashlib
import random
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest

from adsmig.checksum import Sums, Wanted, crc32_text
from adsmig.errors import (
    AdsmigError,
    NotFound,
    ObjectError,
    SourceChanged,
    TransientError,
)
from adsmig.model import EVERYTHING, LAST, Entry, KeyRange, Meta, Part, Upload
from adsmig.storage import open_storage
from adsmig.storage.base import GONE, RESIZED, Storage
from adsmig.storage.memory import MemoryStorage
from tests.storage.conftest import Place
from tests.storage.support import (
    Options,
    chunks_of,
    content_of,
    drain,
    entries_of,
    fill,
    fill_with_what_fits,
    fits_a_tree,
    get,
    in_threads,
    keys_of,
    put,
    send_part,
    small_pages,
    tail,
    told,
)

MIB = 1 << 20
NAMES = [
    *("a", "a-", "a-b", "a.", "a.b", "a!", "a0", "aa", "A", "b", "0", "-", "_", "~", "~a", "*"),
    *(" ", " a", "a ", "a b", "+", "a+b", "%", "%2F", "%20", "100%", "&", "a&b", "<", ">", '"'),
    *("'", "?", "#", "a?b#c", "=", ":", ";", ",", "@", "$", "!", "(", ")", "[x]", "{x}", "|"),
    *("é", "e\u0301", "漢字", "😀", "\u2028", "\ufeff", "..a", ".a", "...", "a..", "\x7f"),
]  # fmt: skip


def nasty_keys() -> set[bytes]:
    """Some hundred keys of one to three of the names that all can be held together."""
    chance = random.Random(1)
    keys = {name.encode() for name in NAMES}
    for _ in range(60):
        names = chance.choices(NAMES, k=chance.choice([2, 2, 3]))
        keys.add("/".join(names).encode())
    return fits_a_tree(keys)


def some_ranges(keys: list[bytes], count: int) -> Iterator[KeyRange]:
    """Ranges that begin and end at keys, between keys, inside directories and at their slashes."""
    chance = random.Random(2)

    def bound() -> bytes:
        key = chance.choice(keys)
        forms = [key, key, key[:-1], key + b"/", key + b"0", key.rpartition(b"/")[0]]
        return chance.choice([*forms, key.partition(b"/")[0] + b"/", key.partition(b"/")[0] + b"-"])

    for _ in range(count):
        after, upto = (
            chance.choice([b"", bound(), bound()]),
            chance.choice([None, bound(), bound()]),
        )
        if after and upto is not None and upto < after:
            after, upto = upto, after
        yield KeyRange(after, upto, closed=chance.random() < 0.5 or not after)


# Listing


def test_an_empty_place_lists_nothing(either: Storage) -> None:
    assert list(either.list(EVERYTHING)) == []
    assert either.probe(b"") is None
    assert either.probe(b"a/b") is None


def test_a_listing_has_every_key_in_byte_order_with_its_size(either: Storage) -> None:
    keys = nasty_keys()
    fill(either, keys)
    entries = entries_of(either)
    assert [(entry.key, entry.size) for entry in entries] == [
        (key, len(tail(key))) for key in sorted(keys)
    ]
    assert not any(entry.problem for entry in entries)
    assert all(entry.stored_ns > 10**18 for entry in entries)


def test_a_range_lists_exactly_its_keys(either: Storage) -> None:
    keys = sorted(nasty_keys())
    fill(either, keys)
    small_pages(either, 30)
    for within in some_ranges(keys, 30):
        assert keys_of(either, within) == [key for key in keys if key in within], within


@pytest.mark.parametrize("page", [1, 2, 1000])
def test_keys_that_sort_around_a_slash_are_listed_in_every_range(place: Place, page: int) -> None:
    storage = place.open()
    keys = [b"a-b", b"a-b/c", b"a.b/c", b"a/b", b"a/b-c", b"a/b/c", b"a0", b"a0/x", b"a", b"a/b0"]
    held = sorted(fill_with_what_fits(storage, keys, place.refusals))
    assert len(held) >= 6
    small_pages(storage, page)
    assert keys_of(storage) == held
    bounds = sorted({*keys, b"a/", b"a-", b"a-b/", b"a/b/", b"a.b", b"a0/", b"b", b"A"})
    for after in (b"", *bounds[page % 2 :: 2]):
        for upto in (None, *(bound for bound in bounds[::3] if bound >= after)):
            within = KeyRange(after, upto, closed=not after)
            assert keys_of(storage, within) == [key for key in held if key in within], within


def test_a_closed_range_holds_the_key_that_it_begins_with(storage: Storage) -> None:
    fill(storage, [b"a", b"b/c", b"d"])
    assert keys_of(storage, KeyRange(b"b/c", None, True)) == [b"b/c", b"d"]
    assert keys_of(storage, KeyRange(b"b/c", None)) == [b"d"]
    assert keys_of(storage, KeyRange(b"b/c", b"b/c", True)) == [b"b/c"]
    assert keys_of(storage, KeyRange(b"b/c", b"b/c")) == []
    assert keys_of(storage, KeyRange(b"b", b"b", True)) == []
    assert keys_of(storage, KeyRange(b"b/", b"b/", True)) == []
    assert keys_of(storage, KeyRange(b"b/b", b"b/b", True)) == []
    assert keys_of(storage, KeyRange(b"x", b"x", True)) == []


def test_the_upper_end_belongs_to_the_range(storage: Storage) -> None:
    fill(storage, [b"a", b"b/c", b"b/d", b"e"])
    assert keys_of(storage, KeyRange(b"", b"b/c", True)) == [b"a", b"b/c"]
    assert keys_of(storage, KeyRange(b"", b"b/", True)) == [b"a"]
    assert keys_of(storage, KeyRange(b"a", b"b/c")) == [b"b/c"]
    assert keys_of(storage, KeyRange(b"b/d", None)) == [b"e"]
    assert keys_of(storage, KeyRange(b"e", None)) == []


def test_what_lies_beside_the_prefix_is_not_listed(place: Place) -> None:
    prefix = place.location.path.rstrip(b"/")
    storage = place.open()
    fill(storage, [b"b", b"d/e"])
    above = place.open(place.beside(prefix.rpartition(b"/")[0] + (b"/" * (not place.is_tree))))
    fill(above, [b"prefix-old/c", b"prefix.d", b"prefix0", b"prefi", b"a/prefix/b"])
    assert keys_of(storage) == [b"b", b"d/e"]
    assert storage.probe(b"d/e") is None
    storage.tidy()
    assert len(keys_of(above)) == 7


def test_more_keys_than_a_page_holds_are_all_listed(place: Place) -> None:
    count = 1001 if place.kind in ("minio", "moto") else 2001  # 2001 would take these 8 s
    storage = place.open()
    keys = [b"%s/%04d" % ((b"few", b"many")[number % 10 > 1], number) for number in range(count)]
    fill(storage, keys)
    assert keys_of(storage) == sorted(keys)
    middle = KeyRange(b"many/0100", b"many/0907")
    assert keys_of(storage, middle) == [key for key in sorted(keys) if key in middle]


def test_characters_that_xml_cannot_hold_do_not_upset_the_pages(place: Place) -> None:
    if place.kind == "moto":
        pytest.skip("it sends them as they are, which no XML parser takes")
    storage = place.open()
    keys = [b"d/x\x01a", b"d/x\x01b", b"d/x\x02", b"d/x\x7f", b"d/y", b"e\x1f/x", b"e\x1f/y"]
    held = sorted(fill_with_what_fits(storage, keys, place.refusals))
    assert len(held) == len(keys)
    small_pages(storage, 1)
    assert keys_of(storage) == held
    small_pages(storage, 2)
    for number, key in enumerate(held):
        assert keys_of(storage, KeyRange(key)) == held[number + 1 :]


def pruned(keys: Iterable[bytes], directories: set[bytes]) -> list[bytes]:
    return sorted(
        key
        for key in keys
        if not any(key[: at + 1] in directories for at in range(len(key)) if key[at] == 47)
    )


def test_pruning_leaves_out_what_it_names_and_nothing_else(either: Storage) -> None:
    keys = sorted(nasty_keys())
    fill(either, keys)
    small_pages(either, 7)
    chance = random.Random(8)
    directories = sorted({key[: at + 1] for key in keys for at in range(len(key)) if key[at] == 47})
    for within in [EVERYTHING, *some_ranges(keys, 12)]:
        named = set(chance.sample(directories, len(directories) // 3))
        found = [e.key for e in either.list(within, named.__contains__) if not e.implied]
        assert found == [key for key in pruned(keys, named) if key in within], (within, named)


# With a page of one, SeaweedFS says that a directory with a marker holds nothing else.
@pytest.mark.parametrize("page", [2, 3, 1000])
def test_what_lies_around_a_pruned_directory_is_listed(place: Place, page: int) -> None:
    storage = place.open()
    last = b"d/" + LAST
    put(storage, b"d/")
    fill(
        storage, keys := [b"c", b"d-/x", b"d.x", b"d/a", b"d/b/c", b"d/z", last, last + b"x", b"d0"]
    )
    keys += [] if storage.keeps_files else [b"d/"]  # there it is implied by its content
    small_pages(storage, page)
    for named in ({b"d/"}, {b"d/b/"}, {b"d/", b"d/b/"}, {b"d-/"}, {b"no/"}):
        for after in (b"", b"c", b"d", b"d-", b"d/", b"d/a", b"d/b", b"d/b/c", last, b"d0"):
            for upto in (None, b"d/b/b", b"d/zz", last, b"d0"):
                within = KeyRange(after, upto, closed=page == 2 or not after)
                if upto is None or after <= upto:
                    found = [
                        e.key for e in storage.list(within, named.__contains__) if not e.implied
                    ]
                    assert found == [k for k in pruned(keys, named) if k in within], (within, named)


def test_a_directory_is_asked_about_once_at_most_in_a_row(storage: Storage) -> None:
    fill(storage, [b"a/b/%d" % number for number in range(5)] + [b"a/c/d/e", b"f"])
    asked: list[bytes] = []

    def prune(directory: bytes) -> bool:
        asked.append(directory)
        return directory == b"a/c/"

    found = [entry.key for entry in storage.list(EVERYTHING, prune) if not entry.implied]
    assert found == [*(b"a/b/%d" % number for number in range(5)), b"f"]
    assert set(asked) == {b"a/", b"a/b/", b"a/c/"}


def test_a_listing_goes_on_while_keys_come_and_go(storage: Storage) -> None:
    keys = sorted(b"%02d" % number for number in range(30))
    fill(storage, keys)
    small_pages(storage, 3)
    listing = storage.list(EVERYTHING)
    found = [next(listing).key for _ in range(5)]
    storage.delete([b"03", b"10", b"29"])
    put(storage, b"00-", b"new, and behind")
    found += [entry.key for entry in listing]
    assert found == sorted(set(found))
    assert set(keys) - {b"10", b"29"} <= set(found) <= set(keys)


def test_a_place_that_is_not_there_is_an_error_and_no_empty_listing(place: Place) -> None:
    if place.kind == "memory":
        pytest.skip("a bucket is there as soon as it is named")
    if place.is_tree:
        missing = place.beside(place.location.path + b"/missing")
    else:
        missing = type(place.location)(
            **{
                name: getattr(place.location, name)
                for name in ("scheme", "path", "host", "path_style", "credentials")
            },
            bucket="no-such-bucket-here",
        )
    storage = place.open(missing, destination=False)
    with pytest.raises(AdsmigError) as error:
        list(storage.list(EVERYTHING))
    assert not isinstance(error.value, (ObjectError, TransientError))
    with pytest.raises(AdsmigError):
        storage.probe(b"")
    with pytest.raises(AdsmigError):
        storage.prepare()


# Probe and stat


def test_probe_gives_the_first_key_past_a_point(either: Storage) -> None:
    keys = sorted(nasty_keys())
    fill(either, keys)
    for after, *_ in some_ranges(keys, 20):
        listed = next(either.list(KeyRange(after)), None)
        assert either.probe(after) == (listed.key if listed else None)
    assert either.probe(keys[-1]) is None


def test_a_copy_is_there_if_its_key_and_size_are(storage: Storage) -> None:
    put(storage, b"d/object", b"content")
    other = MemoryStorage(storage.location)
    assert storage.missing(b"d/object", 7, other, b"x") == ""
    assert storage.missing(b"d/object", 8, other, b"x") == RESIZED
    assert storage.missing(b"d/another", 7, other, b"x") == GONE
    assert storage.missing(b"d/object/below", 7, other, b"x") == GONE
    assert storage.missing(b"nothing/object", 7, other, b"x") == GONE


def test_stat_gives_the_entry_that_the_listing_does(storage: Storage) -> None:
    keys = nasty_keys()
    fill(storage, keys)
    for entry in entries_of(storage):
        found = storage.stat(entry.key)
        assert found[:3] == entry[:3]
        assert found.etag == entry.etag
        assert abs(found.stored_ns - entry.stored_ns) < 10**9  # HTTP knows whole seconds only


@pytest.mark.parametrize("key", [b"b", b"a", b"a/b/c", b"a/", b"a-", b"a/b0", b"A/B", b"a/b "])
def test_stat_of_what_is_not_there_is_not_found(storage: Storage, key: bytes) -> None:
    if key == b"a/" and storage.keeps_files:
        pytest.skip("a directory is an entry of a file system")
    fill(storage, [b"a/b", b"x"])
    with pytest.raises(NotFound):
        storage.stat(key)


@pytest.mark.parametrize("key", [b"a//b", b"/a/b", b"a/./b", b"./a/b", b"x/../a/b", b"a/b/"])
def test_stat_of_an_odd_key_never_gives_another_object(place: Place, key: bytes) -> None:
    if place.kind in ("seaweedfs", "minio") and b"/a/" not in key.replace(b"/a/b", b""):
        pytest.skip("the server takes it for a/b, and its answer does not tell")
    storage = place.open()
    fill(storage, [b"a/b", b"x"])
    with pytest.raises((NotFound, ObjectError)):
        storage.stat(key)


# Reading


@pytest.mark.parametrize("size", [0, 1, 65_537, 3 * MIB])
def test_an_object_is_read_whole(storage: Storage, size: int) -> None:
    content = random.Random(size).randbytes(size)
    put(storage, b"d/object", content)
    entry = storage.stat(b"d/object")
    with storage.read(entry) as body:
        assert drain(body) == content
        assert body.readinto(memoryview(bytearray(10))) == 0
        assert body.md5 in (None, hashlib.md5(content).hexdigest())


def test_objects_are_read_again_and_again_over_one_connection(storage: Storage) -> None:
    fill(storage, [b"a", b"b"])
    a, b = storage.stat(b"a"), storage.stat(b"b")
    for _ in range(5):
        with storage.read(a) as one, storage.read(b) as other:
            assert drain(other, 1) == tail(b"b")
            assert drain(one, 1) == tail(b"a")


@pytest.mark.parametrize(
    ("start", "size"),
    [(0, 1), (0, 100_000), (1, 99_998), (50_000, None), (99_999, 1), (99_999, None), (0, None)],
)
def test_a_span_is_read(storage: Storage, start: int, size: int | None) -> None:
    content = random.Random(3).randbytes(100_000)
    put(storage, b"object", content)
    entry = storage.stat(b"object")
    expected = content[start:] if size is None else content[start : start + size]
    assert get(storage, entry, start, size) == expected


def test_a_body_may_be_left_half_read(storage: Storage) -> None:
    content = random.Random(4).randbytes(2 * MIB)
    put(storage, b"object", content)
    entry = storage.stat(b"object")
    for _ in range(3):
        with storage.read(entry) as body:
            buffer = memoryview(bytearray(1000))
            count = body.readinto(buffer)
            assert content.startswith(bytes(buffer[:count]))
            assert count
    assert get(storage, entry) == content


def listed(storage: Storage, key: bytes) -> Entry:
    """As a run gets to know of an object: from a listing."""
    return next(storage.list(KeyRange(key, key, True)))


@pytest.mark.parametrize("content", [b"longer than before", b"short", b"", b"NEW CONTENT"])
@pytest.mark.parametrize("span", [(0, None), (0, 4), (4, 3)])
def test_an_object_replaced_since_it_was_listed_is_a_changed_source(
    storage: Storage, content: bytes, span: tuple[int, int | None]
) -> None:
    put(storage, b"object", b"old content", Meta(mtime_ns=10**9))
    entry = listed(storage, b"object")
    put(storage, b"object", content, Meta(mtime_ns=2 * 10**9))
    with pytest.raises(SourceChanged):
        get(storage, entry, *span)
    assert get(storage, listed(storage, b"object")) == content


def test_an_object_removed_since_it_was_listed_is_a_changed_source(storage: Storage) -> None:
    fill(storage, [b"d/object", b"d/other"])
    entry = listed(storage, b"d/object")
    storage.delete([b"d/object"])
    with pytest.raises(SourceChanged):
        get(storage, entry)


def test_an_object_replaced_while_it_is_read_is_never_a_mixture(storage: Storage) -> None:
    old, new = b"\x01" * (4 * MIB), b"\x02" * (4 * MIB)
    put(storage, b"object", old)
    entry = listed(storage, b"object")
    try:
        with storage.read(entry) as body:
            buffer = memoryview(bytearray(1000))
            count = body.readinto(buffer)
            put(storage, b"object", new)
            content = bytes(buffer[:count]) + drain(body)
    except TransientError:
        return
    assert content == old


# Writing


@pytest.mark.parametrize(
    ("size", "chunk"), [(0, 10), (1, 10), (10, 10), (11, 10), (100_000, 999), (3 * MIB, 1 << 18)]
)
def test_what_was_written_is_read_back(storage: Storage, size: int, chunk: int) -> None:
    content = random.Random(size).randbytes(size)
    stored = put(storage, b"d/e/object", content, size=chunk)
    assert stored.md5 in (None, hashlib.md5(content).hexdigest())
    entry = listed(storage, b"d/e/object")
    assert entry.size == size
    assert stored.etag in (None, entry.etag)
    if storage.etag_is_md5:
        assert stored.md5 == entry.etag
    assert content_of(storage, b"d/e/object") == content


def test_writing_replaces_an_object_whole(storage: Storage) -> None:
    for content in (b"short", b"a good deal longer", b"", b"again"):
        put(storage, b"object", content)
        assert content_of(storage, b"object") == content
        assert keys_of(storage) == [b"object"]


@pytest.mark.parametrize("size", [100, 3 * MIB])
def test_what_arrives_with_another_md5_than_told_replaces_nothing(
    storage: Storage, place: Place, size: int
) -> None:
    if storage.keeps_files:
        pytest.skip("it is told none")
    if place.kind == "moto":
        pytest.skip("it does not look at Content-MD5")
    put(storage, b"object", b"as it was")
    other = Sums(hashlib.md5(b"other").hexdigest())
    with pytest.raises(TransientError):
        storage.write(b"object", chunks_of(bytes(size)), size, Meta(), other)
    assert content_of(storage, b"object") == b"as it was"


def sums_of(content: bytes) -> Sums:
    return Sums(hashlib.md5(content).hexdigest(), crc32_text(zlib.crc32(content)))


@pytest.mark.parametrize("size", [0, 100, 3 * MIB])
def test_a_crc32_that_the_store_confirmed_takes_the_place_of_the_md5(
    storage: Storage, place: Place, size: int
) -> None:
    if storage.keeps_files or place.kind == "memory":
        pytest.skip("it takes none")
    content = random.Random(size).randbytes(size)
    sums = sums_of(content)
    stored = storage.write(b"object", chunks_of(content), size, Meta(), sums)
    if place.kind in ("minio", "moto"):  # they pass over it
        assert stored.crc32 is None
        assert storage.wanted() == Wanted(md5=True)
        assert storage.crc32(listed(storage, b"object")) is None
        return
    assert stored.crc32 == sums.crc32
    assert storage.wanted() == Wanted(crc32=True)
    assert storage.crc32(listed(storage, b"object")) == sums.crc32
    with storage.read(listed(storage, b"object")) as body:
        assert body.crc32 == sums.crc32
    with storage.read(listed(storage, b"object"), 0, 0 if size < 2 else 1) as body:
        assert size < 2 or body.crc32 is None  # which is that of all of it
    other = Sums(None, crc32_text(1))
    with pytest.raises(TransientError):
        storage.write(b"object", chunks_of(content), size, Meta(), other)
    assert content_of(storage, b"object") == content


def test_parts_are_held_against_their_crc32s_and_make_that_of_the_whole(
    storage: Storage, place: Place
) -> None:
    if storage.keeps_files or place.kind == "memory":
        pytest.skip("it takes none")
    size = 2 * PART + 1000
    content = random.Random(1).randbytes(size)
    entry = Entry(b"large", size, None, 1)
    begun = storage.begin_upload(b"large", entry, Meta(), True)
    upload = replace(begun, part_size=PART)
    assert bool(upload.vouched) == (place.kind != "minio")
    confirms = place.kind not in ("minio", "moto")
    parts = []
    for number in range(1, upload.parts + 1):
        start, length = upload.span(number)
        piece = content[start : start + length]
        sums = sums_of(piece)
        if confirms and number == 2:
            wrong = Sums(None, crc32_text(7))
            with pytest.raises(TransientError):
                storage.put_part(b"large", upload, number, chunks_of(piece), wrong)
        stored = storage.put_part(b"large", upload, number, chunks_of(piece), sums)
        assert stored.crc32 == (sums.crc32 if confirms else None)
        parts.append(Part(number, stored.etag or "", None, sums.md5, sums.crc32))
    storage.complete(b"large", upload, parts, Meta())
    assert content_of(storage, b"large") == content
    if confirms:
        assert storage.crc32(listed(storage, b"large")) == sums_of(content).crc32


class Interrupted(Exception):
    """Not one of ours: a bug, or a Ctrl-C, in the middle of a write."""


def broken_chunks(content: bytes, fault: BaseException, after: int) -> Iterator[memoryview]:
    for number, chunk in enumerate(chunks_of(content)):
        if number == after:
            raise fault
        yield chunk


@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize("fault", [SourceChanged("changed"), Interrupted()], ids=["ours", "other"])
def test_a_write_that_fails_midway_leaves_no_trace(
    storage: Storage, fault: BaseException, after: int
) -> None:
    put(storage, b"d/old", b"old content")
    before = entries_of(storage)
    content = bytes(4 << 16)
    for key in (b"d/old", b"d/new", b"e/new"):
        with pytest.raises(type(fault)):
            storage.write(key, broken_chunks(content, fault, after), len(content), Meta())
    assert entries_of(storage) == before
    assert content_of(storage, b"d/old") == b"old content"
    put(storage, b"d/new", b"this time")
    assert content_of(storage, b"d/new") == b"this time"


def test_objects_are_written_and_read_by_many_threads(storage: Storage) -> None:
    keys = [b"%d/%d" % (number % 3, number) for number in range(40)]

    def work(key: bytes) -> None:
        content = random.Random(key).randbytes(20_000)
        for _ in range(3):
            put(storage, key, content, size=999)
            assert content_of(storage, key) == content

    in_threads(storage, work, keys)
    assert keys_of(storage) == sorted(keys)


# What is kept beside the bytes


@pytest.mark.parametrize(
    "mtime_ns", [1_700_000_000_123_456_789, 1_700_000_000_000_000_001, 0, 1, -1, -(10**9)]
)
def test_the_time_of_an_object_is_kept_to_the_nanosecond(storage: Storage, mtime_ns: int) -> None:
    put(storage, b"object", b"content", Meta(mtime_ns=mtime_ns))
    with storage.read(storage.stat(b"object")) as body:
        assert body.meta.mtime_ns == told(storage, mtime_ns)


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o755, 0o400, 0o7777, 0])
def test_the_mode_of_an_object_is_kept(place: Place, mode: int) -> None:
    put(place.open(), b"object", b"content", Meta(mode=mode))
    storage = place.open()
    with storage.read(storage.stat(b"object")) as body:
        # A bucket has no business to hand out set-id bits.
        assert body.meta.mode == (mode & 0o777 if place.server else mode)


def test_the_owner_of_an_object_is_kept(storage: Storage) -> None:
    put(storage, b"object", b"content", Meta(uid=1234, gid=2345))
    with storage.read(storage.stat(b"object")) as body:
        assert (body.meta.uid, body.meta.gid) == (1234, 2345)


HEADERS = {
    "content-type": "text/plain; charset=utf-8",
    "cache-control": "max-age=3600, public",
    "content-disposition": 'attachment; filename="a b.txt"',
    "content-language": "de",
    "content-encoding": "gzip",
    "expires": "Thu, 01 Dec 2033 16:00:00 GMT",
}


GATEWAY_FORGETS = ("content-language", "content-encoding", "expires")


@pytest.mark.parametrize("header", HEADERS)
def test_the_headers_of_an_object_are_kept(place: Place, header: str) -> None:
    if place.is_tree or (place.kind == "minio" and header in GATEWAY_FORGETS):
        pytest.skip("it keeps none of the kind")
    storage = place.open()
    put(storage, b"object", b"content", Meta(headers={header: HEADERS[header]}))
    with storage.read(storage.stat(b"object")) as body:
        assert body.meta.headers[header] == HEADERS[header]


@pytest.mark.parametrize(
    "value",
    ["plain", "two words", "a  b", "ünïcode à la Ålesund 漢字 …".encode().decode("latin-1"), "é"],
    ids=["plain", "blank", "blanks", "utf-8", "latin-1"],
)
def test_what_users_noted_about_an_object_is_kept(place: Place, value: str) -> None:
    if place.is_tree or (place.kind == "minio" and value == "é"):
        pytest.skip("it keeps no such notes")
    storage = place.open()
    put(storage, b"object", b"content", Meta(user={"note": value, "other-note": "2"}))
    with storage.read(storage.stat(b"object")) as body:
        assert body.meta.user["note"] == value
        assert body.meta.user["other-note"] == "2"


NOTES = {
    "note": "two words",
    "utf-8": "ünïcode à la Ålesund 漢字 😀".encode().decode("latin-1"),
    "odd_name.x": '=?UTF-8?Q?encoded?= %20 + "quoted"',
    "mtime": "1600000000.000000007",
}


@pytest.mark.parametrize("large", [False, True], ids=["small", "multipart"])
def test_what_was_read_beside_the_content_is_written_with_a_copy(place: Place, large: bool) -> None:
    if place.is_tree:
        pytest.skip("it keeps none of the kind")
    storage = place.open()
    put(storage, b"object", b"content", Meta(headers=HEADERS, user=NOTES))
    with storage.read(storage.stat(b"object")) as body:
        meta = body.meta
    forgotten = set(GATEWAY_FORGETS if place.kind == "minio" else ())
    assert meta.headers == {k: v for k, v in HEADERS.items() if k not in forgotten}
    assert meta.user == NOTES
    assert meta.mtime_ns == (1_600_000_000_000_000_007 if place.server else None)
    if large:
        upload = upload_of(storage, b"copy", 7, meta)
        storage.complete(
            b"copy", upload, [send_part(storage, b"copy", upload, 1, b"content")], meta
        )
    else:
        put(storage, b"copy", b"content", meta)
    with storage.read(storage.stat(b"copy")) as body:
        assert body.meta == meta
        assert drain(body) == b"content"


def test_metadata_is_told_without_the_content(storage: Storage) -> None:
    put(storage, b"d/object", b"content", Meta(1_700_000_000_123_456_789, 0o640))
    entry = listed(storage, b"d/object")
    meta = storage.meta(entry)
    assert (meta.mtime_ns, meta.mode) == (told(storage, 1_700_000_000_123_456_789), 0o640)
    with storage.read(entry) as body:
        assert meta == body.meta
    put(storage, b"d/object", b"CONTENT", Meta(1_800_000_000_000_000_000))
    with pytest.raises(SourceChanged):
        storage.meta(entry)
    storage.delete([b"d/object"])
    with pytest.raises(SourceChanged):
        storage.meta(entry)


# Deleting


def test_delete_removes_exactly_the_keys_that_it_is_given(storage: Storage) -> None:
    fill(storage, [b"a-b", b"a/b", b"a/b-c", b"a/b0", b"c", b"d e+%2F"])
    missing = [b"missing", b"a/missing", b"no/such/directory", b"a/b/c", b"no/", b"no/such/"]
    assert storage.delete([b"a/b", *missing, b"d e+%2F"]) == {}
    assert keys_of(storage) == [b"a-b", b"a/b-c", b"a/b0", b"c"]
    assert storage.delete([b"a/b", b"c", b"c"]) == {}
    assert storage.delete([]) == {}
    assert keys_of(storage) == [b"a-b", b"a/b-c", b"a/b0"]
    assert [storage.delete([key]) for key in (b"a-b", *missing)] == [{}] * 7
    assert keys_of(storage) == [b"a/b-c", b"a/b0"]


def test_many_objects_are_deleted_at_once(storage: Storage) -> None:
    keys = [b"%d/%04d" % (number % 3, number) for number in range(1500)]
    fill(storage, [*keys[::5], b"0/", b"0/1-", b"3"] if not storage.keeps_files else keys[::5])
    fill(storage, [b"1/left", b"4"])
    assert storage.delete(keys) == {}
    left = [key for key in keys_of(storage) if not (storage.keeps_files and key.endswith(b"/"))]
    assert left == sorted(
        [b"1/left", b"4", *([] if storage.keeps_files else [b"0/", b"0/1-", b"3"])]
    )


def test_keys_that_documents_mangle_are_deleted_as_they_are(place: Place) -> None:
    storage = place.open()
    marks = [
        "\t",
        "\n",
        "\r",
        "\r\n",
        "\x01",
        "\x7f",
        "\x85",
        "\xa0",
        "\u2028",
        "\uffff",
        "&amp;",
        "+",
    ]
    wanted = [
        f"{a}x{b}".encode() for mark in marks for a, b in ((mark, ""), ("", mark), ("y", mark))
    ]
    if place.kind == "moto":  # it lists control characters as no XML parser takes them
        wanted = [key for key in wanted if key.isascii() and min(key) >= 32]
    held = fill_with_what_fits(storage, wanted, place.refusals)
    assert len(held) > len(wanted) // 2
    twins = [b"x", b"yx", b" x", b"x ", b"yx\n\n", b"&x", b"x&", b"yx&"]
    twins = sorted(fill_with_what_fits(storage, twins, place.refusals))
    for keys in (sorted(held)[::2], [sorted(held)[1]], sorted(held)[3::2]):
        assert storage.delete(keys) == {}
        assert not set(keys) & set(keys_of(storage))
    assert keys_of(storage) == twins


def test_a_directory_that_lost_its_content_is_no_object(
    place: Place,
) -> None:
    if place.is_tree:
        pytest.skip("an empty directory is an entry of a file system")
    storage = place.open()
    fill(storage, [b"d/e/f", b"g/h", b"i"])
    storage.delete([b"d/e/f", b"g/h"])
    put(storage, b"g/")
    assert keys_of(storage) == [b"g/", b"i"]
    for key in (b"d/", b"d/e/"):
        with pytest.raises(NotFound):
            storage.stat(key)
    assert storage.stat(b"g/").key == b"g/"


@pytest.mark.parametrize("others", [[], [b"x", b"y/"]], ids=["alone", "among others"])
@pytest.mark.parametrize("key", [b"f/below", b"d", b"f/", b"e", b"d/e/", b"f/below/", b"d/g"])
def test_deleting_what_is_no_object_is_no_error_and_harms_nothing(
    storage: Storage, key: bytes, others: list[bytes]
) -> None:
    fill(storage, [b"d/e", b"f"])
    problems = storage.delete([key, *others])
    # Of a file system's directory, the name without a slash is that of something else.
    assert set(problems) <= ({b"d"} if storage.keeps_files else set())
    assert keys_of(storage) == [b"d/e", b"f"]
    assert content_of(storage, b"f") == tail(b"f")


@pytest.mark.parametrize("others", [[], [b"x", b"y/"]], ids=["alone", "among others"])
@pytest.mark.parametrize("key", [b"d/", b"d/e/"])
def test_a_directory_with_content_stays_and_is_no_error(
    storage: Storage, key: bytes, others: list[bytes]
) -> None:
    fill(storage, [b"d/e/f", b"d/g"])
    assert storage.delete([key, *others]) == {}
    assert keys_of(storage) == [b"d/e/f", b"d/g"]
    assert storage.delete([b"d/e/f", key, b"d/g", key]) == {}
    assert not [entry for entry in entries_of(storage) if not entry.key.endswith(b"/")]


@pytest.mark.parametrize("others", [[], [b"x", b"y"]], ids=["alone", "among others"])
def test_a_marker_is_not_deleted_for_an_object_of_its_name(
    storage: Storage, others: list[bytes]
) -> None:
    put(storage, b"d/")
    put(storage, b"e/f/")
    storage.delete([b"d", *others, b"e/f"])
    assert keys_of(storage) == [b"d/", b"e/f/"]
    assert storage.delete([b"d/", *others, b"e/f/"]) == {}
    assert [key for key in keys_of(storage) if not storage.keeps_files] == []


TWINS = [b"a//b", b"/a/b", b"a/./b", b"./a/b", b"x/../a/b", b"a/b/", b"a\\b", b"a/b//", b"//a/b"]


@pytest.mark.parametrize("others", [[], [b"x", b"y"]], ids=["alone", "among others"])
@pytest.mark.parametrize("key", TWINS)
def test_deleting_an_odd_key_never_removes_another(
    either: Storage, key: bytes, others: list[bytes]
) -> None:
    fill(either, [b"a/b", b"b"])
    problems = either.delete([key, *others])
    assert set(problems) <= {key}
    assert not any("\n" in problem or not problem for problem in problems.values())
    assert keys_of(either) == [b"a/b", b"b"]
    assert content_of(either, b"a/b") == tail(b"a/b")


def test_the_empty_key_deletes_at_most_itself(either: Storage) -> None:
    assert either.delete([b""]) == {}
    assert either.delete([b"", b"x"]) == {}
    either.prepare()
    fill(either, [b"a/b", b"b"])
    assert either.delete([b""]) == {}
    assert keys_of(either) == [b"a/b", b"b"]


# Keys


ODD_KEYS = [
    *(b"a//b", b"a///b", b"//", b"/", b"/a", b"/a/b", b"a/./b", b"./x", b".", b"x/.", b"a/../b"),
    *(b"../x", b"..", b"x/..", b"../../../../../x", b"a\\b", b"\\", b"..\\x", b"a\x01b", b"a\nb"),
    *(b"\t", b"\r\n", b"a\x00b", b" ", b" a ", b"trailing ", b"trailing.", b"a/ /b", b"a%2Fb"),
    *(b"a%00", b"%", b"+", b"a+b", b"not-utf-8-\xff\xfe", "😀/é".encode(), b"nul", b"CON", b"~"),
    *(b"/".join([b"x" * 200] * 6)[:1024], b"/".join([b"x" * 200] * 6)[:900], b"x" * 255),
    *(b"x" * 256, b"x" * 1024, b"d/" + b"y" * 1025, "é".encode() * 127, "é".encode() * 128),
    *(b"dir/", b"dir//", b"a/dir/", b"", b"?list-type=2", b"a?uploads", b"#x", b"a;b", b"a&b=c"),
]  # fmt: skip


KNOWN_ODDITIES = re.compile(rb"^/|//|\\|(^|/)\.\.?(/|$)|[\xfe\xff]")
"""What a storage has to look at before it sends a key anywhere."""


def counted(content: bytes, taken: list[int]) -> Iterator[memoryview]:
    taken.append(1)
    yield from chunks_of(content)


@pytest.mark.parametrize("key", ODD_KEYS, ids=lambda key: ascii(key.decode("latin-1"))[:30])
def test_a_key_is_held_as_it_is_or_refused(place: Place, key: bytes) -> None:
    storage = place.open()
    fill(storage, bystanders := [b"a/b", b"b", b"x"])
    if key in bystanders:
        return
    content, taken = b"" if key.endswith(b"/") or not key else b"content", list[int]()
    try:
        storage.write(key, counted(content, taken), len(content), Meta())
    except place.refusals:
        # A server may have rules of its own, which nobody knows before it is asked.
        if not place.server or KNOWN_ODDITIES.search(key) or len(key) > 1024:
            assert not taken, "it took the first chunk"
        held = False
    else:
        held = True
    entries = [entry for entry in entries_of(storage) if entry.key not in bystanders]
    if held and (key or not storage.keeps_files):
        assert [(entry.key, entry.size) for entry in entries] == [(key, len(content))]
        if not key.endswith(b"/"):
            assert content_of(storage, key) == content
        assert keys_of(storage, KeyRange(key, key, True)) == [key]
        storage.delete([key])
    else:
        assert entries == []
    # Some keep the directories of what was removed.
    keeps = place.is_tree or place.kind == "seaweedfs"
    left = [key for key in keys_of(storage) if not (keeps and key.endswith(b"/"))]
    assert left == bystanders
    for other in bystanders:
        assert content_of(storage, other) == tail(other)


@pytest.mark.parametrize("key", ODD_KEYS, ids=lambda key: ascii(key.decode("latin-1"))[:30])
def test_a_key_with_a_problem_is_refused(either: Storage, key: bytes) -> None:
    problem, taken = either.problem(key), list[int]()
    assert "\n" not in problem
    if not problem:
        return
    with pytest.raises(ObjectError):
        either.write(key, counted(b"content", taken), 7, Meta())
    assert not taken
    with pytest.raises(ObjectError):
        either.begin_upload(key, Entry(key, 7, None, 1), Meta())
    assert entries_of(either) == []


def test_what_no_object_store_holds_is_a_problem(place: Place) -> None:
    storage = place.open()
    bad = [b"x" * 1100, b"\xff", b"d/\xc3"]
    problems = [storage.problem(key) for key in bad]
    assert all(problems) if place.server else True
    assert [storage.problem(key) for key in (b"a", b"a/b", b"d/", "é😀".encode())] == [""] * 4


def test_a_link_is_made_or_refused(place: Place) -> None:
    storage = place.open()
    if place.is_tree:
        storage = open_storage(place.location, Options(links="copy"), True)
    try:
        storage.write_link(b"d/link", b"../to where", Meta(mtime_ns=10**18))
    except ObjectError:
        assert keys_of(storage) == []
        assert not place.is_tree
    else:
        (entry,) = entries_of(storage)
        assert (entry.key, entry.link) == (b"d/link", b"../to where")


@pytest.mark.parametrize("length", [1023, 1024, 1025])
def test_keys_of_the_greatest_length_are_held_or_refused(either_place: Place, length: int) -> None:
    storage = either_place.open()
    fill(storage, [b"other"])
    prefix = b"" if either_place.is_tree else either_place.location.path
    key = b"/".join([b"n" * 100] * 11)[: length - len(prefix)]
    held = fill_with_what_fits(storage, [key], either_place.refusals)
    if (
        either_place.kind == "memory"
        or either_place.is_tree
        or (either_place.server and length > 1024)
    ):
        assert bool(held) == (not either_place.server)
    assert keys_of(storage) == sorted({b"other", *held})
    for one in held:
        assert content_of(storage, one) == tail(one)
    assert either_place.kind != "moto" or bool(held) == (length <= 1024)


@pytest.mark.parametrize("key", [b"a//b", b"../x", b"/x", b"a/./b", b"a\\b", b"x" * 1025])
def test_an_upload_to_a_key_is_as_the_key_is_or_refused(storage: Storage, key: bytes) -> None:
    fill(storage, [b"other"])
    entry = Entry(key, 3, None, 1)
    try:
        upload = storage.begin_upload(key, entry, Meta())
    except ObjectError:
        assert keys_of(storage) == [b"other"]
        return
    part = send_part(storage, key, upload, 1, b"abc")
    storage.complete(key, upload, [part], Meta())
    assert keys_of(storage) == sorted([b"other", key])
    assert storage.stat(key).size == 3


def test_a_name_with_a_slash_at_its_end_is_held_with_and_without_content(storage: Storage) -> None:
    put(storage, b"empty/")
    assert [(entry.key, entry.size) for entry in entries_of(storage)] == [(b"empty/", 0)]
    try:
        put(storage, b"full/", b"content")
    except ObjectError:
        storage.delete([b"full/"])
        assert keys_of(storage) == [b"empty/"]
    else:
        assert [(e.key, e.size) for e in entries_of(storage)] == [(b"empty/", 0), (b"full/", 7)]
        assert content_of(storage, b"full/") == b"content"


def test_a_marker_and_what_is_below_it_are_listed_together(storage: Storage) -> None:
    put(storage, b"d/")
    fill(storage, [b"d-", b"d/a", b"d/b"])
    every = [entry.key for entry in storage.list(EVERYTHING)]
    assert every == [b"d-", b"d/", b"d/a", b"d/b"]
    assert [entry.key for entry in storage.list(KeyRange(b"d/"))] == [b"d/a", b"d/b"]
    assert [entry.key for entry in storage.list(KeyRange(b"d/", None, True))] == every[1:]
    assert [entry.key for entry in storage.list(KeyRange(b"d-", b"d/"))] == [b"d/"]
    assert [entry.key for entry in storage.list(KeyRange(b"d", b"d/a"))] == every[:3]
    assert storage.probe(b"d-") == b"d/"
    assert storage.probe(b"d/") == b"d/a"


def test_a_marker_at_the_prefix_itself_is_the_empty_key(place: Place) -> None:
    if place.is_tree:
        pytest.skip("the directory itself is no entry")
    storage = place.open()
    put(storage, b"")
    fill(storage, [b"a"])
    assert keys_of(storage) == [b"", b"a"]
    assert keys_of(storage, KeyRange(b"", b"", True)) == [b""]
    assert storage.stat(b"").size == 0
    assert storage.probe(b"") == b"a"
    assert keys_of(storage, KeyRange(b"")) == [b"a"]
    assert keys_of(storage, EVERYTHING.rest(b"")) == [b"a"]


@pytest.mark.parametrize("keys", [(b"a", b"a/b"), (b"a/b", b"a"), (b"d/a/b/c", b"d/a")])
def test_an_object_beside_a_directory_of_its_name_is_held_or_refused(
    place: Place, keys: tuple[bytes, bytes]
) -> None:
    storage = place.open()
    held = fill_with_what_fits(storage, keys, place.refusals)
    assert keys[0] in held
    assert keys_of(storage) == sorted(held)
    for key in held:
        assert content_of(storage, key) == tail(key)


# Multipart uploads

PART = 5 * MIB
"""The least that AWS, MinIO and moto take."""


def upload_of(storage: Storage, key: bytes, size: int, meta: Meta | None = None) -> Upload:
    """An upload with smaller parts than the drivers choose."""
    entry = Entry(b"the/source", size, None, 1)
    upload = storage.begin_upload(key, entry, meta or Meta(mtime_ns=12345))
    return Upload(entry, upload.upload_id, PART)


CONTENT = random.Random(5).randbytes(PART) * 2 + b"the rest"


def with_md5(part: Part, content: bytes, upload: Upload) -> Part:
    """A Part as transfer makes them: with the MD5 of what was sent, if etags are that."""
    start, size = upload.span(part.number)
    return part._replace(md5=hashlib.md5(content[start : start + size]).hexdigest())


def send_all(storage: Storage, key: bytes, upload: Upload, content: bytes) -> list[Part]:
    return [
        with_md5(send_part(storage, key, upload, number, content), content, upload)
        for number in range(1, upload.parts + 1)
    ]


def test_parts_sent_in_any_order_make_the_object(storage: Storage) -> None:
    meta = Meta(mtime_ns=1_600_000_000_000_000_007, mode=0o640)
    put(storage, b"d/large", b"old")
    upload = upload_of(storage, b"d/large", len(CONTENT), meta)
    parts = {n: send_part(storage, b"d/large", upload, n, CONTENT) for n in (3, 1, 2)}
    assert content_of(storage, b"d/large") == b"old"
    etag = storage.complete(b"d/large", upload, [parts[n] for n in (1, 2, 3)], meta)
    entry = listed(storage, b"d/large")
    assert (entry.size, entry.etag) == (len(CONTENT), etag)
    with storage.read(entry) as body:
        assert drain(body) == CONTENT
        assert (body.meta.mtime_ns, body.meta.mode) == (told(storage, meta.mtime_ns), meta.mode)
        assert body.md5 in (None, hashlib.md5(CONTENT).hexdigest())
    assert get(storage, entry, PART - 5, 10) == CONTENT[PART - 5 : PART + 5]
    assert keys_of(storage) == [b"d/large"]


def test_a_part_sent_again_takes_the_place_of_the_first(storage: Storage) -> None:
    content = CONTENT[: PART + 9]
    upload = upload_of(storage, b"large", len(content))
    send_part(storage, b"large", upload, 1, bytes(PART))
    send_part(storage, b"large", upload, 2, b"\x01" * len(content))
    storage.complete(b"large", upload, send_all(storage, b"large", upload, content), Meta())
    assert content_of(storage, b"large") == content


def test_an_upload_is_not_seen_before_it_is_complete(storage: Storage) -> None:
    fill(storage, [b"a"])
    upload = upload_of(storage, b"d/large", PART + 1)
    send_part(storage, b"d/large", upload, 1, CONTENT)
    assert keys_of(storage) == [b"a"]
    with pytest.raises(NotFound):
        storage.stat(b"d/large")
    storage.abort(b"d/large", upload.upload_id)


def test_uploads_that_are_under_way_are_listed(storage: Storage) -> None:
    keys = [b"d/\xc3\xa9 +%2F", b"large"]
    ids = {key: upload_of(storage, key, 20).upload_id for key in keys}
    listed = dict(storage.uploads())
    assert listed == ({} if storage.keeps_files else ids)
    for key, upload_id in ids.items():
        storage.abort(key, upload_id)
    assert dict(storage.uploads()) == {}


def test_an_aborted_upload_is_gone(place: Place) -> None:
    if place.kind == "moto":
        pytest.skip("it answers 500 to the completion of an upload that is gone")
    storage = place.open()
    put(storage, b"d/large", b"old")
    upload = upload_of(storage, b"d/large", 20)
    part = with_md5(send_part(storage, b"d/large", upload, 1, CONTENT), CONTENT, upload)
    storage.abort(b"d/large", upload.upload_id)
    storage.abort(b"d/large", upload.upload_id)
    with pytest.raises(NotFound):
        storage.complete(b"d/large", upload, [part], Meta(mtime_ns=12345))
    with pytest.raises(NotFound):
        send_part(storage, b"d/large", upload, 1, CONTENT)
    assert content_of(storage, b"d/large") == b"old"


def test_aborting_what_never_was_is_no_error(storage: Storage) -> None:
    upload = upload_of(storage, b"d/large", 20)
    storage.abort(b"d/large", upload.upload_id)
    storage.abort(b"d/large", upload.upload_id)
    assert keys_of(storage) == []


def test_complete_knows_a_first_try_whose_answer_was_lost(storage: Storage) -> None:
    content, meta = CONTENT[: PART + 9], Meta(mtime_ns=12345)
    upload = upload_of(storage, b"d/large", len(content), meta)
    parts = send_all(storage, b"d/large", upload, content)
    first = storage.complete(b"d/large", upload, parts, meta)
    assert storage.complete(b"d/large", upload, parts, meta) == first
    assert content_of(storage, b"d/large") == content


def test_complete_does_not_take_another_object_for_its_own(place: Place) -> None:
    if place.kind == "moto":
        pytest.skip("it answers 500 to the completion of an upload that is gone")
    storage = place.open()
    content, meta = CONTENT[:100], Meta(mtime_ns=12345 * 10**9)
    upload = upload_of(storage, b"large", 100, meta)
    parts = send_all(storage, b"large", upload, content)
    storage.abort(b"large", upload.upload_id)
    put(storage, b"large", b"!" * 100, Meta(mtime_ns=6789 * 10**9))
    with pytest.raises(NotFound):
        storage.complete(b"large", upload, parts, meta)


def strays(place: Place) -> list[str]:
    """The keys of all unfinished uploads in the place."""
    if not place.server:
        return []
    prefix = place.location.path.decode()
    found = place.server.client().list_multipart_uploads(
        Bucket=place.location.bucket, **({"Prefix": prefix} if place.kind != "minio" else {})
    )
    return [one["Key"] for one in found.get("Uploads", []) if one["Key"].startswith(prefix)]


@pytest.mark.parametrize("key", [b"large", b"d/large one+%2F", "d/é😀".encode()])
def test_an_upload_begun_again_leaves_no_stray_behind(place: Place, key: bytes) -> None:
    storage = place.open()
    other = upload_of(storage, key + b"-beside", 20)
    for _ in range(3):
        upload = upload_of(storage, key, 20)
        parts = send_all(storage, key, upload, CONTENT[:20])
    storage.complete(key, upload, parts, Meta(mtime_ns=12345))
    assert content_of(storage, key) == CONTENT[:20]
    assert (key + b"").decode() not in [name.partition("deep/prefix/")[2] for name in strays(place)]
    part = send_part(storage, key + b"-beside", other, 1, CONTENT)
    storage.complete(key + b"-beside", other, [part], Meta())
    assert content_of(storage, key + b"-beside") == CONTENT[:20]
    assert strays(place) == []


def test_an_object_of_one_short_part_can_be_uploaded(storage: Storage) -> None:
    upload = upload_of(storage, b"small", 3)
    storage.complete(b"small", upload, send_all(storage, b"small", upload, b"abc"), Meta())
    assert content_of(storage, b"small") == b"abc"


def test_a_part_that_fails_midway_can_be_sent_again(storage: Storage) -> None:
    upload = upload_of(storage, b"large", 4 << 16)
    content = CONTENT[: 4 << 16]
    with pytest.raises(SourceChanged):
        storage.put_part(
            b"large", upload, 1, broken_chunks(content, SourceChanged("changed"), after=2)
        )
    storage.complete(b"large", upload, send_all(storage, b"large", upload, content), Meta())
    assert content_of(storage, b"large") == content


# Its life


def test_a_run_begins_and_ends(place: Place) -> None:
    storage = place.open()
    storage.prepare()
    fill(storage, [b"d/a"])
    storage.sync()
    storage.tidy()
    storage.close()
    assert keys_of(place.open(destination=False)) == [b"d/a"]
    assert content_of(storage, b"d/a") == tail(b"d/a")


def test_two_storages_of_one_location_see_the_same(place: Place) -> None:
    one, other = place.open(), place.open()
    fill(one, [b"a", b"b"])
    assert content_of(other, b"a") == tail(b"a")
    other.delete([b"a"])
    assert keys_of(one) == [b"b"]


def test_a_place_of_files_tells_whether_it_is_still_the_same(place: Place) -> None:
    one, other = place.open().identity(), place.open().identity()
    assert one == other
    assert (one is not None) == (place.kind == "local")


def test_a_storage_prints_without_its_secret(place: Place) -> None:
    shown = repr(place.open())
    assert type(place.open()).__name__ in shown
    assert "testsecret" not in shown
