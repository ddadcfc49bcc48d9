"""Many keys: every worker has its share, memory stays flat, a directory is read a few times."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.conftest import BucketFactory
from tests.e2e.conftest import FULL, Adsmig, adsmig, digest
from tests.recorder import Recorder
from tests.servers import SeaweedFS

__all__ = ["adsmig"]

Synthetic = Callable[[int, str], str]


@pytest.fixture
def synthetic() -> Iterator[Synthetic]:
    """``synthetic(count, shape)``: the host of a store with so many keys; see tests.synthetic."""
    started: list[subprocess.Popen[str]] = []

    def start(count: int, shape: str) -> str:
        command = [sys.executable, "-m", "tests.synthetic", "0", str(count), shape]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout
        return process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def peak_memory(*arguments: object) -> int:
    """Bytes that the command and all its processes had at most, shared pages counted once."""
    command = [sys.executable, "-m", "adsmig", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        peak = 0
        while process.poll() is None:
            now = 0
            with contextlib.suppress(psutil.Error):
                root = psutil.Process(process.pid)
                for one in (root, *root.children(recursive=True)):
                    with contextlib.suppress(psutil.Error):
                        now += one.memory_full_info().pss
            peak = max(peak, now)
            time.sleep(0.1)
        assert process.stderr
        assert process.returncode == 0, process.stderr.read()
    return peak


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["flat", "dated"])
def test_every_worker_is_busy_to_within_two_slices_of_the_end(
    adsmig: Adsmig, synthetic: Synthetic, tmp_path: Path, shape: str
) -> None:
    host = synthetic(50_000, shape)
    here, there = (f"s3://ak:sk@{host}/{bucket}/" for bucket in ("one", "two"))
    adsmig("cp", here, there, "--workers", "4", "--manifest", tmp_path / "m.db")
    database = sqlite3.connect(tmp_path / "m.db")
    assert database.execute("SELECT count(*) FROM objects").fetchone() == (50_000,)
    last = dict(database.execute("SELECT worker, max(ended) FROM slices GROUP BY worker"))
    # The very first slice is this process's own; after it, the pool's.
    parent = database.execute("SELECT worker FROM slices ORDER BY started").fetchone()[0]
    workers = {worker: ended for worker, ended in last.items() if worker != parent}
    assert len(workers) == 4
    (longest,) = database.execute("SELECT max(ended - started) FROM slices").fetchone()
    idle = max(workers.values()) - min(workers.values())
    assert idle <= 2 * longest, f"a worker idled {idle} s; slices last {longest} s"


@pytest.mark.slow
def test_memory_is_flat_in_the_number_of_objects(synthetic: Synthetic, tmp_path: Path) -> None:
    peaks = {}
    for count in (10_000, 100_000, 1_000_000):
        host = synthetic(count, "hashed")
        here, there = (f"s3://ak:sk@{host}/{bucket}/" for bucket in ("one", "two"))
        options = ("--workers", "2", "--manifest", tmp_path / f"{count}.db")
        peaks[count] = peak_memory("sync", here, there, *options)
    assert peaks[1_000_000] < 400e6
    assert peaks[1_000_000] < 1.25 * peaks[100_000], peaks


@pytest.mark.slow
def test_an_inventory_of_a_million_objects_is_flat_in_memory(
    synthetic: Synthetic, adsmig: Adsmig, tmp_path: Path
) -> None:
    peaks = {}
    for count in (20_000, 1_000_000):
        url = f"s3://ak:sk@{synthetic(count, 'dated')}/bucket/"
        page = tmp_path / f"{count}.html"
        peaks[count] = peak_memory(
            "inventory", url, "--depth", "9", "--workers", "2", "--html", page
        )
        assert page.stat().st_size < 3e6
    assert peaks[1_000_000] < 400e6
    assert peaks[1_000_000] < 1.5 * peaks[20_000], peaks
    told = adsmig("inventory", url, "--json").stdout.splitlines()
    events = {event["event"]: event for event in map(json.loads, told)}
    assert events["result"]["found"] == events["inventory"]["objects"] == 1_000_000
    assert sum(one["objects"] for one in events["inventory"]["directories"]) == 1_000_000


@pytest.mark.slow
def test_copying_keeps_memory_flat(synthetic: Synthetic, tmp_path: Path) -> None:
    peaks = {}
    for count in (20_000, 1_000_000 if FULL else 60_000):
        host = synthetic(count, "dated")
        here, there = (f"s3://ak:sk@{host}/{bucket}/" for bucket in ("one", "two"))
        options = ("--workers", "2", "--manifest", tmp_path / f"{count}.db")
        peaks[count] = peak_memory("cp", here, there, *options)
    assert max(peaks.values()) < 400e6
    assert max(peaks.values()) < 1.5 * peaks[20_000], peaks


@pytest.mark.slow
def test_a_large_directory_is_read_a_few_times_a_worker(adsmig: Adsmig, tmp_path: Path) -> None:
    count, workers = 500_000 if FULL else 100_000, 4
    tree = tmp_path / "tree" / "flat"
    tree.mkdir(parents=True)
    for number in range(count):
        os.close(os.open(tree / f"file-{number:07d}.dat", os.O_CREAT | os.O_WRONLY))
    copy = tmp_path / "copy"
    for command in ("cp", "sync"):
        options = ("--workers", workers, "--manifest", tmp_path / command, "-vv")
        done = adsmig(command, tmp_path / "tree", copy, *options)
        reads = re.findall(r"\[(\d+)\]: read a directory of \d+ names: (\S+)", done.stderr)
        assert reads
        for place in (tree, copy / "flat"):
            by_worker = [pid for pid, path in reads if path == str(place)]
            for pid in set(by_worker):
                assert by_worker.count(pid) <= 3, f"{pid} read {place} {by_worker.count(pid)} times"
            assert len(by_worker) <= 3 * (workers + 1)
    slices = sqlite3.connect(tmp_path / "cp").execute("SELECT count(*) FROM slices").fetchone()[0]
    assert slices > workers
    assert sum(1 for _ in os.scandir(tmp_path / "copy" / "flat")) == count


@pytest.mark.slow
def test_siblings_of_a_store_that_lists_by_directory_are_all_found(
    adsmig: Adsmig, seaweedfs: SeaweedFS, bucket: BucketFactory, tmp_path: Path
) -> None:
    """SeaweedFS lists ``a/b`` before ``a-b``, and after ``a-b`` shows ``a/b`` no more."""
    name, client = bucket(seaweedfs), seaweedfs.client()
    keys = {"a/b", "a-b", "a.b/c", "a0"}
    for number in range(700):
        keys |= {f"n{number:04d}{rest}" for rest in ("/b", "-b", ".b/c", "0")}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: client.put_object(Bucket=name, Key=key, Body=key), sorted(keys)))
    out = tmp_path / "out"
    adsmig("cp", seaweedfs.url(name), out, "--workers", "8", "--manifest", tmp_path / "m.db")
    assert set(digest(out)) == keys
    assert all((out / key).read_text() == key for key in keys)
    # A proxy may hide which store it is, and the range begin where it passes over keys.
    with Recorder(seaweedfs.host, server="nginx") as recorder:
        url = seaweedfs.url(name).replace(seaweedfs.host, recorder.host)
        adsmig("cp", "--start", "a-b", "--end", "a0", url, tmp_path / "part")
    assert set(digest(tmp_path / "part")) == {"a/b", "a-b", "a.b/c", "a0"}
    shards = sqlite3.connect(tmp_path / "m.db").execute("SELECT count(*) FROM shards").fetchone()
    assert shards[0] >= 8
    said = adsmig("sync", seaweedfs.url(name), out, "--workers", "8").stdout
    assert f"{len(keys):,} unchanged" in said
