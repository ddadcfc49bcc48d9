"""Files that go to the store in parts while they are written: what ends that in the middle."""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import BucketFactory
from tests.mount.conftest import MountFactory
from tests.mount.mounts import Mount, contents, error_of, put, until
from tests.servers import MinIOGateway, Server

MIB = 1 << 20
LARGE_MIB = 300
"""More than stays on the disk."""


def write(at: Mount, count: int) -> int:
    """A file that is open, of so many megabytes."""
    fd = os.open(at.path / "large", os.O_RDWR | os.O_CREAT)
    for number in range(count):
        os.write(fd, mib(number))
    return fd


def write_and_kill(at: Mount) -> int:
    """Kills a mount when the store alone has the beginning of a file; how many bytes of it."""
    fd = write(at, LARGE_MIB)
    until(lambda: has_hole(at))
    at.kill()
    with contextlib.suppress(OSError):
        os.close(fd)
    sent: int = journal(at)["sent"]
    return sent


def mib(number: int) -> bytes:
    return bytes([number % 255 + 1]) * MIB


def journal(at: Mount) -> dict[str, Any]:
    (path,) = at.cache.glob("*/dirty/*.json")
    facts: dict[str, Any] = json.loads(path.read_text())
    return facts


def has_hole(at: Mount) -> bool:
    """Whether bytes are gone from here, whatever the journal says."""
    (path,) = at.cache.glob("*/dirty/*.json")
    facts = path.with_suffix("").stat()
    return facts.st_blocks * 512 < facts.st_size - 16 * MIB


def is_whole(path: Path, count: int) -> bool:
    with path.open("rb") as file:
        return all(file.read(MIB) == mib(number) for number in range(count)) and not file.read(1)


def give_up(server: Server, bucket: str, at: Mount) -> None:
    """Has the store give an upload up, as a rule of its own may say."""
    upload = journal(at)["upload"]["id"]
    server.client().abort_multipart_upload(Bucket=bucket, Key="large", UploadId=upload)


def test_a_large_file_of_which_only_the_store_has_the_beginning_is_stored_whole(
    minio: MinIOGateway, bucket: BucketFactory, mount: MountFactory
) -> None:
    at = mount(minio.url(bucket(minio)))
    write_and_kill(at)
    assert "large of an earlier mount is stored now" in at.start()
    assert is_whole(at.path / "large", LARGE_MIB)
    at.stop()


