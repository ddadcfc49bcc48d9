"""What a page shows of a job, read from its manifest in some milliseconds, however many objects it
has: nothing here looks at them one by one.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from adsmig.errors import AdsmigError
from adsmig.job import Job
from adsmig.ledger import Run, state_directory
from adsmig.limits import live_at
from adsmig.manifest import Manifest
from adsmig.model import Counts
from adsmig.timeline import Slice
from adsmig.web.console import NAME, Console

RATE_S = 30.0
"""Rates of a running job are averages over so long."""
RECENT = 512
"""Slices looked at to tell a rate."""
FRESH_NS = 2_000_000_000
"""Clocks of file systems tick some hundred times a second; those of others once in two."""
PLOTTED = 1_000
"""Slices, or sums of some, that a plot is made of."""

STATES = ("new", "starting", "running", "stopping", "paused", "interrupted", "stopped", "refused",
          "cancelled", "failures", "finished", "unreadable")  # fmt: skip
"""``paused`` by a person; ``interrupted``: its process was killed; ``stopped`` by what its message
says; ``failures``: finished, and not everything could be copied."""
INTERRUPTED = "interrupted"
"""What is noted of a run that a signal ended."""
ACTIVE = ("starting", "running", "stopping")
RESUMABLE = ("paused", "interrupted", "stopped")


class Rate(NamedTuple):
    """How fast a job is just now, a second."""

    bytes: float = 0.0
    objects: float = 0.0


NO_RATE = Rate()


@dataclass(frozen=True)
class Summary:
    """A job as a list shows it."""

    name: str
    state: str
    command: str = ""
    src: str = ""
    dst: str = ""
    changed: float = 0.0
    """When its manifest was; Unix time."""
    runs: Sequence[Run] = ()
    live: Counts = Counts()  # noqa: RUF009 - it is immutable
    """What is done in the last run, and not committed yet."""
    rate: Rate = NO_RATE
    fraction: float | None = None
    """How much of the last run is done; None where nobody can tell."""
    message: str = ""
    """Why it stopped, or cannot be read."""
    shards: dict[str, int] = field(default_factory=dict)
    """Shards of the last run that are ``done``, ``begun`` and ``waiting``."""

    @property
    def run(self) -> Run | None:
        """The last run."""
        return self.runs[-1] if self.runs else None

    @property
    def counts(self) -> Counts:
        """Those of the last run."""
        return self.runs[-1].counts + self.live if self.runs else Counts()

    @property
    def total(self) -> Counts:
        """Those of all runs together."""
        return sum((run.counts for run in self.runs), self.live)

    @property
    def last_success(self) -> float | None:
        """When the last run ended that copied everything it had to; Unix time."""
        good = (run.ended for run in self.runs if run.state == "finished" and not run.counts.failed)
        return max((ended for ended in good if ended), default=None)

    @property
    def used(self) -> float:
        """When something was last begun; Unix time."""
        return self.runs[-1].started if self.runs else self.changed

    @property
    def active(self) -> bool:
        """Whether a process works on it."""
        return self.state in ACTIVE

    @property
    def resumable(self) -> bool:
        """Whether its last run can be gone on with."""
        return self.state in RESUMABLE


class Jobs:
    """The jobs of the state directory.  What did not change since is not read again."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._read: dict[Path, tuple[object, Summary]] = {}
        self._samples: defaultdict[Path, deque[tuple[float, int, int]]] = defaultdict(deque)
        """Of running jobs: when, bytes and objects that were done."""

    def all(self) -> list[Summary]:
        """Every job, the one that was begun last first."""
        paths = [one for one in state_directory().glob("*.db") if NAME.fullmatch(one.stem)]
        return sorted((self._of(path) for path in paths), key=lambda one: -one.used)

    def one(self, name: str) -> Summary | None:
        """The job of that name; None if there is none, and none was started."""
        path = state_directory() / f"{name}.db"
        if NAME.fullmatch(name) and path.exists():
            return self._of(path)
        process = self._console.started.get(name)
        if process is None:
            return None
        return Summary(name, "starting" if process.code is None else "stopped")

    def _of(self, path: Path) -> Summary:
        name = path.stem
        # Closing a manifest may change its files: then it is read once more.
        files = tuple(_marks(path))
        marks = (files, self._console.is_starting(name), self._console.stopping.get(name))
        if (known := self._read.get(path)) and known[0] == marks:
            return known[1]
        try:
            with Manifest(path) as manifest:
                found = self._summary(name, path, manifest)
        except AdsmigError as exc:
            starting = self._console.is_starting(name)
            found = (
                Summary(name, "starting")
                if starting
                else Summary(name, "unreadable", message=str(exc))
            )
        if found.state in ACTIVE:
            return found  # its rate falls by itself, and its process can end without a word
        self._samples.pop(path, None)
        newest = max((mark[0] for mark in files if mark), default=0)
        if time.time_ns() - newest < FRESH_NS:
            return found  # what is written next may leave the same marks
        self._read[path] = (marks, found)
        return found

    def _summary(self, name: str, path: Path, manifest: Manifest) -> Summary:
        text = manifest.job_json()
        if not text:
            return Summary(name, "starting" if self._console.is_starting(name) else "new")
        job, (runs, pid) = Job.from_json(text), manifest.runs_seen()
        state = self._state(name, pid, runs)
        run = runs[-1] if runs else None
        live, speed = Counts(), NO_RATE
        if run and state in ("running", "stopping"):
            live = live_at(f"{path}.shared") + Counts(copied_bytes=manifest.part_bytes())
            speed = self._rate(path, run.counts + live) or rate(manifest.slices(run.id, RECENT))
        return Summary(
            name,
            state,
            job.command,
            str(job.places[0]),
            job.target,
            changed=path.stat().st_mtime,
            runs=runs,
            live=live,
            rate=speed,
            fraction=_fraction(runs, manifest, live),
            message=run.message if run and run.message != INTERRUPTED else "",
            shards=manifest.shard_counts(run.id) if run else {},
        )

    def _state(self, name: str, pid: int | None, runs: Sequence[Run]) -> str:
        if pid is not None and self._console.stopping.get(name) == pid:
            return "stopping"
        if not runs:
            return "starting" if self._console.is_starting(name) else "new"
        run = runs[-1]
        if run.state == "running":
            return "running"
        if self._console.is_starting(name):
            return "starting"
        if run.state == "stopped":
            return "paused" if run.message in ("", INTERRUPTED) else "stopped"
        if run.state == "finished":
            return "failures" if run.counts.failed else "finished"
        return run.state

    def _rate(self, path: Path, counts: Counts) -> Rate | None:
        """By what this console saw in the last half minute; None if it has just begun to look."""
        now = time.monotonic()
        samples = self._samples[path]
        samples.append((now, counts.copied_bytes, settled(counts)))
        while now - samples[0][0] > RATE_S:
            samples.popleft()
        then, size, objects = samples[0]
        passed = now - then
        if passed < 1:
            return None
        return Rate(
            max(counts.copied_bytes - size, 0) / passed, max(settled(counts) - objects, 0) / passed
        )


