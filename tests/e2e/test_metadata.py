"""What is kept beside the content: permissions, owner, times, headers, notes, tags."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from adsmig.links import LINK
from tests.conftest import BucketFactory
from tests.e2e.inside import COLLECTED, Bucket, Here, put, tree_of
from tests.e2e.inside import here as here
from tests.e2e.inside import store as store
from tests.servers import Moto, Server, program

pytestmark = COLLECTED

WHEN_NS = 1_600_000_000_123_456_789
MODES = {"f": 0o640, "d/run": 0o755, "d/secret": 0o400, "empty": 0o604}


def with_permissions(root: Path) -> Path:
    put(root, {"f": b"f", "d/run": b"run", "d/secret": b"secret", "empty": b""})
    for number, (key, mode) in enumerate(MODES.items()):
        (root / key).chmod(mode)
        os.utime(root / key, ns=(WHEN_NS, WHEN_NS + number))
        if os.geteuid() == 0:
            os.chown(root / key, 1000 + number, 2000 + number)
    return root


def kept(root: Path) -> dict[str, tuple[int, ...]]:
    """Mode, time, owner and group of the files below ``root``."""
    found = {}
    for path in root.rglob("*"):
        if path.is_file():
            status = path.stat()
            owner = (status.st_uid, status.st_gid)
            found[str(path.relative_to(root))] = (status.st_mode, status.st_mtime_ns, *owner)
    return found


def test_permissions_owner_and_time_survive_a_store(
    here: Here, store: Bucket, tmp_path: Path
) -> None:
    src = with_permissions(tmp_path / "src")
    here("cp", src, store.url)
    here("cp", store.url, tmp_path / "back")
    assert kept(tmp_path / "back") == kept(src)
    # And through two stores, the second of which had them from the first.
    second = Bucket(store.server, store.name, "second/")
    here("cp", store.url, second.url)
    here("cp", second.url, tmp_path / "again")
    assert kept(tmp_path / "again") == kept(src)


def test_permissions_owner_and_time_survive_between_file_systems(
    here: Here, tmp_path: Path
) -> None:
    src = with_permissions(tmp_path / "src")
    (src / "d").chmod(0o750)
    os.utime(src / "d", ns=(WHEN_NS, WHEN_NS))
    here("cp", src, tmp_path / "dst")
    assert kept(tmp_path / "dst") == kept(src)
    status = (tmp_path / "dst/d").stat()
    assert (status.st_mode & 0o777, status.st_mtime_ns) == (0o750, WHEN_NS)


def test_an_owner_that_a_container_does_not_know_is_a_warning(tmp_path: Path) -> None:
    inside = ["unshare", "--user", "--map-root-user"]
    if os.geteuid() or subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("needs root, and user namespaces")
    src = with_permissions(tmp_path / "src")
    (src / "d" / "secret").chmod(0o404)  # root there is not root here
    (src / "d" / "run").chmod(0o4755)
    (src / "link").symlink_to("f")
    os.chown(src / "link", 1234, 1234, follow_symlinks=False)
    os.chown(src / "d", 1234, 1234)
    command = [program("adsmig"), "cp", "--links", "--workers", "1", src, tmp_path / "dst"]
    (src / "f").chmod(0o644)
    found = subprocess.run([*inside, *command], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stderr.count("owners cannot be kept") == 1
    wanted = {key: (*facts[:2], 0, 0) for key, facts in kept(src).items()}
    wanted["d/run"] = (stat.S_IFREG | 0o755, *wanted["d/run"][1:])
    assert kept(tmp_path / "dst") == wanted
    found = subprocess.run([*inside, *command, "--noperms"], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")


def with_closed_directories(root: Path) -> Path:
    """Files in directories that are the user's alone, beside one that is not."""
    put(root, {"x/y/f": b"f", "x/y/g": b"g", "z": b"z"})
    for path in (root / "x/y", root / "x"):
        path.chmod(0o700)
        os.utime(path, ns=(WHEN_NS, WHEN_NS))
    return root


def assert_closed(root: Path) -> None:
    for path in (root / "x", root / "x/y"):
        status = path.stat()
        assert (status.st_mode & 0o777, status.st_mtime_ns) == (0o700, WHEN_NS), path


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("words", [["--include", "f$"], ["--start", "x/y/f"], ["--files-from"]])
def test_directories_above_what_is_selected_keep_their_permissions(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], large: bool
) -> None:
    if large:
        monkeypatch.setattr("adsmig.scan.LARGE_SIZE", 0)
    src = with_closed_directories(tmp_path / "src")
    (tmp_path / "names").write_text("x/y/f\n")
    names = [tmp_path / "names"] if words == ["--files-from"] else []
    here("cp", *words, *names, src, tmp_path / "dst")
    assert (tmp_path / "dst/x/y/f").read_bytes() == b"f"
    assert_closed(tmp_path / "dst")


