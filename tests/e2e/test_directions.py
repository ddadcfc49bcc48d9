"""Trees come out of a chain of migrations as they went in."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
import xxhash

from tests.conftest import BucketFactory
from tests.e2e.conftest import FULL, Adsmig, digest, make_tree, write
from tests.servers import MinIOGateway, Moto, SeaweedFS, Server

FILES = 20_000 if FULL else 1500
LARGE = (1 << 30) if FULL else (150 << 20)


@pytest.mark.slow
def test_a_tree_survives_all_four_directions(
    adsmig: Adsmig, minio: MinIOGateway, seaweedfs: SeaweedFS, bucket: BucketFactory, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    make_tree(tree, FILES)
    (tree / "empty").mkdir()
    with (tree / "large.bin").open("wb") as file:
        for _ in range(LARGE >> 20):
            file.write(os.urandom(1 << 20))
    first, second = minio.url(bucket(minio), "a/"), seaweedfs.url(bucket(seaweedfs), "b/")
    adsmig("cp", tree, first)
    adsmig("cp", first, second)
    adsmig("cp", second, tmp_path / "back")
    adsmig("cp", tmp_path / "back", tmp_path / "again")
    assert digest(tmp_path / "back") == digest(tree)
    assert digest(tmp_path / "again") == digest(tree)
    sample = "d1/e1/f000001.bin"
    for copy in ("back", "again"):
        there, here = (tmp_path / copy / sample).stat(), (tree / sample).stat()
        assert (there.st_mtime_ns, there.st_mode) == (here.st_mtime_ns, here.st_mode)


def test_the_manifest_has_the_xxh3_of_every_object(
    adsmig: Adsmig, moto: Moto, bucket: BucketFactory, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    make_tree(tree, 50)
    adsmig("cp", tree, moto.url(bucket(moto)), "--manifest", tmp_path / "m.db")
    rows = sqlite3.connect(tmp_path / "m.db").execute("SELECT key, size, checksum FROM objects")
    found = {key: (size, checksum) for key, size, checksum in rows}
    assert found == {
        key: (
            (tree / key).stat().st_size,
            "xxh3:" + xxhash.xxh3_64_hexdigest((tree / key).read_bytes()),
        )
        for key in digest(tree)
    }


def test_a_file_goes_to_the_name_or_into_the_directory(
    adsmig: Adsmig, s3_server: Server, bucket: BucketFactory, tmp_path: Path
) -> None:
    write(tmp_path / "one.txt", b"one")
    name = bucket(s3_server)
    adsmig("cp", tmp_path / "one.txt", s3_server.url(name, "p/other.txt"))
    adsmig("cp", tmp_path / "one.txt", s3_server.url(name, "p/"))
    adsmig("cp", s3_server.url(name, "p/other.txt"), tmp_path / "back")
    (tmp_path / "folder").mkdir()
    adsmig("cp", s3_server.url(name, "p/one.txt"), tmp_path / "folder")
    adsmig("sync", s3_server.url(name, "p/one.txt"), tmp_path / "deep" / "er" / "name")
    listed = s3_server.client().list_objects_v2(Bucket=name)["Contents"]
    assert [item["Key"] for item in listed] == ["p/one.txt", "p/other.txt"]
    for copy in ("back", "folder/one.txt", "deep/er/name"):
        assert (tmp_path / copy).read_bytes() == b"one"


def test_a_name_without_a_slash_is_not_a_prefix_of_others(
    adsmig: Adsmig, s3_server: Server, bucket: BucketFactory, tmp_path: Path
) -> None:
    name, client = bucket(s3_server), s3_server.client()
    for key in ("data/x", "data-old/x", "data2"):
        client.put_object(Bucket=name, Key=key, Body=b"x")
    adsmig("cp", s3_server.url(name, "data"), tmp_path / "out")
    assert set(digest(tmp_path / "out")) == {"x"}


@pytest.mark.parametrize("place", ["directory", "bucket"])
def test_the_marker_of_the_place_itself_is_no_object_of_a_job_that_cannot_keep_it(
    adsmig: Adsmig, moto: Moto, bucket: BucketFactory, tmp_path: Path, place: str
) -> None:
    """As a console's "create folder" makes it; the root of another place has no name."""
    name, client = bucket(moto), moto.client()
    for key, body in {"p/": b"", "p/q/": b"", "p/x": b"x"}.items():
        client.put_object(Bucket=name, Key=key, Body=body)
    src = moto.url(name, "p/")
    dst: Path | str = tmp_path / "out" if place == "directory" else moto.url(bucket(moto))
    assert "copied 2" in adsmig("sync", src, dst).stdout
    assert "copied 0" in adsmig("sync", src, dst).stdout
    adsmig("verify", src, dst)
    adsmig("verify", dst, src)
    if place == "directory":
        adsmig("sync", "--delete-dst", "-y", dst, src)  # nor is it one too many
    assert "deleted 2" in adsmig("cp", "--delete-src", src, dst).stdout
    assert [item["Key"] for item in client.list_objects_v2(Bucket=name)["Contents"]] == ["p/"]
    adsmig("rm", "-y", src)
    assert "Contents" not in client.list_objects_v2(Bucket=name)


