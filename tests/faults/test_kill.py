"""``kill -9`` of everything at random moments, again and again; the same command resumes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import BucketFactory
from tests.e2e.conftest import Adsmig, digest, make_tree
from tests.e2e.conftest import adsmig as adsmig
from tests.recorder import Recorder
from tests.servers import MinIOGateway, SeaweedFS, Server

KILLS = 10


def start(*arguments: object, stderr: Any = subprocess.PIPE) -> subprocess.Popen[bytes]:
    """The command, in a process group of its own."""
    command = [sys.executable, "-m", "adsmig", *map(str, arguments)]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=stderr)


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for the whole group; returns when all of it is gone."""
    members = [one for one in psutil.process_iter() if _group(one.pid) == process.pid]
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    psutil.wait_procs(members, timeout=30)


def _group(pid: int) -> int:
    with contextlib.suppress(ProcessLookupError):
        return os.getpgid(pid)
    return 0


def settled(manifest: Path) -> int:
    """Objects and parts that the manifest holds."""
    with contextlib.suppress(sqlite3.Error):
        database = sqlite3.connect(f"file:{manifest}?mode=ro", uri=True)
        query = "SELECT (SELECT count(*) FROM objects) + (SELECT count(*) FROM parts)"
        return int(database.execute(query).fetchone()[0])
    return 0


def await_begun(manifest: Path, resumed: int) -> None:
    """Returns when the run is at work, resumed for that many times: a loaded machine may take
    longer to begin than another to copy for a while.
    """
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(sqlite3.Error):
            database = sqlite3.connect(f"file:{manifest}?mode=ro", uri=True)
            if database.execute("SELECT resumed FROM runs").fetchall() == [(resumed,)]:
                return
        time.sleep(0.02)
    raise AssertionError("the run did not begin")


def finish(*arguments: object) -> str:
    process = start(*arguments)
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err.decode()
    assert b"Traceback" not in err
    return out.decode()


def no_uploads_left(server: Server, bucket: str) -> bool:
    return not server.client().list_multipart_uploads(Bucket=bucket).get("Uploads")


def test_a_killed_run_is_told_from_one_at_work(adsmig: Adsmig, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "large").write_bytes(bytes(20_000_000))
    state = Path.home() / "state/adsmig/jobs"

    def states() -> list[str]:
        lines = [adsmig(command, "--json").stdout for command in ("jobs", "status")]
        return [json.loads(line)["state"] for line in lines]

    process = start("cp", "--bwlimit", "1", tmp_path / "src", tmp_path / "dst")
    while not (found := list(state.glob("*.db"))):
        time.sleep(0.02)
    await_begun(found[0], 0)
    said = adsmig("status").stdout
    assert f"process {process.pid} is at work on it" in said
    assert "go on with" not in said
    assert "  running  " in adsmig("jobs").stdout
    assert states() == ["running"] * 2
    kill_all(process)
    said = adsmig("status").stdout
    assert "  interrupted  " in said
    assert f"go on with: adsmig resume {found[0].stem}" in said
    assert "at work" not in said
    assert "  interrupted  " in adsmig("jobs").stdout
    assert states() == ["interrupted"] * 2


@pytest.mark.slow
def test_an_upload_killed_ten_times_ends_complete(
    seaweedfs: SeaweedFS, bucket: BucketFactory, tmp_path: Path
) -> None:
    tree, place, manifest = tmp_path / "tree", bucket(seaweedfs), tmp_path / "m.db"
    make_tree(tree, 6000, most=4000)
    (tree / "d5" / "large.bin").write_bytes(os.urandom(200 << 20))
    chance = random.Random(os.environ.get("ADSMIG_TEST_SEED", "1"))
    in_hand = kills = 0
    with Recorder(seaweedfs.host) as recorder:
        url = seaweedfs.url(place, "x/").replace(seaweedfs.host, recorder.host)
        # Slow enough not to end before it was killed so often, on any machine.
        command = ("cp", tree, url, "--manifest", manifest, "--bwlimit", "100")
        while kills < KILLS:
            before, had = len(recorder.data()), settled(manifest)
            process = start(*command)
            await_begun(manifest, kills)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0.3, 2))
            assert process.poll() is None, "it came to its end before it was killed often enough"
            kill_all(process)
            kills += 1
            in_hand += len(recorder.data()) - before - max(0, settled(manifest) - had)
        assert f"of {6001:,} found" in finish(*command)
        sent = recorder.sent()
    units = len(sent)
    again = sum(sent.values()) - units
    # A large object's parts leave the manifest once it is complete, so what was in hand may be
    # overrated by as many; never underrated.
    assert again <= in_hand + 0.05 * units, f"{again} of {units} sent again, {in_hand} in hand"
    assert no_uploads_left(seaweedfs, place)
    finish("cp", seaweedfs.url(place, "x/"), tmp_path / "back")
    assert digest(tmp_path / "back") == digest(tree)
    runs = sqlite3.connect(manifest).execute("SELECT id, state, resumed, copied FROM runs")
    assert runs.fetchall() == [(1, "finished", KILLS, 6001)]


