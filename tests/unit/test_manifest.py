"""The manifest: what was committed is there, whole, whatever the keys and whoever comes next."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlite_utils import Database

from adsmig import database as database_module
from adsmig import record as record_module
from adsmig.database import Database as ManifestFile
from adsmig.errors import DamagedManifest, ManifestError, StorageFull
from adsmig.job import Job
from adsmig.ledger import Run, default_path, jobs
from adsmig.manifest import TOGETHER, Manifest
from adsmig.model import (
    Counts,
    Deletion,
    DeletionResult,
    Entry,
    KeyRange,
    Known,
    Outcome,
    Part,
    PartsResult,
    SliceResult,
    Upload,
)
from adsmig.record import known_objects
from adsmig.schema import APPLICATION, SCHEMA, VERSION, from_db, keys_to_db, to_db
from adsmig.uri import parse

SECRETS = "AKIDSECRETID", "wJalrXUtnFEMIsecret", "sessiontokensecret"
ODD = [b"", b"a", b"a\x00b", b"\x00", b"\xff\xfe", b"\xed\xa0\x80", "💥/é".encode(), b"1", b"1.0",
       b"NULL", b"x'00'", b"a\n\r\tb", "\U0010ffff".encode(), b"k" * 1024]  # fmt: skip


@pytest.fixture
def job() -> Job:
    return Job("cp", parse("s3://{}:{}:{}@bucket.host/p/".format(*SECRETS)), parse("/dst/"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "state" / "m.db"


@pytest.fixture
def manifest(path: Path) -> Iterator[Manifest]:
    with Manifest(path, create=True) as opened:
        yield opened


def copied(key: bytes, size: int = 1) -> Outcome:
    return Outcome(key, size, 2, "etag", "xxh3:00")


def failed(key: bytes, kind: str = "denied") -> Outcome:
    return Outcome(key, 1, 2, None, None, f"{kind}, because", kind)


def result(cursor: bytes | None = b"k", done: bool = False, **fields: object) -> SliceResult:
    return replace(SliceResult(cursor, done, Counts()), **fields)  # type: ignore[arg-type]


def rows(path: Path, table: str) -> list[dict[str, object]]:
    """A table's rows, as somebody else sees them."""
    database = Database(path)
    try:
        return list(database[table].rows)
    finally:
        database.close()


def everything(path: Path) -> dict[str, list[dict[str, object]]]:
    return {table: rows(path, table) for table in SCHEMA}


# Round trips


@given(st.binary(max_size=30) | st.text(max_size=30).map(str.encode))
def test_keys_come_back_as_they_were(key: bytes) -> None:
    assert from_db(to_db(key)) == key


def test_text_keys_are_text_and_others_blobs() -> None:
    assert to_db("a\x00é".encode()) == "a\x00é"
    assert to_db(b"\xff") == b"\xff"


@given(st.lists(st.binary(max_size=3) | st.text("a\0é", max_size=3).map(str.encode)))
def test_many_keys_are_put_away_as_each_would_be(keys: list[bytes]) -> None:
    assert list(keys_to_db(keys)) == list(map(to_db, keys))


@given(
    st.sets(st.binary(max_size=8) | st.text(max_size=8).map(str.encode), max_size=8).map(sorted),
    st.integers(0, 2**62),
)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_keys_and_sizes_are_kept(keys: list[bytes], size: int) -> None:
    with Manifest(None) as manifest:
        run = manifest.begin_run("cp", [KeyRange(key, key, True) for key in keys])
        assert sorted(keys_ for _, keys_ in manifest.open_shards(run.id)) == [
            KeyRange(key, key, True) for key in keys
        ]
        outcomes = [failed(key)._replace(size=size) for key in keys]
        manifest.commit_slice(run.id, 1, result(outcomes=outcomes))
        assert sorted(one.key for one in manifest.failures()) == keys
        assert {one.size for one in manifest.failures()} <= {size}
        manifest.commit_slice(run.id, 1, result(outcomes=[copied(key) for key in keys]))
        assert list(manifest.failures()) == []


@pytest.mark.parametrize("key", ODD)
def test_everything_about_an_odd_key_is_there_after_reopening(
    path: Path, manifest: Manifest, job: Job, key: bytes
) -> None:
    manifest.set_job(job)
    run = manifest.begin_run("cp", [KeyRange(key, key + b"z", True)])
    shard = manifest.open_shards(run.id)[0][0]
    large = Entry(key + b"L", 1 << 42, None, 7, "etag-1")
    upload = Upload(large, "upload id", 1 << 24)
    part = Part(3, "part etag", "00ff", None)
    manifest.commit_slice(run.id, shard, result(key + b"c", outcomes=[failed(key)], large=[large]))
    manifest.commit_upload(large, upload, 2)
    manifest.commit_parts(run.id, large.key, PartsResult([part], 5))
    manifest.close()
    with Manifest(path) as again:
        assert again.job_json() == job.to_json()
        assert again.open_shards(run.id) == [(shard, KeyRange(key + b"c", key + b"z"))]
        assert [(one.key, one.kind, one.error) for one in again.failures()] == [
            (key, "denied", "denied, because")
        ]
        assert again.failure_kinds() == [("denied", 1, "denied, because")]
        assert again.pending_uploads() == [(large, upload, [part], 2)]


def test_objects_remember_what_was_copied(path: Path, manifest: Manifest) -> None:
    run = manifest.begin_run("cp", [KeyRange()])
    outcome = Outcome("é".encode(), 5, 123456789123456789, None, "xxh3:ab", seconds=1.5)
    manifest.commit_slice(run.id, 1, result(outcomes=[outcome]))
    assert rows(path, "objects") == [
        {"key": "é", "size": 5, "mtime_ns": 123456789123456789, "etag": None,
         "checksum": "xxh3:ab", "run": run.id, "seconds": 1.5}
    ]  # fmt: skip


# Runs


def test_a_new_manifest_has_no_job_and_no_run(manifest: Manifest) -> None:
    assert manifest.job_json() is None
    assert manifest.runs() == []
    assert manifest.unfinished_run() is None
    assert manifest.pending_uploads() == []


