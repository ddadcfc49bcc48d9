"""The real coordinator with workers that only exist on a simulated clock, over keys that do not.

A key is computed from its rank and a rank from its key, so a slice moves its cursor by arithmetic
and a billion keys take no room.  What the coordinator does, it does: it lends, cuts with the real
splitter, and commits to a real manifest on disk; the time that this takes it is added to the
simulated clock, and workers who are done meanwhile wait for it.  So is packing what goes to workers
and comes from them; whatever else an executor does is not.
"""

from __future__ import annotations

import heapq
import os
import pickle
import random
import time
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from queue import Empty
from typing import Any
from unittest import mock

from adsmig import coordinator, scan, tasks
from adsmig.coordinator import Coordinator
from adsmig.job import Job
from adsmig.limits import Lease, opened
from adsmig.manifest import Manifest
from adsmig.model import Budget, Counts, Entry, KeyRange, Outcome, SliceResult
from adsmig.splitter import find_cuts
from adsmig.storage.memory import MemoryStorage
from adsmig.uri import parse

ALL_BUSY = 0.95
"""The share of workers that counts as all of them."""


@dataclass(frozen=True)
class Setup:
    """What is simulated."""

    keys: int = 1_000_000_000
    workers: int = 1_000
    prefixes: int = 100_000
    speed: float = 20_000
    """Keys that a worker settles in a second."""
    latency_s: float = 0.005
    """Of a request: a probe, or the first page of a slice."""
    copy: bool = False
    """Every key is copied, and recorded; otherwise all are found equal."""
    seed: int = 7


class Skewed:
    """Keys like ``team-042/set-0815/0000000123.dat``, in order: the directories' sizes fall off as
    1, 1/2, 1/3 … and lie in no order, so that the largest of 100,000 has 8% of all keys.
    """

    def __init__(self, count: int, prefixes: int, seed: int) -> None:
        weights = [1 / rank for rank in range(1, prefixes + 1)]
        random.Random(seed).shuffle(weights)
        scale = count / sum(weights)
        sizes = [int(weight * scale) for weight in weights]
        sizes[weights.index(1)] += count - sum(sizes)
        self._count = count
        self._names = [b"team-%03d/set-%04d/" % divmod(number, 1000) for number in range(prefixes)]
        self.ends = list(accumulate(sizes))

    def __len__(self) -> int:
        return self._count

    def key(self, rank: int) -> bytes:
        """The key that ``rank`` keys come before."""
        at = bisect_right(self.ends, rank)
        return self._names[at] + _file(rank - (self.ends[at - 1] if at else 0))

    def rank(self, point: bytes) -> int:
        """How many keys come up to and including ``point``."""
        at = bisect_right(self._names, point) - 1
        if at < 0:
            return 0
        before = self.ends[at - 1] if at else 0
        name, size = self._names[at], self.ends[at] - before
        if not point.startswith(name):
            return before + size
        return before + bisect_right(range(size), point[len(name) :], key=_file)


def _file(number: int) -> bytes:
    return b"%010d.dat" % number


