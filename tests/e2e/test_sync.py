"""An incremental run touches what changed and nothing else."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import BucketFactory
from tests.e2e.conftest import Adsmig, digest, make_tree
from tests.e2e.inside import Bucket, Here, put, tree_of
from tests.e2e.inside import here as here
from tests.recorder import Recorder
from tests.servers import MinIOGateway, Moto, SeaweedFS, Server


def recorded(server: Server, host: str, bucket: str, prefix: str = "") -> str:
    return server.url(bucket, prefix).replace(server.host, host)


def change_three(tree: Path) -> None:
    """One file changed, one added, one touched; all of them now, so newer than any copy."""
    time.sleep(1.1)  # stores tell times in whole seconds
    (tree / "d1/e1/f000001.bin").write_bytes(b"changed")
    (tree / "d1/added.bin").write_bytes(b"added")
    os.utime(tree / "d2/e2/f000002.bin")


THREE = ["d1/added.bin", "d1/e1/f000001.bin", "d2/e2/f000002.bin"]


@pytest.mark.parametrize("name", ["minio", "seaweedfs"])
def test_a_second_sync_to_a_store_sends_no_data(
    adsmig: Adsmig,
    name: str,
    request: pytest.FixtureRequest,
    bucket: BucketFactory,
    tmp_path: Path,
) -> None:
    server: Server = request.getfixturevalue(name)
    tree, place = tmp_path / "tree", bucket(server)
    make_tree(tree, 300)
    with Recorder(server.host) as recorder:
        url = recorded(server, recorder.host, place, "x/")
        adsmig("sync", tree, url)
        assert len(recorder.sent()) == 300
        recorder.clear()
        assert "300 unchanged" in adsmig("sync", tree, url).stdout
        assert recorder.requests
        assert recorder.data() == []
        change_three(tree)
        adsmig("sync", tree, url)
        assert [one.path for one in sorted(recorder.data())] == [f"/{place}/x/{k}" for k in THREE]


def test_a_second_sync_from_a_store_reads_no_data(
    adsmig: Adsmig, minio: MinIOGateway, bucket: BucketFactory, tmp_path: Path
) -> None:
    tree, place = tmp_path / "tree", bucket(minio)
    make_tree(tree, 200)
    adsmig("cp", tree, minio.url(place))
    with Recorder(minio.host) as recorder:
        url = recorded(minio, recorder.host, place)
        adsmig("sync", url, tmp_path / "back")
        recorder.clear()
        assert "200 unchanged" in adsmig("sync", url, tmp_path / "back").stdout
        assert recorder.data() == []
        change_three(tree)
        adsmig("sync", tree, minio.url(place))
        adsmig("sync", url, tmp_path / "back")
        assert [one.path for one in sorted(recorder.data())] == [f"/{place}/{k}" for k in THREE]
    assert digest(tmp_path / "back") == digest(tree)


def test_a_second_sync_between_stores_moves_no_data(
    adsmig: Adsmig, minio: MinIOGateway, seaweedfs: SeaweedFS, bucket: BucketFactory, tmp_path: Path
) -> None:
    tree, here, there = tmp_path / "tree", bucket(minio), bucket(seaweedfs)
    make_tree(tree, 200)
    adsmig("cp", tree, minio.url(here))
    with Recorder(minio.host) as source, Recorder(seaweedfs.host) as target:
        urls = recorded(minio, source.host, here), recorded(seaweedfs, target.host, there)
        adsmig("sync", *urls)
        source.clear()
        target.clear()
        assert "200 unchanged" in adsmig("sync", *urls).stdout
        assert source.data() == target.data() == []
        change_three(tree)
        adsmig("sync", tree, minio.url(here))
        adsmig("sync", *urls)
        # The touched one has the same content under the same MD5: it need not go.
        assert [one.path for one in sorted(target.data())] == [f"/{there}/{k}" for k in THREE[:2]]


def test_an_object_that_was_replaced_is_noticed_whatever_was_done_to_the_copy(
    adsmig: Adsmig, moto: Moto, bucket: BucketFactory, tmp_path: Path
) -> None:
    """A chmod makes the copy look as if it had been stored later."""
    name, client = bucket(moto), moto.client()
    client.put_object(Bucket=name, Key="d/a", Body=b"old1")
    client.put_object(Bucket=name, Key="d/b", Body=b"stays")
    adsmig("sync", moto.url(name, "d/"), tmp_path)
    client.put_object(Bucket=name, Key="d/a", Body=b"NEW2")
    time.sleep(2.1)
    for key in ("a", "b"):
        (tmp_path / key).chmod(0o600)
    said = adsmig("sync", moto.url(name, "d/"), tmp_path).stdout
    assert said.startswith("copied 1 object (")
    assert (tmp_path / "a").read_bytes() == b"NEW2"


@pytest.mark.parametrize("words", [["--checksum"], ["--delete-src"]])
def test_a_copy_that_was_damaged_is_read_and_not_taken_for_what_was_recorded(
    here: Here, moto: Moto, bucket: BucketFactory, tmp_path: Path, words: list[str]
) -> None:
    store, dst = Bucket(moto, bucket(moto)).put({"a": b"a good", "b": b"b good"}), tmp_path / "dst"
    here("sync", store.url, dst)
    (dst / "a").write_bytes(b"broken")
    assert "copied 1 object " in here("sync", *words, store.url, dst)
    assert tree_of(dst) == {"a": b"a good", "b": b"b good"}
    assert store.names() == ({"a", "b"} if words == ["--checksum"] else set())


def test_a_second_sync_between_directories_copies_nothing(adsmig: Adsmig, tmp_path: Path) -> None:
    tree, copy = tmp_path / "tree", tmp_path / "copy"
    make_tree(tree, 200)
    (tree / "empty").mkdir()
    manifest = ("--manifest", tmp_path / "m.db")
    adsmig("sync", tree, copy, *manifest)
    assert "copied 0 objects (0 B), 201 unchanged" in adsmig("sync", tree, copy, *manifest).stdout
    change_three(tree)
    adsmig("sync", tree, copy, *manifest)
    assert digest(copy) == digest(tree)
    database = sqlite3.connect(tmp_path / "m.db")
    third = database.execute("SELECT key FROM objects WHERE run = 3 ORDER BY key")
    assert [key for (key,) in third] == THREE
    runs = database.execute("SELECT kind, state, copied, unchanged FROM runs ORDER BY id")
    assert runs.fetchall() == [
        ("sync", "finished", 201, 0),
        ("sync", "finished", 0, 201),
        ("sync", "finished", 3, 199),
    ]


def test_copies_within_one_service_pass_no_data_through_here(
    adsmig: Adsmig, s3_server: Server, bucket: BucketFactory, tmp_path: Path
) -> None:
    tree, here, there = tmp_path / "tree", bucket(s3_server), bucket(s3_server)
    make_tree(tree, 40)
    (tree / "large.bin").write_bytes(os.urandom(70 << 20))
    adsmig("cp", tree, s3_server.url(here))
    with Recorder(s3_server.host) as recorder:
        urls = (recorded(s3_server, recorder.host, place) for place in (here, there))
        adsmig("cp", *urls)
        assert not [one for one in recorder.data() if one.method == "GET"]
        assert len(recorder.sent()) == 40 + 5  # of 16 MiB: the large one's parts
    adsmig("cp", s3_server.url(there), tmp_path / "back")
    assert digest(tmp_path / "back") == digest(tree)


# File systems whose times are coarse


@pytest.fixture
def seconds(tmp_path: Path) -> Iterator[Path]:
    """A file system that keeps whole seconds: its inodes have no room for more."""
    image, place = tmp_path / "image", tmp_path / "seconds"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    for command in (
        ["mkfs.ext4", "-q", "-F", "-I", "128", image],
        ["mount", "-o", "loop", image, place],
    ):
        if not shutil.which(command[0]) or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("needs mkfs.ext4, and leave to mount what it makes")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_second_sync_to_a_file_system_of_whole_seconds_copies_what_changed(
    adsmig: Adsmig, seconds: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    make_tree(tree, 300)
    command = ("sync", "--workers", "2", tree, seconds / "copy")
    assert "copied 300 objects" in adsmig(*command).stdout
    assert "300 unchanged" in adsmig(*command).stdout
    assert "300 unchanged" in adsmig(*command, "--dryrun").stdout
    change_three(tree)
    assert "copied 3 objects" in adsmig(*command).stdout
    # What is changed while the run before is at it, in the second of its copy, is not missed.
    (tree / "d1/added.bin").write_bytes(b"later")
    adsmig(*command)
    (tree / "d1/added.bin").write_bytes(b"after")
    adsmig(*command)
    assert digest(seconds / "copy") == digest(tree)


def test_a_source_of_whole_seconds_is_copied_once_it_can_be_told_from_what_it_was(
    adsmig: Adsmig, seconds: Path, tmp_path: Path
) -> None:
    tree = seconds / "tree"
    make_tree(tree, 30)
    for content in (b"one", b"two", b"six", b"ten"):
        (tree / "d1/added.bin").write_bytes(content)
        adsmig("sync", tree, tmp_path / "copy")
        assert digest(tmp_path / "copy") == digest(tree)
    assert "31 unchanged" in adsmig("sync", tree, tmp_path / "copy").stdout


@pytest.mark.parametrize("tick_ns", [100, 10_000_000, 10**9, 2 * 10**9])
@pytest.mark.parametrize("up", [False, True])
def test_a_second_sync_where_times_are_coarse_copies_what_changed(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tick_ns: int, up: bool
) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    when_ns = 1_700_000_000_999_999_999
    for number in range(20):
        put(src, {f"d/{number:02d}": b"content"})
        os.utime(src / f"d/{number:02d}", ns=(0, when_ns + number * 123_456_789))
    real = os.utime

    def coarse(at: object, *, ns: tuple[int, int], **more: object) -> None:
        rounded = [(one + up * (tick_ns - 1)) // tick_ns * tick_ns for one in ns]
        real(at, ns=(rounded[0], rounded[1]), **more)  # type: ignore[call-overload]

    with monkeypatch.context() as patch:
        patch.setattr(os, "utime", coarse)
        assert "copied 20 objects" in here("sync", src, dst)
        assert "20 unchanged" in here("sync", src, dst)
        real(src / "d/07", ns=(0, when_ns + 7 * 123_456_789 + 2 * tick_ns))
        assert "copied 1 object" in here("sync", src, dst)
        assert "20 unchanged" in here("sync", src, dst)
