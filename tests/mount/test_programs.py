"""Programs that people use on folders work on a mount: git, tar, rsync, SQLite."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from scripts.slowproxy import SlowProxy
from tests.conftest import BucketFactory
from tests.mount.conftest import MountFactory
from tests.mount.mounts import FULL, Mount, put, run
from tests.servers import SeaweedFS, Server

FILES = 400 if FULL else 60
LONG_AGO = 1_400_000_000


@pytest.fixture
def at(some_store: Server, bucket: BucketFactory, mount: MountFactory) -> Mount:
    """An empty bucket."""
    return mount(some_store.url(bucket(some_store)))


@pytest.fixture
def needs(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """``needs(program)`` skips the test where the program is not."""

    def look(name: str) -> None:
        if not shutil.which(name):
            pytest.skip(f"no {name} here: apt-get install {name}")

    return look


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Files and directories of many kinds, as old as may be."""
    top = tmp_path / "project"
    chance = random.Random(5)
    for number in range(FILES):
        path = top / f"d{number % 7}" / f"e{number % 3}" / f"file {number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.choice([0, 1, 500, 40_000])))
        path.chmod(chance.choice([0o644, 0o755, 0o600]))
    (top / "large").write_bytes(chance.randbytes(9 << 20))
    (top / "d1" / ("long" * 60)).write_bytes(b"name")
    (top / "été ✓ %2F+&").write_bytes(b"name")
    (top / "empty").mkdir()
    (top / "link").symlink_to("d1/e1")
    (top / "d1" / "up").symlink_to("../large")
    (top / "broken").symlink_to("nowhere")
    for folder, _, names in os.walk(top, topdown=False):
        for name in names:
            moment = (LONG_AGO + chance.randrange(10**6)) * 10**9 + chance.randrange(10**9)
            os.utime(Path(folder, name), ns=(moment, moment), follow_symlinks=False)
        os.utime(folder, (LONG_AGO, LONG_AGO))
    return top


def same(one: Path, other: Path) -> None:
    assert run("diff", "-r", "--no-dereference", one, other) == ""


def test_a_clone_is_whole_and_clean(
    at: Mount, project: Path, needs: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("git")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "Somebody")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "somebody@example.org")
    clone = at.path / "clone"

    def git(*words: object) -> str:
        return run("git", "-C", clone, *words)

    run("git", "init", "-q", project)
    run("git", "-C", project, "add", "-A")
    run("git", "-C", project, "commit", "-qm", "First")
    run("git", "clone", "-q", "--no-local", project, clone)
    git("fsck", "--strict")
    assert git("status", "--porcelain") == ""
    (clone / "d1" / "new").write_bytes(b"something new")
    git("mv", "d2", "d1/moved")
    git("add", "-A")
    git("commit", "-qm", "Second")
    git("gc", "-q")
    git("checkout", "-q", "HEAD~1")
    assert git("status", "--porcelain") == ""
    at.again()
    git("fsck", "--strict")
    assert git("status", "--porcelain") == ""
    git("checkout", "-q", "-")
    run("git", "-C", project, "pull", "-q", clone)
    assert (project / "d1" / "new").read_bytes() == b"something new"
    at.stop()


def test_an_unpacked_archive_is_what_was_packed(at: Mount, project: Path, tmp_path: Path) -> None:
    archive = tmp_path / "project.tar"
    run("tar", "-C", project, "-cf", archive, ".")
    run("tar", "-C", at.path, "-xpf", archive)
    assert run("tar", "-C", at.path, "-df", archive) == ""
    at.again()
    assert run("tar", "-C", at.path, "-df", archive) == ""
    same(at.path, project)
    # And the other way; programs run from there.
    shutil.copy("/bin/true", at.path / "program")
    run(at.path / "program")
    (at.path / "program").unlink()
    run("tar", "-C", at.path, "-cf", tmp_path / "other.tar", ".")
    assert run("tar", "-C", project, "-df", tmp_path / "other.tar") == ""
    at.stop()