def test_the_marker_of_a_place_is_copied_to_a_place_that_has_one(
    adsmig: Adsmig, moto: Moto, bucket: BucketFactory
) -> None:
    name, client = bucket(moto), moto.client()
    client.put_object(Bucket=name, Key="p/", Body=b"")
    for _ in range(2):
        adsmig("sync", moto.url(name, "p/"), moto.url(name, "r/"))
    listed = client.list_objects_v2(Bucket=name)["Contents"]
    assert [item["Key"] for item in listed] == ["p/", "r/"]


def test_start_and_end_are_inclusive(
    adsmig: Adsmig, s3_server: Server, bucket: BucketFactory, tmp_path: Path
) -> None:
    for key in ("a", "b/x", "b/y", "b0", "c", "d"):
        (tmp_path / "tree" / key).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / "tree" / key, key.encode())
    url = s3_server.url(bucket(s3_server))
    adsmig("cp", tmp_path / "tree", url, "--start", "b/y", "--end=c")
    adsmig("cp", url, tmp_path / "all")
    assert set(digest(tmp_path / "all")) == {"b/y", "b0", "c"}
    adsmig("cp", "-s", "b/y", "-e", "b0", url, tmp_path / "some")
    assert set(digest(tmp_path / "some")) == {"b/y", "b0"}


def test_dryrun_changes_nothing_and_says_what_it_would(
    adsmig: Adsmig, minio: MinIOGateway, bucket: BucketFactory, tmp_path: Path
) -> None:
    make_tree(tmp_path / "tree", 30)
    name = bucket(minio)
    said = adsmig("cp", "--dryrun", tmp_path / "tree", minio.url(name)).stdout
    assert "would copy 30 objects" in said
    assert not minio.client().list_objects_v2(Bucket=name).get("Contents")
    said = adsmig("sync", "--dryrun", tmp_path / "tree", tmp_path / "new").stdout
    assert "would copy 30 objects" in said
    assert not (tmp_path / "new").exists()
    assert not list(Path(os.environ["XDG_STATE_HOME"]).rglob("*.db"))


@pytest.mark.parametrize("spelling", [["--https", "cp"], ["cp", "--https"]])
def test_https_is_forced_wherever_it_stands(
    adsmig: Adsmig, moto: Moto, tmp_path: Path, spelling: list[str]
) -> None:
    make_tree(tmp_path / "tree", 1)
    done = adsmig(*spelling, tmp_path / "tree", moto.url("any"), code=3)
    assert "does not speak https" in done.stderr


def test_bwlimit_is_kept_by_all_workers_together(
    adsmig: Adsmig, minio: MinIOGateway, bucket: BucketFactory, tmp_path: Path
) -> None:
    """An upper bound only: what the limit allows takes no less time than it must."""
    make_tree(tmp_path / "tree", 100, most=20_000)
    total = sum(path.stat().st_size for path in (tmp_path / "tree").rglob("*.bin"))
    options = ("--bwlimit", "8", "--threads", "8", "--manifest", tmp_path / "m.db")
    adsmig("cp", *options, tmp_path / "tree", minio.url(bucket(minio)))
    began, ended = (
        sqlite3.connect(tmp_path / "m.db").execute("SELECT started, ended FROM runs").fetchone()
    )
    assert ended - began >= 0.8 * total / 1e6  # 8 Mbit/s is a megabyte a second