class Clock:
    """Simulated seconds; while it is not stopped, this thread's own work moves it on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.spent_s = self.cpu_s = 0.0
        """Of this thread: all that its work took, and the processor's time in that."""
        self._stat: int | None = None
        with suppress(FileNotFoundError):
            self._stat = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
        self._mark = self._read()

    def close(self) -> None:
        if self._stat is not None:
            os.close(self._stat)

    def _read(self) -> tuple[float, float]:
        """Wall time without what was spent in waiting for a processor, and processor time.

        The disk counts, other processes do not, if the kernel tells (docs.kernel.org/scheduler/
        sched-stats.html).
        """
        if self._stat is None:
            return time.perf_counter(), time.thread_time()
        cpu_ns, waited_ns, _ = os.pread(self._stat, 100, 0).split()
        return time.perf_counter() - int(waited_ns) / 1e9, int(cpu_ns) / 1e9

    def monotonic(self) -> float:
        """Instead of the time module's."""
        return self.now

    def time(self) -> float:
        return self.now

    def charge(self) -> None:
        """Adds what was done since the last charge."""
        mark = self._read()
        self.spent_s += mark[0] - self._mark[0]
        self.cpu_s += mark[1] - self._mark[1]
        self.now += mark[0] - self._mark[0]
        self._mark = mark

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What is done inside takes no time."""
        self.charge()
        yield
        self._mark = self._read()


class Workers(Executor):
    """An executor whose workers take simulated time.

    Raises AssertionError if two of them have a range in hand that overlaps.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup, self.clock = setup, Clock()
        self.keys = Skewed(setup.keys, setup.prefixes, setup.seed)
        self._idle = list(range(1, setup.workers + 1))
        self._due: list[tuple[float, int, Future[Any], int, tuple[int, int], bytes]] = []
        self._in_hand: list[tuple[int, int]] = []
        self._done: deque[Future[Any]] = deque()
        self.tasks: list[tuple[str, float, float]] = []
        """Name, begin and end of each."""
        self.settled: list[tuple[int, int]] = []
        """The ranks of every slice: from, and up to without."""
        self.probes = self.cuts = self.cut_ranges = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        pickle.dumps((fn, args))  # as an executor does, in this process
        with self.clock.stopped():
            name, keys = fn.__name__, args[1]
            future: Future[Any] = Future()
            worker = heapq.heappop(self._idle)
            ranks = self.ranks(keys)
            self.borrow(ranks)
            self._show(args[-1])
            begun = self.clock.now
            if name == "run_slice":
                seconds, result = self._slice(ranks, args[2], worker)
            elif name == "cut_range":
                seconds, result = self._cut(keys, args[2])
            else:
                raise AssertionError(f"nothing here needs {name}")
            self.tasks.append((name, begun, begun + seconds))
            packed = pickle.dumps(result)
            entry = (begun + seconds, len(self.tasks), future, worker, ranks, packed)
            heapq.heappush(self._due, entry)
        return future

    # The queue of what is done, as the coordinator sees it

    def put(self, future: Future[Any]) -> None:
        self._done.append(future)

    def get_nowait(self) -> Future[Any]:
        """What has come to its end by now; raises queue.Empty."""
        if not self._done:
            self.clock.charge()
            self._deliver()
            if not self._done:
                raise Empty
        return self._done.popleft()

    def get(self, timeout: float) -> Future[Any]:
        """The same, but the time passes until there is something."""
        with suppress(Empty):
            return self.get_nowait()
        if not self._due:
            raise Empty  # who asks has something else to do
        self.clock.now = max(self.clock.now, min(self._due[0][0], self.clock.now + timeout))
        return self.get_nowait()

    def _deliver(self) -> None:
        """Completes what has come to its end by now."""
        while self._due and self._due[0][0] <= self.clock.now:
            _, _, future, worker, ranks, packed = heapq.heappop(self._due)
            heapq.heappush(self._idle, worker)
            self._in_hand.remove(ranks)
            future.set_result(pickle.loads(packed))  # which calls put

    # What a worker does

    def ranks(self, keys: KeyRange) -> tuple[int, int]:
        upto = len(self.keys) if keys.upto is None else self.keys.rank(keys.upto)
        return self.keys.rank(keys.after), upto

    def _show(self, lease: object) -> None:
        """Has a tally, as a worker on the coordinator's machine has."""
        if isinstance(lease, Lease) and (limits := opened(lease.path)):
            limits.report(lease.slot, Counts(found=1))

    def borrow(self, ranks: tuple[int, int]) -> None:
        insort(self._in_hand, ranks)
        at = self._in_hand.index(ranks)
        for one, other in pairwise(self._in_hand[max(at - 1, 0) : at + 2]):
            assert one[1] <= other[0], f"{one} and {other} are both lent"

    def _slice(
        self, ranks: tuple[int, int], budget: Budget, worker: int
    ) -> tuple[float, SliceResult]:
        first, upto = ranks
        most = int(budget.seconds * self.setup.speed)
        if self.setup.copy:
            most = min(most, budget.objects)
        last = min(upto, first + max(1, most))
        self.settled.append((first, last))
        count = last - first
        seconds = self.setup.latency_s + count / self.setup.speed
        outcomes = []
        if self.setup.copy:
            outcomes = [
                Outcome(self.keys.key(rank), 1, 0, None, "xxh3:0123456789abcdef")
                for rank in range(first, last)
            ]
            counts = Counts(found=count, found_bytes=count, copied=count, copied_bytes=count)
        else:
            counts = Counts(found=count, found_bytes=count, unchanged=count, unchanged_bytes=count)
        cursor = self.keys.key(last - 1) if count else None
        began = self.clock.now
        return seconds, SliceResult(
            cursor, last == upto, counts, outcomes,
            worker=worker, started=began, ended=began + seconds,
        )  # fmt: skip

    def _cut(self, keys: KeyRange, pieces: int) -> tuple[float, list[bytes]]:
        before = self.probes
        first, upto = self.ranks(keys)
        entries = (Entry(self.keys.key(rank), 1, None, 0) for rank in range(first, upto))
        cuts = find_cuts(entries, self._probe, keys, pieces)
        self.cuts += len(cuts)
        self.cut_ranges += bool(cuts)
        return self.setup.latency_s * (1 + self.probes - before), cuts

    def _probe(self, after: bytes) -> bytes | None:
        self.probes += 1
        rank = self.keys.rank(after)
        return self.keys.key(rank) if rank < len(self.keys) else None


