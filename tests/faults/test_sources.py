"""Sources and destinations that go away, change hands or lie while a run looks at them."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from adsmig import worker
from adsmig.errors import ListingError
from adsmig.job import Job
from adsmig.limits import Lease
from adsmig.model import EVERYTHING, Budget, Entry, KeyRange
from adsmig.storage.tree import Tree
from adsmig.uri import parse
from tests.e2e.conftest import Adsmig, adsmig, digest, make_tree

__all__ = ["adsmig"]


def test_a_listing_that_fails_settles_no_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The threads that wait for the next key must not take a broken listing for an ended one."""
    make_tree(tmp_path / "tree", 200, most=10)
    real = Tree.list

    def broken(tree: Tree, keys: KeyRange, prune: object = None) -> Iterator[Entry]:
        for number, entry in enumerate(real(tree, keys)):
            if number == 100:
                time.sleep(0.02)  # the others wait meanwhile
                raise ListingError("the listing broke")
            yield entry

    monkeypatch.setattr(Tree, "list", broken)
    for number in range(20):
        src, dst = parse(f"{tmp_path}/tree/"), parse(f"{tmp_path}/{number}/")
        job = Job("cp", src, dst, threads=8, workers=1)
        worker.storages(job)[1].prepare()
        result = worker.run_slice(job, EVERYTHING, Budget(60, 10**6), Lease("", 0))
        worker.forget()
        assert not result.done
        assert result.stop
        assert result.cursor is not None
        there = {os.fsencode(key) for key in digest(tmp_path / str(number))}
        settled = {
            os.fsencode(k) for k in digest(tmp_path / "tree") if os.fsencode(k) <= result.cursor
        }
        assert settled <= there


def test_a_source_unmounted_in_mid_run_is_an_error(adsmig: Adsmig, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "none", str(tree)], capture_output=True
        ).returncode
    ):
        pytest.skip("mounting a file system needs root and CAP_SYS_ADMIN")
    make_tree(tree, 3000, most=20_000)
    command = ["cp", str(tree), str(tmp_path / "copy"), "--bwlimit", "40", "--manifest"]
    process = subprocess.Popen(
        [sys.executable, "-m", "adsmig", *command, str(tmp_path / "m.db")],
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(2.5)
    subprocess.run(["umount", "-l", str(tree)], check=True)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 3, said
    assert "no longer the directory it was" in said
    runs = sqlite3.connect(tmp_path / "m.db").execute("SELECT state FROM runs").fetchall()
    assert runs == [("stopped",)]


def test_a_second_run_of_the_job_into_one_directory_is_refused(
    adsmig: Adsmig, tmp_path: Path
) -> None:
    make_tree(tmp_path / "tree", 300)
    command = ["cp", str(tmp_path / "tree"), str(tmp_path / "copy")]
    first = subprocess.Popen(
        [sys.executable, "-m", "adsmig", *command, "--bwlimit", "8", "--manifest",
         str(tmp_path / "one.db")],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(200):
            if list((tmp_path / "copy").glob("*/*/*.bin")):
                break
            time.sleep(0.05)
        said = adsmig(*command, "--manifest", tmp_path / "two.db", code=3).stderr
        assert "another run of this job is writing" in said
    finally:
        first.kill()
        first.wait()


def test_a_retry_of_a_directory_reaches_names_that_are_not_text(
    adsmig: Adsmig, tmp_path: Path
) -> None:
    tree, manifest = tmp_path / "tree", tmp_path / "m.db"
    make_tree(tree, 5)
    (tree / "d").symlink_to("nowhere")
    adsmig("cp", tree, tmp_path / "copy", "--manifest", manifest, code=1)
    (tree / "d").unlink()
    (tree / "d").mkdir()
    for name in (b"a", b"\xf6l", b"\xfcber.txt"):
        (tree / "d" / os.fsdecode(name)).write_bytes(name)
    # As if the directory itself could not have been listed.
    with sqlite3.connect(manifest) as database:
        database.execute("UPDATE failures SET key = 'd/'")
    adsmig("retry", "--manifest", manifest)
    assert digest(tmp_path / "copy") == digest(tree)


def test_a_retry_looks_at_what_failed_and_at_nothing_else_in_few_checkpoints(
    adsmig: Adsmig, tmp_path: Path
) -> None:
    tree, manifest = tmp_path / "tree", tmp_path / "m.db"
    make_tree(tree, 20)
    for number in range(300):
        (tree / f"d{number % 9}" / f"link{number}").symlink_to(tmp_path / "later" / str(number))
    adsmig("cp", tree, tmp_path / "copy", "--manifest", manifest, code=1)
    (tmp_path / "later").mkdir()
    for number in range(300):
        (tmp_path / "later" / str(number)).write_bytes(b"%d" % number)
    said = adsmig("retry", "--manifest", manifest, "--workers", "1").stdout
    assert "copied 300 objects" in said
    assert "of 300 found" in said
    assert digest(tmp_path / "copy") == digest(tree)
    with sqlite3.connect(manifest) as database:
        (count,) = database.execute("SELECT count(*) FROM slices WHERE run = 2").fetchone()
    assert count < 100


def test_a_full_run_does_not_go_on_with_an_interrupted_retry(
    adsmig: Adsmig, tmp_path: Path
) -> None:
    tree, manifest = tmp_path / "tree", tmp_path / "m.db"
    make_tree(tree, 20)
    (tree / "broken").symlink_to("nowhere")
    command = ("sync", tree, tmp_path / "copy", "--manifest", manifest)
    adsmig(*command, code=1)
    adsmig("retry", "--manifest", manifest, code=1)
    with sqlite3.connect(manifest) as database:  # as if it had been killed
        database.execute("UPDATE runs SET state = 'running' WHERE kind = 'retry'")
        database.execute("UPDATE shards SET done = 0, cursor = NULL")
    (tree / "added").write_bytes(b"new")
    (tree / "broken").unlink()
    adsmig(*command)
    assert (tmp_path / "copy" / "added").read_bytes() == b"new"


def test_a_time_that_sqlite_cannot_hold_stops_nothing(adsmig: Adsmig, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    make_tree(tree, 3)
    late = 300 * 365 * 86400 * 10**9 + 123
    os.utime(tree / "d1/e1/f000001.bin", ns=(late, late))
    if (tree / "d1/e1/f000001.bin").stat().st_mtime_ns != late:
        pytest.skip("this file system cannot hold it either")
    adsmig("cp", tree, tmp_path / "copy")
    assert digest(tmp_path / "copy") == digest(tree)


def test_a_device_is_not_replaced_by_a_file(adsmig: Adsmig, tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", 1)
    os.mkfifo(tmp_path / "pipe")
    done = adsmig("cp", tmp_path / "tree/d0/e0/f000000.bin", tmp_path / "pipe", code=1)
    assert "neither file nor directory" in done.stderr
    assert (tmp_path / "pipe").is_fifo()
