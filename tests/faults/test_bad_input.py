"""Whatever is wrong is said in one line, with exit code 2 or 3, and without a secret."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import BucketFactory
from tests.e2e.conftest import Adsmig, adsmig, make_tree
from tests.servers import MinIOGateway, SeaweedFS, Server

__all__ = ["adsmig"]

SECRET = "Recognisable0Secret"


def complaint(adsmig: Adsmig, code: int, *arguments: object) -> str:
    """The one line that the command says on stderr."""
    done = adsmig(*arguments, code=code)
    assert SECRET not in done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("adsmig: ")
    return lines[0]


@pytest.mark.parametrize(
    ("code", "says", "arguments"),
    [
        (2, "gopher:// is not supported", ["cp", "gopher://x/y", "OUT"]),
        (2, "no bucket", ["cp", "TREE", f"s3://AK:{SECRET}@"]),
        (2, "no bucket", ["cp", f"minio://AK:{SECRET}@127.0.0.1:9", "OUT"]),
        (2, "%2F", ["cp", f"s3://AK:{SECRET}/x@bucket.host/p", "OUT"]),
        (3, "cannot reach 127.0.0.1:9", ["cp", f"s3://AK:{SECRET}@127.0.0.1:9/b/", "OUT"]),
        (3, "cannot reach 127.0.0.1:9", ["cp", "TREE", f"minio://AK:{SECRET}@127.0.0.1:9/b/"]),
        (3, "no such file or directory", ["cp", "TREE/missing/", "OUT"]),
        (3, "no such file or directory", ["sync", "TREE/missing", "OUT"]),
        (3, "cannot write to /proc/x", ["cp", "TREE", "/proc/x"]),
        (2, "is a file", ["cp", "TREE", "TREE/d0/e0/f000000.bin"]),
        (2, "lie within one another", ["cp", "TREE", "TREE/d0"]),
        (2, "lie within one another", ["sync", "TREE", "TREE"]),
        (2, "--end 'a' comes before --start 'b'", ["cp", "-s", "b", "-e", "a", "TREE", "OUT"]),
        (2, "--threads", ["cp", "--threads", "0", "TREE", "OUT"]),
        (2, "--bwlimit", ["cp", "--bwlimit", "-1", "TREE", "OUT"]),
        (2, "Missing argument 'DST'", ["cp", "TREE"]),
        (2, "No such command", ["frobnicate"]),
        (2, "No such option", ["cp", "--frobnicate", "TREE", "OUT"]),
        (2, "no job", ["resume"]),
        (2, "no job nope", ["status", "nope"]),
        (2, "82.db in ", ["status", "OUT/82.db"]),
        (2, "no job *", ["status", "*"]),
        (2, r"no job a\nb", ["failures", "a\nb"]),
        (3, "no manifest at", ["failures", "--manifest", "OUT/none.db"]),
        (2, "there is no directory", ["cp", "TREE", "OUT", "--manifest", "OUT/none/m.db"]),
        (2, "there is no directory", ["rm", "-y", "TREE", "--manifest", "OUT/none/m.db"]),
        (2, "names a directory", ["cp", "TREE", "OUT", "--manifest", "OUT/"]),
        (2, "names a directory", ["cp", "TREE", "OUT", "--log-file", "OUT/"]),
        (2, "names a directory", ["cp", "TREE", "OUT", "--recordName", "OUT/"]),
        (2, "names a directory", ["inventory", "TREE", "--html", "OUT/"]),
        (2, "cannot write --log-file", ["cp", "TREE", "OUT", "--log-file", "OUT/none/l"]),
        (3, "cannot write the manifest", ["cp", "TREE", "OUT", "--manifest", "/proc/x.db"]),
        (3, "no credentials", ["cp", "s3://some-bucket/", "OUT"]),
    ],
)
def test_wrong_input_is_one_line(
    adsmig: Adsmig, tmp_path: Path, code: int, says: str, arguments: list[str]
) -> None:
    make_tree(tmp_path / "tree", 2)
    places = {"TREE": str(tmp_path / "tree"), "OUT": str(tmp_path / "out")}
    for name, path in places.items():
        arguments = [one.replace(name, path) for one in arguments]
    assert says in complaint(adsmig, code, *arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["minio", "seaweedfs"])
def test_wrong_keys_and_buckets_are_one_line(
    adsmig: Adsmig,
    name: str,
    request: pytest.FixtureRequest,
    bucket: BucketFactory,
    tmp_path: Path,
) -> None:
    server: Server = request.getfixturevalue(name)
    make_tree(tmp_path / "tree", 2)
    place = server.url(bucket(server))
    wrong_secret = place.replace(server.secret_key, SECRET)
    wrong_key = place.replace(f"{server.access_key}:{server.secret_key}", f"nobody:{SECRET}")
    named = f"{server.host}/{place.rstrip('/').rpartition('/')[2]}"
    for url in (wrong_secret, wrong_key):
        for words in (
            ("cp", tmp_path / "tree", url),
            ("cp", url, tmp_path / "out"),
            ("cp", url + "object", tmp_path / "out"),
        ):
            said = complaint(adsmig, 3, *words)
            assert "check the" in said
            assert f"{named} answered" in said
    missing = server.url("missing-bucket")
    lacking = f"no such bucket: {server.host}/missing-bucket"
    assert lacking in complaint(adsmig, 3, "cp", tmp_path / "tree", missing)
    assert lacking in complaint(adsmig, 3, "sync", missing, tmp_path / "out")


ADDRESS = "s3://AKIAX:TOPSECRET@bucket.host/x"


@pytest.mark.parametrize(
    "words",
    [
        ["cp", "a", "b", ADDRESS],
        [ADDRESS, "b"],
        ["status", ADDRESS],
        ["resume", ADDRESS],
        ["cp", "--threads", ADDRESS, "a", "b"],
        ["cp", "--files-from", ADDRESS, "/", "b"],
        ["cp", "--nonsense", ADDRESS, "b"],
        ["sync", "--start", "b", "--end", "a", ADDRESS, "c"],
        ["cp", ADDRESS.replace("bucket", "_"), "b"],
        ["status", "user:TOPSECRET@host:path"],
    ],
)
def test_an_address_in_the_wrong_place_is_not_shown(adsmig: Adsmig, words: list[str]) -> None:
    done = adsmig(*words, code=None)
    assert done.returncode in (2, 3)
    assert "TOPSECRET" not in done.stdout + done.stderr


def test_manifests_that_cannot_be_used_are_one_line(adsmig: Adsmig, tmp_path: Path) -> None:
    tree, copy, good = tmp_path / "tree", tmp_path / "copy", tmp_path / "good.db"
    make_tree(tree, 500)
    adsmig("cp", tree, copy, "--manifest", good)
    newer, noise, torn, other = (tmp_path / name for name in ("newer", "noise", "torn", "other"))
    shutil.copy(good, newer)
    sqlite3.connect(newer).execute("PRAGMA user_version = 99").connection.close()
    noise.write_bytes(os.urandom(50_000))
    torn.write_bytes(good.read_bytes()[:20_000])
    sqlite3.connect(other).execute("CREATE TABLE x (y)").connection.close()
    for manifest, says in (
        (newer, "newer adsmig"),
        (noise, "not a database"),
        (torn, "damaged"),
        (other, "something else"),
    ):
        before = manifest.read_bytes()
        assert says in complaint(adsmig, 3, "cp", tree, copy, "--manifest", manifest)
        assert manifest.read_bytes() == before
    filtered = ("cp", "--exclude", "x", tree, copy)
    assert "another job" in complaint(adsmig, 3, *filtered, "--manifest", good)


def test_a_second_process_says_who_holds_the_manifest(
    adsmig: Adsmig, minio: MinIOGateway, bucket: BucketFactory, tmp_path: Path
) -> None:
    make_tree(tmp_path / "tree", 300)
    command = ["cp", str(tmp_path / "tree"), minio.url(bucket(minio)), "--bwlimit", "8"]
    options = ["--manifest", str(tmp_path / "m.db")]
    first = subprocess.Popen(
        [sys.executable, "-m", "adsmig", *command, *options], stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(200):
            if (tmp_path / "m.db.lock").exists() and (tmp_path / "m.db.lock").read_text():
                break
            time.sleep(0.05)
        said = complaint(adsmig, 3, *command, *options)
        assert f"in use by process {first.pid} on" in said
    finally:
        first.kill()
        first.wait()


def test_a_run_that_found_nothing_says_what_it_listed(
    adsmig: Adsmig, seaweedfs: SeaweedFS, bucket: BucketFactory, tmp_path: Path
) -> None:
    (tmp_path / "tree").mkdir()
    assert "is empty" in adsmig("cp", seaweedfs.url(bucket(seaweedfs)), tmp_path / "out").stdout
    make_tree(tmp_path / "tree", 3)
    said = adsmig("cp", tmp_path / "tree", tmp_path / "out", "--start", "x").stdout
    assert "no key lies within --start 'x'" in said


def test_one_bad_object_fails_by_name_and_the_rest_is_copied(
    adsmig: Adsmig, seaweedfs: SeaweedFS, bucket: BucketFactory, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    make_tree(tree, 20)
    (tree / "broken").symlink_to("nowhere")
    os.mkfifo(tree / "pipe")
    (tree / os.fsdecode(b"not-\xff-text")).write_bytes(b"x")
    manifest = tmp_path / "m.db"
    done = adsmig("cp", tree, seaweedfs.url(bucket(seaweedfs)), "--manifest", manifest, code=1)
    assert "copied 20 objects" in done.stdout
    assert "3 failed" in done.stdout
    listed = adsmig("failures", "--manifest", manifest).stdout
    assert "broken  a broken symbolic link" in listed
    assert "pipe  not a regular file" in listed
    assert r"'not-\xff-text'  the name is not UTF-8" in listed
    (tree / "broken").unlink()
    (tree / "broken").write_bytes(b"mended")
    (tree / "pipe").unlink()
    (tree / os.fsdecode(b"not-\xff-text")).unlink()
    # The manifest does not hold the keys that were in the address.
    keys = {
        "ADSMIG_DST_ACCESS_KEY": seaweedfs.access_key,
        "ADSMIG_DST_SECRET_KEY": seaweedfs.secret_key,
    }
    assert "ADSMIG_DST_ACCESS_KEY" in adsmig("retry", "--manifest", manifest, code=3).stderr
    said = adsmig("retry", "--manifest", manifest, **keys).stdout
    assert "copied 1 object (" in said
    assert adsmig("failures", "--manifest", manifest).stdout == ""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_in_the_way_of_nothing(tmp_path: Path, closed: str) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    make_tree(src, 500, 10)
    adsmig = [sys.executable, "-m", "adsmig", "cp", "--workers", "2", "-v", f"{src}/", f"{dst}/"]
    state = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    done = subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *adsmig], env=state)
    assert done.returncode == 0
    assert subprocess.run(["diff", "-r", src, dst]).returncode == 0