@dataclass(frozen=True)
class Figures:
    """What came out; seconds are simulated ones."""

    seconds: float
    least_s: float
    """What it would have taken if all workers had settled keys all the time."""
    settling: float
    cutting: float
    waiting: float
    """Shares of the workers' time."""
    begin_s: float
    """Until all of them had something to do for the first time."""
    middle_waiting: float
    """Share of their time between that and the last time that all had something to do."""
    end_s: float
    """After that."""
    slices: int
    cuts: int
    probes: int
    transactions_per_s: float
    coordinator: float
    """The share of the time that the coordinator was at work, its disk included."""
    coordinator_cpu: float
    manifest_bytes: int
    wall_s: float
    """Real seconds that the simulation took."""


def simulate(setup: Setup, path: Path) -> Figures:
    """Runs a job to its end, with its manifest at ``path``.

    Raises AssertionError unless every key was settled exactly once.
    """
    wall = time.monotonic()
    workers = Workers(setup)
    places = parse("minio://simulated/src/"), parse("minio://simulated/dst/")
    command = "cp" if setup.copy else "sync"
    job = Job(command, *places, workers=setup.workers, threads=setup.workers)

    def open_storage(location: Any, *_: object, destination: bool = False) -> MemoryStorage:
        return MemoryStorage(location)

    with (
        Manifest(path, create=True) as manifest,
        mock.patch.object(scan, "open_storage", open_storage),
        mock.patch.object(tasks, "SimpleQueue", return_value=workers),
        mock.patch.object(coordinator, "time", workers.clock),
    ):
        manifest.lock()
        manifest.set_job(job)
        run = manifest.begin_run(command, [job.keys])
        one = Coordinator(job, manifest, run, lambda counts, last: None, workers)
        workers.clock.charge()
        began = workers.clock.now
        one.run()
        workers.clock.charge()
        ended = workers.clock.now
        last = manifest.runs()[-1]
        assert last.state == "finished", last.message
        assert last.counts.found == setup.keys, last.counts
        size = sum(os.path.getsize(f"{path}{end}") for end in ("", "-wal"))
    workers.clock.close()
    _assert_each_once(workers.settled, setup.keys)
    return _figures(workers, began, ended, size, time.monotonic() - wall)


def _assert_each_once(settled: Iterable[tuple[int, int]], count: int) -> None:
    at = 0
    for first, last in sorted(settled):
        assert first == at, f"the keys from {min(first, at)} to {max(first, at)}: none or twice"
        at = last
    assert at == count


def _figures(workers: Workers, began: float, ended: float, size: int, wall_s: float) -> Figures:
    setup, tasks = workers.setup, workers.tasks
    seconds = ended - began
    spent = dict.fromkeys(("run_slice", "cut_range"), 0.0)
    for name, begin, end in tasks:
        spent[name] += end - begin
    settling, cutting = (value / seconds / setup.workers for value in spent.values())
    slices = sum(name == "run_slice" for name, _, _ in tasks)
    full = list(_full(tasks, setup.workers)) or [(began, ended)]
    first, last = full[0][0], full[-1][1]
    busy = sum(max(0.0, min(end, last) - max(begin, first)) for _, begin, end in tasks)
    return Figures(
        seconds=seconds,
        least_s=setup.keys / setup.speed / setup.workers,
        settling=settling,
        cutting=cutting,
        waiting=1 - settling - cutting,
        begin_s=first - began,
        middle_waiting=1 - busy / ((last - first) * setup.workers),
        end_s=ended - last,
        slices=slices,
        cuts=workers.cuts,
        probes=workers.probes,
        transactions_per_s=(slices + workers.cut_ranges) / seconds,
        coordinator=workers.clock.spent_s / seconds,
        coordinator_cpu=workers.clock.cpu_s / seconds,
        manifest_bytes=size,
        wall_s=wall_s,
    )


def _full(tasks: Iterable[tuple[str, float, float]], workers: int) -> Iterator[tuple[float, float]]:
    """The stretches in which all workers had something to do."""
    events = sorted(event for _, begin, end in tasks for event in ((begin, 1), (end, -1)))
    busy, since = 0, None
    for at, step in events:
        busy += step
        if busy >= ALL_BUSY * workers:
            since = at if since is None else since
        elif since is not None:
            yield since, at
            since = None
