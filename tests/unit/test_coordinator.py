"""Runs from begin to end, or as far as they get: over storages that fail and workers that die."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from sqlite_utils import Database

from adsmig import coordinator as module
from adsmig import errors, large, ranges, retry, scan, span, worker, workforce
from adsmig import slice as slice_module
from adsmig.coordinator import Coordinator
from adsmig.crew import Crew
from adsmig.errors import (
    AdsmigError,
    ObjectError,
    OrderError,
    StorageFull,
    TransientError,
    Unreachable,
)
from adsmig.interruption import SIGNALS
from adsmig.job import Job
from adsmig.limits import Lease, Limits, opened
from adsmig.location import Location
from adsmig.manifest import Manifest
from adsmig.model import Budget, Counts, Entry, KeyRange, Meta, Upload
from adsmig.ranges import LONG_S, PIECES, SHORT_S, STRIKES
from adsmig.small import DEPTH
from adsmig.storage import memory
from adsmig.storage.memory import MemoryStorage
from adsmig.uri import parse
from tests.storage import fakes3
from tests.storage.fakes3 import FakeS3, Reply, Request, stored

ALL = KeyRange(closed=True)
LARGE = 1000
"""Bytes; objects beyond it are copied in parts of PART bytes."""
PART = 300


class FlakyStorage:
    """A storage that calls ``before[name](*arguments)`` before a method; that may raise.

    ``calls`` counts the calls of these methods by name and key.
    """

    def __init__(self, storage: Any, **before: Callable[..., None]) -> None:
        self.storage, self.before = storage, before
        self.calls: Counter[tuple[str, Any]] = Counter()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.storage, name)
        if name not in self.before:
            return method

        def call(*arguments: Any, **named: Any) -> Any:
            self.calls[name, arguments[0] if arguments else None] += 1
            self.before[name](*arguments)
            return method(*arguments, **named)

        return call

    def count(self, name: str) -> int:
        return sum(count for (called, _), count in self.calls.items() if called == name)


def nothing(*_: Any) -> None:
    """Counts, and fails never."""


class Killed(BaseException):
    """What a worker that dies does not survive."""


class Mortal(Executor):
    """Runs everything at once, right here; what raises Killed has killed the whole pool."""

    def __init__(self) -> None:
        self.deaths = 0
        self.lent: list[tuple[Any, ...]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.lent.append((fn.__name__, *args))
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Killed:
            self.deaths += 1
            assert self.deaths < 100, "it would go on for ever"
            future.set_exception(BrokenExecutor("a worker died"))
        except Exception as exc:
            future.set_exception(exc)
        return future


class Later(Executor):
    """Has up to ``count`` tasks in hand, and does all of them once it is full, or is asked to."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, partial(fn, *args, **kwargs)))
        if len(self.waiting) == self.count:
            self.work()
        return future

    def work(self) -> None:
        tasks, self.waiting = self.waiting, []
        for future, call in tasks:
            future.set_result(call())


