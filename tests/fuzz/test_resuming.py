"""What the manifest says is left is exactly what was not settled, whatever happens in which order.

A state machine: slices are lent and committed, ranges cut, large objects opened, sent and finished,
and the coordinator is killed now and then, of which the manifest's files stay as they are.
"""

from __future__ import annotations

import shutil
import tempfile
from itertools import pairwise
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from adsmig.manifest import Manifest
from adsmig.model import (
    EVERYTHING,
    Counts,
    Entry,
    KeyRange,
    Outcome,
    Part,
    PartsResult,
    SliceResult,
    Upload,
)
from adsmig.record import known_objects

KEYS = sorted({
    b"a", b"a-", b"a/", b"a/b", b"a//b", b"b", b"b\x00", b"\xff", b"\xff\xfe", b"\xc3\xa9", b"~",
    b" ", b"1", b"1.0", b"\xed\xa0\x80", b"z" * 300, *(b"k%02d" % number for number in range(12)),
})  # fmt: skip
LARGE = {b"a/b", b"k03", b"\xff", b"z" * 300}
SIZE, PARTS = 40, 4


class Resuming(RuleBasedStateMachine):
    """``settled`` and ``done`` are what a run knows for certain; ``lent`` dies with it."""

    def __init__(self) -> None:
        super().__init__()
        self.top = Path(tempfile.mkdtemp(prefix="adsmig-test-"))
        self.path = self.top / "0.db"
        self.copies = 0
        self.settled: set[bytes] = set()
        self.finished: set[bytes] = set()
        self.failed: set[bytes] = set()
        self.uploads: dict[bytes, tuple[str, set[int]]] = {}
        self.lent: dict[int, KeyRange] = {}

    @initialize()
    def begin(self) -> None:
        self.manifest = Manifest(self.path, create=True)
        self.manifest.lock()
        self.run = self.manifest.begin_run("cp", [EVERYTHING]).id

    def teardown(self) -> None:
        if hasattr(self, "manifest"):
            self.manifest.close()
        shutil.rmtree(self.top)

    def shards(self) -> dict[int, KeyRange]:
        return dict(self.manifest.open_shards(self.run))

    def idle(self) -> list[tuple[int, KeyRange]]:
        return [one for one in self.shards().items() if one[0] not in self.lent]

    @precondition(lambda self: self.idle())
    @rule(which=st.integers(0, 99))
    def lend(self, which: int) -> None:
        idle = self.idle()
        shard, keys = idle[which % len(idle)]
        self.lent[shard] = keys

    @precondition(lambda self: self.lent)
    @rule(which=st.integers(0, 99), much=st.integers(0, 30), fails=st.booleans())
    def commit(self, which: int, much: int, fails: bool) -> None:
        shard, keys = list(self.lent.items())[which % len(self.lent)]
        held = [key for key in KEYS if key in keys]
        found, done = held[:much], much >= len(held)
        small = [key for key in found if key not in LARGE]
        bad = small[:1] if fails else []
        copied = [key for key in small if key not in bad]
        outcomes = [Outcome(key, 1, 1, None, "xxh3:0") for key in copied]
        outcomes += [Outcome(key, 1, 1, None, None, "why", "kind") for key in bad]
        result = SliceResult(
            found[-1] if found else None,
            done,
            Counts(found=len(found), copied=len(copied), failed=len(bad)),
            outcomes,
            [Entry(key, SIZE, 1, 1) for key in found if key in LARGE],
        )
        self.manifest.commit_slice(self.run, shard, result)
        del self.lent[shard]
        assert not self.settled & set(found), "lent twice"
        self.settled |= set(found)
        self.finished |= set(copied)
        self.failed |= set(bad)
        self.uploads |= {key: ("", set()) for key in found if key in LARGE}

    @precondition(lambda self: self.idle())
    @rule(which=st.integers(0, 99), at=st.sets(st.sampled_from(KEYS), min_size=1, max_size=3))
    def cut(self, which: int, at: set[bytes]) -> None:
        idle = self.idle()
        shard, keys = idle[which % len(idle)]
        cuts = sorted(key for key in at if key in keys and key != keys.upto)
        if cuts:
            pieces = self.manifest.commit_cut(self.run, shard, keys, cuts)
            now = self.shards()
            assert [now[piece] for piece in pieces] == keys.cut(cuts)

    # Large objects

    @precondition(lambda self: self.uploads)
    @rule(which=st.integers(0, 99), tries=st.integers(0, 3))
    def open(self, which: int, tries: int) -> None:
        key = sorted(self.uploads)[which % len(self.uploads)]
        entry = Entry(key, SIZE, 1, 1)
        name = f"upload{which}"
        self.manifest.commit_upload(entry, Upload(entry, name, SIZE // PARTS), tries)
        self.uploads[key] = (name, set())

    @precondition(lambda self: any(name for name, _ in self.uploads.values()))
    @rule(which=st.integers(0, 99), numbers=st.sets(st.integers(1, PARTS), min_size=1))
    def send(self, which: int, numbers: set[int]) -> None:
        opened = sorted(key for key, (name, _) in self.uploads.items() if name)
        key = opened[which % len(opened)]
        parts = [Part(number, "e", "c", None) for number in numbers]
        self.manifest.commit_parts(self.run, key, PartsResult(parts, 10 * len(parts)))
        self.uploads[key][1].update(numbers)

    @precondition(lambda self: any(len(parts) == PARTS for _, parts in self.uploads.values()))
    @rule()
    def finish(self) -> None:
        whole = [key for key, (_, parts) in self.uploads.items() if len(parts) == PARTS]
        self.manifest.commit_large(self.run, Outcome(whole[0], SIZE, 1, None, "xxh3:0"))
        del self.uploads[whole[0]]
        self.finished.add(whole[0])

    # Ends

    @rule(killed=st.booleans())
    def reopen(self, killed: bool) -> None:
        """A killed process leaves its files as they are, the log not moved into the database."""
        if killed:
            self.copies += 1
            copy = self.top / f"{self.copies}.db"
            for end in ("", "-wal"):
                source = Path(f"{self.path}{end}")
                if source.exists():
                    shutil.copy(source, f"{copy}{end}")
        self.manifest.close()
        self.path = copy if killed else self.path
        self.lent.clear()
        self.manifest = Manifest(self.path)
        self.manifest.lock()
        run = self.manifest.unfinished_run()
        assert run
        assert run.id == self.run
        self.manifest.resume_run(run.id)

    # What always holds

    @invariant()
    def ranges_hold_what_is_not_settled_and_nothing_twice(self) -> None:
        if not hasattr(self, "manifest"):
            return
        ranges = list(self.shards().values())
        for key in KEYS:
            assert sum(key in keys for keys in ranges) == (key not in self.settled), key
        for one, two in pairwise(ranges):
            assert one.upto is not None
            assert one.upto <= two.after

    @invariant()
    def nothing_is_counted_twice_or_forgotten(self) -> None:
        if not hasattr(self, "manifest"):
            return
        counts = self.manifest.runs()[-1].counts
        assert counts.found == len(self.settled)
        assert counts.copied == len(self.finished)
        assert counts.failed == len(self.failed)
        copied = [entry.key for entry in known_objects(str(self.path), EVERYTHING)]
        assert copied == sorted(self.finished)
        assert [one.key for one in self.manifest.failures()] == sorted(self.failed)
        pending = {
            one.entry.key: (
                one.upload.upload_id if one.upload else "", {part.number for part in one.parts}
            )
            for one in self.manifest.pending_uploads()
        }  # fmt: skip
        assert pending == self.uploads


TestResuming = Resuming.TestCase
TestResuming.settings = settings(
    max_examples=max(settings.default.max_examples // 5, 10),
    stateful_step_count=30,
    suppress_health_check=list(HealthCheck),
)