def test_directories_that_a_retry_makes_keep_their_permissions(here: Here, tmp_path: Path) -> None:
    src, dst = with_closed_directories(tmp_path / "src"), tmp_path / "dst"
    for name in "fg":
        (src / "x/y" / name).unlink()
        (src / "x/y" / name).symlink_to(tmp_path / "later" / name)
    os.utime(src / "x/y", ns=(WHEN_NS, WHEN_NS))
    here("sync", "--manifest", tmp_path / "m.db", src, dst, code=1)
    assert os.listdir(dst) == ["z"]
    put(tmp_path / "later", {"f": b"f", "g": b"g"})
    here("retry", "--manifest", tmp_path / "m.db")
    assert_closed(dst)


def test_directories_where_a_file_was_in_the_way_keep_their_permissions(
    here: Here, tmp_path: Path
) -> None:
    src, dst = with_closed_directories(tmp_path / "src"), put(tmp_path / "dst", {"x": b""})
    here("sync", "--delete-dst", src, dst)
    assert_closed(dst)


def test_directories_keep_their_permissions_though_nothing_may_be_deleted(
    here: Here, tmp_path: Path
) -> None:
    src, dst = with_closed_directories(tmp_path / "src"), put(tmp_path / "dst", {"old": b""})
    here("sync", "--delete-dst", "--max-delete", 0, src, dst, code=3)
    assert (dst / "old").exists()
    assert_closed(dst)


@pytest.mark.parametrize("moves", [False, True])
def test_directories_are_seen_to_though_a_large_file_failed_last(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: bool
) -> None:
    monkeypatch.setattr("adsmig.scan.LARGE_SIZE", 5)
    src, dst = with_closed_directories(tmp_path / "src"), tmp_path / "dst"
    put(src, {"zz": b"large file"})
    put(dst, {"zz/in the way": b""})
    here("cp", *(["--delete-src"] if moves else []), src, dst, code=1)
    if moves:
        assert os.listdir(src) == ["zz"]
    else:
        assert_closed(dst)


def test_noperms_keeps_the_times_and_nothing_else(
    here: Here, store: Bucket, tmp_path: Path
) -> None:
    src = with_permissions(tmp_path / "src")
    before = os.umask(0o022)
    try:
        here("cp", "--noperms", src, tmp_path / "dst")
        here("cp", "--noperms", src, store.url)
        here("cp", store.url, tmp_path / "back")
        # What the objects have of an earlier copy is not restored either.
        here("cp", src, store.url)
        here("cp", "--noperms", store.url, tmp_path / "late")
    finally:
        os.umask(before)
    me = (os.geteuid(), os.getegid())
    for root in ("dst", "back", "late"):
        found = kept(tmp_path / root)
        assert {key: one[1] for key, one in found.items()} == {
            key: one[1] for key, one in kept(src).items()
        }
        assert {one[0] & 0o777 for one in found.values()} == {0o644}
        assert {one[2:] for one in found.values()} == {me}


def test_noperms_holds_for_copies_within_a_service(here: Here, store: Bucket) -> None:
    client = store.server.client()
    notes = {"mode": "0777", "uid": "1234", "gid": "1234", "keep": "this"}
    client.put_object(Bucket=store.name, Key="p/x", Body=b"x", Metadata=notes)
    other = Bucket(store.server, store.name, "other/")
    here("cp", "--noperms", store.url, other.url)
    metadata = client.head_object(Bucket=store.name, Key="other/x")["Metadata"]
    assert {name: text for name, text in metadata.items() if name in notes} == {"keep": "this"}
    assert other.content() == {"x": b"x"}


HEADERS = {
    "ContentType": "text/x-odd; charset=utf-8",
    "ContentDisposition": 'attachment; filename="a b.txt"',
    "CacheControl": "max-age=3600",
    "ContentEncoding": "gzip",
    "ContentLanguage": "de",
}
FORGOTTEN = {"minio": {"ContentEncoding", "ContentLanguage"}}
"""What the MinIO gateway of JuiceFS does not keep, whoever writes it."""
NOTES = {"note": "two words", "owner": "somebody"}
LARGE = 65 << 20
"""Bytes: copied in parts."""