def test_a_run_is_unfinished_until_it_comes_to_its_end(manifest: Manifest) -> None:
    run = manifest.begin_run("cp", [KeyRange()])
    assert run.state == "running"
    assert manifest.unfinished_run() == run
    manifest.end_run(run.id, "stopped", "no room")
    stopped = manifest.unfinished_run()
    assert stopped
    assert (stopped.id, stopped.state, stopped.message) == (run.id, "stopped", "no room")
    manifest.resume_run(run.id)
    resumed = manifest.unfinished_run()
    assert resumed
    assert (resumed.state, resumed.resumed, resumed.message) == ("running", 1, "")
    manifest.end_run(run.id, "finished")
    assert manifest.unfinished_run() is None
    last = manifest.runs()[-1]
    assert last.ended is not None
    assert last.ended >= last.started
    assert manifest.begin_run("cp", [KeyRange()]).id > run.id


def test_counts_add_up_over_slices_and_large_objects(manifest: Manifest) -> None:
    run = manifest.begin_run("cp", [KeyRange()])
    counts = Counts(1, 2, 3, 4, 5, 6, 7)
    manifest.commit_slice(run.id, 1, result(counts=counts))
    manifest.commit_slice(run.id, 1, result(counts=counts))
    manifest.commit_large(run.id, copied(b"large", 1 << 40))
    manifest.commit_large(run.id, failed(b"other"))
    assert manifest.runs()[-1].counts == counts + counts + Counts(
        copied=1, copied_bytes=1 << 40, failed=1
    )


def test_a_new_run_has_nothing_of_an_older_one_left_to_do(manifest: Manifest) -> None:
    entry = Entry(b"large", 9, None, 0)
    run = manifest.begin_run("cp", [KeyRange()])
    manifest.commit_slice(run.id, 1, result(large=[entry]))
    manifest.commit_upload(entry, Upload(entry, "id", 4), 1)
    manifest.commit_parts(run.id, b"large", PartsResult([Part(1, "e", None, None)], 4))
    new = manifest.begin_run("cp", [KeyRange(b"x", None)])
    assert [keys for _, keys in manifest.open_shards(new.id)] == [KeyRange(b"x", None)]
    assert manifest.open_shards(run.id) == []
    assert manifest.pending_uploads() == []
    assert len(manifest.runs()) == 2


# Shards


def test_a_shard_goes_on_after_its_cursor_and_ends_when_done(manifest: Manifest) -> None:
    run = manifest.begin_run("cp", [KeyRange(b"", b"m", True), KeyRange(b"m", None)])
    (first, _), (second, _) = manifest.open_shards(run.id)
    manifest.commit_slice(run.id, first, result(b"c"))
    assert manifest.open_shards(run.id) == [
        (first, KeyRange(b"c", b"m")), (second, KeyRange(b"m", None))
    ]  # fmt: skip
    manifest.commit_slice(run.id, first, result(None))  # nothing was settled
    assert manifest.open_shards(run.id)[0] == (first, KeyRange(b"c", b"m"))
    manifest.commit_slice(run.id, second, result(b"z", done=True))
    assert manifest.open_shards(run.id) == [(first, KeyRange(b"c", b"m"))]
    manifest.commit_slice(run.id, first, result(None, done=True))
    assert manifest.open_shards(run.id) == []


def test_the_pieces_of_a_cut_cover_what_was_left(manifest: Manifest) -> None:
    run = manifest.begin_run("cp", [KeyRange(b"a", b"z", True)])
    shard = manifest.open_shards(run.id)[0][0]
    manifest.commit_slice(run.id, shard, result(b"c"))
    left = manifest.open_shards(run.id)[0][1]
    ids = manifest.commit_cut(run.id, shard, left, [b"g", b"m\xff"])
    assert ids[0] == shard
    assert manifest.open_shards(run.id) == list(
        zip(ids, [KeyRange(b"c", b"g"), KeyRange(b"g", b"m\xff"), KeyRange(b"m\xff", b"z")],
            strict=True)
    )  # fmt: skip


def test_a_cut_range_that_was_not_begun_keeps_its_first_key(manifest: Manifest) -> None:
    run = manifest.begin_run("cp", [KeyRange(b"a", None, True)])
    manifest.commit_cut(run.id, 1, KeyRange(b"a", None, True), [b"m"])
    assert [keys for _, keys in manifest.open_shards(run.id)] == [
        KeyRange(b"a", b"m", True), KeyRange(b"m", None)
    ]  # fmt: skip


def test_a_restarted_run_begins_with_all_keys_and_no_counts(manifest: Manifest, job: Job) -> None:
    manifest.set_job(job)
    earlier = manifest.begin_run("cp", [job.keys])
    manifest.commit_slice(earlier.id, 1, result(outcomes=[failed(b"before")]))
    run = manifest.begin_run("cp", [job.keys])
    shard = manifest.open_shards(run.id)[0][0]
    manifest.commit_slice(
        run.id, shard, result(counts=Counts(found=3), outcomes=[failed(b"now")], done=True)
    )
    manifest.restart_run(run.id, job.sorted_by_directory())
    assert [keys for _, keys in manifest.open_shards(run.id)] == [job.keys]
    assert manifest.runs()[-1].counts == Counts()
    assert [one.key for one in manifest.failures()] == [b"before"]
    text = manifest.job_json()
    assert text
    assert Job.from_json(text).by_directory


def test_a_restarted_retry_is_a_run_over_all_keys(manifest: Manifest, job: Job) -> None:
    manifest.set_job(job)
    run = manifest.begin_run("retry", [job.keys])
    manifest.restart_run(run.id, job)
    assert manifest.runs()[-1].kind == job.command


def test_a_restarted_run_lists_its_large_objects_anew(manifest: Manifest, job: Job) -> None:
    manifest.set_job(job)
    run = manifest.begin_run("cp", [job.keys])
    entry = Entry(b"large", 9, None, 0)
    manifest.commit_slice(run.id, 1, result(large=[entry]))
    manifest.commit_upload(entry, Upload(entry, "id", 4), 1)
    manifest.restart_run(run.id, job)
    assert manifest.pending_uploads() == []


# Large objects