@pytest.mark.parametrize("server", ["seaweedfs", "minio", "moto"])
def test_rsync_has_nothing_left_to_do_after_it_was_run(
    server: str,
    request: pytest.FixtureRequest,
    bucket: BucketFactory,
    mount: MountFactory,
    project: Path,
    tmp_path: Path,
    needs: Callable[[str], None],
) -> None:
    needs("rsync")
    store: Server = request.getfixturevalue(server)
    at = mount(store.url(bucket(store)))
    there, back = at.path / "copy", tmp_path / "back"

    def rsync(src: Path, dst: Path) -> str:
        return run("rsync", "-a", "--itemize-changes", f"{src}/", f"{dst}/")

    assert "large" in rsync(project, there)
    assert rsync(project, there) == ""
    at.again()
    left = rsync(project, there).splitlines()
    # Other than S3, these servers keep nothing beside a directory's marker.
    assert not left or (server != "moto" and all(line.startswith(".d..t...... ") for line in left))
    assert "large" in rsync(there, back)
    assert rsync(there, back) == ""
    assert rsync(project, back) == ""
    same(back, project)
    (project / "large").write_bytes(b"smaller")
    (project / "d1" / "e1" / "file 1.txt").unlink(missing_ok=True)
    assert "large" in run("rsync", "-a", "-i", "--delete", "--inplace", f"{project}/", f"{there}/")
    assert rsync(project, there) == ""
    same(there, project)
    at.stop()


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_database_keeps_every_transaction(at: Mount, journal: str) -> None:
    rounds = 3000 if FULL else 40
    path = at.path / "data.db"
    chance = random.Random(11)
    model: dict[int, bytes] = {}
    with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as database:
        assert database.execute(f"PRAGMA journal_mode={journal}").fetchone() == (journal,)
        database.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, content BLOB)")
        for number in range(rounds):
            database.execute("BEGIN IMMEDIATE")
            change = dict(model)
            for _ in range(chance.randint(1, 5)):
                row, content = chance.randrange(200), chance.randbytes(chance.randrange(6000))
                change[row] = content
                database.execute("INSERT OR REPLACE INTO rows VALUES (?, ?)", (row, content))
            if change and chance.random() < 0.3:
                row = chance.choice(list(change))
                del change[row]
                database.execute("DELETE FROM rows WHERE id = ?", (row,))
            if chance.random() < 0.2:
                database.execute("ROLLBACK")
            else:
                database.execute("COMMIT")
                model = change
            if number % 20 == 10:
                with closing(sqlite3.connect(path, timeout=60)) as other:
                    assert dict(other.execute("SELECT id, content FROM rows")) == model
        database.execute("VACUUM")
    at.again()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert dict(database.execute("SELECT id, content FROM rows")) == model
    at.stop()


# Looks at and changes files while a timer's signal comes again and again, as git's and Go's do.
TICKING = """
import os, signal, sys
ticks = 0

def tick(*_):
    global ticks
    ticks += 1

signal.signal(signal.SIGALRM, tick)
signal.siginterrupt(signal.SIGALRM, False)
signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
top = sys.argv[1]
for name in sorted(os.listdir(top)):
    for file in sorted(os.listdir(f"{top}/{name}")):
        path = f"{top}/{name}/{file}"
        os.stat(path)
        assert os.stat(path).st_size == len(open(path, "rb").read())
    os.mkdir(f"{top}/{name}/new")
    os.rename(path, f"{top}/{name}/new/{file}")
signal.setitimer(signal.ITIMER_REAL, 0)
assert ticks > 10, ticks
"""


@pytest.fixture
def distant(
    seaweedfs: SeaweedFS, bucket: BucketFactory, mount: MountFactory
) -> Iterator[tuple[Mount, int]]:
    """A mount whose server is far away, with directories of some files each; how many it has."""
    name = bucket(seaweedfs)
    files = {f"d{number % 10}/{number}": b"content" * number for number in range(60)}
    put(seaweedfs, name, files)
    with SlowProxy(seaweedfs.host, 0.03) as proxy:
        at = mount(seaweedfs.url(name).replace(seaweedfs.host, proxy.host))
        yield at, len(files)
        at.stop()


def test_signals_that_do_not_end_a_process_disturb_no_call(distant: tuple[Mount, int]) -> None:
    run(sys.executable, "-ISE", "-c", TICKING, distant[0].path)


def test_a_process_that_is_stopped_and_goes_on_reads_all(distant: tuple[Mount, int]) -> None:
    at, count = distant
    process = subprocess.Popen(
        ["find", at.path, "-type", "f", "-printf", "%s\n"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while process.poll() is None:
        for number in (signal.SIGSTOP, signal.SIGCONT):
            process.send_signal(number)
            time.sleep(0.02)
    said = process.communicate()[0]
    assert process.returncode == 0, said
    assert sorted(map(int, said.split())) == [7 * number for number in range(count)]