def settled(counts: Counts) -> int:
    """Objects that need no more work in a run."""
    return counts.copied + counts.unchanged + counts.failed + counts.left


def rate(slices: Sequence[Slice]) -> Rate:
    """How fast a job is, by what was committed in the last half minute."""
    now = time.time()
    since = now - RATE_S
    recent = [one for one in slices if one[1] > since]
    if not recent:
        return NO_RATE
    length = max(now - max(since, min(one[0] for one in recent)), 1.0)
    # Of a slice that began before, the part that lies within.
    parts = [min(1.0, (one[1] - since) / max(one[1] - one[0], 1e-3)) for one in recent]
    moved = sum(one[6] * part for one, part in zip(recent, parts, strict=True))
    found = sum(max(one[3], one[4]) * part for one, part in zip(recent, parts, strict=True))
    return Rate(moved / length, found / length)


def _fraction(runs: Sequence[Run], manifest: Manifest, live: Counts) -> float | None:
    """By what the last complete run found; without one, by the ranges of keys."""
    if not runs:
        return None
    run = runs[-1]
    if run.state == "finished":
        return 1.0
    counts = run.counts + live
    before = [one for one in runs[:-1] if one.state == "finished" and one.kind != "retry"]
    if before and run.kind != "retry" and before[-1].counts.found:
        return min(settled(counts) / max(before[-1].counts.found, counts.found), 0.999)
    shards = manifest.shard_counts(run.id)
    total = sum(shards.values())
    return min(shards["done"] / total, 0.999) if total > 1 else None


def _marks(path: Path) -> Iterator[tuple[int, int] | None]:
    """What changes with every commit, and with every process that takes the manifest."""
    for suffix in ("", "-wal", ".lock"):
        there = None
        with contextlib.suppress(OSError):
            status = path.with_name(f"{path.name}{suffix}").stat()
            there = (status.st_mtime_ns, status.st_size)
        yield there