def test_a_large_object_is_pending_from_its_listing_to_its_end(
    path: Path, manifest: Manifest
) -> None:
    run = manifest.begin_run("cp", [KeyRange()])
    entry = Entry(b"large", 10, 5, 6, None)
    upload = Upload(entry, "id", 4)
    manifest.commit_slice(run.id, 1, result(large=[entry]))
    assert manifest.pending_uploads() == [(entry, None, [], 0)]
    manifest.commit_upload(entry, upload, 1)
    manifest.commit_parts(run.id, b"large", PartsResult([Part(2, "b", "00", "ff")], 4))
    manifest.commit_parts(run.id, b"large", PartsResult([Part(1, "a", None, None)], 4))
    manifest.commit_parts(run.id, b"large", PartsResult([Part(2, "c", "01", "fe")], 4))
    parts = [Part(1, "a", None, None), Part(2, "c", "01", "fe")]
    assert manifest.pending_uploads() == [(entry, upload, parts, 1)]
    manifest.commit_large(run.id, copied(b"large", 10))
    assert manifest.pending_uploads() == []
    assert rows(path, "parts") == []
    assert [row["key"] for row in rows(path, "objects")] == ["large"]


def test_an_upload_begun_anew_has_no_parts(manifest: Manifest) -> None:
    run = manifest.begin_run("cp", [KeyRange()])
    entry = Entry(b"large", 10, 5, 6, None)
    manifest.commit_upload(entry, Upload(entry, "one", 4), 1)
    manifest.commit_parts(run.id, b"large", PartsResult([Part(1, "a", None, None)], 4))
    changed = entry._replace(size=11)
    manifest.commit_upload(changed, Upload(changed, "two", 4), 2)
    assert manifest.pending_uploads() == [(changed, Upload(changed, "two", 4), [], 2)]
    manifest.commit_upload(changed, None, 2)
    assert manifest.pending_uploads() == [(changed, None, [], 2)]


# What is to be removed

TREE = [b"d/", b"d/e/", b"d/e/x", b"d/y", b"f", b"\xff/", b"\xff/z", b"\xe9"]


def to_remove(key: bytes, at_source: bool = True, implied: bool = False) -> Deletion:
    return Deletion(key, len(key), 7, "etag", at_source, True, implied)


def removed(*gone: bytes, settled: bool = True, failures: Sequence[Outcome] = ()) -> DeletionResult:
    return DeletionResult(list(gone), settled, list(failures), None, 1, 0.0, 1.0)


def test_what_is_to_be_removed_comes_files_first_then_directories_from_the_last(
    manifest: Manifest,
) -> None:
    run = manifest.begin_run("sync", [KeyRange()])
    noted = [to_remove(key, implied=key == b"d/") for key in TREE]
    manifest.commit_slice(run.id, 1, result(deletions=noted))
    files = manifest.deletions(True, False, 0, 100)
    assert list(files.values()) == [one for one in noted if not one.key.endswith(b"/")]
    assert list(files) == sorted(files)
    directories = [one.key for one in manifest.deletions(True, True, 0, 100).values()]
    assert directories == [b"\xff/", b"d/e/", b"d/"]
    assert manifest.deletions(False, False, 0, 100) == {}
    assert manifest.deletions(False, True, 0, 100) == {}


@pytest.mark.parametrize("most", [1, 2, 3, 100])
def test_what_is_to_be_removed_comes_in_batches_each_once(manifest: Manifest, most: int) -> None:
    run = manifest.begin_run("sync", [KeyRange()])
    keys = [b"%d" % number for number in range(5)] + [b"\xff%d" % number for number in range(5)]
    manifest.commit_slice(run.id, 1, result(deletions=[to_remove(key) for key in keys]))
    seen, past = list[bytes](), 0
    while batch := manifest.deletions(True, False, past, most):
        assert len(batch) <= most
        seen += [one.key for one in batch.values()]
        past = max(batch)
    assert seen == keys


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("directories", [False, True])
def test_what_is_to_be_removed_next_is_found_without_looking_at_all_of_it(
    path: Path, first: Path, directories: bool, old: bool
) -> None:
    """However many there are: directories that are looked at for each batch take hours."""
    asked: list[str] = []
    with Manifest(first if old else path, create=True) as manifest:
        manifest._connection.set_trace_callback(asked.append)
        manifest.deletions(True, directories, 7, 9)
        manifest._connection.set_trace_callback(None)
        (query,) = asked
        plan = manifest._connection.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()
    (how,) = [line for *_, line in plan]
    assert "USING INDEX deletions_of_" in how


def test_both_sides_are_told_apart_and_implied_directories_do_not_count(
    manifest: Manifest,
) -> None:
    run = manifest.begin_run("sync", [KeyRange()])
    noted = [to_remove(b"a"), to_remove(b"b", False), to_remove(b"c/", False),
             to_remove(b"d/", False, implied=True), to_remove(b"\xff", False)]  # fmt: skip
    manifest.commit_slice(run.id, 1, result(deletions=noted))
    assert manifest.count_deletions(True) == 1
    assert manifest.count_deletions(False) == 3
    manifest.drop_deletions()
    assert manifest.count_deletions(True) == manifest.count_deletions(False) == 0


NAMED = (st.binary(max_size=5) | st.text(max_size=5).map(str.encode)).filter(bool)


@given(
    st.sets(NAMED, max_size=9),
    st.integers(-(2**80), 2**80),
)
@settings(max_examples=50)
def test_any_key_is_removed_as_it_was_noted(keys: set[bytes], time_ns: int) -> None:
    with Manifest(None) as manifest:
        run = manifest.begin_run("rm", [KeyRange()])
        noted = [to_remove(key)._replace(time_ns=time_ns) for key in sorted(keys)]
        manifest.commit_slice(run.id, 1, result(deletions=noted))
        kept = max(-(2**63), min(time_ns, 2**63 - 1))
        for directories in (False, True):
            found = manifest.deletions(True, directories, 0, 100)
            order = sorted(key for key in keys if key.endswith(b"/") == directories)
            assert [one.key for one in found.values()] == (order[::-1] if directories else order)
            assert all(one.time_ns == kept for one in found.values())
            manifest.commit_deletions(run.id, found, removed(*(d.key for d in found.values())))
        assert manifest.count_deletions(True) == 0
        assert manifest.runs()[-1].counts.deleted == len(keys)


def test_the_object_without_a_name_of_its_own_is_removed_too(manifest: Manifest) -> None:
    run = manifest.begin_run("rm", [KeyRange()])
    manifest.commit_slice(run.id, 1, result(deletions=[to_remove(b"")]))
    assert [one.key for one in manifest.deletions(True, False, 0, 9).values()] == [b""]