@pytest.fixture(params=[("moto", "seaweedfs"), ("moto", "minio"), ("seaweedfs", "moto")])
def two(request: pytest.FixtureRequest, bucket: BucketFactory) -> tuple[Bucket, Bucket]:
    """Prefixes in two different servers."""
    one, other = (request.getfixturevalue(name) for name in request.param)
    return Bucket(one, bucket(one)), Bucket(other, bucket(other))


def test_headers_and_notes_survive_between_servers(here: Here, two: tuple[Bucket, Bucket]) -> None:
    src, dst = two
    client = src.server.client()
    for key, body in (("small", b"small"), ("large", bytes(LARGE))):
        client.put_object(Bucket=src.name, Key=f"p/{key}", Body=body, Metadata=NOTES, **HEADERS)
    here("sync", src.url, dst.url)
    for key in ("small", "large"):
        head = dst.server.client().head_object(Bucket=dst.name, Key=f"p/{key}")
        expected = HEADERS.keys() - FORGOTTEN.get(dst.server.name, set())
        assert {name: head.get(name) for name in expected} == {
            name: HEADERS[name] for name in expected
        }
        assert {name: head["Metadata"].get(name) for name in NOTES} == NOTES


def tags_of(store: Bucket, key: str) -> dict[str, str]:
    found: Any = store.server.client().get_object_tagging(Bucket=store.name, Key=f"p/{key}")
    return {tag["Key"]: tag["Value"] for tag in found["TagSet"]}


TAGS = {"stage": "raw + odd=1/2", "größe": "ü"}


# The MinIO gateway keeps no tags.
@pytest.mark.parametrize("two", [("moto", "seaweedfs"), ("seaweedfs", "moto")], indirect=True)
def test_tags_survive_between_servers_if_asked_for(here: Here, two: tuple[Bucket, Bucket]) -> None:
    src, dst = two
    tags = TAGS if src.server.name == "moto" else {"stage": "raw"}
    client = src.server.client()
    for key, body in (("small", b"small"), ("large", bytes(LARGE)), ("plain", b"x")):
        client.put_object(Bucket=src.name, Key=f"p/{key}", Body=body)
        if key != "plain":
            tagging = {"TagSet": [{"Key": name, "Value": text} for name, text in tags.items()]}
            client.put_object_tagging(Bucket=src.name, Key=f"p/{key}", Tagging=tagging)
    here("cp", src.url, dst.url)
    assert tags_of(dst, "small") == {}
    here("cp", "--tags", src.url, dst.url)
    assert [tags_of(dst, key) for key in ("small", "large", "plain")] == [tags, tags, {}]


def test_what_a_store_cannot_tag_is_not_held_against_it(
    here: Here, moto: Moto, bucket: BucketFactory, s3_server: Server
) -> None:
    """An object without tags needs none at its destination."""
    src, dst = Bucket(moto, bucket(moto)).put({"x": b"x"}), Bucket(s3_server, bucket(s3_server))
    here("cp", "--tags", src.url, dst.url)
    assert dst.content() == {"x": b"x"}


def test_links_of_a_mount_are_made_anew_or_named(here: Here, store: Bucket, tmp_path: Path) -> None:
    """They are objects of 14 bytes, which as files would be junk."""
    client = store.server.client()
    links = {"dir/l": "../f", "out": "/no/such", "odd": "a ä"}
    kept = {"dir/l": "../f", "out": "/no/such", "odd": "a%20%C3%A4", "bad": "%00"}
    for key, target in kept.items():
        note = {"symlink": target}
        client.put_object(Bucket=store.name, Key=f"p/{key}", Body=LINK, Metadata=note)
    store.put({"f": b"f", "alike": LINK, "dir/g": b"g"})
    dst = tmp_path / "dst"
    said = here("cp", store.url, dst, code=1)
    assert said.count("--links makes it one") == 4
    assert tree_of(dst) == {"f": b"f", "alike": LINK, "dir/g": b"g"}
    assert "lead to an empty name or to a NUL" in here("cp", "--links", store.url, dst, code=1)
    assert {key: os.readlink(dst / key) for key in links} == links
    assert (dst / "dir/l").read_bytes() == b"f"
    client.delete_object(Bucket=store.name, Key="p/bad")
    # From now on they are equal, until one leads elsewhere.
    sync = ("sync", "--links", "--size-only", "--manifest", tmp_path / "m.db", store.url, dst)
    assert "copied 0 objects" in here(*sync)
    here("verify", "--links", store.url, dst)
    here("verify", tmp_path / "m.db")
    (dst / "dir/l").unlink()
    (dst / "dir/l").symlink_to("../alike")
    assert "1 different" in here("verify", "--links", store.url, dst, code=1)
    assert "copied 1 object " in here(*sync)
    assert os.readlink(dst / "dir/l") == "../f"