@pytest.mark.parametrize("renamed", [False, True])
def test_a_large_file_that_was_stored_just_before_the_kill_is_recognised(
    minio: MinIOGateway, bucket: BucketFactory, mount: MountFactory, renamed: bool
) -> None:
    name, client = bucket(minio), minio.client()
    at = mount(minio.url(name))
    write_and_kill(at)
    upload = journal(at)["upload"]
    size = upload["part_size"] // MIB
    more = {"Bucket": name, "Key": "large", "UploadId": upload["id"]}
    etags = {number: etag for number, etag, *_ in upload["parts"]}
    for number in range(1, -(-LARGE_MIB // size) + 1):
        if number not in etags:
            mibs = range((number - 1) * size, min(number * size, LARGE_MIB))
            answer = client.upload_part(
                **more, PartNumber=number, Body=b"".join(mib(one) for one in mibs)
            )
            etags[number] = answer["ETag"]
    parts = [{"PartNumber": number, "ETag": etags[number]} for number in sorted(etags)]
    client.complete_multipart_upload(**more, MultipartUpload={"Parts": parts})
    if renamed:
        (path,) = at.cache.glob("*/dirty/*.json")
        path.write_text(json.dumps(journal(at) | {"key": base64.b64encode(b"other").decode()}))
    said = at.start()
    assert ("other of an earlier mount is stored now" in said) == renamed
    assert [path.name for path in at.path.iterdir()] == ["other" if renamed else "large"]
    assert is_whole(at.path / ("other" if renamed else "large"), LARGE_MIB)
    assert not list(at.cache.glob("*/kept/*")) + list(at.cache.glob("*/dirty/*"))
    at.stop()


def test_what_is_kept_of_a_large_file_says_what_it_lacks(
    minio: MinIOGateway, bucket: BucketFactory, mount: MountFactory
) -> None:
    name = bucket(minio)
    at = mount(minio.url(name))
    sent = write_and_kill(at)
    put(minio, name, {"large": b"of somebody else"})
    said = at.start()
    (kept,) = at.cache.glob(f"*/kept/*-large.from-byte-{sent}")
    assert f"is in {kept}, but for its first {sent} bytes: the store has those" in said
    assert (at.path / "large").read_bytes() == b"of somebody else"
    at.stop()
    facts = json.loads(Path(f"{kept}.json").read_text())
    uploads = minio.client().list_multipart_uploads(Bucket=name, Prefix="large")["Uploads"]
    assert [one["UploadId"] for one in uploads] == [facts["upload"]["id"]]


def test_a_large_file_whose_upload_is_gone_is_kept_and_never_stored_with_zeros(
    minio: MinIOGateway, bucket: BucketFactory, mount: MountFactory
) -> None:
    name = bucket(minio)
    at = mount(minio.url(name))
    sent = write_and_kill(at)
    give_up(minio, name, at)
    assert f"but for its first {sent} bytes, which are lost" in at.start()
    assert list(at.cache.glob(f"*/kept/*-large.from-byte-{sent}"))
    at.stop()
    assert not contents(minio, name)


def test_an_upload_that_the_store_gave_up_is_begun_anew(
    minio: MinIOGateway, bucket: BucketFactory, mount: MountFactory
) -> None:
    name = bucket(minio)
    at = mount(minio.url(name))
    fd = write(at, 100)
    until(lambda: (journal(at)["upload"] or {}).get("parts"))
    give_up(minio, name, at)
    os.fsync(fd)
    os.close(fd)
    assert is_whole(at.path / "large", 100)
    at.again()
    assert is_whole(at.path / "large", 100)
    at.stop()


def test_an_upload_that_was_given_up_with_a_beginning_is_an_error(
    minio: MinIOGateway, bucket: BucketFactory, mount: MountFactory
) -> None:
    name = bucket(minio)
    at = mount(minio.url(name), "--timeout", "5")
    fd = write(at, LARGE_MIB)
    until(lambda: journal(at)["sent"])
    give_up(minio, name, at)
    assert error_of(lambda: os.fsync(fd)) == errno.EIO
    assert error_of(lambda: os.close(fd)) == errno.EIO
    sent = journal(at)["sent"]
    assert "its beginning is lost" in at.stop(code=1)
    assert f"but for its first {sent} bytes, which are lost" in at.start()
    at.stop()
    assert not contents(minio, name)


def test_who_stores_a_large_file_of_the_same_name_elsewhere_takes_nothing_from_who_writes_one(
    some_store: Server, bucket: BucketFactory, mount: MountFactory
) -> None:
    name = bucket(some_store)
    at, other = mount(some_store.url(name)), mount(some_store.url(name))
    fd = write(at, LARGE_MIB)
    until(lambda: has_hole(at))
    os.close(write(other, LARGE_MIB // 2))
    assert (other.path / "large").stat().st_size == LARGE_MIB // 2 * MIB
    os.close(fd)
    assert is_whole(at.path / "large", LARGE_MIB)
    at.stop()
    other.stop()


def test_a_file_cut_off_while_a_part_is_on_its_way_is_stored_at_once(
    minio: MinIOGateway, bucket: BucketFactory, mount: MountFactory
) -> None:
    name = bucket(minio)
    at = mount(minio.url(name), "--bwlimit", "200")
    fd = write(at, 70)
    until(lambda: journal(at)["upload"])
    os.write(fd, mib(70))  # which has the first part sent
    os.ftruncate(fd, MIB)
    began = time.monotonic()
    os.close(fd)
    assert time.monotonic() - began < 5
    at.stop()
    assert contents(minio, name) == {"large": mib(0)}
