"""A manifest that is damaged or lost: said in one line, and the job goes on without it."""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import BucketFactory
from tests.e2e.conftest import Adsmig, adsmig, digest, make_tree
from tests.faults.test_full_disk import one_line, until
from tests.faults.test_kill import kill_all, no_uploads_left, settled, start
from tests.recorder import Recorder
from tests.servers import SeaweedFS

__all__ = ["adsmig"]


def truncated(manifest: Path) -> None:
    os.truncate(manifest, manifest.stat().st_size // 2)


def beheaded(manifest: Path) -> None:
    manifest.write_bytes(bytes(100) + manifest.read_bytes()[100:])


def garbled(manifest: Path) -> None:
    """Somewhere in the middle of the objects."""
    content = bytearray(manifest.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8192] = random.Random(1).randbytes(8192)
    manifest.write_bytes(content)


def emptied(manifest: Path) -> None:
    os.truncate(manifest, 0)


def replaced(manifest: Path) -> None:
    manifest.write_text("no SQLite file, but one of at least a hundred bytes " * 10)


def gone(manifest: Path) -> None:
    shutil.move(manifest, f"{manifest}-wal")


DAMAGES = {
    truncated: "damaged",
    beheaded: "not a database",
    garbled: "damaged",
    emptied: "it is empty",
    replaced: "not a database",
    gone: "it is gone, but",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_manifest_is_recognised_and_the_job_goes_on_without_it(
    adsmig: Adsmig, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    tree, copy, manifest = tmp_path / "tree", tmp_path / "copy", tmp_path / "state" / "m.db"
    manifest.parent.mkdir()
    make_tree(tree, 1500, most=100)
    adsmig("cp", tree, copy, "--manifest", manifest)
    damage(manifest)
    left = {file.name: file.read_bytes() for file in manifest.parent.glob("m.db")}
    for command in ("cp", "sync"):
        said = one_line(adsmig(command, tree, copy, "--manifest", manifest, code=3).stderr)
        assert DAMAGES[damage] in said
        assert "--rebuild-manifest" in said
    if damage is not garbled:  # where nobody comes by
        assert DAMAGES[damage] in one_line(adsmig("status", "--manifest", manifest, code=3).stderr)
    assert {file.name: file.read_bytes() for file in manifest.parent.glob("m.db")} == left

    (copy / "d1/e1/f000001.bin").unlink()
    (tree / "new").write_bytes(b"new")
    done = adsmig("cp", tree, copy, "--manifest", manifest, "--rebuild-manifest")
    assert "copied 2 objects" in done.stdout
    assert "1,499 unchanged" in done.stdout
    kept = re.search(r"it is kept as (\S+)", done.stderr)
    assert kept
    assert list(manifest.parent.glob(f"{Path(kept[1]).name}*"))
    assert digest(copy) == digest(tree)
    # What was copied earlier is on record, and of most of it the checksum was still to be read.
    assert "1,501 unchanged" in adsmig(
        "sync", "--compare", "manifest", tree, copy, "--manifest", manifest).stdout  # fmt: skip
    database = sqlite3.connect(manifest)
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    query = "SELECT count(*) FROM objects WHERE checksum IS NOT NULL OR size = 0"
    (known,) = database.execute(query).fetchone()
    database.close()
    # A tenth of half a file is left, more or less: the order of its pages is that of the commits.
    assert known >= {garbled: 1300, truncated: 100}.get(damage, 2)
    verified = adsmig("verify", manifest).stdout
    assert f"{known:,} equal" in verified
    assert "0 different, of 1,501 found" in verified
    # It was rebuilt once; now it is as good as any, and cp copies everything again.
    again = adsmig("cp", tree, copy, "--manifest", manifest, "--rebuild-manifest")
    assert "copied 1,501 objects" in again.stdout
    assert "kept as" not in again.stderr


def test_a_manifest_of_a_newer_adsmig_is_not_set_aside(adsmig: Adsmig, tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", 5)
    command = ("cp", tmp_path / "tree", tmp_path / "copy", "--manifest", tmp_path / "m.db")
    adsmig(*command)
    sqlite3.connect(tmp_path / "m.db").execute("PRAGMA user_version = 99").connection.close()
    assert "newer adsmig" in one_line(adsmig(*command, "--rebuild-manifest", code=3).stderr)
    assert not list(tmp_path.glob("*.damaged-*"))


def test_a_lost_log_is_noticed_and_what_was_under_way_is_cleared_up(
    adsmig: Adsmig, seaweedfs: SeaweedFS, bucket: BucketFactory, tmp_path: Path
) -> None:
    """Killed in the middle; then ``-wal`` is removed, which holds most of what was committed."""
    tree, name, manifest = tmp_path / "tree", bucket(seaweedfs), tmp_path / "m.db"
    make_tree(tree, 800, most=2000)
    (tree / "large.bin").write_bytes(os.urandom(150 << 20))
    with Recorder(seaweedfs.host) as recorder:
        url = seaweedfs.url(name, "p/").replace(seaweedfs.host, recorder.host)
        command = ("cp", tree, url, "--manifest", manifest)
        process = start(*command, "--bwlimit", "100")
        until(lambda: settled(manifest) > 200 and not no_uploads_left(seaweedfs, name), process)
        kill_all(process)
        client = seaweedfs.client()
        client.create_multipart_upload(Bucket=name, Key="p/d1/e1/f000001.bin")
        client.create_multipart_upload(Bucket=name, Key="p/of-another")
        (tmp_path / "m.db-wal").unlink()
        (tmp_path / "m.db-shm").unlink()
        assert "checkpoints are missing" in one_line(adsmig(*command, code=3).stderr)
        assert "checkpoints are missing" in one_line(adsmig(*command, code=3).stderr)
        recorder.clear()
        done = adsmig(*command, "--rebuild-manifest")
        unchanged = re.search(r"(\d+) unchanged", done.stdout)
        assert unchanged
        assert int(unchanged[1]) >= 100
        sent = {path for path, _ in recorder.sent()}
        assert len(sent) == 801 - int(unchanged[1])
    left = client.list_multipart_uploads(Bucket=name)["Uploads"]
    assert [one["Key"] for one in left] == ["p/of-another"]
    adsmig("cp", seaweedfs.url(name, "p/"), tmp_path / "back")
    assert digest(tmp_path / "back") == digest(tree)


def test_a_rebuilding_run_that_is_killed_is_resumed_as_one(adsmig: Adsmig, tmp_path: Path) -> None:
    tree, copy, manifest = tmp_path / "tree", tmp_path / "copy", tmp_path / "m.db"
    make_tree(tree, 300, most=100)
    adsmig("cp", tree, copy)
    for number in range(4):
        (tree / f"new{number}").write_bytes(os.urandom(300_000))
    command = ("cp", tree, copy, "--manifest", manifest)
    process = start(*command, "--rebuild-manifest", "--bwlimit", "1")
    until(manifest.exists, process)
    database = sqlite3.connect(manifest)
    until(lambda: database.execute("SELECT count(*) FROM runs").fetchone()[0], process)
    kill_all(process)
    assert "copied 4 objects (1.2 MB), 300 unchanged" in adsmig(*command).stdout
    assert "copied 304 objects" in adsmig(*command).stdout
    assert not list((copy).glob(".adsmig-*"))
