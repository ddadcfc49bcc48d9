"""``kill -9`` before and after each step that makes something durable; the same command resumes.

Every point of :mod:`adsmig.failpoint` is reached here, in each direction in which it matters.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

import adsmig
from adsmig.failpoint import POINTS, VARIABLE
from adsmig.transfer import SETTLED_S
from tests.conftest import BucketFactory
from tests.e2e.conftest import write
from tests.recorder import Recorder
from tests.servers import SeaweedFS

LOCAL, S3 = "local", "s3"
LARGE_KEY = "b/large.bin"
SMALL_PARTS = [
    *("--dst-set", "max_put=1M"),
    *("--dst-set", "min_part=5M"),
    *("--dst-set", "max_part=5M"),
]


class Way(NamedTuple):
    """From where to where, and how."""

    src: str
    dst: str
    large: bool = False
    """With an object that is copied in parts."""
    command: str = "cp"
    options: tuple[str, ...] = ()

    def __repr__(self) -> str:
        name = f"{self.src}-{self.dst}{'-large' if self.large else ''}"
        return name + "".join(option.removeprefix("-") for option in self.options)


UPLOAD, DOWNLOAD, FILES = Way(LOCAL, S3), Way(S3, LOCAL), Way(LOCAL, LOCAL)
LARGE_UPLOAD, LARGE_DOWNLOAD, LARGE_FILES = (
    way._replace(large=True) for way in (UPLOAD, DOWNLOAD, FILES)
)
DELETE_DST = {"command": "sync", "options": ("--delete-dst",)}
DELETE_SRC = {"command": "sync", "options": ("--delete-src",)}
PRUNED_BUCKET, PRUNED_FILES = UPLOAD._replace(**DELETE_DST), FILES._replace(**DELETE_DST)
MOVE_UP, MOVE_DOWN = LARGE_UPLOAD._replace(**DELETE_SRC), DOWNLOAD._replace(**DELETE_SRC)
MOVE_FILES = FILES._replace(**DELETE_SRC)

KILLED_AT = {
    UPLOAD: ["run.locked", "slice.begun", "object.begun:4", "object.stored:4", "flush.before",
             "flush.after", "run.settled"],
    DOWNLOAD: ["object.begun:4", "file.staged:4", "object.stored:4", "flush.before", "flush.after",
               "run.settled", "run.tidied"],
    FILES: ["run.locked", "slice.begun", "file.staged:4", "object.stored:4", "flush.before",
            "flush.after", "directory.before:2", "directory.after:2", "run.settled", "run.tidied"],
    LARGE_UPLOAD: ["upload.begun", "part.stored", "part.stored:3", "flush.after:2",
                   "upload.completing", "upload.completed"],
    LARGE_DOWNLOAD: ["upload.begun", "part.stored:3", "upload.completing", "upload.completed"],
    LARGE_FILES: ["upload.begun", "part.stored:3", "flush.before:2", "upload.completing",
                  "file.staged:10", "upload.completed"],
    PRUNED_BUCKET: ["object.stored:4", "delete.before", "delete.after"],
    PRUNED_FILES: ["delete.before", "delete.after", "delete.after:2"],
    MOVE_UP: ["object.stored:4", "upload.completed", "delete.before", "delete.after"],
    MOVE_DOWN: ["file.staged:4", "delete.before", "delete.after"],
    MOVE_FILES: ["delete.before", "delete.after", "delete.before:2", "delete.after:2"],
}  # fmt: skip
WORKER_KILLED_AT = {
    UPLOAD: ["slice.begun", "object.begun:2", "object.stored:4", "flush.after"],
    LARGE_DOWNLOAD: ["upload.begun", "part.stored:2", "flush.before", "upload.completing",
                     "upload.completed"],
    PRUNED_FILES: ["delete.before", "delete.after"],
    MOVE_FILES: ["file.staged:3", "delete.before", "delete.after", "directory.after"],
}  # fmt: skip


_SOURCES: dict[tuple[Way, str], str] = {}
"""Buckets that are only read: an object that was just stored would be waited for each time."""
_SEEN: dict[tuple[object, ...], str] = {}
"""The hashes of objects that were read, each version once."""


UNRECORDED = ("object.", "file.", "flush.")
"""Points of a slice, of which nothing is in the manifest before all is on stable storage."""


class Migration:
    """A tree of files to migrate, one of the ways, and what has to be so at any time."""

    def __init__(self, way: Way, top: Path, server: SeaweedFS, bucket: BucketFactory) -> None:
        self.way, self.top, self.server = way, top, server
        self.manifest = top / "m.db"
        self.content = content_for(way)
        self.wanted = {key: sha256(data) for key, data in self.content.items()}
        self.extra: dict[str, bytes] = {}
        self.src, self.dst = top / "src", top / "dst"
        self.bucket = bucket(server) if S3 in way[:2] else ""
        if way in (DOWNLOAD, LARGE_DOWNLOAD):
            self.bucket = _SOURCES.setdefault((way, server.host), self.bucket)
        self.recorder = Recorder(server.host)
        if way.src == LOCAL or not self.stored("src"):
            self._put(way.src, self.src, self.content)
            if way.src == S3:  # a young object is waited for, and a slice ends meanwhile
                time.sleep(SETTLED_S)
        if "--delete-dst" in way.options:
            names = ("a/gone", "gone/sub/one", "gone/sub/two", "z")
            self.extra = dict.fromkeys(names, b"not at the source")
            self._put(way.dst, self.dst, self.extra)

    def _put(self, kind: str, folder: Path, content: dict[str, bytes]) -> None:
        for key, data in content.items():
            if kind == S3:
                self.server.client().put_object(Bucket=self.bucket, Key=key, Body=data)
            else:
                (folder / key).parent.mkdir(parents=True, exist_ok=True)
                write(folder / key, data)

    def command(self, workers: int) -> list[str]:
        """The command line, which is the same each time."""
        url = self.server.url(self.bucket).replace(self.server.host, self.recorder.host)
        places = [url if kind == S3 else f"{getattr(self, side)}/"
                  for side, kind in (("src", self.way.src), ("dst", self.way.dst))]  # fmt: skip
        options = [*self.way.options, *(SMALL_PARTS if self.way.dst == S3 else [])]
        options += [
            "--manifest",
            str(self.manifest),
            "--workers",
            str(workers),
            "--threads",
            str(workers),
        ]
        return [sys.executable, "-m", "adsmig", self.way.command, *places, *options]

    def run(self, point: str = "", action: str = "kill", workers: int = 1) -> int:
        """Runs it, with a point set or to its end; the exit code."""
        name, _, count = point.partition(":")
        environment = dict(os.environ)
        if point:
            hits = self.top / "hits"
            hits.unlink(missing_ok=True)
            environment[VARIABLE] = f"{name}:{count or 1}:{action}:{hits}"
        # Not subprocess.run: the group is to be known, to wait for its end.
        with subprocess.Popen(
            self.command(workers),
            env=environment,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            out, err = process.communicate(timeout=120)
        await_end_of_group(process.pid)
        assert b"Traceback" not in err, err.decode()
        assert process.returncode in (0, -signal.SIGKILL), (out + err).decode()
        return process.returncode

    def settled(self) -> set[str]:
        """The keys that the manifest calls copied."""
        with contextlib.suppress(sqlite3.Error):
            database = sqlite3.connect(f"file:{self.manifest}?mode=ro", uri=True)
            with contextlib.closing(database):
                return {key for (key,) in database.execute("SELECT key FROM objects")}
        return set()

    def finished(self) -> bool:
        """Whether the manifest says that the run has come to its end."""
        with contextlib.suppress(sqlite3.Error):
            database = sqlite3.connect(f"file:{self.manifest}?mode=ro", uri=True)
            with contextlib.closing(database):
                return database.execute("SELECT state FROM runs").fetchall() == [("finished",)]
        return False

    def stored(self, side: str) -> dict[str, str]:
        """What is there by its own name, and the hash of its content."""
        kind, folder = getattr(self.way, side), getattr(self, side)
        return dict(self._in_bucket() if kind == S3 else self._in_folder(folder))

    def _in_folder(self, folder: Path) -> Iterator[tuple[str, str]]:
        for path in folder.rglob("*"):
            key = str(path.relative_to(folder))
            if path.is_file() and not key.startswith(".adsmig-"):
                yield key, sha256(path.read_bytes())

    def _in_bucket(self) -> Iterator[tuple[str, str]]:
        client = self.server.client()
        for item in client.list_objects_v2(Bucket=self.bucket).get("Contents", ()):
            key = item["Key"]
            version = self.bucket, key, item["ETag"], item["LastModified"]
            if version not in _SEEN:
                body = client.get_object(Bucket=self.bucket, Key=key)["Body"]
                _SEEN[version] = sha256(body.read())
            if not key.endswith("/"):
                yield key, _SEEN[version]

    def copied_once(self) -> dict[str, Any]:
        """Of each object at the destination, what would be another had it been copied again."""
        if self.way.dst == LOCAL:
            return {key: (self.dst / key).stat().st_ino for key in self.stored("dst")}
        sent = self.recorder.sent()
        times = {}
        for (path, _), count in sent.items():
            key = path.removeprefix(f"/{self.bucket}/")
            times[key] = max(count, times.get(key, 0))
        return times

    def check_nothing_is_lost(self) -> None:
        """Whatever was killed: each object is where it was, or whole where it goes."""
        wanted = self.wanted
        there, here = self.stored("dst"), self.stored("src")
        for key, content in there.items():
            assert content == wanted.get(key, sha256(self.extra.get(key, b"?"))), key
        for key, content in wanted.items():
            moved = "--delete-src" in self.way.options
            assert here.get(key) == content or (moved and there.get(key) == content), key

    def check_the_end(self) -> None:
        """All is there, and nothing else: no temporary file, no upload, no memory of either."""
        wanted = self.wanted
        assert self.stored("dst") == wanted
        assert self.stored("src") == ({} if "--delete-src" in self.way.options else wanted)
        if self.way.dst == LOCAL:
            assert not list(self.dst.glob(".adsmig-*"))
            assert not (self.dst / "gone").exists()
        else:
            uploads = self.server.client().list_multipart_uploads(Bucket=self.bucket)
            assert not uploads.get("Uploads")
        assert [one.name for one in self.top.glob("m.db.*")] == ["m.db.lock"]
        with contextlib.closing(sqlite3.connect(self.manifest)) as database:
            (run,) = database.execute(
                "SELECT state, found, copied + unchanged, failed, deleted FROM runs"
            )
            count = len(self.wanted)
            deleted = len(self.extra) or ("--delete-src" in self.way.options and count)
            assert run == ("finished", count, count, 0, deleted)
            for table in ("uploads", "parts", "deletions", "directories", "failures"):
                assert database.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
        if self.way.command == "cp":  # else some were found there, unchanged
            assert self.settled() == wanted.keys()


def content_for(way: Way) -> dict[str, bytes]:
    """Nine small objects in directories, one of them empty, and perhaps a large one."""
    content = {
        f"{folder}/{number}": f"{folder}{number}".encode() * 100 * number
        for folder in ("a", "b/c", "d")
        for number in range(3)
    }
    if way.large:  # towards file systems, a part is of 16 MiB; the last one is shorter
        unit, count = (5 << 20, 4) if way.dst == S3 else (16 << 20, 5)
        content[LARGE_KEY] = b"".join(bytes([number]) * unit for number in range(count))[
            : -unit // 2
        ]
    return content


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def await_end_of_group(leader: int) -> None:
    members = []
    for one in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(one.pid) == leader:
                members.append(one)
    _, alive = psutil.wait_procs(members, timeout=20)
    assert all(one.status() == psutil.STATUS_ZOMBIE for one in alive)


Migrate = Callable[[Way], Migration]


@pytest.fixture
def migrate(seaweedfs: SeaweedFS, bucket: BucketFactory, tmp_path: Path) -> Iterator[Migrate]:
    """``migrate(way)``: a Migration, not begun."""
    with contextlib.ExitStack() as stack:

        def make(way: Way) -> Migration:
            migration = Migration(way, tmp_path, seaweedfs, bucket)
            stack.enter_context(migration.recorder)
            return migration

        yield make


def each(table: dict[Way, list[str]]) -> list[Any]:
    return [pytest.param(way, point, id=f"{way}-{point}") for way in table for point in table[way]]


@pytest.mark.parametrize(("way", "point"), each(KILLED_AT))
def test_a_run_killed_at_a_point_is_gone_on_with(migrate: Migrate, way: Way, point: str) -> None:
    migration = migrate(way)
    assert migration.run(point) == -signal.SIGKILL
    migration.check_nothing_is_lost()
    settled, before = migration.settled(), migration.copied_once()
    if way in (UPLOAD, DOWNLOAD, FILES) and point.startswith(UNRECORDED):
        assert not settled
    assert migration.run() == 0
    migration.check_the_end()
    after = migration.copied_once()
    assert all(after[key] == before[key] for key in settled)


@pytest.mark.parametrize(
    ("way", "point"),
    each({
        PRUNED_FILES: ["commit.before", "commit.after"],
        MOVE_UP: ["commit.before"],
        LARGE_DOWNLOAD: ["commit.after"],
    }),
)  # fmt: skip
def test_a_run_killed_at_each_of_its_transactions_gets_on(
    migrate: Migrate, way: Way, point: str
) -> None:
    migration = migrate(way)
    runs = 1
    while migration.run(f"{point}:{runs}"):
        migration.check_nothing_is_lost()
        if migration.finished():  # killed after the last of them
            (migration.top / "m.db.shared").unlink()  # the next run would remove it
            break
        runs += 1
    assert runs > 5
    migration.check_the_end()


@pytest.mark.parametrize(("way", "point"), each(WORKER_KILLED_AT))
def test_a_worker_killed_at_a_point_is_replaced(migrate: Migrate, way: Way, point: str) -> None:
    migration = migrate(way)
    # What is gone on with is done by worker processes from the first.
    assert migration.run("slice.begun") == -signal.SIGKILL
    assert migration.run(point, workers=2) == 0
    migration.check_the_end()


@pytest.mark.parametrize(
    ("way", "point"), [(UPLOAD, "object.stored:4"), (LARGE_DOWNLOAD, "part.stored:3")], ids=str
)
def test_all_processes_killed_at_once_are_gone_on_with(
    migrate: Migrate, way: Way, point: str
) -> None:
    migration = migrate(way)
    assert migration.run("slice.begun") == -signal.SIGKILL
    assert migration.run(point, "group", workers=2) == -signal.SIGKILL
    migration.check_nothing_is_lost()
    assert migration.run(workers=2) == 0
    migration.check_the_end()


def test_every_point_is_in_the_program_and_in_these_tests() -> None:
    sources = Path(adsmig.__file__).parent.rglob("*.py")
    texts = [path.read_text() for path in sources]
    reached = {name for text in texts for name in re.findall(r'failpoint\.reach\("(.+?)"\)', text)}
    assert reached == POINTS.keys()
    killed_at = {point.partition(":")[0] for points in KILLED_AT.values() for point in points}
    assert killed_at | {"commit.before", "commit.after"} == POINTS.keys()
