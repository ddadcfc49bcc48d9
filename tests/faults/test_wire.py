"""What happens to bytes and answers on their way to a store and back: one fault at a time."""

from __future__ import annotations

import os
import time
from pathlib import Path
from random import Random

import psutil
import pytest

from adsmig.pool import close, processes
from adsmig.storage.localfile import LocalBody
from tests.conftest import BucketFactory
from tests.e2e.conftest import digest, make_tree, write
from tests.e2e.inside import COLLECTED, Here
from tests.e2e.inside import here as here
from tests.faultplan import Plan
from tests.faults.test_sftp import storage_at
from tests.faultserver import FaultServer
from tests.servers import MinIOGateway, SeaweedFS, Server, Sshd
from tests.storage.support import put

pytestmark = COLLECTED


class Script(Plan):
    """Of each operation, the first requests meet these faults."""

    def __init__(self, **faults: list[str]) -> None:
        super().__init__("script", (), 0)
        self.faults = faults

    def draw(self, operation: str, *identity: str) -> tuple[str, Random]:
        """See Plan.draw."""
        with self._lock:
            left = self.faults.get(operation.replace("-", "_"), [])
            return left.pop(0) if left else "", Random("script")


def url_of(server: Server, front: FaultServer, bucket: str) -> str:
    return server.url(bucket).replace(server.host, front.host)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries again at once."""
    monkeypatch.setattr("adsmig.retry.FIRST_PAUSE_S", 0.001)


def content(server: Server, bucket: str, key: str) -> bytes:
    body: bytes = server.client().get_object(Bucket=bucket, Key=key)["Body"].read()
    return body


def keys(server: Server, bucket: str) -> list[str]:
    listed = server.client().list_objects_v2(Bucket=bucket)
    return [one["Key"] for one in listed.get("Contents", ())]


@pytest.mark.parametrize("fault", ["page-halved", "page-last", "got-short", "200-error"])
@pytest.mark.parametrize("name", ["minio", "seaweedfs"])
def test_a_page_that_lacks_keys_is_asked_for_again(
    here: Here,
    hasty: None,
    request: pytest.FixtureRequest,
    bucket: BucketFactory,
    tmp_path: Path,
    name: str,
    fault: str,
) -> None:
    server: Server = request.getfixturevalue(name)
    place, tree = bucket(server), tmp_path / "tree"
    make_tree(tree, 60, most=100)
    here("cp", tree, server.url(place))
    script = Script(list=[fault, ""] * 6)
    with FaultServer(server.host, script, 60) as front:
        here("cp", url_of(server, front, place), tmp_path / "copy", "--src-set", "max_keys=7")
    assert script.fired[fault]
    assert digest(tmp_path / "copy") == digest(tree)


@pytest.mark.parametrize("size", [70_000, 400_000], ids=["small", "in several pieces"])
def test_a_byte_flipped_on_the_way_to_the_store_is_never_kept(
    here: Here, hasty: None, minio: MinIOGateway, bucket: BucketFactory, tmp_path: Path, size: int
) -> None:
    place, tree = bucket(minio), tmp_path / "tree"
    tree.mkdir()
    write(tree / "object", os.urandom(size))
    script = Script(put=["sent-flipped"] * 7)
    with FaultServer(minio.host, script, 60) as front:
        here("cp", tree, url_of(minio, front, place), code=1)
    assert script.fired["sent-flipped"] == 7
    assert keys(minio, place) == []
    here("sync", tree, minio.url(place))
    assert content(minio, place, "object") == (tree / "object").read_bytes()


def test_a_byte_flipped_on_the_way_spares_what_was_there(
    here: Here, hasty: None, minio: MinIOGateway, bucket: BucketFactory, tmp_path: Path
) -> None:
    place, tree = bucket(minio), tmp_path / "tree"
    tree.mkdir()
    write(tree / "object", b"new")
    minio.client().put_object(Bucket=place, Key="object", Body=b"old")
    with FaultServer(minio.host, Script(put=["sent-flipped"] * 7), 60) as front:
        here("cp", tree, url_of(minio, front, place), code=1)
    assert content(minio, place, "object") == b"old"


@pytest.mark.parametrize("again", ["sync", "retry"])
def test_what_was_damaged_and_cannot_be_removed_is_copied_by_the_next_sync(
    here: Here,
    hasty: None,
    minio: MinIOGateway,
    bucket: BucketFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    again: str,
) -> None:
    place, tree, manifest = bucket(minio), tmp_path / "tree", tmp_path / "m.db"
    tree.mkdir()
    write(tree / "large", os.urandom(400_000))
    # As of a source that cannot be read twice to tell the store its MD5 ahead.
    monkeypatch.setattr(LocalBody, "rewind", lambda body: False)
    script = Script()
    with FaultServer(minio.host, script, 60) as front:
        command = "sync", tree, url_of(minio, front, place), "--manifest", manifest
        script.faults = {"put": ["sent-flipped"] * 7, "delete": ["500"] * 49}
        here(*command, code=1)
        assert content(minio, place, "large") != (tree / "large").read_bytes()
        script.faults = {}
        monkeypatch.setenv("ADSMIG_DST_ACCESS_KEY", minio.access_key)
        monkeypatch.setenv("ADSMIG_DST_SECRET_KEY", minio.secret_key)
        here(*command) if again == "sync" else here("retry", "--manifest", manifest)
    assert content(minio, place, "large") == (tree / "large").read_bytes()


@pytest.mark.parametrize(
    "faults",
    [
        {"open": ["answer-lost"], "uploads": ["", "reset-before", "500", "200-error"]},
        {"open": ["late"]},
    ],
    ids=["that could not be seen at once", "opened after all"],
)
def test_an_upload_that_nobody_knew_of_is_aborted(
    here: Here,
    seaweedfs: SeaweedFS,
    bucket: BucketFactory,
    tmp_path: Path,
    faults: dict[str, list[str]],
) -> None:
    place, file = bucket(seaweedfs), tmp_path / "tree" / "large"
    file.parent.mkdir()
    write(file, os.urandom(16 << 20))
    parts = [f"{name}={5 << 20}" for name in ("min_part", "max_part", "max_put")]
    options = [word for part in parts for word in ("--dst-set", part)]
    script = Script(**faults)
    with FaultServer(seaweedfs.host, script, 1.0) as front:
        there = url_of(seaweedfs, front, place)
        here("cp", file.parent, there, "--timeout", "1", "--bwlimit", "100", *options)
        front.settle()
    assert not any(script.faults.values()), "a fault did not happen"
    assert content(seaweedfs, place, "large") == file.read_bytes()
    assert not seaweedfs.client().list_multipart_uploads(Bucket=place).get("Uploads")


def test_a_file_that_changes_while_the_store_takes_its_time_is_sent_again(
    here: Here, seaweedfs: SeaweedFS, bucket: BucketFactory, tmp_path: Path
) -> None:
    place, file = bucket(seaweedfs), tmp_path / "tree" / "object"
    file.parent.mkdir()
    write(file, b"one")

    def change(path: str) -> bool:
        file.write_bytes(b"two")
        return True

    script = Script(put=["stored-late"])
    with FaultServer(seaweedfs.host, script, 60, change) as front:
        here("cp", file.parent, url_of(seaweedfs, front, place))
    assert script.fired["stored-late"] == 1
    assert content(seaweedfs, place, "object") == b"two"


@pytest.mark.parametrize("command", ["cp", "sync"])
def test_a_retry_of_a_name_that_no_object_can_have_does_not_end_the_run(
    here: Here,
    seaweedfs: SeaweedFS,
    bucket: BucketFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    place, tree, manifest = bucket(seaweedfs), tmp_path / "tree", tmp_path / "m.db"
    tree.mkdir()
    (tree / os.fsdecode(b"not-\xff-text")).write_bytes(b"x")
    (tree / "broken").symlink_to("nowhere")
    here(command, tree, seaweedfs.url(place), "--manifest", manifest, code=1)
    (tree / "broken").unlink()
    (tree / "broken").write_bytes(b"mended")
    monkeypatch.setenv("ADSMIG_DST_ACCESS_KEY", seaweedfs.access_key)
    monkeypatch.setenv("ADSMIG_DST_SECRET_KEY", seaweedfs.secret_key)
    assert "1 failed" in here("retry", "--manifest", manifest, code=1)
    assert keys(seaweedfs, place) == ["broken"]


def test_the_staging_directory_goes_even_if_the_connection_is_lost_just_then(
    tmp_path: Path,
) -> None:
    with Sshd(tmp_path / "sshd") as server, storage_at(server, tmp_path / "there") as storage:
        put(storage, b"a", b"content")
        assert server.pid
        for session in psutil.Process(server.pid).children(recursive=True):
            session.kill()
        storage.tidy()
        assert os.listdir(tmp_path / "there") == ["a"]


def test_a_worker_that_is_killed_while_idle_does_not_hold_up_the_end() -> None:
    pool = processes(2)
    for done in [pool.submit(time.sleep, 0.3) for _ in range(2)]:
        done.result()
    members = [psutil.Process(pid) for pid in pool._processes]
    assert len(members) == 2
    members[0].kill()
    close(pool)
    _, alive = psutil.wait_procs(members, timeout=30)
    assert not alive


def put_in_parts(server: Server, bucket: str, key: str, pieces: list[bytes]) -> None:
    client, where = server.client(), {"Bucket": bucket, "Key": key}
    where["UploadId"] = client.create_multipart_upload(**where)["UploadId"]
    parts = []
    for number, piece in enumerate(pieces, 1):
        etag = client.upload_part(**where, PartNumber=number, Body=piece)["ETag"]
        parts.append({"PartNumber": number, "ETag": etag})
    client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})


MIB = 1 << 20


@pytest.mark.parametrize("sizes", [[700_000], [5 * MIB, 5 * MIB, 9], [13 * MIB] * 5 + [7 * MIB]])
def test_a_byte_flipped_on_the_way_from_the_store_is_found_in_objects_put_in_parts(
    here: Here,
    hasty: None,
    seaweedfs: SeaweedFS,
    bucket: BucketFactory,
    tmp_path: Path,
    sizes: list[int],
) -> None:
    place, pieces = bucket(seaweedfs), [os.urandom(size) for size in sizes]
    put_in_parts(seaweedfs, place, "object", pieces)
    script = Script(get=["", "got-flipped"] if sum(sizes) > 64 * MIB else ["got-flipped"])
    with FaultServer(seaweedfs.host, script, 60) as front:
        here("cp", url_of(seaweedfs, front, place), tmp_path / "copy")
    assert script.fired["got-flipped"] == 1
    assert (tmp_path / "copy" / "object").read_bytes() == b"".join(pieces)


@pytest.mark.parametrize("large", [False, True])
def test_an_object_put_in_parts_of_several_sizes_is_copied(
    here: Here,
    hasty: None,
    seaweedfs: SeaweedFS,
    bucket: BucketFactory,
    tmp_path: Path,
    large: bool,
) -> None:
    place, sizes = bucket(seaweedfs), [26 * MIB if large else 7 * MIB, 5 * MIB, 7 * MIB]
    pieces = [os.urandom(size) for size in [*sizes, 26 * MIB] if large or size < 8 * MIB]
    put_in_parts(seaweedfs, place, "object", pieces)
    here("cp", seaweedfs.url(place), tmp_path / "copy")
    assert (tmp_path / "copy" / "object").read_bytes() == b"".join(pieces)


def test_pages_that_come_twice_do_not_leave_a_job_that_cannot_go_on(
    here: Here, hasty: None, minio: MinIOGateway, bucket: BucketFactory, tmp_path: Path
) -> None:
    """It distrusts the store's order from then on, and lists one directory at a time."""
    place, tree = bucket(minio), tmp_path / "tree"
    for name in ("a-b/c", "a-b/d", "a/c", "a/d", "a0", "a-", "b/c", "c"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        write(tree / name, name.encode())
    here("cp", tree, minio.url(place))
    script = Script(list=["", "", "", *["page-again", ""] * 3])
    with FaultServer(minio.host, script, 60) as front:
        command = "cp", url_of(minio, front, place), tmp_path / "copy", "--src-set", "max_keys=2"
        here(*command)
    assert script.fired["page-again"]
    assert digest(tmp_path / "copy") == digest(tree)