@pytest.fixture(autouse=True)
def _no_traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No pauses, small parts; signals and caches as they were."""
    monkeypatch.setattr(retry, "wait", lambda seconds, stopping: None)
    monkeypatch.setattr(module, "SHOW_S", 0)
    for user in (scan, slice_module):
        monkeypatch.setattr(user, "LARGE_SIZE", LARGE)
    monkeypatch.setattr(memory, "part_size_for", lambda _: PART)
    handlers = [(one, signal.getsignal(one)) for one in SIGNALS]
    yield
    for one, handler in handlers:
        signal.signal(one, handler)
    worker.forget()
    opened.cache_clear()


class Stores:
    """The two storages of a job, which a test may replace."""

    def __init__(self) -> None:
        self.src: Any = MemoryStorage(Location("memory", b"", bucket=uuid.uuid4().hex))
        self.dst: Any = MemoryStorage(Location("memory", b"", bucket=uuid.uuid4().hex))

    def open(self, location: object, job: object, destination: bool = False) -> Any:
        return self.dst if destination else self.src

    def flaky_src(self, **before: Callable[..., None]) -> FlakyStorage:
        self.src = FlakyStorage(self.src, **before)
        return self.src

    def flaky_dst(self, **before: Callable[..., None]) -> FlakyStorage:
        self.dst = FlakyStorage(self.dst, **before)
        return self.dst


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> Stores:
    stores = Stores()
    monkeypatch.setattr(scan, "open_storage", stores.open)
    return stores


@pytest.fixture
def manifest() -> Iterator[Manifest]:
    with Manifest(None) as opened_manifest:
        yield opened_manifest


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


def job(command: str = "cp", workers: int = 1, threads: int = 0, **options: Any) -> Job:
    places = parse("minio://h/src/"), parse("minio://h/dst/")
    return Job(command, *places, workers=workers, threads=threads or workers, **options)


def put(storage: Any, key: bytes, content: bytes) -> Entry:
    storage.write(key, iter([memoryview(content)]), len(content), Meta())
    return storage.stat(key)  # type: ignore[no-any-return]


def fill(storage: Any, count: int, start: int = 0) -> list[bytes]:
    keys = [b"%05d" % number for number in range(start, start + count)]
    for key in keys:
        put(storage, key, key)
    return keys


def content(storage: Any) -> dict[bytes, bytes]:
    """All objects; ``storage`` may be flaky."""
    plain = storage.storage if isinstance(storage, FlakyStorage) else storage
    return {key: one.content for key, one in plain._bucket.objects.items()}


def run(
    job: Job,
    manifest: Manifest,
    executor: Executor | None = None,
    watch: Callable[[Counts, bool], None] = lambda counts, last: None,
) -> Coordinator:
    """What the same command again does: it resumes an unfinished run, or begins one."""
    worker.forget()
    manifest.set_job(job)
    unfinished = manifest.unfinished_run()
    if unfinished:
        manifest.resume_run(unfinished.id)
    else:
        manifest.begin_run(job.command, [job.keys])
    coordinator = Coordinator(job, manifest, manifest.runs()[-1], watch, executor)
    coordinator.run()
    return coordinator


def short_slices(monkeypatch: pytest.MonkeyPatch, objects: int) -> None:
    """Has a slice copy no more than so many objects."""
    run_slice = worker.run_slice

    def shorter(job: Job, keys: KeyRange, budget: Budget, lease: Any) -> Any:
        few = budget._replace(objects=min(objects, budget.objects))
        return run_slice(job, keys, few, lease)

    shorter.__name__ = "run_slice"
    monkeypatch.setattr(worker, "run_slice", shorter)


def finished(manifest: Manifest) -> Counts:
    """The counts of the last run, which is over, with nothing left."""
    last = manifest.runs()[-1]
    assert last.state == "finished"
    assert manifest.open_shards(last.id) == []
    assert manifest.pending_uploads() == []
    return last.counts


def recorded(manifest: Manifest) -> list[bytes]:
    """The keys that the manifest calls copied."""
    rows = manifest._connection.execute("SELECT key FROM objects ORDER BY key").fetchall()
    return [key.encode() if isinstance(key, str) else key for (key,) in rows]


# To the end


@pytest.mark.parametrize("threads", [1, 4])
def test_a_run_copies_everything_and_says_so(
    stores: Stores, manifest: Manifest, threads: int
) -> None:
    keys = fill(stores.src, 100)
    put(stores.src, b"\xff\x00//", b"odd")
    coordinator = run(job(threads=threads), manifest)
    assert content(stores.dst) == content(stores.src)
    counts = Counts(found=101, found_bytes=503, copied=101, copied_bytes=503)
    assert finished(manifest) == coordinator.counts == counts
    assert sorted(recorded(manifest)) == [*keys, b"\xff\x00//"]
    assert (coordinator.stop, coordinator.interrupted) == (None, False)


def test_a_run_over_nothing_is_finished(stores: Stores, manifest: Manifest) -> None:
    run(job(), manifest)
    assert finished(manifest) == Counts()


def test_only_the_selected_keys_are_copied(stores: Stores, manifest: Manifest) -> None:
    keys = fill(stores.src, 100)
    run(job(start=keys[10], end=keys[19]), manifest)
    assert sorted(content(stores.dst)) == keys[10:20]


def test_many_workers_copy_each_object_once(
    stores: Stores, manifest: Manifest, pool: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_slices(monkeypatch, 150)
    keys = fill(stores.src, 3000)
    dst = stores.flaky_dst(write=nothing)
    run(job(workers=4, threads=4), manifest, pool)
    assert content(stores.dst) == content(stores.src)
    assert dst.calls == Counter(("write", key) for key in keys)
    assert finished(manifest).copied == 3000
    shards = {row["shard"] for row in manifest._database.rows("SELECT * FROM slices")}
    assert len(shards) >= 4  # it was cut among them


def test_a_range_is_cut_when_workers_are_idle_and_pieces_cover_it(
    stores: Stores, manifest: Manifest
) -> None:
    keys = fill(stores.src, 1000)
    mortal = Mortal()
    run(job(workers=4), manifest, mortal)
    names = [name for name, *_ in mortal.lent]
    assert names[0] == "cut_range"
    rows = manifest._database.rows("SELECT after, upto FROM shards")
    shards = [(row["after"], row["upto"]) for row in rows]
    ends = sorted(upto for _, upto in shards if upto is not None)
    assert len(shards) >= 4
    assert sorted(after for after, _ in shards) == ["", *ends]
    assert recorded(manifest) == keys


def test_what_was_cut_off_is_worked_on_before_it_is_cut_again(
    stores: Stores, manifest: Manifest
) -> None:
    fill(stores.src, 2000)
    mortal = Mortal()
    run(job(workers=1000), manifest, mortal)
    first, *then = mortal.lent
    assert (first[0], first[3]) == ("cut_range", PIECES)
    assert {name for name, *_ in then[:PIECES]} == {"run_slice"}
    assert finished(manifest).copied == 2000


def test_a_thousand_workers_have_work_at_once(stores: Stores, manifest: Manifest) -> None:
    keys = fill(stores.src, 1000)

    manifest.set_job(wide := job(workers=1000))
    run_of = manifest.begin_run("cp", [KeyRange(key, key, True) for key in keys])
    Coordinator(wide, manifest, run_of, lambda counts, last: None, Later(1000)).run()
    assert finished(manifest).copied == 1000


def test_what_cannot_be_cut_is_lent_whole(stores: Stores, manifest: Manifest) -> None:
    fill(stores.src, 5)
    mortal = Mortal()
    run(job(workers=4), manifest, mortal)
    assert [name for name, *_ in mortal.lent] == ["cut_range", "run_slice"]
    assert finished(manifest).copied == 5


def test_slices_begin_short_and_grow_to_a_limit(
    stores: Stores, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_slices(monkeypatch, 10)
    fill(stores.src, 300)
    mortal = Mortal()
    run(job(), manifest, mortal)
    seconds = [budget.seconds for _, _, _, budget, *_ in mortal.lent if isinstance(budget, Budget)]
    assert seconds[0] == SHORT_S
    assert seconds == sorted(seconds)
    assert seconds[-1] == LONG_S


def test_a_job_of_a_moment_starts_no_processes(
    stores: Stores, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def processes(count: int) -> None:
        pytest.fail("started processes")

    monkeypatch.setattr(workforce, "processes", processes)
    monkeypatch.setattr(module, "TICK_S", 60)  # seconds: a moment on whatever machine
    fill(stores.src, 100)
    run(job(workers=4, threads=4), manifest)
    assert finished(manifest).copied == 100


def test_processes_are_started_for_what_one_slice_left(
    stores: Stores, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    def processes(count: int) -> Executor:
        started.append(count)
        return ThreadPoolExecutor(count)

    monkeypatch.setattr(workforce, "processes", processes)
    short_slices(monkeypatch, 50)
    fill(stores.src, 1000)
    run(job(workers=3, threads=3), manifest)
    assert started == [3]
    assert finished(manifest).copied == 1000
    assert content(stores.dst) == content(stores.src)


@pytest.mark.parametrize(("earlier", "first"), [(100, "cut_range"), (101, "run_slice")])
def test_what_was_known_to_be_much_is_for_processes_from_the_start(
    stores: Stores, manifest: Manifest, monkeypatch: pytest.MonkeyPatch, earlier: int, first: str
) -> None:
    called: list[str] = []

    def processes(count: int) -> Executor:
        called.append("processes")
        return ThreadPoolExecutor(count)

    def noted(name: str) -> Callable[..., Any]:
        function = getattr(worker, name)

        def call(*args: Any) -> Any:
            called.append(name)
            return function(*args)

        return call

    fill(stores.src, 100)
    run(job(), manifest)
    monkeypatch.setattr(workforce, "MANY", earlier)
    monkeypatch.setattr(module, "TICK_S", 60)  # seconds: a moment on whatever machine
    monkeypatch.setattr(workforce, "processes", processes)
    for name in ("cut_range", "run_slice"):
        monkeypatch.setattr(worker, name, noted(name))
    run(job("sync", workers=3, threads=3), manifest)
    assert next(one for one in called if one != "processes") == first
    assert ("processes" in called) == (first == "cut_range")
    assert finished(manifest).unchanged == 100


def test_processes_are_started_before_what_was_done_without_them_is_committed(
    stores: Stores, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    commit = manifest.commit_slice

    def processes(count: int) -> Executor:
        events.append("start")
        return ThreadPoolExecutor(count)

    def commit_slice(*args: Any) -> None:
        events.append("commit")
        commit(*args)

    monkeypatch.setattr(workforce, "processes", processes)
    monkeypatch.setattr(manifest, "commit_slice", commit_slice)
    short_slices(monkeypatch, 50)
    fill(stores.src, 300)
    run(job(workers=3, threads=3), manifest)
    assert events[:2] == ["start", "commit"]
    assert finished(manifest).copied == 300


def test_what_is_left_is_lent_before_a_slice_is_committed(
    stores: Stores, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_slices(monkeypatch, 10)
    fill(stores.src, 30)
    later = Later(2)
    events: list[str] = []
    commit, submit = manifest.commit_slice, later.submit

    def commit_slice(*args: Any) -> None:
        commit(*args)
        events.append("commit")
        later.work()

    def lend(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        events.append("lend")
        future = submit(fn, *args, **kwargs)
        if len(events) == 1:
            later.work()
        return future

    monkeypatch.setattr(manifest, "commit_slice", commit_slice)
    monkeypatch.setattr(later, "submit", lend)
    run(job(), manifest, later)
    assert events[:4] == ["lend", "lend", "commit", "lend"]
    assert finished(manifest).copied == 30
    assert content(stores.dst) == content(stores.src)


def test_a_run_that_dies_before_a_commit_does_its_slices_again(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_slices(monkeypatch, 10)
    fill(stores.src, 100)
    commits: list[int] = []
    commit = Manifest.commit_slice

    def commit_slice(*args: Any) -> None:
        commits.append(1)
        if len(commits) == 3:
            raise Killed
        commit(*args)

    monkeypatch.setattr(Manifest, "commit_slice", commit_slice)
    dst = stores.flaky_dst(write=nothing)
    with Manifest(tmp_path / "m.db", create=True) as manifest, pytest.raises(Killed):
        run(job(), manifest, Mortal())
    written = dst.count("write")
    assert 20 < written <= 50  # of which two slices were committed
    with Manifest(tmp_path / "m.db") as manifest:
        run(job(), manifest, Mortal())
        assert finished(manifest).copied == 100
        assert len(recorded(manifest)) == 100
    assert dst.count("write") == written + 80
    assert content(stores.dst) == content(stores.src)


def test_a_slice_is_recalled_when_others_could_do_some_of_it(
    stores: Stores, manifest: Manifest, pool: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHORT_S", 600.0)
    monkeypatch.setattr(ranges, "HUNGRY_S", 600.0)
    keys = fill(stores.src, 4000)

    def write(key: bytes, *_: object) -> None:
        if key > keys[2000]:
            pause(0.0005)

    pause = threading.Event().wait
    stores.flaky_dst(write=write)
    run(job(workers=2), manifest, pool)
    assert finished(manifest).copied == len(keys)
    assert content(stores.dst) == content(stores.src)
    ((shards, slices),) = manifest._connection.execute(
        "SELECT (SELECT count(*) FROM shards), (SELECT count(*) FROM slices)"
    )
    assert shards > 2  # pieces of the whole, at first
    assert slices > shards  # which would have had all the time they took


class Patient(FlakyStorage):
    """Has the first object wait until all others are written."""

    def __init__(self, storage: Any, keys: list[bytes]) -> None:
        self.left = set(keys[1:])
        self.others = threading.Event()
        super().__init__(storage, write=self._write)

    def _write(self, key: bytes, *_: object) -> None:
        if key not in self.left:
            assert self.others.wait(60)
        threading.Event().wait(0.0005)  # seconds: all take longer than a slice is to last
        self.left.discard(key)
        if not self.left:
            self.others.set()


def test_nobody_stands_still_because_one_object_takes_long(
    stores: Stores, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PATIENCE_S", "PATIENCE"):
        monkeypatch.setattr(span, name, 0.01)
    keys = fill(stores.src, 500)
    monkeypatch.setattr(module, "SHORT_S", 0.02)
    monkeypatch.setattr(ranges, "HUNGRY_S", 0.02)
    stores.dst = Patient(stores.dst, keys)
    run(job(threads=4), manifest)
    assert finished(manifest).copied == len(keys)
    assert content(stores.dst) == content(stores.src)
    assert recorded(manifest) == keys


@pytest.mark.parametrize("depth", [DEPTH, 2])
def test_nobody_stands_still_because_one_answer_takes_long(
    stores: Stores, manifest: Manifest, monkeypatch: pytest.MonkeyPatch, depth: int
) -> None:
    for name in ("PATIENCE_S", "PATIENCE"):
        monkeypatch.setattr(span, name, 0.01)
    monkeypatch.setattr(module, "SHORT_S", 0.02)
    monkeypatch.setattr(ranges, "HUNGRY_S", 0.02)
    keys = fill(stores.src, 500)
    held: dict[bytes, bytes] = {}
    others, empty = threading.Event(), fakes3.listing_of([])

    def answer(request: Request) -> Reply:
        if request.method == "GET":
            return empty(request)
        if request.key == keys[0]:
            assert others.wait(60)
        held[request.key] = request.body
        if len(held) == len(keys) - 1:
            others.set()
        return stored(request)

    with FakeS3(answer) as fake:
        stores.dst = fake.storage(destination=True)
        # In this thread, which closes its connections.
        monkeypatch.setattr(worker, "_crew_for", lambda _: Crew(1, each=depth))
        run(replace(job(), threads=None), manifest, Mortal())
    assert finished(manifest).copied == len(keys)
    assert held == content(stores.src)
    assert recorded(manifest) == keys


def test_who_has_begun_enough_waits_however_long_it_takes(
    stores: Stores, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many are lost if it is killed."""
    for name in ("PATIENCE_S", "PATIENCE"):
        monkeypatch.setattr(span, name, 0.0)
    monkeypatch.setattr(module, "SHORT_S", 0.02)
    short_slices(monkeypatch, 50)
    keys = fill(stores.src, 300)
    begun: list[bytes] = []
    seen: list[int] = []

    def write(key: bytes, *_: object) -> None:
        begun.append(key)
        if key == keys[0]:
            pause(0.3)  # seconds: all others could be written
            seen.append(len(begun))

    pause = threading.Event().wait
    stores.flaky_dst(write=write)
    run(job(threads=4), manifest)
    assert seen[0] <= 50
    assert finished(manifest).copied == len(keys)


