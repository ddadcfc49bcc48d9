"""One object on its way, a slice of them, and the parts of a large one: over storages that fail."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import xxhash

from adsmig import parts, retry, scan, span, transfer, worker
from adsmig import slice as slice_module
from adsmig.content import CHUNK
from adsmig.errors import (
    AdsmigError,
    ListingError,
    NotFound,
    ObjectError,
    SourceChanged,
    StorageFull,
    Throttled,
    TransientError,
    Unreachable,
)
from adsmig.job import Job
from adsmig.limits import Lease, Limits, opened
from adsmig.location import Location
from adsmig.model import Budget, Counts, Entry, KeyRange, Meta, Outcome, Part, Stop, Upload
from adsmig.proof import combined_checksum
from adsmig.storage import local, memory
from adsmig.storage.base import Stored
from adsmig.storage.local import LocalStorage
from adsmig.storage.memory import MemoryStorage
from adsmig.transfer import (
    MAX_CHANGES,
    Manner,
    copy,
    meta_for,
    put_part,
    settled,
)
from adsmig.uri import parse
from tests.storage.support import Options

ALL = KeyRange(closed=True)
LONG = Budget(1e6, 10**6)
ALONE = Lease("/nowhere", 0)

Instead = Callable[..., Any]


class FlakyStorage:
    """A storage of which some methods are called through functions that make them fail.

    ``FlakyStorage(storage, read=function)``: ``function(method, *arguments)`` is what a caller of
    ``read`` gets.  ``calls`` counts the calls of these methods.
    """

    def __init__(self, storage: Any, **instead: Instead) -> None:
        self._storage, self._instead = storage, instead
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._storage, name)
        if name not in self._instead:
            return found

        def call(*arguments: Any) -> Any:
            self.calls[name] += 1
            return self._instead[name](found, *arguments)

        return call


def failing(*errors: Exception | None, always: Exception | None = None) -> Instead:
    """Raises one after the other; None, and what comes after, works."""
    several = iter(errors)

    def call(method: Any, *arguments: Any) -> Any:
        error = next(several, always)
        if error:
            raise error
        return method(*arguments)

    return call


class Corrupt:
    """A Body of which a byte is not what it was."""

    def __init__(self, body: Any) -> None:
        self._body = body
        self.meta, self.md5, self.crc32 = body.meta, body.md5, body.crc32

    def readinto(self, buffer: memoryview) -> int:
        count: int = self._body.readinto(buffer)
        if count:
            buffer[0] ^= 1
        return count

    def __enter__(self) -> Corrupt:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def corrupting(times: int = 10**9) -> Instead:
    left = [times]

    def call(read: Any, *arguments: Any) -> Any:
        left[0] -= 1
        return Corrupt(read(*arguments)) if left[0] >= 0 else read(*arguments)

    return call


def changing(storage: MemoryStorage, key: bytes, *contents: bytes) -> Instead:
    """Puts the next content in place of the object before each call."""
    several = iter(contents)

    def call(method: Any, *arguments: Any) -> Any:
        content = next(several, None)
        if content is not None:
            put(storage, key, content)
        return method(*arguments)

    return call


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between tries, none of which is made."""
    made: list[float] = []
    monkeypatch.setattr(retry, "wait", lambda seconds, stopping: made.append(seconds))
    return made


def make_memory() -> MemoryStorage:
    return MemoryStorage(Location("memory", b"", bucket=uuid.uuid4().hex))


@pytest.fixture
def src() -> MemoryStorage:
    return make_memory()


@pytest.fixture
def dst() -> MemoryStorage:
    return make_memory()


def put(storage: Any, key: bytes, content: bytes = b"content", meta: Meta = Meta()) -> Entry:  # noqa: B008
    storage.write(key, iter([memoryview(content)]), len(content), meta)
    return storage.stat(key)  # type: ignore[no-any-return]


def get(storage: Any, key: bytes) -> bytes:
    entry = storage.stat(key)
    buffer, content = memoryview(bytearray(1 << 20)), b""
    with storage.read(entry) as body:
        while count := body.readinto(buffer):
            content += bytes(buffer[:count])
    return content


def keys_of(storage: Any) -> list[bytes]:
    return [entry.key for entry in storage.list(ALL) if not entry.implied]


# One object


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_an_object_arrives_with_its_content_hashed(
    src: MemoryStorage, dst: MemoryStorage, size: int
) -> None:
    content = os.urandom(size)
    entry = put(src, b"a//\xff", content)
    outcome = copy(src, dst, entry, b"b", None)
    assert get(dst, b"b") == content
    assert outcome.seconds >= 0
    assert outcome._replace(seconds=0.0) == Outcome(
        b"a//\xff", size, entry.stored_ns, entry.etag,
        f"xxh3:{xxhash.xxh3_64_hexdigest(content)}",
    )  # fmt: skip


def test_the_outcome_keeps_the_sources_own_time(tmp_path: Path, dst: MemoryStorage) -> None:
    (tmp_path / "f").write_bytes(b"1")
    os.utime(tmp_path / "f", ns=(5, 123456789))
    files = local_storage(tmp_path)
    outcome = copy(files, dst, files.stat(b"f"), b"f", None)
    assert (outcome.mtime_ns, outcome.etag) == (123456789, None)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ObjectError("denied", "not allowed"), "denied"),
        (ObjectError("key", "too long"), "key"),
        (NotFound("gone"), "vanished"),
        (TransientError("lost"), "gave up"),
    ],
)
def test_what_is_the_objects_fault_is_a_failure_with_its_reason(
    src: MemoryStorage, dst: MemoryStorage, error: AdsmigError, kind: str
) -> None:
    entry = put(src, b"k")
    for flaky in (
        (FlakyStorage(src, read=failing(always=error)), dst),
        (src, FlakyStorage(dst, write=failing(always=error))),
    ):
        outcome = copy(*flaky, entry, b"k", None)
        assert (outcome.key, outcome.kind, outcome.size) == (b"k", kind, entry.size)
        assert outcome.error
        assert outcome.checksum is None
    assert keys_of(dst) == []


@pytest.mark.parametrize(
    "error",
    [
        StorageFull("full"),
        Unreachable("nobody"),
        Throttled("slow down"),
        AdsmigError("wrong keys"),
    ],
)
def test_what_is_not_the_objects_fault_is_raised(
    src: MemoryStorage, dst: MemoryStorage, error: AdsmigError
) -> None:
    entry = put(src, b"k")
    with pytest.raises(type(error)):
        copy(src, FlakyStorage(dst, write=failing(always=error)), entry, b"k", None)