def test_what_was_removed_is_counted_and_forgotten(path: Path, manifest: Manifest) -> None:
    run = manifest.begin_run("sync", [KeyRange()])
    noted = [to_remove(key, False, implied=key.endswith(b"/")) for key in TREE]
    manifest.commit_slice(
        run.id, 1, result(deletions=noted, outcomes=[copied(b"f"), copied(b"d/y"), copied(b"\xff")])
    )
    files = manifest.deletions(False, False, 0, 100)
    counts = manifest.commit_deletions(
        run.id, files, removed(b"f", b"d/e/x", b"\xff/z", failures=[failed(b"d/y", "not deleted")])
    )
    assert counts == Counts(failed=1, deleted=3, deleted_bytes=1 + 5 + 3)
    directories = manifest.deletions(False, True, 0, 100)
    assert manifest.commit_deletions(run.id, directories, removed(b"d/", b"d/e/")) == Counts()
    assert manifest.runs()[-1].counts == counts
    # What came back at the source is neither gone nor a failure, and not tried again.
    assert manifest.deletions(False, False, 0, 100) == {}
    assert manifest.deletions(False, True, 0, 100) == {}
    assert [(one.key, one.kind) for one in manifest.failures()] == [(b"d/y", "not deleted")]
    # What is gone from the destination is no longer one that was copied.
    assert [row["key"] for row in rows(path, "objects")] == ["d/y", b"\xff"]


def test_what_was_removed_at_the_source_stays_known_as_copied(manifest: Manifest) -> None:
    run = manifest.begin_run("cp", [KeyRange()])
    manifest.commit_slice(run.id, 1, result(deletions=[to_remove(b"a")], outcomes=[copied(b"a")]))
    manifest.commit_deletions(run.id, manifest.deletions(True, False, 0, 9), removed(b"a"))
    assert [key for key, *_ in manifest.known(b"", True, "text", 9)] == [b"a"]


def test_what_was_not_settled_is_left_to_be_removed(manifest: Manifest) -> None:
    run = manifest.begin_run("rm", [KeyRange()])
    keys = [b"a", b"b", b"\xff"]
    manifest.commit_slice(run.id, 1, result(deletions=[to_remove(key) for key in keys]))
    batch = manifest.deletions(True, False, 0, 9)
    counts = manifest.commit_deletions(run.id, batch, removed(b"b", settled=False))
    assert (counts.deleted, counts.deleted_bytes) == (1, 1)
    left = manifest.deletions(True, False, 0, 9)
    assert [one.key for one in left.values()] == [b"a", b"\xff"]
    assert left.items() < batch.items()


def test_a_large_object_is_to_be_removed_once_it_was_copied(manifest: Manifest) -> None:
    run = manifest.begin_run("cp", [KeyRange()])
    manifest.commit_slice(run.id, 1, result(large=[Entry(b"large", 10, 5, 6, None)]))
    assert manifest.count_deletions(True) == 0
    manifest.commit_large(run.id, copied(b"large", 10), [to_remove(b"large")])
    assert [one.key for one in manifest.deletions(True, False, 0, 9).values()] == [b"large"]


def test_a_new_or_restarted_run_removes_nothing_of_before(manifest: Manifest, job: Job) -> None:
    manifest.set_job(job)
    for begin_anew in (
        lambda run: manifest.begin_run("cp", [job.keys]),
        lambda run: manifest.restart_run(run, job),
    ):
        run = manifest.begin_run("cp", [job.keys])
        noted = result(deletions=[to_remove(b"a"), to_remove(b"b", False)], links=[b"l"],
                       directories=[b"d/"])  # fmt: skip
        manifest.commit_slice(run.id, 1, noted)
        begin_anew(run.id)
        assert manifest.count_deletions(True) == manifest.count_deletions(False) == 0
        assert list(manifest.links()) == []
        assert manifest.directories(9) == []


def test_links_and_directories_are_noted_once_in_order(manifest: Manifest) -> None:
    run = manifest.begin_run("cp", [KeyRange()])
    for _ in range(2):
        manifest.commit_slice(
            run.id, 1, result(links=[b"b", b"\xff", b"a"], directories=[b"d/", b"d/e/", b"\xff/"])
        )
    assert list(manifest.links()) == [b"a", b"b", b"\xff"]
    assert manifest.directories(2) == [b"\xff/", b"d/e/"]
    manifest.commit_directories(run.id, [b"\xff/", b"d/e/"], [failed(b"d/e/")])
    assert manifest.directories(9) == [b"d/"]
    assert [one.key for one in manifest.failures()] == [b"d/e/"]
    assert manifest.runs()[-1].counts == Counts(failed=1)


# What is known to have been copied


@given(
    st.sets(st.binary(max_size=4) | st.text(max_size=4).map(str.encode), max_size=12),
    st.binary(max_size=4) | st.text(max_size=4).map(str.encode),
    st.none() | st.binary(max_size=4),
    st.booleans(),
    st.integers(1, 4),
)
@example({b"a", "é".encode(), b"\xff", b"\xc3"}, b"\xc3", None, False, 1)
@settings(max_examples=150, deadline=None)
def test_what_was_copied_is_listed_in_the_order_of_keys(
    keys: set[bytes], after: bytes, upto: bytes | None, closed: bool, page: int
) -> None:
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_module, "PAGE", page)
        path = Path(directory, "m.db")
        with Manifest(path, create=True) as manifest:
            run = manifest.begin_run("cp", [KeyRange()])
            manifest.commit_slice(run.id, 1, result(outcomes=[copied(key, 3) for key in keys]))
            # Every range that begins at a key, and the one that was drawn.
            for within in [KeyRange(after, upto, closed), *(KeyRange(key, upto) for key in keys)]:
                assert list(known_objects(str(path), within)) == [
                    Entry(key, 3, 2, 2, "etag") for key in sorted(keys) if key in within
                ]


