"""What a job has copied is held against the checksums that its manifest took."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from pathlib import Path

import pytest

from tests.conftest import BucketFactory
from tests.e2e.conftest import Adsmig, adsmig, make_tree
from tests.faults.test_kill import kill_all, start
from tests.recorder import Recorder
from tests.servers import SeaweedFS, Server

__all__ = ["adsmig"]


def flip(path: Path) -> None:
    """Changes one byte of a file, and nothing that a listing shows."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def named(adsmig: Adsmig, *arguments: object, code: int = 1) -> set[tuple[str, str]]:
    """Kind and key of each difference."""
    lines = map(json.loads, adsmig("verify", "--json", *arguments, code=code).stdout.splitlines())
    return {(line["kind"], line["key"]) for line in lines if line["event"] == "failure"}


def test_a_flipped_bit_is_found_although_the_source_is_gone(adsmig: Adsmig, tmp_path: Path) -> None:
    tree, copy, manifest = tmp_path / "tree", tmp_path / "copy", tmp_path / "m.db"
    make_tree(tree, 200, most=4000, seed=2)
    (tree / "large.bin").write_bytes(os.urandom(65 << 20))
    (tree / "empty").mkdir()
    adsmig("cp", "--delete-src", tree, copy, "--manifest", manifest)
    assert "202 equal, 0 different" in adsmig("verify", manifest).stdout
    (copy / "stranger").write_bytes(b"no business of the job's")
    flip(copy / "large.bin")
    flip(copy / "d3/e3/f000003.bin")
    (copy / "d4/e4/f000004.bin").unlink()
    with (copy / "d5/e5/f000005.bin").open("ab") as file:
        file.write(b"x")
    found = named(adsmig, manifest)
    assert found == {
        ("differs", "large.bin"),
        ("differs", "d3/e3/f000003.bin"),
        ("missing", "d4/e4/f000004.bin"),
        ("differs", "d5/e5/f000005.bin"),
    }
    assert "the content is not what was copied" in adsmig("failures").stdout
    flip(copy / "large.bin")
    assert "1 equal, 3 different" in adsmig("retry", code=1).stdout


def replace_with_as_many_bytes(server: Server, name: str, key: str) -> None:
    size = server.client().head_object(Bucket=name, Key=key)["ContentLength"]
    server.client().put_object(Bucket=name, Key=key, Body=os.urandom(size))


@pytest.mark.parametrize("kind", ["seaweedfs", "minio"])
def test_an_object_that_was_replaced_behind_our_back_is_found(
    adsmig: Adsmig, kind: str, request: pytest.FixtureRequest, bucket: BucketFactory, tmp_path: Path
) -> None:
    server: Server = request.getfixturevalue(kind)
    tree, name = tmp_path / "tree", bucket(server)
    make_tree(tree, 60, most=4000)
    (tree / "large.bin").write_bytes(os.urandom(65 << 20))
    access, secret = server.access_key, server.secret_key
    adsmig("cp", tree, server.url(name, "p/"))
    job = adsmig("jobs", "--json").stdout
    words = ["verify", json.loads(job)["job"]]
    keys = {"ADSMIG_DST_ACCESS_KEY": access, "ADSMIG_DST_SECRET_KEY": secret}
    assert "61 equal, 0 different" in adsmig(*words, **keys).stdout
    replace_with_as_many_bytes(server, name, "p/d3/e3/f000003.bin")
    replace_with_as_many_bytes(server, name, "p/large.bin")
    said = adsmig(*words, code=1, **keys)
    assert "2 different (2 differs)" in said.stdout
    assert "d3/e3/f000003.bin  the content is not what was copied" in said.stderr
    assert "large.bin  the content is not what was copied" in said.stderr