def test_an_object_is_tried_again_while_that_can_help(
    src: MemoryStorage, dst: MemoryStorage, pauses: list[float]
) -> None:
    entry = put(src, b"k")
    flaky = FlakyStorage(dst, write=failing(*[TransientError("lost")] * (retry.TRIES - 1)))
    assert copy(src, flaky, entry, b"k", None).error == ""
    assert flaky.calls["write"] == retry.TRIES
    assert len(pauses) == retry.TRIES - 1
    never = FlakyStorage(dst, write=failing(always=TransientError("lost")))
    assert copy(src, never, entry, b"k", None).kind == "gave up"
    assert never.calls["write"] == retry.TRIES


def test_bytes_damaged_on_the_way_here_never_make_an_object(
    src: MemoryStorage, dst: MemoryStorage
) -> None:
    entry = put(src, b"k", b"x" * (CHUNK + 1))
    outcome = copy(FlakyStorage(src, read=corrupting()), dst, entry, b"k", None)
    assert outcome.kind == "gave up"
    assert "does not match the source's MD5" in outcome.error
    assert "etag=opaque" in outcome.error
    assert keys_of(dst) == []
    assert copy(FlakyStorage(src, read=corrupting(2)), dst, entry, b"k", None).error == ""
    assert get(dst, b"k") == b"x" * (CHUNK + 1)


def test_bytes_damaged_on_the_way_there_are_sent_again(
    src: MemoryStorage, dst: MemoryStorage
) -> None:
    def damaging(times: int) -> Instead:
        left = [times]

        def write(method: Any, *arguments: Any) -> Stored:
            left[0] -= 1
            stored = method(*arguments)
            return Stored("e" * 32, "e" * 32) if left[0] >= 0 else stored

        return write

    entry = put(src, b"k")
    flaky = FlakyStorage(dst, write=damaging(2))
    assert copy(src, flaky, entry, b"k", None).error == ""
    assert flaky.calls["write"] == 3
    outcome = copy(src, FlakyStorage(dst, write=damaging(99)), entry, b"k", None)
    assert outcome.kind == "gave up"
    assert "does not match what was sent" in outcome.error


def test_a_copy_that_is_not_what_was_sent_does_not_stay(
    src: MemoryStorage, dst: MemoryStorage
) -> None:
    """Where the store tells no MD5, it is found out by reading the copy back."""

    def damaging(times: int) -> Instead:
        left = [times]

        def write(method: Any, key: bytes, chunks: Iterator[memoryview], *rest: Any) -> Stored:
            left[0] -= 1
            content, (size, meta, _) = bytearray(b"".join(chunks)), rest
            content[0] ^= left[0] >= 0
            method(key, iter([memoryview(content)]), size, meta)
            return Stored("not-an-md5", None)

        return write

    entry, proving = put(src, b"k"), Manner(prove=True)
    outcome = copy(src, FlakyStorage(dst, write=damaging(99)), entry, b"k", None, proving)
    assert (outcome.kind, keys_of(dst)) == ("gave up", [])
    assert "is not what was sent" in outcome.error
    assert copy(src, FlakyStorage(dst, write=damaging(2)), entry, b"k", None, proving).error == ""
    assert get(dst, b"k") == get(src, b"k")


def test_where_the_answer_tells_no_md5_the_size_is_looked_up(
    src: MemoryStorage, dst: MemoryStorage
) -> None:
    def silent(write: Any, *arguments: Any) -> Stored:
        write(*arguments)
        return Stored("not-an-md5", None)

    entry = put(src, b"k")
    assert copy(src, FlakyStorage(dst, write=silent), entry, b"k", None).error == ""

    def short(stat: Any, key: bytes) -> Entry:
        return stat(key)._replace(size=3)  # type: ignore[no-any-return]

    flaky = FlakyStorage(dst, write=silent, stat=short)
    outcome = copy(src, flaky, entry, b"k", None)
    assert (outcome.kind, outcome.error) == (
        "gave up", "the destination has 3 bytes instead of 7"
    )  # fmt: skip


def test_an_object_that_changed_since_it_was_listed_is_copied_as_it_is_now(
    src: MemoryStorage, dst: MemoryStorage
) -> None:
    entry = put(src, b"k", b"old")
    now = put(src, b"k", b"newer")
    outcome = copy(src, dst, entry, b"k", None)
    assert (outcome.error, outcome.size, outcome.etag) == ("", 5, now.etag)
    assert get(dst, b"k") == b"newer"


def test_an_object_that_keeps_changing_is_a_failure(src: MemoryStorage, dst: MemoryStorage) -> None:
    entry = put(src, b"k", b"old")
    flaky = FlakyStorage(src, read=changing(src, b"k", *(b"%d" % n for n in range(100))))
    outcome = copy(flaky, dst, entry, b"k", None)
    assert outcome.kind == "changed"
    assert flaky.calls["read"] == MAX_CHANGES
    assert keys_of(dst) == []


def test_an_object_removed_since_it_was_listed_has_vanished(
    src: MemoryStorage, dst: MemoryStorage
) -> None:
    entry = put(src, b"k")
    src.delete([b"k"])
    assert copy(src, dst, entry, b"k", None).kind == "vanished"


def test_content_that_ends_early_never_makes_an_object(
    src: MemoryStorage, dst: MemoryStorage
) -> None:
    def short(read: Any, entry: Entry, start: int = 0, size: int | None = None) -> Any:
        return read(entry, start, entry.size - 1)

    entry = put(src, b"k")
    assert copy(FlakyStorage(src, read=short), dst, entry, b"k", None).kind == "changed"
    assert keys_of(dst) == []


def test_a_file_that_is_rewritten_while_it_is_read_is_never_a_mixture(
    tmp_path: Path, dst: MemoryStorage
) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"a" * 2 * CHUNK)
    files = local_storage(tmp_path)

    def rewritten(read: Any, *arguments: Any) -> Any:
        body = read(*arguments)
        if file.read_bytes()[:1] == b"a":
            file.write_bytes(b"b" * 2 * CHUNK)
            os.utime(file, ns=(1, 1))  # another time, whatever the clock's tick
        return body

    entry = files.stat(b"f")
    outcome = copy(FlakyStorage(files, read=rewritten), dst, entry, b"f", None)
    assert (outcome.error, outcome.mtime_ns) == ("", 1)
    assert get(dst, b"f") == b"b" * 2 * CHUNK