def test_what_was_found_equal_keeps_the_checksum_of_the_same_source(
    path: Path, manifest: Manifest
) -> None:
    run = manifest.begin_run("cp", [KeyRange()])
    manifest.commit_slice(run.id, 1, result(outcomes=[copied(b"a"), copied(b"b"), copied(b"c")]))
    equal = [("a", 1, 2, "etag"), ("b", 1, 3, "etag"), ("c", 1, 2, None), (b"\xff", 9, 8, None)]
    manifest.commit_slice(run.id, 1, result(equal=Known(*zip(*equal, strict=True))))
    assert [(row["key"], row["mtime_ns"], row["checksum"]) for row in rows(path, "objects")] == [
        ("a", 2, "xxh3:00"), ("b", 3, None), ("c", 2, None), (b"\xff", 8, None)
    ]  # fmt: skip


def test_all_that_was_found_equal_is_on_record_however_many(path: Path, manifest: Manifest) -> None:
    run = manifest.begin_run("cp", [KeyRange()])
    count = 2 * TOGETHER + 7
    equal = [(f"{number:04d}", number, 2, None) for number in range(count)]
    manifest.commit_slice(run.id, 1, result(equal=Known(*zip(*equal, strict=True))))
    assert [(row["key"], row["size"], row["run"]) for row in rows(path, "objects")] == [
        (key, size, run.id) for key, size, *_ in equal
    ]


# Failures


def test_a_failure_lasts_until_its_key_is_copied(manifest: Manifest) -> None:
    run = manifest.begin_run("cp", [KeyRange()])
    manifest.commit_slice(run.id, 1, result(outcomes=[failed(b"a"), failed(b"b", "key")]))
    manifest.commit_slice(run.id, 1, result(outcomes=[failed(b"a", "gave up")]))
    assert [(one.key, one.kind) for one in manifest.failures()] == [
        (b"a", "gave up"), (b"b", "key")
    ]  # fmt: skip
    manifest.commit_slice(run.id, 1, result(outcomes=[copied(b"a")]))
    assert [one.key for one in manifest.failures()] == [b"b"]
    manifest.commit_large(run.id, copied(b"b"))
    assert list(manifest.failures()) == []


def test_failures_of_earlier_runs_are_forgotten_at_the_end_of_a_finished_one(
    manifest: Manifest,
) -> None:
    run = manifest.begin_run("cp", [KeyRange()])
    manifest.commit_slice(run.id, 1, result(outcomes=[failed(b"gone"), failed(b"still")]))
    manifest.end_run(run.id, "finished")
    assert [one.key for one in manifest.failures()] == [b"gone", b"still"]
    new = manifest.begin_run("cp", [KeyRange()])
    manifest.commit_slice(new.id, 2, result(outcomes=[failed(b"still")]))
    manifest.end_run(new.id, "stopped")
    assert [one.key for one in manifest.failures()] == [b"gone", b"still"]
    manifest.end_run(new.id, "finished")
    assert [one.key for one in manifest.failures()] == [b"still"]


def test_kinds_of_failure_are_counted_most_frequent_first(manifest: Manifest) -> None:
    run = manifest.begin_run("cp", [KeyRange()])
    outcomes = [failed(b"a", "key"), *(failed(b"%d" % number) for number in range(3))]
    manifest.commit_slice(run.id, 1, result(outcomes=outcomes))
    assert manifest.failure_kinds() == [
        ("denied", 3, "denied, because"), ("key", 1, "key, because")
    ]  # fmt: skip


# One transaction a checkpoint


@pytest.mark.parametrize("table", ["objects", "failures", "uploads", "slices", "runs"])
def test_a_checkpoint_that_fails_half_way_leaves_nothing(
    path: Path, manifest: Manifest, table: str
) -> None:
    run = manifest.begin_run("cp", [KeyRange()])
    manifest.commit_slice(run.id, 1, result(b"a", outcomes=[copied(b"a")]))
    before = everything(path)
    verb = "UPDATE" if table == "runs" else "INSERT"
    with sqlite3.connect(path) as other:
        other.execute(
            f"CREATE TRIGGER broken BEFORE {verb} ON {table} BEGIN SELECT RAISE(FAIL, 'no'); END"
        )
    checkpoint = result(
        b"m", True, counts=Counts(found=3), outcomes=[copied(b"b"), failed(b"c")],
        large=[Entry(b"d", 9, None, 0)],
    )  # fmt: skip
    with pytest.raises(ManifestError):
        manifest.commit_slice(run.id, 1, checkpoint)
    assert everything(path) == before
    other.execute("DROP TRIGGER broken")
    other.close()
    manifest.commit_slice(run.id, 1, checkpoint)
    assert manifest.open_shards(run.id) == []
    assert [row["key"] for row in rows(path, "objects")] == ["a", "b"]
    assert manifest.runs()[-1].counts == Counts(found=3)


def test_what_is_committed_is_seen_by_others_at_once(path: Path, manifest: Manifest) -> None:
    run = manifest.begin_run("cp", [KeyRange()])
    manifest.commit_slice(run.id, 1, result(b"\xff", outcomes=[copied(b"\xff")]))
    assert rows(path, "shards")[0]["cursor"] == b"\xff"
    assert rows(path, "objects")[0]["key"] == b"\xff"
    assert rows(path, "slices")[0]["run"] == run.id


def test_a_full_disk_says_so_and_loses_nothing(path: Path, manifest: Manifest) -> None:
    run = manifest.begin_run("cp", [KeyRange()])
    manifest.commit_slice(run.id, 1, result(b"a", outcomes=[copied(b"a")]))
    before = everything(path)
    connection = manifest._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count={pages}")
    many = result(b"z", True, outcomes=[copied(b"%0100d" % number) for number in range(2000)])
    with pytest.raises(StorageFull) as caught:
        manifest.commit_slice(run.id, 1, many)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert everything(path) == before
    connection.execute("PRAGMA max_page_count=1000000")
    manifest.commit_slice(run.id, 1, many)
    assert len(rows(path, "objects")) == 2001


# The job


def test_a_manifest_keeps_to_one_job(manifest: Manifest, job: Job) -> None:
    manifest.set_job(job)
    manifest.set_job(replace(job, threads=99))
    text = manifest.job_json()
    assert text
    assert Job.from_json(text).threads == 99
    for other in (replace(job, start=b"a"), replace(job, command="verify")):
        with pytest.raises(ManifestError, match="another job, cp s3") as caught:
            manifest.set_job(other)
        assert not any(secret in str(caught.value) for secret in SECRETS)
    assert Job.from_json(manifest.job_json() or "").command == "cp"