@pytest.mark.slow
def test_a_download_killed_ten_times_leaves_no_temporary_file(
    minio: MinIOGateway, bucket: BucketFactory, tmp_path: Path
) -> None:
    tree, copy, url = tmp_path / "tree", tmp_path / "copy", minio.url(bucket(minio))
    make_tree(tree, 1500, most=4000)
    (tree / "large.bin").write_bytes(os.urandom(150 << 20))
    finish("cp", tree, url)
    command = ("cp", url, copy, "--manifest", tmp_path / "m.db", "--bwlimit", "160")
    chance = random.Random(os.environ.get("ADSMIG_TEST_SEED", "2"))
    for _ in range(KILLS):
        process = start(*command)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0.5, 1.5))
        assert process.poll() is None, "it came to its end before it was killed often enough"
        kill_all(process)
        whole = digest(tree)
        for key, content in digest(copy).items() if copy.exists() else ():
            # What has its name is whole at any moment; the rest lies in the staging directory.  A
            # directory may be there before the first that is to be in it.
            assert key.startswith(".adsmig-") or key.endswith("/") or whole[key] == content
    finish(*command)
    assert digest(copy) == digest(tree)


def test_a_large_object_goes_on_from_its_last_finished_part(
    minio: MinIOGateway, bucket: BucketFactory, tmp_path: Path
) -> None:
    tree, place, manifest = tmp_path / "tree", bucket(minio), tmp_path / "m.db"
    tree.mkdir()
    (tree / "large.bin").write_bytes(os.urandom(400 << 20))
    with Recorder(minio.host) as recorder:
        url = minio.url(place).replace(minio.host, recorder.host)
        command = ("cp", tree, url, "--manifest", manifest, "--threads", "2", "--bwlimit", "400")
        process = start(*command)
        for _ in range(600):
            if settled(manifest) >= 5:
                break
            time.sleep(0.05)
        kill_all(process)
        kept, before = settled(manifest), len(recorder.sent())
        assert 5 <= kept < 25
        finish(*command)
        sent = recorder.sent()
    assert len(sent) == 25
    assert sum(sent.values()) - len(sent) <= before - kept
    assert no_uploads_left(minio, place)
    head = minio.client().head_object(Bucket=place, Key="large.bin")
    assert head["ContentLength"] == 400 << 20


def test_an_upload_opened_just_before_a_kill_is_found_and_removed(
    seaweedfs: SeaweedFS, bucket: BucketFactory, tmp_path: Path
) -> None:
    tree, place, manifest = tmp_path / "tree", bucket(seaweedfs), tmp_path / "m.db"
    tree.mkdir()
    (tree / "large.bin").write_bytes(os.urandom(70 << 20))
    # As if killed between the store's answer and the manifest: the store knows of an upload.
    seaweedfs.client().create_multipart_upload(Bucket=place, Key="large.bin")
    seaweedfs.client().create_multipart_upload(Bucket=place, Key="large.bin.of-another")
    finish("cp", tree, seaweedfs.url(place), "--manifest", manifest)
    left = seaweedfs.client().list_multipart_uploads(Bucket=place)["Uploads"]
    assert [one["Key"] for one in left] == ["large.bin.of-another"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_group_settles_what_is_in_hand(
    number: signal.Signals, seaweedfs: SeaweedFS, bucket: BucketFactory, tmp_path: Path
) -> None:
    tree, manifest = tmp_path / "tree", tmp_path / "m.db"
    make_tree(tree, 3000, most=2000)
    with Recorder(seaweedfs.host) as recorder:
        url = seaweedfs.url(bucket(seaweedfs)).replace(seaweedfs.host, recorder.host)
        command = ("cp", tree, url, "--manifest", manifest)
        process = start(*command)
        for _ in range(600):
            if settled(manifest) >= 300:
                break
            time.sleep(0.05)
        os.killpg(process.pid, number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert f"adsmig resume --manifest {manifest}".encode() in err
        # All that was sent is settled, and nobody lives on.
        assert sum(recorder.sent().values()) == settled(manifest) < 3000
        members = [one for one in psutil.process_iter() if _group(one.pid) == process.pid]
        _, alive = psutil.wait_procs(members, timeout=10)
        assert all(one.status() == psutil.STATUS_ZOMBIE for one in alive)
        assert "3,000 found" in finish(*command)
        assert sum(recorder.sent().values()) == 3000


def test_nobody_outlives_a_killed_parent(
    seaweedfs: SeaweedFS, bucket: BucketFactory, tmp_path: Path
) -> None:
    make_tree(tmp_path / "tree", 4000, most=2000)
    url, manifest = seaweedfs.url(bucket(seaweedfs)), tmp_path / "m.db"
    process = start("cp", "--workers", "2", tmp_path / "tree", url, "--manifest", manifest)
    for _ in range(600):
        members = [one for one in psutil.process_iter() if _group(one.pid) == process.pid]
        if len(members) > 3:  # with workers
            break
        time.sleep(0.05)
    assert len(members) > 3
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(members, timeout=10)
    assert not alive


def test_a_worker_that_dies_is_replaced(
    seaweedfs: SeaweedFS, bucket: BucketFactory, tmp_path: Path
) -> None:
    make_tree(tmp_path / "tree", 4000, most=2000)
    url, manifest = seaweedfs.url(bucket(seaweedfs)), tmp_path / "m.db"
    # Slow enough not to be over before three were killed, on any machine.
    command = ("cp", "--workers", "2", "--bwlimit", "8", tmp_path / "tree", url)
    process = start(*command, "--manifest", manifest)
    killed = 0
    while killed < 3 and process.poll() is None:
        if settled(manifest) >= 300 * (killed + 1):
            grown = psutil.Process(process.pid).children(recursive=True)
            workers = [one for one in grown if one.ppid() != process.pid]
            if workers:
                workers[0].kill()
                killed += 1
        time.sleep(0.05)
    process.communicate(timeout=300)
    assert killed == 3
    assert process.returncode == 0
    finish("cp", url, tmp_path / "back")
    assert digest(tmp_path / "back") == digest(tmp_path / "tree")