@pytest.mark.parametrize(
    ("age", "waits"), [(0.0, 2.0), (0.5, 1.5), (1.999, 0.001), (2.0, 0), (1e6, 0), (-0.1, 0)]
)
def test_an_object_of_this_very_moment_is_waited_for(
    src: MemoryStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: float, waits: float
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(transfer, "SETTLED_S", 2.0)
    clock = SimpleNamespace(time=lambda: 5e8 + age, monotonic=time.monotonic)
    monkeypatch.setattr(transfer, "time", clock)
    monkeypatch.setattr(transfer, "wait", lambda seconds, stopping: waited.append(seconds))
    files = local_storage(tmp_path)
    files.tick_ns = 1  # one directory in a hundred has changed at whole hundreds of nanoseconds
    for entry in (Entry(b"k", 1, None, 5 * 10**17), Entry(b"k", 1, 5 * 10**17, 0)):
        for one, other in ((src, src), (files, src), (src, files)):
            transfer.await_settled(one, other, entry)
        assert waited == pytest.approx([waits] * 3 if waits else [], abs=1e-6)
        waited.clear()
        transfer.await_settled(files, files, entry)
        assert waited == []


@pytest.mark.parametrize(("tick_ns", "waits"), [(1, 0), (100, 0), (10**9, 1.5), (2 * 10**9, 3.5)])
@pytest.mark.parametrize("coarse", ["source", "destination"])
def test_two_ticks_of_a_file_system_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tick_ns: int, waits: float, coarse: str
) -> None:
    monkeypatch.setattr(transfer, "SETTLED_S", 2.0)
    monkeypatch.setattr(transfer, "time", SimpleNamespace(time=lambda: 5e8 + 0.5))
    fine, other = local_storage(tmp_path), local_storage(tmp_path)
    other.tick_ns = tick_ns
    sides = (other, fine) if coarse == "source" else (fine, other)
    assert transfer.unsettled_s(*sides, Entry(b"k", 1, 5 * 10**17, 0)) == pytest.approx(waits)