def test_cp_and_sync_of_the_same_places_share_a_manifest(
    path: Path, manifest: Manifest, job: Job
) -> None:
    manifest.set_job(job)
    manifest.set_job(replace(job, command="sync", delete_dst=True))
    kept = Job.from_json(manifest.job_json() or "")
    assert (kept.command, kept.delete_dst) == ("sync", True)
    assert [row["command"] for row in rows(path, "job")] == ["sync"]


def test_no_secret_is_in_any_file_of_the_manifest(path: Path, manifest: Manifest, job: Job) -> None:
    manifest.lock()
    manifest.set_job(job)
    run = manifest.begin_run("cp", [job.keys])
    manifest.commit_slice(run.id, 1, result(outcomes=[failed(b"a")]))
    manifest.end_run(run.id, "stopped", "why")
    written = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    assert {"m.db", "m.db-wal", "m.db.lock"} <= set(written)
    assert any(b"bucket.host" in content for content in written.values())
    for secret in SECRETS:
        assert not any(secret.encode() in content for content in written.values())


# Damage


@pytest.mark.parametrize("table", ["objects", "shards"])
def test_of_a_large_manifest_the_vital_tables_are_looked_at(
    path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    with Manifest(path, create=True) as manifest:
        manifest.lock()
        ranges = [KeyRange(b"%0200d" % number, None) for number in range(500)]
        run = manifest.begin_run("cp", ranges)
        outcomes = [copied(b"%0200d" % number) for number in range(500)]
        manifest.commit_slice(run.id, 1, result(outcomes=outcomes))
        query = f"SELECT pageno FROM dbstat WHERE name = '{table}' AND pagetype = 'leaf' LIMIT 1"
        try:
            (page,) = manifest._connection.execute(query).fetchone()
        except sqlite3.Error:
            pytest.skip("this SQLite tells no pages")
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xaa" * 4096)
    monkeypatch.setattr(database_module, "SMALL", 0)
    with Manifest(path) as manifest:
        manifest.lock()
        if table == "objects":
            manifest.check()
        with pytest.raises(DamagedManifest, match="rebuild-manifest"):
            manifest.check(thoroughly=table == "objects")


# Files


def test_the_files_are_the_users_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        with Manifest(path, create=True) as manifest:
            manifest.lock()
            manifest.begin_run("cp", [KeyRange()])
            modes = {file: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert len(modes) >= 3
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_other_tools_find_the_documented_tables(path: Path, manifest: Manifest) -> None:
    database = Database(path)
    assert set(database.table_names()) == set(SCHEMA)
    for name, (columns, key) in SCHEMA.items():
        assert list(database[name].columns_dict) == list(columns)
        assert database[name].pks == ([key] if isinstance(key, str) else list(key))
    assert database.execute("PRAGMA user_version").fetchone() == (VERSION,)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()
    assert manifest.runs() == []


def test_text_keys_sort_by_their_bytes(path: Path, manifest: Manifest) -> None:
    keys = sorted(key for key in ODD if isinstance(to_db(key), str))
    run = manifest.begin_run("cp", [KeyRange()])
    manifest.commit_slice(run.id, 1, result(outcomes=[copied(key) for key in reversed(keys)]))
    database = Database(path)
    found = database.execute("SELECT key FROM objects ORDER BY key").fetchall()
    database.close()
    assert [from_db(key) for (key,) in found] == keys


def test_in_memory_it_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Manifest(None, create=True) as manifest:
        manifest.lock()
        run = manifest.begin_run("cp", [KeyRange()])
        assert manifest.open_shards(run.id)
    assert list(tmp_path.iterdir()) == []


def test_the_usual_place_is_the_state_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: Job
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_path(job) == tmp_path / "adsmig" / "jobs" / f"{job.id}.db"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_path(job) == tmp_path / ".local/state/adsmig/jobs" / f"{job.id}.db"


def test_the_jobs_of_the_state_directory_are_listed_with_those_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: Job
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert list(jobs()) == []
    with Manifest(default_path(job), create=True) as manifest:
        manifest.set_job(job)
    broken = default_path(job).with_name("0broken.db")
    broken.write_bytes(b"no database " * 100)
    seen = [
        (path, one if isinstance(one, ManifestError) else one.job_json()) for path, one in jobs()
    ]
    assert [path for path, _ in seen] == [broken, default_path(job)]
    assert isinstance(seen[0][1], ManifestError)
    assert seen[1][1] == job.to_json()


# What a power cut leaves


@pytest.mark.parametrize("new", [True, False])
def test_each_commit_is_durable_before_it_returns(tmp_path: Path, new: bool) -> None:
    path = tmp_path / "m.db"
    if not new:
        ManifestFile(path, create=True).close()
    database = ManifestFile(path, create=new)
    try:
        full = 2
        # sqlite.org/pragma.html: in WAL mode, the log is synced after each transaction, and all
        # before a checkpoint.
        assert database.connection.execute("PRAGMA synchronous").fetchone() == (full,)
        assert database.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        with database.transaction():
            assert database.connection.execute("PRAGMA synchronous").fetchone() == (full,)
    finally:
        database.close()


# Who may use it


def test_a_manifest_in_use_says_who_has_it(path: Path, manifest: Manifest) -> None:
    code = (
        "import sys; from pathlib import Path; from adsmig.manifest import Manifest\n"
        f"manifest = Manifest(Path({str(path)!r})); manifest.lock()\n"
        "print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(ManifestError) as caught:
            manifest.lock()
        said = str(caught.value)
        assert f"process {holder.pid} on {os.uname().nodename}" in said
        assert str(path) in said
        assert "\n" not in said
        assert manifest.runs() == []  # reading is free
        holder.kill()
    manifest.lock()  # the dead keep nothing


def test_closing_lets_go_of_the_lock(path: Path, manifest: Manifest) -> None:
    manifest.lock()
    with Manifest(path) as second:
        with pytest.raises(ManifestError, match=f"process {os.getpid()}"):
            second.lock()
        manifest.close()
        second.lock()


def test_a_run_that_nobody_is_at_work_on_is_seen_as_interrupted(manifest: Manifest) -> None:
    for _ in range(2):
        manifest.begin_run("cp", [KeyRange()])
    runs, pid = manifest.runs_seen()
    assert ([run.state for run in runs], pid) == (["interrupted", "interrupted"], None)
    manifest.lock()
    runs, pid = manifest.runs_seen()
    assert ([run.state for run in runs], pid) == (["interrupted", "running"], os.getpid())
    manifest.end_run(runs[-1].id, "finished")
    assert [run.state for run in manifest.runs_seen()[0]] == ["interrupted", "finished"]
    assert [run.state for run in manifest.runs()] == ["running", "finished"]


def test_a_lock_that_cannot_be_made_says_why(path: Path, manifest: Manifest) -> None:
    lock = path.with_name(path.name + ".lock")
    lock.unlink()
    lock.mkdir()
    with pytest.raises(ManifestError) as caught:
        manifest.lock()
    assert str(path) in str(caught.value)


# What is no manifest


def test_a_manifest_that_is_not_there_is_not_made_by_looking(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no manifest at"):
        Manifest(tmp_path / "m.db")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file" / "m.db", tmp_path):
        with pytest.raises(ManifestError, match="cannot write the manifest") as caught:
            Manifest(path, create=True)
        assert "\n" not in str(caught.value)


def test_many_may_open_a_new_manifest_at_once(tmp_path: Path) -> None:
    for number in range(10):
        path = tmp_path / f"{number}.db"

        def make(path: Path = path) -> None:
            Manifest(path, create=True).close()

        with ThreadPoolExecutor(6) as threads:
            for future in [threads.submit(make) for _ in range(6)]:
                future.result()


def test_a_newer_schema_is_refused(path: Path, manifest: Manifest) -> None:
    manifest.close()
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version={VERSION + 1}")
    database.close()
    with pytest.raises(ManifestError, match="newer adsmig"):
        Manifest(path)


@pytest.mark.parametrize("create", [False, True])
def test_a_database_of_something_else_is_refused_and_left_alone(
    tmp_path: Path, create: bool
) -> None:
    path = tmp_path / "photos.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE photos (id)")
    database.close()
    before = path.read_bytes()
    with pytest.raises(ManifestError, match="something else"):
        Manifest(path, create=create)
    assert path.read_bytes() == before


def use(path: Path) -> None:
    """Everything a command does with a manifest."""
    with Manifest(path) as manifest:
        manifest.job_json()
        run = manifest.unfinished_run() or manifest.begin_run("cp", [KeyRange()])
        manifest.open_shards(run.id)
        manifest.pending_uploads()
        manifest.failure_kinds()
        list(manifest.failures())
        manifest.resume_run(run.id)
        manifest.commit_slice(run.id, 1, result(b"zz", outcomes=[copied(b"zz")]))
        manifest.end_run(run.id, "finished")


@pytest.fixture
def real(path: Path, manifest: Manifest, job: Job) -> bytes:
    """The content of a manifest of many pages."""
    manifest.set_job(job)
    run = manifest.begin_run("cp", [KeyRange()])
    for start in range(0, 1000, 100):
        outcomes = [
            (copied if number % 5 else failed)(b"%050d" % number)
            for number in range(start, start + 100)
        ]
        manifest.commit_slice(run.id, 1, result(outcomes[-1].key, outcomes=outcomes))
    manifest.close()
    return path.read_bytes()


VERSION_1 = """
CREATE TABLE job (id TEXT PRIMARY KEY, command TEXT, src TEXT, dst TEXT, job TEXT, created FLOAT);
CREATE TABLE runs (id INTEGER PRIMARY KEY, kind TEXT, state TEXT, started FLOAT, ended FLOAT,
    resumed INTEGER, found INTEGER, found_bytes INTEGER, unchanged INTEGER, unchanged_bytes INTEGER,
    copied INTEGER, copied_bytes INTEGER, failed INTEGER, message TEXT);
CREATE TABLE shards (id INTEGER PRIMARY KEY, run INTEGER, after TEXT, upto TEXT, closed INTEGER,
    cursor TEXT, done INTEGER);
CREATE TABLE slices (id INTEGER PRIMARY KEY, run INTEGER, shard INTEGER, worker INTEGER,
    started FLOAT, ended FLOAT, found INTEGER, copied INTEGER, failed INTEGER, bytes INTEGER);
CREATE TABLE uploads (key TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, stored_ns INTEGER,
    etag TEXT, upload_id TEXT, part_size INTEGER, tries INTEGER);
CREATE TABLE parts (key TEXT, number INTEGER, etag TEXT, checksum TEXT, md5 TEXT,
    PRIMARY KEY (key, number));
CREATE TABLE failures (key TEXT PRIMARY KEY, run INTEGER, kind TEXT, error TEXT, size INTEGER,
    at FLOAT);
CREATE TABLE objects (key TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, etag TEXT,
    checksum TEXT, run INTEGER);
INSERT INTO runs VALUES (1, 'sync', 'stopped', 5.0, 6.0, 2, 9, 90, 3, 30, 4, 40, 1, 'no room');
INSERT INTO shards VALUES (1, 1, '', NULL, 1, 'k', 0);
INSERT INTO uploads VALUES ('large', 10, 5, 6, NULL, 'id', 4, 1);
INSERT INTO parts VALUES ('large', 1, 'a', NULL, NULL);
INSERT INTO failures VALUES ('bad', 1, 'denied', 'not allowed', 7, 5.5);
INSERT INTO objects VALUES ('a', 1, 2, 'etag', 'xxh3:00', 1);
PRAGMA user_version=1;
"""
JOB_1 = """{"command": "sync", "src": {"path": "p/", "scheme": "s3", "bucket": "b", "host": "h",
"path_style": false, "https": true, "region": "", "trailing_slash": true}, "dst": {"path": "/dst",
"scheme": "file", "bucket": "", "host": "", "path_style": false, "https": false, "region": "",
"trailing_slash": true}, "single": null, "start": null, "end": null, "threads": 10, "workers": 2,
"bwlimit_mbps": 0, "connect_timeout_s": 10, "read_timeout_s": 60, "by_directory": false}"""


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A manifest as the first version of adsmig left it, with an unfinished run."""
    path = tmp_path / "first.db"
    with sqlite3.connect(path) as database:
        database.executescript(VERSION_1)
        database.execute(
            "INSERT INTO job VALUES ('0123456789', 'sync', 's3://b.h/p/', '/dst', ?, 1.0)",
            (JOB_1,),
        )
    database.close()
    return path


def test_a_manifest_of_the_first_version_is_brought_up_to_date(first: Path) -> None:
    with Manifest(first) as manifest:
        assert manifest.runs() == [
            Run(1, "sync", "stopped", 5.0, 6.0, 2, Counts(9, 90, 3, 30, 4, 40, 1), "no room", "")
        ]
        assert manifest.open_shards(1) == [(1, KeyRange(b"k", None))]
        (pending,) = manifest.pending_uploads()
        assert (pending.entry.key, pending.parts) == (b"large", [Part(1, "a", None, None)])
        assert [one.key for one in manifest.failures()] == [b"bad"]
        assert manifest.known(b"", True, "text", 9) == [(b"a", 1, 2, "etag")]
        assert manifest.known_checksums(b"", True, "text", 9) == [(b"a", 1, 2, "xxh3:00")]
        assert manifest.slowest(1, 9) == []
        # And it can go on.
        counts = Counts(1, 1, 0, 0, 1, 1, 0, 2, 3, 4, 5)
        manifest.commit_slice(1, 1, result(b"z", True, counts=counts, deletions=[to_remove(b"x")],
                                           outcomes=[copied(b"b")]))  # fmt: skip
        assert manifest.runs()[-1].counts == Counts(10, 91, 3, 30, 5, 41, 1, 2, 3, 4, 5)
        assert manifest.count_deletions(True) == 1
        assert manifest.begin_run("sync", [KeyRange()], "manner").manner == "manner"
    database = Database(first)
    assert {name: set(database[name].columns_dict) for name in database.table_names()} == {
        name: set(columns) for name, (columns, _) in SCHEMA.items()
    }
    assert database.execute("PRAGMA user_version").fetchone() == (VERSION,)
    assert database.execute("PRAGMA application_id").fetchone() == (APPLICATION,)
    database.close()
    with Manifest(first) as again:
        assert len(again.runs()) == 2


def test_an_upgrade_that_fails_half_way_leaves_the_first_version(
    first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(SCHEMA, "zz", ({"id": "no type"}, "id"))
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever it is
            Manifest(first)
    with sqlite3.connect(first) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (1,)
        columns = [row[1] for row in database.execute("PRAGMA table_info(runs)")]
    database.close()
    assert "manner" not in columns
    with Manifest(first) as manifest:
        assert len(manifest.runs()) == 1


def test_the_job_of_a_manifest_of_the_first_version_can_be_read(first: Path) -> None:
    with Manifest(first) as manifest:
        job = Job.from_json(manifest.job_json() or "")
    assert (job.command, job.src.bucket) == ("sync", "b")


@pytest.mark.parametrize("version", [0, 1, VERSION])
def test_a_database_of_something_else_is_told_by_its_tables_and_its_id(
    tmp_path: Path, version: int
) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE job (id)")
        database.execute("CREATE TABLE runs (id)")
        database.execute(f"PRAGMA user_version={version}")
        database.execute("PRAGMA application_id=12345")
    database.close()
    before = path.read_bytes()
    for create in (False, True):
        with pytest.raises(ManifestError, match="something else"):
            Manifest(path, create=create)
    assert path.read_bytes() == before


def test_a_manifest_tells_other_tools_what_it_is(path: Path, manifest: Manifest) -> None:
    manifest.close()
    assert path.read_bytes()[68:72] == APPLICATION.to_bytes(4, "big") == b"ADS1"


def test_random_bytes_are_no_manifest(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    for content in (
        b"no manifest",
        os.urandom(100_000),
        b"SQLite format 3\x00" + os.urandom(50_000),
    ):
        path.write_bytes(content)
        with pytest.raises(ManifestError) as caught:
            use(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert path.read_bytes() == content


@pytest.mark.parametrize("share", [0.001, 0.05, 0.3, 0.5, 0.9])
def test_a_manifest_cut_short_is_an_error_in_one_line(
    tmp_path: Path, real: bytes, share: float
) -> None:
    path = tmp_path / "m.db"
    path.write_bytes(real[: int(len(real) * share)])
    with pytest.raises(ManifestError) as caught:
        use(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_manifest_with_a_page_of_rubbish_is_an_error_in_one_line(
    tmp_path: Path, real: bytes
) -> None:
    path = tmp_path / "m.db"
    page, said = 4096, []
    for at in range(page, len(real), page):
        path.write_bytes(real[:at] + b"\xff" * page + real[at + page :])
        for left in ("-wal", "-shm"):
            path.with_name(path.name + left).unlink(missing_ok=True)
        try:
            use(path)  # a page that this did not need
        except ManifestError as exc:
            said.append(str(exc))
    assert said
    assert all(str(path) in one and "\n" not in one for one in said)


@pytest.mark.parametrize("damage", [b'"\n', b"\xff\xfe"])
def test_a_damaged_schema_is_an_error_in_one_line(
    tmp_path: Path, real: bytes, damage: bytes
) -> None:
    path = tmp_path / "m.db"
    assert real.count(b"CREATE TABLE job (id TEXT,") == 1
    path.write_bytes(real.replace(b"TABLE job (id TEXT", b"TABLE job " + damage + b"d TEXT", 1))
    with pytest.raises(ManifestError) as caught:
        use(path)
    assert "\n" not in str(caught.value)


def test_slices_are_summed_up_without_loss(tmp_path: Path) -> None:
    with Manifest(tmp_path / "m.db", create=True) as manifest:
        run = manifest.begin_run("sync", [KeyRange(closed=True)])
        (shard, _), *_others = manifest.open_shards(run.id)
        for number in range(25):
            counts = Counts(found=number, copied=1, copied_bytes=100)
            result = SliceResult(b"k", False, counts, worker=1, started=number, ended=number + 2)
            manifest.commit_slice(run.id, shard, result)
        summed = manifest.slices_summed(run.id, 10)
        assert 8 <= len(summed) <= 11
        assert [sum(column) for column in zip(*summed, strict=True)][3:] == [300, 25, 0, 2500]
        assert (summed[0][0], summed[-1][1]) == (0, 26)
        assert manifest.slices_summed(run.id, 100) == manifest.slices(run.id)
        assert manifest.slices(run.id, 2) == manifest.slices(run.id)[-2:]
