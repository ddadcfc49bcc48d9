"""Whether two objects hold the same bytes, without reading more of them than that takes."""

from __future__ import annotations

import os
import uuid
import zlib
from hashlib import md5
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from xxhash import xxh3_64_hexdigest

from adsmig import retry
from adsmig.checksum import Sums, Wanted, crc32_text
from adsmig.content import CHUNK, Reader, digest, same_content
from adsmig.errors import NotFound, ObjectError, SourceChanged, TransientError
from adsmig.location import Location
from adsmig.model import Entry, Meta
from adsmig.storage.local import LocalStorage
from adsmig.storage.memory import MemoryStorage
from adsmig.uri import parse
from tests.storage.support import Options


class Reads:
    """A storage that tells how often it was read, and may fail at first."""

    def __init__(self, storage: Any, *errors: Exception) -> None:
        self._storage, self._errors, self.count = storage, list(errors), 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def read(self, *arguments: Any) -> Any:
        self.count += 1
        if self._errors:
            raise self._errors.pop(0)
        body = self._storage.read(*arguments)
        body.md5 = None  # it takes any ETag for one
        return body


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "wait", lambda seconds, stopping: None)


def objects() -> Reads:
    return Reads(MemoryStorage(Location("memory", b"", bucket=uuid.uuid4().hex)))


@pytest.fixture
def files(tmp_path: Path) -> Reads:
    return Reads(LocalStorage(parse(f"{tmp_path}/"), Options(), True))


def put(storage: Any, content: bytes, etag: str | None = "") -> Entry:
    """``etag`` stands in for the store's own, if it is given."""
    storage.write(b"k", iter([memoryview(content)]), len(content), Meta())
    if etag != "":
        bucket = storage._bucket
        bucket.objects[b"k"] = bucket.objects[b"k"]._replace(etag=etag)
    return storage.stat(b"k")  # type: ignore[no-any-return]


MULTIPART = "f" * 32 + "-2"


@pytest.mark.parametrize(
    ("one", "other", "same", "reads"),
    [
        (b"abc", b"abc", True, (0, 0)),  # the store has told
        (b"abc", b"abd", False, (1, 1)),  # an ETag may only look like an MD5
    ],
)
def test_two_objects_with_md5s_are_read_only_if_those_differ(
    one: bytes, other: bytes, same: bool, reads: tuple[int, int]
) -> None:
    src, dst = objects(), objects()
    assert same_content(src, put(src, one), dst, put(dst, other)) is same
    assert (src.count, dst.count) == reads


@pytest.mark.parametrize("object_is_src", [True, False])
@pytest.mark.parametrize("same", [True, False])
def test_the_one_without_an_md5_is_read_first_and_alone_if_that_tells(
    files: Reads, object_is_src: bool, same: bool
) -> None:
    store = objects()
    there, here = put(store, b"abc"), put(files, b"abc" if same else b"abd")
    sides = (store, there, files, here) if object_is_src else (files, here, store, there)
    assert same_content(*sides) is same
    assert (store.count, files.count) == (0 if same else 1, 1)


@pytest.mark.parametrize("etag", [MULTIPART, "e" * 31, "e" * 32 + "\n"])
def test_what_is_no_md5_is_read_on_both_sides(etag: str) -> None:
    src, dst = objects(), objects()
    here, there = put(src, b"abc", etag), put(dst, b"abc", etag)
    assert same_content(src, here, dst, there)
    assert (src.count, dst.count) == (1, 1)


def test_an_etag_that_only_looks_like_an_md5_is_no_verdict() -> None:
    src, dst = objects(), objects()
    src._storage.etag_is_md5 = dst._storage.etag_is_md5 = False  # encrypted by the store
    here, there = put(src, b"abc", "e" * 32), put(dst, b"abd", "e" * 32)
    assert not same_content(src, here, dst, there)
    assert (src.count, dst.count) == (1, 1)