def test_an_object_replaced_during_a_long_read_is_read_again(
    src: MemoryStorage, dst: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = [0.0]
    clock = SimpleNamespace(time=lambda: 4e9, monotonic=lambda: seconds[0])
    monkeypatch.setattr(transfer, "time", clock)

    def slow(write: Any, key: bytes, chunks: Any, *arguments: Any) -> Any:
        stored = write(key, chunks, *arguments)
        seconds[0] += 10
        if get(src, b"k") == b"old":
            put(src, b"k", b"newer")
        return stored

    flaky = FlakyStorage(src, meta=failing())
    outcome = copy(flaky, FlakyStorage(dst, write=slow), put(src, b"k", b"old"), b"k", None)
    assert (outcome.error, outcome.size) == ("", 5)
    assert get(dst, b"k") == b"newer"
    assert flaky.calls["meta"] == 2
    copy(flaky, dst, src.stat(b"k"), b"k", None)  # a short one is not looked at again
    assert flaky.calls["meta"] == 2


def test_a_copy_inside_the_service_moves_no_bytes_and_is_checked(
    src: MemoryStorage, dst: MemoryStorage
) -> None:
    def inside(md5: str | None, content: bytes = b"content") -> Instead:
        def copy_from(_: object, src: Any, entry: Entry, key: bytes) -> Stored:
            put(dst, key, content)
            return Stored(md5, md5)

        return copy_from

    entry = put(src, b"k")
    unread = FlakyStorage(src, read=failing(always=AssertionError("was read")))
    changed = FlakyStorage(dst, copy_from=inside("0" * 32))
    assert copy(unread, changed, entry, b"k", None).kind == "changed"
    for md5 in (entry.etag, None):
        outcome = copy(unread, FlakyStorage(dst, copy_from=inside(md5)), entry, b"k", None)
        assert (outcome.error, outcome.checksum) == ("", None)
    short = FlakyStorage(dst, copy_from=inside(None, b"cut"))
    assert copy(unread, short, entry, b"k", None).kind == "gave up"


def test_bytes_pass_at_the_rate_of_the_run(src: MemoryStorage, dst: MemoryStorage) -> None:
    taken: list[int] = []
    limits: Any = SimpleNamespace(take=taken.append, stopping=lambda: False)
    copy(src, dst, put(src, b"k", b"x" * (2 * CHUNK + 1)), b"k", limits)
    assert taken == [CHUNK, CHUNK, 1]


def test_asked_to_stop_an_unsettled_object_is_no_failure(
    src: MemoryStorage, dst: MemoryStorage
) -> None:
    limits: Any = SimpleNamespace(take=lambda _: None, stopping=lambda: True)
    entry = put(src, b"k")
    flaky = FlakyStorage(dst, write=failing(TransientError("lost")))
    with pytest.raises(TransientError):
        copy(src, flaky, entry, b"k", limits)
    assert flaky.calls["write"] == 1
    # What is settled all the same is settled.
    denied = FlakyStorage(dst, write=failing(ObjectError("denied", "no")))
    assert copy(src, denied, entry, b"k", limits).kind == "denied"


def test_settled_gives_what_the_unit_gives(src: MemoryStorage) -> None:
    entry = put(src, b"k")
    outcome = copy(src, make_memory(), entry, b"k", None)
    assert settled(lambda: outcome, entry) is outcome


def local_storage(path: Path, destination: bool = False) -> LocalStorage:
    storage = LocalStorage(parse(f"{path}/"), Options(), destination)
    storage.prepare()
    return storage


def test_a_file_gets_the_time_of_its_object_unless_that_kept_one(tmp_path: Path) -> None:
    entry = Entry(b"k", 1, None, 55)
    files, objects = local_storage(tmp_path, True), make_memory()
    assert meta_for(files, entry, Meta()).mtime_ns == 55
    assert meta_for(files, entry, Meta(mtime_ns=9)).mtime_ns == 9
    assert meta_for(files, entry._replace(mtime_ns=7), Meta()).mtime_ns == 7
    assert meta_for(objects, entry, Meta()) == Meta()


# One part


def test_a_part_is_its_span_hashed(src: MemoryStorage, dst: MemoryStorage) -> None:
    entry = put(src, b"k", b"0123456789")
    upload = replace(dst.begin_upload(b"k", entry, Meta()), part_size=4)
    parts = [put_part(src, dst, b"k", upload, number, None) for number in (1, 2, 3)]
    for part, content in zip(parts, (b"0123", b"4567", b"89"), strict=True):
        md5 = hashlib.md5(content).hexdigest()
        assert part == Part(part.number, md5, xxhash.xxh3_64_hexdigest(content), md5)
    dst.complete(b"k", upload, parts, Meta())
    assert get(dst, b"k") == b"0123456789"


def test_a_part_that_arrives_damaged_is_worth_another_try(
    src: MemoryStorage, dst: MemoryStorage
) -> None:
    entry = put(src, b"k")
    upload = dst.begin_upload(b"k", entry, Meta())
    wrong = FlakyStorage(dst, put_part=lambda *_: Stored("e" * 32, "e" * 32))
    with pytest.raises(TransientError):
        put_part(src, wrong, b"k", upload, 1, None)


def test_a_part_of_a_changed_object_is_not_copied(src: MemoryStorage, dst: MemoryStorage) -> None:
    entry = put(src, b"k", b"old")
    upload = dst.begin_upload(b"k", entry, Meta())
    put(src, b"k", b"new")
    with pytest.raises(SourceChanged):
        put_part(src, dst, b"k", upload, 1, None)


def test_a_part_copied_inside_the_service_has_no_hash(
    src: MemoryStorage, dst: MemoryStorage
) -> None:
    upload = dst.begin_upload(b"k", put(src, b"k"), Meta())
    flaky = FlakyStorage(dst, copy_part=lambda *_: Stored("e", None))
    assert put_part(src, flaky, b"k", upload, 1, None) == Part(1, "e", None, None)


def test_the_hash_of_hashes_names_how_it_was_made() -> None:
    upload = Upload(Entry(b"k", 25, None, 0), "id", 10)
    hashes = ["00" * 8, "11" * 8, "22" * 8]
    parts = [Part(number, "", one, None) for number, one in enumerate(hashes, 1)]
    whole = xxhash.xxh3_64_hexdigest(bytes.fromhex("".join(hashes)))
    assert combined_checksum(upload, parts) == f"xxh3:{whole}-3x10"
    assert combined_checksum(upload, parts[::-1]) != combined_checksum(upload, parts)
    assert combined_checksum(upload, [*parts, Part(4, "e", None, None)]) is None


# A slice


Open = Callable[[Any, Any], None]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Has workers open these two storages."""

    def use(src: Any, dst: Any) -> None:
        def open_storage(location: object, job: object, destination: bool = False) -> Any:
            return dst if destination else src

        monkeypatch.setattr(scan, "open_storage", open_storage)
        worker.forget()

    yield use
    worker.forget()
    opened.cache_clear()


@pytest.fixture
def limits(tmp_path: Path) -> Iterator[Limits]:
    limits = Limits.create(str(tmp_path / "shared"))
    yield limits
    limits.remove()


def job(command: str = "cp", threads: int = 1, **options: Any) -> Job:
    places = parse("minio://h/src/"), parse("minio://h/dst/")
    return Job(command, *places, threads=threads, workers=1, **options)


@pytest.mark.parametrize(
    ("src", "dst", "for_files", "for_parts", "for_removals"),
    [
        ("/a/", "/b/", 1, 2, 1),
        ("/a/", "minio://h/b/", 1, 4, 16),
        ("minio://h/a/", "/b/", 1, 4, 16),
        ("sftp://h/a/", "/b/", 8, 2, 8),
        ("minio://h/a/", "sftp://h/b/", 8, 2, 8),
    ],
)
def test_as_many_threads_begin_as_the_places_have_a_use_for(
    src: str, dst: str, for_files: int, for_parts: int, for_removals: int
) -> None:
    one = Job("cp", parse(src), parse(dst))
    assert worker._crew_for(one).level == for_files
    assert worker._crew_for(one, worker.PARTS).level == for_parts
    assert worker._crew_for(one, worker.REMOVALS).level == for_removals
    assert worker._crew_for(replace(one, threads=6, workers=2)).level == 3
    worker.forget()


def large_beyond(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    for user in (scan, slice_module):
        monkeypatch.setattr(user, "LARGE_SIZE", size)


def fill(storage: Any, count: int, size: int = 3) -> list[bytes]:
    keys = [b"%04d" % number for number in range(count)]
    for key in keys:
        put(storage, key, key[:1] * size)
    return keys


THREADS = pytest.mark.parametrize("threads", [1, 4])


@THREADS
def test_a_slice_settles_its_whole_range(
    use: Open, src: MemoryStorage, dst: MemoryStorage, threads: int
) -> None:
    keys = fill(src, 50)
    use(src, dst)
    result = worker.run_slice(job(threads=threads), KeyRange(keys[9], keys[29]), LONG, ALONE)
    assert (result.cursor, result.done, result.stop) == (keys[29], True, None)
    assert result.counts == Counts(found=20, found_bytes=60, copied=20, copied_bytes=60)
    assert sorted(one.key for one in result.outcomes) == keys_of(dst) == keys[10:30]
    assert result.worker == os.getpid()
    assert result.ended >= result.started > 0


def test_an_empty_range_is_done_at_once(use: Open, src: MemoryStorage, dst: MemoryStorage) -> None:
    fill(src, 3)
    use(src, dst)
    result = worker.run_slice(job(), KeyRange(b"9"), LONG, ALONE)
    assert (result.cursor, result.done, result.counts) == (None, True, Counts())


@THREADS
@pytest.mark.parametrize("objects", [1, 3, 7])
def test_slices_of_so_many_objects_add_up_to_the_range(
    use: Open, src: MemoryStorage, dst: MemoryStorage, threads: int, objects: int
) -> None:
    keys = fill(src, 20)
    use(src, dst)
    left, seen, total = ALL, list[bytes](), Counts()
    for _ in range(30):
        result = worker.run_slice(job(threads=threads), left, Budget(1e6, objects), ALONE)
        assert len(result.outcomes) <= objects
        seen += sorted(one.key for one in result.outcomes)
        total += result.counts
        if result.done:
            break
        assert result.cursor == seen[-1]
        left = left.rest(result.cursor)
    assert seen == keys_of(dst) == keys
    assert (total.found, total.copied) == (20, 20)


def test_a_slice_of_no_objects_settles_what_comes_before_the_first_to_copy(
    use: Open, src: MemoryStorage, dst: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    large_beyond(monkeypatch, 5)
    keys = fill(src, 10)
    put(src, keys[2], b"larger")
    for key in keys[:2]:
        put(dst, key, get(src, key))
    use(src, FlakyStorage(dst, write=failing(always=AssertionError("was written"))))
    result = worker.run_slice(job("sync", 4), ALL, Budget(1e6, 0), ALONE)
    assert (result.cursor, result.done, result.stop) == (keys[2], False, None)
    assert [entry.key for entry in result.large] == [keys[2]]
    assert result.counts == Counts(found=3, found_bytes=12, unchanged=2, unchanged_bytes=6)
    result = worker.run_slice(job("sync", 4), KeyRange(keys[2]), Budget(1e6, 0), ALONE)
    assert (result.cursor, result.done, result.counts) == (None, False, Counts())


class Clock:
    """Time as a worker sees it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    time = monotonic

    def taking(self, seconds: float) -> Instead:
        def call(method: Any, *arguments: Any) -> Any:
            self.now += seconds
            return method(*arguments)

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for user in (slice_module, worker, parts, span):
        monkeypatch.setattr(user, "time", clock)
    return clock


def test_a_slice_ends_when_its_time_is_up(
    use: Open, src: MemoryStorage, dst: MemoryStorage, clock: Clock
) -> None:
    keys = fill(src, 20)
    use(src, FlakyStorage(dst, write=clock.taking(1.0)))
    result = worker.run_slice(job(), ALL, Budget(4.5, 10**6), ALONE)
    assert (result.cursor, result.done, result.counts.copied) == (keys[4], False, 5)


def test_a_slice_settles_something_however_short_it_is(
    use: Open, src: MemoryStorage, dst: MemoryStorage, clock: Clock
) -> None:
    keys = fill(src, 5)
    use(src, FlakyStorage(dst, write=clock.taking(1.0)))
    left = ALL
    for key in keys:
        result = worker.run_slice(job(), left, Budget(0, 1), ALONE)
        assert result.cursor == key
        left = left.rest(key)


def test_a_slice_lasts_longer_the_longer_it_took_to_reach_its_first_key(
    use: Open, src: MemoryStorage, dst: MemoryStorage, clock: Clock
) -> None:
    fill(src, 200)
    slow = FlakyStorage(src, list=clock.taking(10.0))
    use(slow, FlakyStorage(dst, write=clock.taking(1.0)))
    result = worker.run_slice(job(), ALL, Budget(0.5, 10**6), ALONE)
    assert result.counts.copied == span.SEEK_SHARE * 10 + 1


@THREADS
def test_a_slice_ends_when_the_run_stops_with_what_it_has_settled(
    use: Open, src: MemoryStorage, dst: MemoryStorage, limits: Limits, threads: int
) -> None:
    fill(src, 100)

    def stopping(write: Any, key: bytes, *arguments: Any) -> Any:
        if key == b"0010":
            limits.stop()
        return write(key, *arguments)

    use(src, FlakyStorage(dst, write=stopping))
    result = worker.run_slice(job(threads=threads), ALL, LONG, Lease(limits.path, 0))
    assert result.stop is None
    assert not result.done
    consistent(result, src, dst)
    assert 11 <= result.counts.copied <= 11 + threads


def consistent(result: Any, src: Any, dst: Any) -> None:
    """Everything up to the cursor is at the destination; nothing past it is told of."""
    upto = [key for key in keys_of(src) if result.cursor is not None and key <= result.cursor]
    good = [one.key for one in result.outcomes if not one.error]
    bad = [one.key for one in result.outcomes if one.error]
    assert sorted(good + bad) == upto
    assert set(good) <= set(keys_of(dst))
    sizes = {entry.key: entry.size for entry in src.list(ALL)}
    assert result.counts == Counts(
        found=len(upto), found_bytes=sum(map(sizes.__getitem__, upto)),
        copied=len(good), copied_bytes=sum(map(sizes.__getitem__, good)), failed=len(bad),
    )  # fmt: skip


@THREADS
@pytest.mark.parametrize("at", [0, 1, 20, 59])
@pytest.mark.parametrize("error", [StorageFull("no room"), Unreachable("nobody is there")])
def test_an_error_of_the_storage_leaves_what_came_before_it_settled(
    use: Open, src: MemoryStorage, dst: MemoryStorage, threads: int, at: int, error: AdsmigError
) -> None:
    keys = fill(src, 60)
    put(src, b"0010x", b"bad")

    def write(method: Any, key: bytes, *arguments: Any) -> Any:
        if key == b"0010x":
            raise ObjectError("key", "cannot be held")
        if key == keys[at]:
            raise error
        return method(key, *arguments)

    use(src, FlakyStorage(dst, write=write))
    result = worker.run_slice(job(threads=threads), ALL, LONG, ALONE)
    assert result.stop == Stop(str(error), 3, type(error).__name__)
    assert not result.done
    assert result.cursor is None or result.cursor < keys[at]
    consistent(result, src, dst)
    if threads == 1 and at:
        assert result.cursor == (keys[at - 1] if at != 11 else b"0010x")


def test_going_on_after_an_error_copies_all(
    use: Open, src: MemoryStorage, dst: MemoryStorage
) -> None:
    keys = fill(src, 40)
    errors = failing(None, None, StorageFull("no room"), None, None, StorageFull("no room"))
    use(src, FlakyStorage(dst, write=errors))
    left, total = ALL, Counts()
    for _ in range(9):
        result = worker.run_slice(job(threads=4), left, LONG, ALONE)
        total += result.counts
        left = left if result.cursor is None else left.rest(result.cursor)
        if result.done:
            break
    assert keys_of(dst) == keys
    assert total == Counts(found=40, found_bytes=120, copied=40, copied_bytes=120)


@THREADS
def test_a_listing_that_breaks_off_settles_what_it_gave(
    use: Open, src: MemoryStorage, dst: MemoryStorage, threads: int
) -> None:
    keys = fill(src, 20)

    def listing(method: Any, *arguments: Any) -> Iterator[Entry]:
        for number, entry in enumerate(method(*arguments)):
            if number == 7:
                raise ListingError("it ended in the middle")
            yield entry

    use(FlakyStorage(src, list=listing), dst)
    result = worker.run_slice(job(threads=threads), ALL, LONG, ALONE)
    assert result.stop == Stop("it ended in the middle", 3, "ListingError")
    assert (result.cursor, result.done) == (keys[6], False)
    assert keys_of(dst) == keys[:7]
    consistent(result, src, dst)


def test_a_source_that_is_not_there_is_an_error_not_an_empty_listing(
    use: Open, dst: MemoryStorage, tmp_path: Path
) -> None:
    use(LocalStorage(parse(f"{tmp_path}/nothing/"), Options()), dst)
    result = worker.run_slice(job(), ALL, LONG, ALONE)
    assert (result.cursor, result.done) == (None, False)
    assert result.stop
    assert result.stop.kind == "NotFound"


@THREADS
def test_what_could_not_be_flushed_is_not_settled(
    use: Open, src: MemoryStorage, dst: MemoryStorage, threads: int
) -> None:
    keys = fill(src, 20)
    use(src, FlakyStorage(dst, sync=failing(StorageFull("no room"))))
    result = worker.run_slice(job(threads=threads), ALL, LONG, ALONE)
    assert (result.cursor, result.done, result.counts) == (None, False, Counts())
    assert {one.key for one in result.outcomes} == set(keys)  # to be written again
    assert {(one.kind, one.error, one.checksum) for one in result.outcomes} == {
        ("flush", "no room", None)
    }
    assert result.large == []
    assert result.stop == Stop("no room", 3, "StorageFull")


def test_failures_are_settled_and_the_others_copied(
    use: Open, src: MemoryStorage, dst: MemoryStorage
) -> None:
    keys = fill(src, 10)

    def listing(method: Any, *arguments: Any) -> Iterator[Entry]:
        for entry in method(*arguments):
            yield entry._replace(problem="a broken link") if entry.key == keys[2] else entry

    def write(method: Any, key: bytes, *arguments: Any) -> Any:
        if key == keys[5]:
            raise ObjectError("denied", "not allowed")
        return method(key, *arguments)

    use(FlakyStorage(src, list=listing), FlakyStorage(dst, write=write))
    result = worker.run_slice(job(threads=4), ALL, LONG, ALONE)
    assert result.done
    assert sorted((one.key, one.kind, one.error) for one in result.outcomes if one.error) == [
        (keys[2], "source", "a broken link"), (keys[5], "denied", "not allowed")
    ]  # fmt: skip
    assert result.counts == Counts(found=10, found_bytes=30, copied=8, copied_bytes=24, failed=2)
    assert keys_of(dst) == [key for key in keys if key not in (keys[2], keys[5])]


def test_a_failure_next_to_an_error_is_told_only_before_the_cursor(
    use: Open, src: MemoryStorage, dst: MemoryStorage
) -> None:
    keys = fill(src, 10)

    def listing(method: Any, *arguments: Any) -> Iterator[Entry]:
        for entry in method(*arguments):
            bad = entry.key in (keys[1], keys[3])
            yield entry._replace(problem="a broken link") if bad else entry

    def write(method: Any, key: bytes, *arguments: Any) -> Any:
        if key == keys[2]:
            raise StorageFull("no room")
        return method(key, *arguments)

    use(FlakyStorage(src, list=listing), FlakyStorage(dst, write=write))
    result = worker.run_slice(job(threads=4), ALL, LONG, ALONE)
    assert result.cursor == keys[1]
    assert [one.key for one in result.outcomes if one.error] == [keys[1]]
    consistent(result, src, dst)


def test_sync_leaves_alone_what_is_the_same(
    use: Open, src: MemoryStorage, dst: MemoryStorage
) -> None:
    keys = fill(src, 10)
    for key in keys[:6]:
        put(dst, key, get(src, key))
    put(dst, keys[6], b"other")
    put(dst, b"0005x", b"extraneous")
    flaky = FlakyStorage(dst, write=failing())
    use(src, flaky)
    result = worker.run_slice(job("sync", 4), ALL, LONG, ALONE)
    assert result.counts == Counts(
        found=10, found_bytes=30, unchanged=6, unchanged_bytes=18, copied=4, copied_bytes=12
    )
    assert flaky.calls["write"] == 4
    assert {key: get(dst, key) for key in keys} == {key: get(src, key) for key in keys}
    assert get(dst, b"0005x") == b"extraneous"
    again = worker.run_slice(job("sync", 4), ALL, LONG, ALONE)
    assert (again.counts.unchanged, again.counts.copied) == (10, 0)


def test_cp_does_not_look_at_the_destination(
    use: Open, src: MemoryStorage, dst: MemoryStorage
) -> None:
    fill(src, 5)
    fill(dst, 5)
    use(src, FlakyStorage(dst, list=failing(always=AssertionError()), stat=failing()))
    assert worker.run_slice(job(), ALL, LONG, ALONE).counts.copied == 5


@pytest.mark.parametrize("command", ["cp", "sync"])
def test_a_dry_run_counts_and_writes_nothing(
    use: Open, src: MemoryStorage, dst: MemoryStorage, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    large_beyond(monkeypatch, 2)
    keys = fill(src, 10)
    put(dst, keys[0], get(src, keys[0]))
    untouched = dict.fromkeys(("write", "begin_upload", "sync", "delete"), failing(
        always=AssertionError("changed")))  # fmt: skip
    use(
        FlakyStorage(src, read=failing(always=AssertionError("read"))),
        FlakyStorage(dst, **untouched),
    )
    result = worker.run_slice(job(command, 4, dryrun=True), ALL, LONG, ALONE)
    same = 1 if command == "sync" else 0
    assert result.done
    assert result.large == []
    assert result.counts == Counts(
        found=10, found_bytes=30, unchanged=same, unchanged_bytes=3 * same,
        copied=10 - same, copied_bytes=30 - 3 * same,
    )  # fmt: skip


def test_a_dry_run_takes_a_destination_that_is_not_there_for_empty(
    use: Open, src: MemoryStorage, tmp_path: Path
) -> None:
    fill(src, 3)
    use(src, LocalStorage(parse(f"{tmp_path}/nothing/"), Options(), True))
    result = worker.run_slice(job("sync", dryrun=True), ALL, LONG, ALONE)
    assert (result.done, result.counts.copied) == (True, 3)
    result = worker.run_slice(job("sync"), ALL, LONG, ALONE)
    assert result.stop
    assert result.stop.kind == "NotFound"
    assert list(tmp_path.iterdir()) == []


def test_a_single_object_is_held_against_the_name_that_it_goes_to(
    use: Open, src: MemoryStorage, dst: MemoryStorage
) -> None:
    fill(src, 3)
    put(dst, b"0001", b"another")
    use(src, dst)
    one = job("sync", single=(b"0001", b"new"))
    for copied in (1, 0):
        result = worker.run_slice(one, one.keys, LONG, ALONE)
        assert result.done
        assert (result.counts.found, result.counts.copied) == (1, copied)
    assert keys_of(dst) == [b"0001", b"new"]
    assert get(dst, b"new") == get(src, b"0001")
    assert get(dst, b"0001") == b"another"


def test_large_objects_are_handed_back_in_bounds(
    use: Open, src: MemoryStorage, dst: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    large_beyond(monkeypatch, 5)
    monkeypatch.setattr("adsmig.findings.MOST_LARGE", 3)
    keys = fill(src, 10)
    for key in keys[::2]:
        put(src, key, b"larger")
    use(src, dst)
    result = worker.run_slice(job(threads=4), ALL, LONG, ALONE)
    assert [one.key for one in result.large] == [keys[0], keys[2], keys[4]]
    assert (result.cursor, result.done) == (keys[4], False)
    assert result.counts == Counts(found=5, found_bytes=24, copied=2, copied_bytes=6)
    assert keys_of(dst) == [keys[1], keys[3]]


def test_what_a_slice_has_done_so_far_is_shown(
    use: Open, src: MemoryStorage, dst: MemoryStorage, limits: Limits
) -> None:
    fill(src, 5)
    shown: list[int] = []

    def write(method: Any, *arguments: Any) -> Any:
        shown.append(limits.live().copied)
        return method(*arguments)

    use(src, FlakyStorage(dst, write=write))
    worker.run_slice(job(), ALL, LONG, Lease(limits.path, 3))
    assert shown == [0, 1, 2, 3, 4]
    assert limits.live().copied == 5


def test_cutting_a_range_asks_the_source(use: Open, src: MemoryStorage, dst: MemoryStorage) -> None:
    keys = fill(src, 1000, 0)
    use(src, dst)
    cuts = worker.cut_range(job(), ALL, 4)
    assert len(cuts) == 3
    assert set(cuts) < set(keys)


# The parts of a large object


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (memory, local):
        monkeypatch.setattr(module, "part_size_for", lambda _: 10)


LARGE = b"0123456789" * 4 + b"end"


@pytest.fixture
def large(small_parts: None, src: MemoryStorage) -> Entry:
    return put(src, b"large", LARGE)


def run_all(upload: Upload, threads: int = 1, budget: Budget = LONG) -> Any:
    numbers = tuple(range(1, upload.parts + 1))
    return worker.run_parts(job(threads=threads), upload, numbers, budget, ALONE)


@pytest.mark.parametrize(("most", "size"), [(5, 8), (4, 10)])
def test_the_parts_are_the_sources_own_if_the_destination_takes_so_many(
    use: Open,
    src: MemoryStorage,
    dst: MemoryStorage,
    large: Entry,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    size: int,
) -> None:
    use(src, dst)
    entry = large._replace(size=40, etag=f"{'0' * 32}-5")
    monkeypatch.setattr(MemoryStorage, "part_size", lambda *_: 8)
    monkeypatch.setattr(MemoryStorage, "meta", lambda *_: Meta())
    work = job()
    assert work.dst
    limits = ("min_part=1", f"max_parts={most}")
    work = replace(work, dst=replace(work.dst, overrides=limits))
    upload = worker.open_upload(work, entry, False, ALONE).upload
    assert upload
    assert upload.part_size == size


@THREADS
def test_an_object_in_parts_appears_when_all_are_there(
    use: Open, src: MemoryStorage, dst: MemoryStorage, large: Entry, threads: int
) -> None:
    use(src, dst)
    upload = worker.open_upload(job(), large, False, ALONE).upload
    assert upload
    result = run_all(upload, threads)
    assert sorted(part.number for part in result.parts) == [1, 2, 3, 4, 5]
    assert (result.sent, result.failure, result.changed, result.stop) == (43, None, False, None)
    assert keys_of(dst) == []
    parts = sorted(result.parts)
    outcome = worker.finish_upload(job(), upload, parts, "", ALONE).outcome
    assert outcome
    checksum = combined_checksum(upload, parts)
    assert outcome == Outcome(b"large", 43, large.stored_ns, large.etag, checksum)
    assert get(dst, b"large") == LARGE


def test_a_slice_of_parts_ends_when_its_time_is_up(
    use: Open, src: MemoryStorage, dst: MemoryStorage, large: Entry, clock: Clock
) -> None:
    use(src, FlakyStorage(dst, put_part=clock.taking(1.0)))
    upload = dst.begin_upload(b"large", large, Meta())
    assert [part.number for part in run_all(upload, budget=Budget(2.5, 1)).parts] == [1, 2, 3]
    assert [part.number for part in run_all(upload, budget=Budget(0, 1)).parts] == [1]


def test_parts_end_when_the_run_stops(
    use: Open, src: MemoryStorage, dst: MemoryStorage, large: Entry, limits: Limits
) -> None:
    def put_part(method: Any, key: bytes, upload: Upload, number: int, *rest: Any) -> Any:
        if number == 2:
            limits.stop()
        if number == 3:
            raise TransientError("lost")
        return method(key, upload, number, *rest)

    use(src, FlakyStorage(dst, put_part=put_part))
    upload = dst.begin_upload(b"large", large, Meta())
    lease = Lease(limits.path, 0)
    result = worker.run_parts(job(), upload, (1, 2, 3, 4), LONG, lease)
    assert [part.number for part in result.parts] == [1, 2]
    result = worker.run_parts(job(), upload, (3,), LONG, lease)
    assert (result.parts, result.failure, result.stop) == ([], None, None)


@THREADS
def test_an_error_leaves_the_other_parts_done(
    use: Open, src: MemoryStorage, dst: MemoryStorage, large: Entry, threads: int
) -> None:
    def put_part(method: Any, key: bytes, upload: Upload, number: int, *rest: Any) -> Any:
        if number == 3:
            raise StorageFull("no room")
        return method(key, upload, number, *rest)

    use(src, FlakyStorage(dst, put_part=put_part))
    result = run_all(dst.begin_upload(b"large", large, Meta()), threads)
    assert result.stop == Stop("no room", 3, "StorageFull")
    assert {1, 2} <= {part.number for part in result.parts} <= {1, 2, 4, 5}
    assert result.sent == sum(3 if part.number == 5 else 10 for part in result.parts)


def test_parts_that_could_not_be_flushed_are_not_done(
    use: Open, src: MemoryStorage, dst: MemoryStorage, large: Entry
) -> None:
    use(src, FlakyStorage(dst, sync=failing(StorageFull("no room"))))
    result = run_all(dst.begin_upload(b"large", large, Meta()))
    assert (result.parts, result.sent) == ([], 0)
    assert result.stop == Stop("no room", 3, "StorageFull")


def test_an_object_that_changes_between_its_parts_is_begun_anew(
    use: Open, src: MemoryStorage, dst: MemoryStorage, large: Entry
) -> None:
    use(src, dst)
    upload = dst.begin_upload(b"large", large, Meta())
    assert run_all(upload, budget=Budget(0, 1)).parts
    now = put(src, b"large", LARGE + b"more")
    result = run_all(upload)
    assert (result.changed, result.parts, result.failure, result.stop) == (True, [], None, None)
    again = worker.open_upload(job(), large, True, ALONE).upload
    assert again
    assert again.entry == now


def test_an_upload_that_is_gone_is_begun_anew(
    use: Open, src: MemoryStorage, dst: MemoryStorage, large: Entry
) -> None:
    use(src, dst)
    upload = dst.begin_upload(b"large", large, Meta())
    parts = run_all(upload).parts
    worker.abort_upload(job(), b"large", upload.upload_id)
    assert run_all(upload).changed
    found = worker.finish_upload(job(), upload, parts, "", ALONE)
    assert (found.upload, found.outcome, found.stop) == (None, None, None)


def test_an_object_that_changed_after_its_parts_is_not_completed(
    use: Open, src: MemoryStorage, dst: MemoryStorage, large: Entry
) -> None:
    use(src, dst)
    upload = dst.begin_upload(b"large", large, Meta())
    parts = run_all(upload).parts
    put(src, b"large", LARGE[::-1])
    found = worker.finish_upload(job(), upload, parts, "", ALONE)
    assert (found.upload, found.outcome, found.stop) == (None, None, None)
    assert keys_of(dst) == []


def damaging_parts(method: Any, key: bytes, upload: Upload, number: int, *rest: Any) -> Stored:
    """A store that keeps one part otherwise than it was sent, and tells no MD5s."""
    chunks, *sums = rest
    content = bytearray(b"".join(chunks))
    content[0] ^= number == 2
    stored: Stored = method(key, upload, number, iter([memoryview(content)]), *sums)
    return stored._replace(md5=None)


def test_a_large_object_that_is_not_what_was_sent_does_not_stay(
    use: Open, src: MemoryStorage, dst: MemoryStorage, large: Entry
) -> None:
    use(src, FlakyStorage(dst, put_part=damaging_parts))
    upload = dst.begin_upload(b"large", large, Meta())
    parts = sorted(run_all(upload).parts)
    outcome = worker.finish_upload(job(delete_src=True), upload, parts, "", ALONE).outcome
    assert outcome
    assert (outcome.kind, keys_of(dst)) == ("damaged", [])


def test_a_large_object_that_was_damaged_on_its_way_back_is_read_again(
    use: Open, src: MemoryStorage, dst: MemoryStorage, large: Entry
) -> None:
    dst.etag_is_md5 = False
    use(src, FlakyStorage(dst, read=corrupting(1)))
    upload = dst.begin_upload(b"large", large, Meta())
    parts = sorted(run_all(upload).parts)
    outcome = worker.finish_upload(job(delete_src=True), upload, parts, "", ALONE).outcome
    assert outcome
    assert (outcome.error, get(dst, b"large")) == ("", LARGE)


def test_a_part_is_tried_again_while_that_can_help(
    use: Open, src: MemoryStorage, dst: MemoryStorage, large: Entry
) -> None:
    flaky = FlakyStorage(dst, put_part=failing(*[TransientError("lost")] * (retry.TRIES - 1)))
    use(src, flaky)
    assert len(run_all(dst.begin_upload(b"large", large, Meta())).parts) == 5


def test_an_object_whose_parts_are_refused_is_a_failure(
    use: Open, src: MemoryStorage, dst: MemoryStorage, large: Entry
) -> None:
    use(src, FlakyStorage(dst, put_part=failing(always=ObjectError("denied", "no"))))
    result = run_all(dst.begin_upload(b"large", large, Meta()))
    assert result.stop is None
    assert result.failure
    assert (result.failure.key, result.failure.kind) == (b"large", "denied")


def test_an_object_whose_parts_never_arrive_is_a_failure_and_stops_no_run(
    use: Open, src: MemoryStorage, dst: MemoryStorage, large: Entry
) -> None:
    use(FlakyStorage(src, read=failing(always=TransientError("500"))), dst)
    result = run_all(dst.begin_upload(b"large", large, Meta()))
    assert result.stop is None
    assert result.failure
    assert result.failure.kind == "gave up"


def test_an_object_that_cannot_be_opened_or_finished_is_a_failure_and_stops_no_run(
    use: Open, src: MemoryStorage, dst: MemoryStorage, large: Entry
) -> None:
    error = TransientError("500")
    use(src, FlakyStorage(dst, begin_upload=failing(always=error), complete=failing(always=error)))
    upload = dst.begin_upload(b"large", large, Meta())
    for found in (
        worker.open_upload(job(), large, False, ALONE),
        worker.finish_upload(job(), upload, [], "", ALONE),
    ):
        assert found.stop is None
        assert found.outcome
        assert found.outcome.kind == "gave up"


def test_nobody_answering_stops_the_run(
    use: Open, src: MemoryStorage, dst: MemoryStorage, large: Entry
) -> None:
    nobody = failing(always=Unreachable("nobody is there"))
    names = ("begin_upload", "put_part", "complete")
    use(src, FlakyStorage(dst, **dict.fromkeys(names, nobody)))
    upload = dst.begin_upload(b"large", large, Meta())
    stop = Stop("nobody is there", 3, "Unreachable")
    assert worker.open_upload(job(), large, False, ALONE).stop == stop
    assert run_all(upload).stop == stop
    assert worker.finish_upload(job(), upload, [], "", ALONE).stop == stop


@pytest.mark.parametrize(
    ("error", "kind"), [(ObjectError("key", "no"), "key"), (NotFound("gone"), "vanished")]
)
def test_an_object_that_cannot_be_begun_is_a_failure(
    use: Open, src: MemoryStorage, dst: MemoryStorage, large: Entry, error: AdsmigError, kind: str
) -> None:
    use(src, FlakyStorage(dst, begin_upload=failing(always=error)))
    found = worker.open_upload(job(), large, False, ALONE)
    assert found.outcome
    assert (found.outcome.key, found.outcome.kind, found.stop) == (b"large", kind, None)


def test_an_object_that_changed_before_it_was_begun_is_looked_up_anew(
    use: Open, src: MemoryStorage, dst: MemoryStorage, large: Entry
) -> None:
    now = put(src, b"large", LARGE + b"more")
    use(src, dst)
    upload = worker.open_upload(job(), large, False, ALONE).upload
    assert upload
    assert upload.entry == now
    src.delete([b"large"])
    found = worker.open_upload(job(), large, False, ALONE).outcome
    assert found
    assert found.kind == "vanished"


def test_a_large_file_keeps_its_mode_and_time(use: Open, small_parts: None, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    file = tmp_path / "src" / "large"
    file.write_bytes(LARGE)
    file.chmod(0o640)
    os.utime(file, ns=(1, 1_700_000_000_123_456_789))
    src = local_storage(tmp_path / "src")
    use(src, local_storage(tmp_path / "dst", True))
    upload = worker.open_upload(job(), src.stat(b"large"), False, ALONE).upload
    assert upload
    assert not (tmp_path / "dst" / "large").exists()
    parts = sorted(run_all(upload, threads=4).parts)
    outcome = worker.finish_upload(job(), upload, parts, "", ALONE).outcome
    assert outcome
    copied = tmp_path / "dst" / "large"
    assert copied.read_bytes() == LARGE
    assert copied.stat().st_mode & 0o7777 == 0o640
    assert copied.stat().st_mtime_ns == outcome.mtime_ns == 1_700_000_000_123_456_789