def test_what_killed_this_process_is_left_to_others_when_the_run_goes_on(
    stores: Stores, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = fill(stores.src, 300)

    def write(key: bytes, *_: object) -> None:
        if key == keys[3]:
            raise Killed

    stores.flaky_dst(write=write)
    monkeypatch.setattr(workforce, "processes", lambda count: Mortal())
    with pytest.raises(Killed):
        run(job(workers=4), manifest)
    run(job(workers=4), manifest)
    assert [(one.key, one.kind) for one in manifest.failures()] == [(keys[3], "killed")]
    assert finished(manifest).copied == 299


def test_one_bad_object_does_not_stop_the_others(stores: Stores, manifest: Manifest) -> None:
    keys = fill(stores.src, 50)

    def write(key: bytes, *_: object) -> None:
        if key == keys[7]:
            raise ObjectError("denied", "not allowed")
        if key == keys[8]:
            raise TransientError("lost")

    stores.flaky_dst(write=write)
    run(job(threads=4), manifest)
    assert finished(manifest) == Counts(50, 250, copied=48, copied_bytes=240, failed=2)
    assert [(one.key, one.kind) for one in manifest.failures()] == [
        (keys[7], "denied"), (keys[8], "gave up")
    ]  # fmt: skip
    assert recorded(manifest) == [key for key in keys if key not in keys[7:9]]


def test_sync_again_copies_what_is_new(stores: Stores, manifest: Manifest) -> None:
    fill(stores.src, 50)
    run(job("sync"), manifest)
    assert finished(manifest).copied == 50
    fill(stores.src, 5, start=50)
    run(job("sync"), manifest)
    assert finished(manifest) == Counts(55, 275, 50, 250, 5, 25)
    assert [one.id for one in manifest.runs()] == [1, 2]


def test_a_dry_run_changes_nothing_and_prepares_nothing_there(
    stores: Stores, manifest: Manifest
) -> None:
    fill(stores.src, 20)
    put(stores.src, b"large", b"x" * (LARGE + 1))

    def never(*_: object) -> None:
        pytest.fail("changed the destination")

    names = ("write", "begin_upload", "prepare", "tidy", "sync", "delete", "complete")
    stores.flaky_dst(**dict.fromkeys(names, never))
    run(job("sync", dryrun=True), manifest)
    assert finished(manifest).copied == 21


def test_the_destination_is_tidied_at_the_end_and_only_then(
    stores: Stores, manifest: Manifest
) -> None:
    fill(stores.src, 5)
    full = [True]

    def write(*_: object) -> None:
        if full:
            raise StorageFull("no room")

    dst = stores.flaky_dst(write=write, tidy=nothing, prepare=nothing)
    run(job(), manifest)
    assert (dst.count("prepare"), dst.count("tidy")) == (1, 0)
    full.clear()
    run(job(), manifest)
    assert (dst.count("prepare"), dst.count("tidy")) == (2, 1)


# As far as it gets


def test_a_full_destination_stops_the_run_which_goes_on_later(
    stores: Stores, manifest: Manifest, pool: Executor
) -> None:
    keys = fill(stores.src, 2000)
    room = [700]

    def write(*_: object) -> None:
        room[0] -= 1
        if room[0] < 0:
            raise StorageFull("no room")

    dst = stores.flaky_dst(write=write)
    stopped = run(job(workers=4, threads=4), manifest, pool)
    assert stopped.stop
    assert (stopped.stop.kind, stopped.stop.message) == ("StorageFull", "no room")
    last = manifest.runs()[-1]
    assert (last.state, last.message) == ("stopped", "no room")
    settled = recorded(manifest)
    assert last.counts.copied == len(settled) <= 700
    assert set(settled) <= set(content(stores.dst))
    dst.calls.clear()
    room[0] = 10**6
    assert run(job(workers=4, threads=4), manifest, pool).stop is None
    assert not any(dst.calls["write", key] for key in settled)
    assert content(stores.dst) == content(stores.src)
    assert recorded(manifest) == keys
    assert finished(manifest).copied == 2000


def test_ctrl_c_settles_what_is_in_hand_and_the_rest_comes_later(
    stores: Stores, tmp_path: Path
) -> None:
    keys = fill(stores.src, 500)

    def write(key: bytes, *_: object) -> None:
        if key == keys[100] and dst.calls["write", key] == 1:
            os.kill(os.getpid(), signal.SIGINT)
            told.wait(20)

    told = threading.Event()
    dst = stores.flaky_dst(write=write)
    with Manifest(tmp_path / "m.db", create=True) as manifest:
        worker.forget()
        manifest.set_job(job())
        first = manifest.begin_run("cp", [ALL])
        coordinator = Coordinator(job(), manifest, first, lambda counts, last: None)
        stop = coordinator._limits.stop

        def stop_and_tell() -> None:
            stop()
            told.set()

        coordinator._limits.stop = stop_and_tell  # type: ignore[method-assign]
        coordinator.run()
        assert coordinator.interrupted
        assert coordinator.stop is None
        last = manifest.runs()[-1]
        assert (last.state, last.message) == ("stopped", "interrupted")
        assert recorded(manifest) == keys[:101]
        assert last.counts.copied == 101
    with Manifest(tmp_path / "m.db") as manifest:
        run(job(), manifest)
        assert finished(manifest) == Counts(500, 2500, copied=500, copied_bytes=2500)
        assert manifest.runs()[-1].resumed == 1
    assert dst.calls == Counter(("write", key) for key in keys)
    assert content(stores.dst) == content(stores.src)


def test_a_run_that_cannot_begin_says_why(stores: Stores, manifest: Manifest) -> None:
    fill(stores.src, 5)

    def prepare() -> None:
        raise AdsmigError("no such bucket")

    for flaky in (stores.flaky_src, stores.flaky_dst):
        kept = stores.src, stores.dst
        flaky(prepare=prepare)
        with pytest.raises(AdsmigError, match="no such bucket"):
            run(job(), manifest)
        assert manifest.runs()[-1][2] == "stopped"
        assert manifest.runs()[-1].message == "no such bucket"
        stores.src, stores.dst = kept
    assert content(stores.dst) == {}
    run(job(), manifest)
    assert finished(manifest).copied == 5


def test_a_manifest_that_cannot_be_written_ends_the_run(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(stores.src, 20)
    with Manifest(tmp_path / "m.db", create=True) as manifest:

        def full(*_: object) -> None:
            raise StorageFull("no room for the manifest")

        with monkeypatch.context() as patch:
            patch.setattr(manifest, "commit_slice", full)
            with pytest.raises(StorageFull):
                run(job(), manifest)
        assert recorded(manifest) == []
        run(job(), manifest)
        assert finished(manifest).copied == 20


def test_the_shared_file_lies_beside_the_manifest_while_it_is_needed(
    stores: Stores, tmp_path: Path
) -> None:
    fill(stores.src, 3)
    seen: list[bool] = []
    stores.flaky_dst(write=lambda *_: seen.append((tmp_path / "m.db.shared").exists()))
    with Manifest(tmp_path / "m.db", create=True) as manifest:
        run(job(), manifest)
    assert seen == [True] * 3
    assert not (tmp_path / "m.db.shared").exists()


def test_a_shared_file_that_cannot_be_made_is_named(stores: Stores, tmp_path: Path) -> None:
    (tmp_path / "m.db.shared").mkdir()
    with (
        Manifest(tmp_path / "m.db", create=True) as manifest,
        pytest.raises(AdsmigError, match=r"m\.db\.shared"),
    ):
        run(job(), manifest)


def test_checkpoints_are_there_for_others_to_see(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_slices(monkeypatch, 10)
    fill(stores.src, 30)
    seen: list[int] = []

    def write(*_: object) -> None:
        database = Database(tmp_path / "m.db")
        seen.append(database["objects"].count)
        database.close()

    stores.flaky_dst(write=write)
    with Manifest(tmp_path / "m.db", create=True) as manifest:
        run(job(), manifest)
    assert seen == [0] * 10 + [10] * 10 + [20] * 10


def test_a_listing_that_breaks_off_at_the_end_of_its_range_is_no_listing(
    stores: Stores, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = fill(stores.src, 10)
    listing = stores.src.list

    def breaks_off(*args: Any) -> Iterator[Entry]:
        yield from listing(*args)
        raise AdsmigError("what came last may not have been all")

    monkeypatch.setattr(stores.src, "list", breaks_off)
    coordinator = run(job("sync", end=keys[-1]), manifest)
    assert coordinator.stop
    assert "may not have been all" in coordinator.stop.message


def test_a_store_that_lists_out_of_order_is_listed_one_directory_at_a_time(
    stores: Stores, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = fill(stores.src, 100)
    plain = stores.src

    def open_storage(location: object, job: Job, destination: bool = False) -> Any:
        if destination:
            return stores.dst
        return plain if job.by_directory else FlakyStorage(plain, read=disordered)

    def disordered(entry: Entry, *_: object) -> None:
        if entry.key == keys[50]:
            raise OrderError("keys are not listed in order")

    monkeypatch.setattr(scan, "open_storage", open_storage)
    coordinator = run(job(), manifest)
    assert coordinator.stop is None
    assert finished(manifest) == Counts(100, 500, copied=100, copied_bytes=500)
    text = manifest.job_json()
    assert text
    assert Job.from_json(text).by_directory
    assert len(manifest.runs()) == 1


# What is watched


def test_those_who_watch_are_told_the_end_once(stores: Stores, manifest: Manifest) -> None:
    fill(stores.src, 20)
    told: list[tuple[Counts, bool]] = []
    run(job(), manifest, watch=lambda counts, last: told.append((counts, last)))
    assert [last for _, last in told].count(True) == 1
    assert told[-1] == (Counts(20, 100, copied=20, copied_bytes=100), True)


def watched(
    stores: Stores, manifest: Manifest, monkeypatch: pytest.MonkeyPatch, job: Job
) -> list[Counts]:
    short_slices(monkeypatch, 20)
    told: list[Counts] = []
    run(job, manifest, Mortal(), lambda counts, last: told.append(counts))
    return told


def test_what_was_done_never_becomes_less(
    stores: Stores, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(stores.src, 300)
    told = watched(stores, manifest, monkeypatch, job())
    assert len(told) > 10
    assert told == sorted(told)
    assert all(counts.copied <= counts.found for counts in told)


def test_what_was_done_of_a_large_object_never_becomes_less(
    stores: Stores, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(stores.src, b"large", b"x" * 20 * PART)
    monkeypatch.setattr(large, "MOST_PARTS", 4)
    told = [one.copied_bytes for one in watched(stores, manifest, monkeypatch, job())]
    assert told[-1] == 20 * PART
    assert told == sorted(told)
    assert len(set(told)) > 3


def listing_of(
    job: Job, manifest: Manifest, executor: Executor, watch: Callable[[bool], None]
) -> Coordinator:
    """Runs a job whose ``watch`` is told, at every turn, whether more may be found."""
    worker.forget()
    manifest.set_job(job)
    begun = manifest.begin_run(job.command, [job.keys])
    coordinator = Coordinator(
        job, manifest, begun, lambda counts, last: watch(coordinator.listing), executor
    )
    coordinator.run()
    return coordinator


def test_more_may_be_found_until_all_ranges_are_done(
    stores: Stores, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_slices(monkeypatch, 50)
    monkeypatch.setattr(large, "MOST_PARTS", 4)
    fill(stores.src, 300)
    put(stores.src, b"z-large", b"x" * 40 * PART)
    told: list[bool] = []
    left: list[bool] = []

    def watch(listing: bool) -> None:
        told.append(listing)
        left.append(bool(manifest.open_shards(1)))

    listing_of(job(workers=2), manifest, Mortal(), watch)
    assert told == left
    assert told == sorted(told, reverse=True)
    assert {True, False} == set(told)


def test_more_may_be_found_while_a_range_is_cut(
    stores: Stores, manifest: Manifest, pool: Executor
) -> None:
    fill(stores.src, 500)
    told: list[bool] = []
    seen = threading.Event()
    stores.flaky_src(probe=lambda *_: seen.wait(20))

    def watch(listing: bool) -> None:
        told.append(listing)
        seen.set()

    listing_of(job(workers=4), manifest, pool, watch)
    assert told[0]
    assert not told[-1]


def test_a_worker_that_dies_of_cutting_does_so_once(
    stores: Stores, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHORT_S", 60.0)  # what a slice leaves over may be cut anew
    monkeypatch.setattr(ranges, "HUNGRY_S", 60.0)
    fill(stores.src, 500)

    def probe(*_: object) -> None:
        raise Killed

    stores.flaky_src(probe=probe)
    mortal = Mortal()
    run(job(workers=4), manifest, mortal)
    assert mortal.deaths == 1
    assert finished(manifest).copied == 500


# Large objects


@pytest.mark.parametrize("workers", [1, 4])
def test_large_objects_are_copied_in_parts_beside_the_small_ones(
    stores: Stores, manifest: Manifest, pool: Executor, workers: int
) -> None:
    fill(stores.src, 50)
    for number in range(4):
        put(stores.src, b"%05d-large" % number, os.urandom(LARGE + 1 + 97 * number))
    dst = stores.flaky_dst(put_part=nothing, write=nothing, abort=nothing)
    coordinator = run(job(workers=workers, threads=4), manifest, pool if workers > 1 else None)
    assert content(stores.dst) == content(stores.src)
    assert dst.count("abort") == 0
    counts = finished(manifest)
    assert counts == coordinator.counts
    assert (counts.found, counts.copied, counts.failed) == (54, 54, 0)
    assert counts.copied_bytes == counts.found_bytes == sum(map(len, content(stores.src).values()))
    assert (dst.count("write"), dst.count("put_part")) == (50, 4 + 4 + 4 + 5)
    assert len(recorded(manifest)) == 54
    (checksum,) = manifest._connection.execute(
        "SELECT checksum FROM objects WHERE key = '00000-large'"
    ).fetchone()
    assert checksum.startswith("xxh3:")
    assert checksum.endswith(f"-4x{PART}")


def test_a_large_object_goes_on_from_its_last_finished_part(stores: Stores, tmp_path: Path) -> None:
    put(stores.src, b"large", os.urandom(10 * PART))
    put(stores.src, b"small", b"s")
    room = [4]
    sent: list[int] = []

    def put_part(key: bytes, upload: Any, number: int, *_: object) -> None:
        if len(sent) == room[0]:
            raise StorageFull("no room")
        sent.append(number)

    dst = stores.flaky_dst(put_part=put_part, begin_upload=nothing)
    for count in (4, 7):
        room[0] = count
        with Manifest(tmp_path / "m.db", create=True) as manifest:
            assert run(job(), manifest).stop
            (pending,) = manifest.pending_uploads()
            assert [part.number for part in pending.parts] == sent == list(range(1, count + 1))
            assert pending.upload
    room[0] = 100
    with Manifest(tmp_path / "m.db") as manifest:
        run(job(), manifest)
        assert finished(manifest) == Counts(2, 3001, copied=2, copied_bytes=3001)
    assert sent == list(range(1, 11))
    assert dst.count("begin_upload") == 1
    assert content(stores.dst) == content(stores.src)


def test_a_large_object_that_was_only_listed_is_begun_by_the_next_run(
    stores: Stores, manifest: Manifest
) -> None:
    put(stores.src, b"large", b"x" * 2000)
    unreachable = [True]

    def begin_upload(*_: object) -> None:
        if unreachable:
            raise Unreachable("nobody is there")

    stores.flaky_dst(begin_upload=begin_upload)
    assert run(job(), manifest).stop
    assert manifest.open_shards(1) == []
    unreachable.clear()
    run(job(), manifest)
    assert finished(manifest).copied == 1
    assert content(stores.dst) == content(stores.src)


def test_a_large_object_whose_upload_was_removed_meanwhile_is_begun_anew(
    stores: Stores, manifest: Manifest
) -> None:
    put(stores.src, b"large", os.urandom(10 * PART))
    room = [4]

    def put_part(*_: object) -> None:
        room[0] -= 1
        if room[0] < 0:
            raise StorageFull("no room")

    dst = stores.flaky_dst(put_part=put_part)
    run(job(), manifest)
    dst.storage._bucket.uploads.clear()  # as a lifecycle rule does
    room[0] = 1000
    run(job(), manifest)
    assert finished(manifest).copied == 1
    assert content(stores.dst) == content(stores.src)


def test_a_large_object_that_changes_is_copied_as_it_is_at_last(
    stores: Stores, manifest: Manifest
) -> None:
    put(stores.src, b"large", b"a" * 10 * PART)

    def put_part(key: bytes, upload: Any, number: int, *_: object) -> None:
        if number == 5 and dst.count("put_part") == 5:
            put(stores.src, b"large", b"b" * 11 * PART)

    dst = stores.flaky_dst(put_part=put_part)
    run(job(), manifest)
    assert content(stores.dst) == {b"large": b"b" * 11 * PART}
    assert finished(manifest).copied == 1
    assert dst.storage._bucket.uploads == {}


def test_a_large_object_that_changes_once_it_is_read_is_begun_anew(
    stores: Stores, manifest: Manifest
) -> None:
    put(stores.src, b"large", b"a" * 10 * PART)

    def sync() -> None:  # after the last part, before it is completed
        if dst.count("put_part") == 10 and content(stores.src)[b"large"][:1] == b"a":
            put(stores.src, b"large", b"b" * 11 * PART)

    dst = stores.flaky_dst(sync=sync, put_part=nothing, complete=nothing)
    run(job(), manifest)
    assert content(stores.dst) == {b"large": b"b" * 11 * PART}
    assert finished(manifest).copied == 1
    assert dst.count("complete") == 1


@pytest.mark.parametrize(
    ("src", "why"), [("/src/", "when nobody writes to it"), ("minio://h/src/", "--src-set crc32")]
)
def test_a_large_object_that_keeps_changing_is_a_failure(
    stores: Stores, manifest: Manifest, src: str, why: str
) -> None:
    put(stores.src, b"large", b"a" * 10 * PART)
    put(stores.src, b"small", b"s")

    def put_part(key: bytes, upload: Any, number: int, *_: object) -> None:
        if number == 2:
            put(stores.src, b"large", os.urandom(10 * PART))

    dst = stores.flaky_dst(put_part=put_part, begin_upload=nothing)
    run(replace(job(), src=parse(src)), manifest)
    (failed,) = manifest.failures()
    assert (failed.key, failed.kind) == (b"large", "changed")
    assert why in (failed.error or "")
    assert dst.count("begin_upload") == large.TRIES
    assert content(stores.dst) == {b"small": b"s"}
    assert (finished(manifest).copied, finished(manifest).failed) == (1, 1)
    assert dst.storage._bucket.uploads == {}


@pytest.mark.parametrize("step", ["begin_upload", "put_part", "complete"])
def test_a_large_object_that_is_refused_is_a_failure_and_leaves_nothing(
    stores: Stores, manifest: Manifest, pool: Executor, step: str
) -> None:
    keys = fill(stores.src, 20)
    put(stores.src, b"large", b"a" * 10 * PART)
    put(stores.src, b"larger", b"b" * 12 * PART)

    def refuse(key: bytes, *_: object) -> None:
        if key == b"large":
            raise ObjectError("denied", "not allowed")

    dst = stores.flaky_dst(**{step: refuse})
    run(job(workers=4, threads=4), manifest, pool)
    assert [(one.key, one.kind, one.error) for one in manifest.failures()] == [
        (b"large", "denied", "not allowed")
    ]
    counts = finished(manifest)
    assert (counts.found, counts.copied, counts.failed) == (22, 21, 1)
    assert sorted(content(stores.dst)) == [*keys, b"larger"]
    assert dst.storage._bucket.uploads == {}


def test_a_large_object_removed_meanwhile_has_vanished(stores: Stores, manifest: Manifest) -> None:
    put(stores.src, b"large", b"a" * 10 * PART)

    def put_part(key: bytes, upload: Any, number: int, *_: object) -> None:
        if number == 3:
            stores.src.delete([b"large"])

    stores.flaky_dst(put_part=put_part)
    run(job(), manifest)
    assert [one.kind for one in manifest.failures()] == ["vanished"]
    assert finished(manifest).failed == 1


def test_a_large_object_is_lent_in_pieces_to_all_workers(
    stores: Stores, manifest: Manifest
) -> None:
    put(stores.src, b"large", b"a" * 100 * PART)
    mortal = Mortal()
    run(job(workers=4), manifest, mortal)
    lent = [numbers for name, *rest in mortal.lent if name == "run_parts" for numbers in [rest[2]]]
    assert len(lent) >= 4
    assert sorted(number for numbers in lent for number in numbers) == list(range(1, 101))


def test_nobody_stands_still_because_one_part_takes_long(
    stores: Stores, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PATIENCE_S", "PATIENCE", "SLOW"):
        monkeypatch.setattr(span, name, 0.01)
    monkeypatch.setattr(module, "SHORT_S", 0.02)
    put(stores.src, b"large", os.urandom(40 * PART))
    others, left = threading.Event(), set(range(1, 41)) - {2}

    def put_part(key: bytes, upload: Upload, number: int, *_: object) -> None:
        if number == 2:
            assert others.wait(60)
        threading.Event().wait(0.003)  # seconds: all of them take longer than is to be worked
        left.discard(number)
        if not left:
            others.set()

    stores.flaky_dst(put_part=put_part)
    run(job(threads=4), manifest, Mortal())
    assert finished(manifest).copied == 1
    assert content(stores.dst) == content(stores.src)


@pytest.fixture(name="upload")
def _upload(stores: Stores) -> Upload:
    entry = put(stores.src, b"large", os.urandom(20 * PART))
    return cast(Upload, stores.dst.begin_upload(b"large", entry, Meta(), False))


def test_parts_are_given_back_when_they_are_recalled(
    stores: Stores, upload: Upload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(span, "LEAST_SHARE", 0)  # it is worth its beginning, however long that took
    limits = Limits.create(str(tmp_path / "limits"))

    def put_part(key: bytes, upload: Upload, number: int, *_: object) -> None:
        if number == 3:
            limits.recall()

    stores.flaky_dst(put_part=put_part)
    worker.forget()
    budget, lease = Budget(600, 20), Lease(limits.path, 0)
    result = worker.run_parts(job(threads=1), upload, tuple(range(1, 21)), budget, lease)
    assert [part.number for part in result.parts] == [1, 2, 3]


def test_nobody_waits_for_a_part_that_ended_in_an_error_of_ours(
    stores: Stores, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(span, "LONGEST_S", 600)
    begun: list[int] = []

    def put_part(key: bytes, upload: Upload, number: int, *_: object) -> None:
        begun.append(number)
        if number == 1:
            raise RuntimeError("a bug")
        threading.Event().wait(0.02)  # seconds

    stores.flaky_dst(put_part=put_part)
    worker.forget()
    budget = Budget(0.03, 20)
    with pytest.raises(RuntimeError):
        worker.run_parts(job(threads=2), upload, tuple(range(1, 21)), budget, Lease("", 0))
    assert len(begun) < 20


def test_a_large_object_that_cannot_be_read_stops_nothing_else(
    stores: Stores, manifest: Manifest
) -> None:
    put(stores.src, b"a-large", b"a" * 10 * PART)
    fill(stores.src, 20)
    put(stores.src, b"z-large", b"z" * 10 * PART)

    def read(entry: Entry, start: int = 0, *_: object) -> None:
        if entry.key == b"a-large" and start == 4 * PART:
            raise TransientError("h answered GET with InternalError")

    stores.flaky_src(read=read)
    run(job(), manifest)
    assert [(one.key, one.kind) for one in manifest.failures()] == [(b"a-large", "gave up")]
    assert finished(manifest).copied == 21


@pytest.mark.parametrize("rounds", [large.ROUNDS - 1, 2 * large.ROUNDS])
@pytest.mark.parametrize("step", ["put_part", "complete"])
def test_a_large_object_keeps_what_is_done_while_a_store_is_out_of_order(
    stores: Stores, manifest: Manifest, step: str, rounds: int
) -> None:
    put(stores.src, b"large", os.urandom(10 * PART))
    tries = [0]

    def fail(key: bytes, upload: Upload, number: Any, *_: object) -> None:
        if (step == "complete" or number == 10) and tries[0] < rounds * retry.TRIES:
            tries[0] += 1
            raise TransientError("h answered PUT with 502")

    dst = stores.flaky_dst(**{"put_part": nothing, "begin_upload": nothing, step: fail})
    run(job(workers=2, threads=4), manifest, Mortal())
    assert dst.count("begin_upload") == 1
    good = rounds < large.ROUNDS
    assert [one.kind for one in manifest.failures()] == ([] if good else ["gave up"])
    assert finished(manifest).copied == good
    assert dst.count("put_part") == 10 + (tries[0] - (not good) if step == "put_part" else 0)
    assert dst.storage._bucket.uploads == {}


def test_a_large_object_goes_on_as_long_as_others_of_its_parts_are_done(
    stores: Stores, manifest: Manifest
) -> None:
    put(stores.src, b"large", os.urandom(40 * PART))
    done = set[int]()

    def put_part(key: bytes, upload: Upload, number: int, *_: object) -> None:
        if number == 1 and len(done) < 39:
            raise TransientError("h answered PUT with 502")
        done.add(number)

    dst = stores.flaky_dst(put_part=put_part)
    run(job(threads=1), manifest)
    assert finished(manifest).copied == 1
    assert content(stores.dst) == content(stores.src)
    assert dst.count("put_part") < 40 + large.ROUNDS * retry.TRIES


# Workers that die


def test_what_a_dead_worker_had_in_hand_is_lent_again(
    stores: Stores, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_slices(monkeypatch, 100)
    keys = fill(stores.src, 1000)
    once = {keys[50], keys[500], keys[501]}

    def write(key: bytes, *_: object) -> None:
        if key in once:
            once.remove(key)
            raise Killed

    stores.flaky_dst(write=write)
    mortal = Mortal()
    run(job(workers=4), manifest, mortal)
    assert mortal.deaths == 3
    assert content(stores.dst) == content(stores.src)
    assert list(manifest.failures()) == []
    assert finished(manifest) == Counts(1000, 5000, copied=1000, copied_bytes=5000)


@pytest.mark.parametrize("guilty", [0, 1, 123, 298, 299])
@pytest.mark.parametrize("workers", [1, 3])
def test_the_object_that_kills_every_worker_is_a_failure_and_the_others_are_copied(
    stores: Stores, manifest: Manifest, guilty: int, workers: int
) -> None:
    keys = fill(stores.src, 300)
    bad = keys[guilty]

    def write(key: bytes, *_: object) -> None:
        if key == bad:
            raise Killed

    stores.flaky_dst(write=write)
    mortal = Mortal()
    run(job(workers=workers), manifest, mortal)
    assert [(one.key, one.kind) for one in manifest.failures()] == [(bad, "killed")]
    assert sorted(content(stores.dst)) == [key for key in keys if key != bad]
    assert finished(manifest) == Counts(300, 1500, copied=299, copied_bytes=1495, failed=1)
    assert STRIKES <= mortal.deaths <= 20


def test_several_objects_that_kill_are_all_found(stores: Stores, manifest: Manifest) -> None:
    keys = fill(stores.src, 300)
    bad = [keys[10], keys[11], keys[200]]

    def write(key: bytes, *_: object) -> None:
        if key in bad:
            raise Killed

    stores.flaky_dst(write=write)
    run(job(workers=2), manifest, Mortal())
    assert [(one.key, one.kind) for one in manifest.failures()] == [(key, "killed") for key in bad]
    assert finished(manifest).copied == 297


@pytest.mark.parametrize("before", ["unchanged", "large"])
def test_what_comes_before_the_object_that_kills_is_not_condemned_for_it(
    stores: Stores, manifest: Manifest, before: str
) -> None:
    keys = fill(stores.src, 20)
    if before == "unchanged":
        for key in keys[:10]:
            put(stores.dst, key, key)
    else:
        put(stores.src, b"0000-large", b"x" * (LARGE + 1))

    def write(key: bytes, *_: object) -> None:
        if key == keys[10]:
            raise Killed

    stores.flaky_dst(write=write)
    run(job("sync"), manifest, Mortal())
    assert [(one.key, one.kind) for one in manifest.failures()] == [(keys[10], "killed")]
    assert finished(manifest).failed == 1


@pytest.mark.parametrize("step", ["begin_upload", "put_part", "complete"])
def test_a_large_object_that_kills_every_worker_is_a_failure(
    stores: Stores, manifest: Manifest, step: str
) -> None:
    fill(stores.src, 20)
    put(stores.src, b"large", b"a" * 10 * PART)

    def kill(*_: object) -> None:
        raise Killed

    stores.flaky_dst(**{step: kill})
    mortal = Mortal()
    run(job(), manifest, mortal)
    assert mortal.deaths == large.STRIKES
    assert [(one.key, one.kind) for one in manifest.failures()] == [(b"large", "killed")]
    assert finished(manifest).copied == 20


def test_one_dead_worker_does_not_condemn_an_object_that_many_copy(
    stores: Stores, manifest: Manifest
) -> None:
    put(stores.src, b"large", os.urandom(100 * PART))

    class Dies(Mortal):
        """Loses its pool while all workers copy parts; the next pool lives."""

        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            self.lent.append((fn.__name__, *args))
            if sum(name == "run_parts" for name, *_ in self.lent) > 8:
                return super().submit(fn, *args, **kwargs)
            if fn.__name__ != "run_parts":
                return super().submit(fn, *args, **kwargs)
            future: Future[Any] = Future()
            future.set_exception(BrokenExecutor("a worker died"))
            return future

    run(job(workers=8), manifest, Dies())
    assert list(manifest.failures()) == []
    assert content(stores.dst) == content(stores.src)


def test_a_part_whose_worker_died_is_lent_again(stores: Stores, manifest: Manifest) -> None:
    put(stores.src, b"large", os.urandom(10 * PART))
    once = [5]

    def put_part(key: bytes, upload: Any, number: int, *_: object) -> None:
        if number in once:
            once.clear()
            raise Killed

    stores.flaky_dst(put_part=put_part)
    mortal = Mortal()
    run(job(), manifest, mortal)
    assert mortal.deaths == 1
    assert content(stores.dst) == content(stores.src)
    assert finished(manifest).copied == 1


def test_a_pool_that_was_broken_before_it_was_asked_is_replaced(
    stores: Stores, manifest: Manifest
) -> None:
    fill(stores.src, 20)

    class Broken(Mortal):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            if not self.deaths:
                self.deaths += 1
                raise BrokenExecutor("a worker died meanwhile")
            return super().submit(fn, *args, **kwargs)

    run(job(), manifest, Broken())
    assert finished(manifest).copied == 20


@pytest.mark.parametrize("large_ones", [False, True])
def test_workers_that_never_work_stop_the_run(
    stores: Stores, manifest: Manifest, large_ones: bool
) -> None:
    for key in fill(stores.src, 10):
        if large_ones:
            put(stores.src, key, b"x" * 10 * PART)

    class Stillborn(Mortal):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            self.deaths += 1
            assert self.deaths < 100, "it would go on for ever"
            raise BrokenExecutor("a worker died at once")

    coordinator = run(job(workers=4), manifest, Stillborn())
    assert coordinator.stop
    assert list(manifest.failures()) == []
    assert manifest.runs()[-1].state == "stopped"
    run(job(workers=4), manifest, Mortal())
    assert finished(manifest).copied == 10


# Cutting that goes wrong


@pytest.mark.parametrize(
    "error", [ObjectError("denied", "not allowed"), Unreachable("nobody is there")]
)
def test_a_range_that_cannot_be_probed_is_copied_uncut(
    stores: Stores, manifest: Manifest, error: AdsmigError
) -> None:
    fill(stores.src, 500)

    def probe(*_: object) -> None:
        raise error

    stores.flaky_src(probe=probe)
    run(job(workers=4), manifest, Mortal())
    assert finished(manifest).copied == 500


@pytest.mark.parametrize(
    "error",
    [
        TransientError("x", immediate=True),
        Unreachable("x"),
        StorageFull("x"),
        ObjectError("kind", "x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_cross_processes(error: AdsmigError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == "x"
    assert vars(copy) == vars(error)
    assert issubclass(type(error), errors.AdsmigError)