def test_files_are_read_on_both_sides(files: Reads, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Reads(LocalStorage(parse(f"{tmp_path}/other/"), Options(), True))
    content = os.urandom(2 * CHUNK + 1)
    changed = content[:-1] + bytes([content[-1] ^ 1])
    here = put(files, content)
    assert same_content(files, here, other, put(other, content))
    assert not same_content(files, here, other, put(other, changed))


def test_a_read_that_fails_is_tried_again() -> None:
    src, dst = objects(), objects()
    here, there = put(src, b"abc", MULTIPART), put(dst, b"abc", MULTIPART)
    flaky = Reads(src, *[TransientError("lost")] * (retry.TRIES - 1))
    assert same_content(flaky, here, dst, there)
    assert flaky.count == retry.TRIES


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
    ("error", "reads"),
    [
        (SourceChanged("it is being written"), 1),
        (ObjectError("denied", "not allowed"), 1),
        (NotFound("gone"), 1),
        (TransientError("lost"), retry.TRIES),
    ],
)
def test_what_cannot_be_read_is_neither_the_same_nor_another(
    side: int, error: Exception, reads: int
) -> None:
    sides = [objects(), objects()]
    entries = [put(one, b"abc", MULTIPART) for one in sides]
    flaky = Reads(sides[side], *[error] * retry.TRIES)
    sides[side] = flaky
    with pytest.raises(type(error)):
        same_content(sides[0], entries[0], sides[1], entries[1])
    assert flaky.count == reads


def test_an_object_that_was_replaced_meanwhile_is_no_match() -> None:
    src, dst = objects(), objects()
    here, there = put(src, b"abc", MULTIPART), put(dst, b"abc", MULTIPART)
    put(dst, b"xyz", MULTIPART + "0")
    with pytest.raises(SourceChanged):
        same_content(src, here, dst, there)


def test_a_digest_is_of_the_whole_object() -> None:
    store, content = objects(), os.urandom(CHUNK + 5)
    read = digest(store, put(store, content, MULTIPART), None, want_md5=True)
    assert read.sums.md5 == md5(content).hexdigest()
    assert digest(store, store.stat(b"k"), None).sums.md5 is None


def test_content_that_ends_early_has_changed() -> None:
    store = objects()
    entry = put(store, b"abc")
    with store.read(entry) as body:
        reader = Reader(body, 5, Wanted(), None)
        with pytest.raises(SourceChanged, match="2 bytes early"):
            list(reader.chunks())


@pytest.mark.parametrize("want", [Wanted(md5=True), Wanted(crc32=True), Wanted(True, True)])
@pytest.mark.parametrize("size", [5, 3 * CHUNK + 5])
def test_what_can_be_read_twice_has_its_hashes_told_ahead(
    files: Reads, tmp_path: Path, want: Wanted, size: int
) -> None:
    content = os.urandom(size)
    (tmp_path / "k").write_bytes(content)
    taken: list[int] = []
    limits: Any = SimpleNamespace(take=taken.append)
    expected = Sums(
        md5(content).hexdigest() if want.md5 else None,
        crc32_text(zlib.crc32(content)) if want.crc32 else None,
    )
    with files.read(files.stat(b"k")) as body:
        reader = Reader(body, len(content), want, limits)
        assert reader.ahead() == expected
        assert sum(taken) == (size if size <= CHUNK else 0)  # a long one is not on its way yet
        assert b"".join(bytes(chunk) for chunk in reader.chunks()) == content
    assert reader.sums == expected
    assert reader.xxh3 == xxh3_64_hexdigest(content)
    assert sum(taken) == len(content)


def test_what_neither_fits_the_buffer_nor_can_be_read_twice_has_an_md5_afterwards() -> None:
    store, content = objects(), os.urandom(CHUNK + 1)
    with store.read(put(store, content)) as body:
        reader = Reader(body, CHUNK + 1, Wanted(crc32=True), None)
        assert reader.ahead() == Sums()
        assert b"".join(bytes(chunk) for chunk in reader.chunks()) == content
    assert reader.sums.md5 == md5(content).hexdigest()


@pytest.mark.parametrize("size", [5, 3 * CHUNK + 5])
def test_content_is_held_against_the_crc32_that_its_source_tells(size: int) -> None:
    store, content = objects(), os.urandom(size)
    entry = put(store, content)
    with store.read(entry) as body:
        body.crc32 = crc32_text(zlib.crc32(content))
        reader = Reader(body, size, Wanted(), None)
        assert b"".join(bytes(chunk) for chunk in reader.chunks()) == content
        assert reader.sums.crc32 == body.crc32
    with store.read(entry) as body:
        body.crc32 = crc32_text(zlib.crc32(content) ^ 1)
        with pytest.raises(TransientError, match="source's CRC-32"):
            list(Reader(body, size, Wanted(), None).chunks())


def test_what_the_source_tells_is_told_ahead_without_reading() -> None:
    store = objects()
    with store.read(put(store, os.urandom(CHUNK + 1))) as body:
        body.md5, body.crc32 = "the MD5", "the CRC-32"
        told = Reader(body, CHUNK + 1, Wanted(True, True), None).ahead()
        assert told == Sums("the MD5", "the CRC-32")