def test_what_has_no_checksum_is_said_to_be_compared_by_size(
    adsmig: Adsmig, tmp_path: Path
) -> None:
    tree, copy, manifest = tmp_path / "tree", tmp_path / "copy", tmp_path / "m.db"
    make_tree(tree, 20)
    adsmig("cp", tree, copy)
    (tree / "new").write_bytes(b"new")
    adsmig("sync", tree, copy, "--manifest", manifest)
    said = adsmig("verify", manifest).stdout
    assert "1 equal, 20 of equal size, 0 different, of 21 found" in said


def test_a_sample_is_spread_evenly_and_the_same_every_time(
    adsmig: Adsmig, seaweedfs: SeaweedFS, bucket: BucketFactory, tmp_path: Path
) -> None:
    tree, manifest = tmp_path / "tree", tmp_path / "m.db"
    make_tree(tree, 1000, most=100)
    with Recorder(seaweedfs.host) as recorder:
        url = seaweedfs.url(bucket(seaweedfs)).replace(seaweedfs.host, recorder.host)
        adsmig("cp", tree, url, "--manifest", manifest)
        keys = {"ADSMIG_DST_ACCESS_KEY": seaweedfs.access_key,
                "ADSMIG_DST_SECRET_KEY": seaweedfs.secret_key}  # fmt: skip

        def read(*options: object) -> set[str]:
            recorder.clear()
            adsmig("verify", manifest, *options, **keys)
            return {one.path for one in recorder.data() if one.method == "GET"}

        ten = read("--sample", "10%")
        assert 50 < len(ten) < 150
        assert len({path.split("/")[2] for path in ten}) > 15  # of 23 directories
        assert read("--sample", "10%", "--workers", "1") == ten
        assert read("--sample", "10%", "--seed", "1") != ten
        assert len(read("--sample", "7")) == 7
        assert read("--sample", "7") < ten
        assert len(read()) == 1000


@pytest.mark.slow
def test_a_killed_verification_goes_on_without_reading_again(
    adsmig: Adsmig, seaweedfs: SeaweedFS, bucket: BucketFactory, tmp_path: Path
) -> None:
    tree, manifest, own = tmp_path / "tree", tmp_path / "m.db", tmp_path / "v.db"
    make_tree(tree, 3000, most=2000)
    name = bucket(seaweedfs)
    with Recorder(seaweedfs.host) as recorder, pytest.MonkeyPatch.context() as patch:
        url = seaweedfs.url(name).replace(seaweedfs.host, recorder.host)
        adsmig("cp", tree, url, "--manifest", manifest)
        replace_with_as_many_bytes(seaweedfs, name, "d1/e0/f002002.bin")
        patch.setenv("ADSMIG_DST_ACCESS_KEY", seaweedfs.access_key)
        patch.setenv("ADSMIG_DST_SECRET_KEY", seaweedfs.secret_key)
        recorder.clear()
        kills = 3
        for _ in range(kills):
            least = settled(own) + 100
            process = start("verify", manifest, "--manifest", own, "--bwlimit", "0.5")
            while settled(own) < least and process.poll() is None:
                time.sleep(0.05)
            assert process.poll() is None, "it came to its end before it was killed"
            kill_all(process)
        before, had = len(recorder.data()), settled(own)
        assert 300 <= had < 3000
        assert named(adsmig, manifest, "--manifest", own) == {("differs", "d1/e0/f002002.bin")}
        # The one that differs was read twice, to be sure of it.
        assert len(recorder.data()) - before <= 3000 - had + 1
    runs = sqlite3.connect(own).execute("SELECT kind, state, resumed, found, failed FROM runs")
    assert runs.fetchall() == [("verify", "finished", kills, 3000, 1)]


def settled(manifest: Path) -> int:
    """Objects that a run has found, and dealt with."""
    try:
        database = sqlite3.connect(f"file:{manifest}?mode=ro", uri=True)
        return int(database.execute("SELECT found FROM runs").fetchone()[0])
    except (sqlite3.Error, TypeError):
        return 0
