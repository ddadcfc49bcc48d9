"""CRC-32s: sent to who may know them, built on where answers confirm them, left off where not."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from adsmig import retry
from adsmig.checksum import Sums, Wanted, crc32_text
from adsmig.content import CHUNK
from adsmig.errors import ObjectError, SourceChanged, TransientError
from adsmig.location import Location
from adsmig.model import Entry, Meta, Part, Upload
from adsmig.proof import prove_source
from adsmig.providers import profile_of
from adsmig.storage.local import LocalStorage
from adsmig.storage.s3 import S3Storage
from adsmig.transfer import copy, put_part
from adsmig.uri import parse
from tests.storage.fakes3 import FakeS3, Reply, Request, error, stored
from tests.storage.support import Options

CONTENT = b"content"
MD5 = hashlib.md5(CONTENT).hexdigest()
CRC = crc32_text(zlib.crc32(CONTENT))
BOTH = Sums(MD5, CRC)
ENTRY = Entry(b"object", 7, None, 1, MD5)
CRC_HEADER, MD5_HEADER = "x-amz-checksum-crc32", "content-md5"


def confirming(request: Request) -> Reply:
    """As a store that holds what it is sent against its CRC-32."""
    reply = stored(request)
    told = request.headers.get(CRC_HEADER)
    if told and told != crc32_text(zlib.crc32(request.body)):
        return error(400, "BadDigest")
    return replace(reply, headers={**reply.headers, CRC_HEADER: told or ""})


def write(storage: S3Storage, content: bytes = CONTENT, sums: Sums = BOTH) -> Any:
    return storage.write(b"object", iter([memoryview(content)]), len(content), Meta(), sums)


@pytest.fixture
def server() -> Iterator[Callable[..., FakeS3]]:
    running: list[FakeS3] = []

    def start(*answers: Any) -> FakeS3:
        running.append(FakeS3(*answers).__enter__())
        return running[-1]

    yield start
    for one in running:
        one.__exit__(None, None, None)


Start = Callable[..., FakeS3]


def sent(fake: FakeS3) -> list[tuple[bool, bool]]:
    """Of each request, whether it came with a CRC-32 and with an MD5."""
    return [(CRC_HEADER in one.headers, MD5_HEADER in one.headers) for one in fake.requests]


# What is written


def test_both_are_sent_until_a_crc32_is_confirmed_and_then_that_alone(server: Start) -> None:
    fake = server(confirming)
    storage = fake.storage()
    assert storage.wanted() == Wanted(True, True)
    assert write(storage) == (MD5, MD5, CRC, None)
    assert storage.wanted() == Wanted(crc32=True)
    assert write(storage).crc32 == CRC
    assert sent(fake) == [(True, True), (True, False)]
    assert fake.requests[0].headers[CRC_HEADER] == CRC
    assert fake.requests[0].headers[MD5_HEADER] == base64.b64encode(bytes.fromhex(MD5)).decode()
    assert CRC_HEADER in fake.requests[0].headers["authorization"]  # signed


def test_where_it_is_passed_over_the_md5_goes_on_alone(server: Start) -> None:
    fake = server(stored)
    storage = fake.storage()
    assert write(storage).crc32 is None
    assert storage.wanted() == Wanted(md5=True)
    write(storage)
    assert sent(fake) == [(True, True), (False, True)]


@pytest.mark.parametrize("refusal", [error(400, "InvalidArgument"), error(501, "NotImplemented")])
def test_where_it_is_refused_the_next_try_does_without(server: Start, refusal: Reply) -> None:
    fake = server(refusal, stored)
    storage = fake.storage()
    with pytest.raises(TransientError) as caught:
        write(storage)
    assert caught.value.immediate
    assert write(storage).md5 == MD5
    assert sent(fake) == [(True, True), (False, True)]


def test_a_refusal_of_something_else_stays_one(server: Start) -> None:
    fake = server(error(403, "AccessDenied"), confirming, error(400, "InvalidArgument"))
    storage = fake.storage()
    with pytest.raises(ObjectError):
        write(storage)
    assert write(storage).crc32 == CRC  # it was not what was refused
    with pytest.raises(ObjectError):  # nor can it be, where it was taken before
        write(storage)


def test_a_store_that_falls_silent_is_not_believed(server: Start) -> None:
    fake = server(confirming, stored, stored)
    storage = fake.storage()
    write(storage)
    with pytest.raises(TransientError, match="does not confirm"):
        write(storage)
    assert write(storage).crc32 is None
    assert sent(fake) == [(True, True), (True, False), (False, True)]


def test_another_crc32_than_the_one_sent_is_damage_and_is_removed(
    server: Start, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "wait", lambda *_: None)
    (tmp_path / "object").write_bytes(CONTENT)
    src = files(tmp_path)
    fake = server(lambda request: Reply(204 if request.method == "DELETE" else 200, headers=wrong))
    wrong = {CRC_HEADER: crc32_text(1)}
    outcome = copy(src, fake.storage(), src.stat(b"object"), b"object", None)
    assert "destination's CRC-32" in outcome.error
    assert [one.method for one in fake.requests] == ["PUT", "DELETE"] * retry.TRIES


def test_who_does_not_know_them_is_sent_none(server: Start) -> None:
    fake = server(stored, object_with({CRC_HEADER: CRC}))
    storage = fake.storage()
    location = replace(storage.location, overrides=("crc32=no",))
    plain = S3Storage(location, Options())
    write(plain)
    with plain.read(ENTRY) as body:
        assert body.crc32 is None
    assert plain.crc32(ENTRY) is None
    assert sent(fake) == [(False, True), (False, False)]
    assert "x-amz-checksum-mode" not in fake.requests[1].headers
    plain.close()


@pytest.mark.parametrize("name", ["oss", "cos", "bos", "ks3", "obs", "qiniu", "ufile"])
def test_only_aws_and_minio_are_thought_to_know_them(name: str) -> None:
    assert not profile_of(name).crc32
    assert profile_of("s3").crc32
    assert profile_of("minio").crc32


def test_a_large_stream_whose_crc32_nobody_knows_ahead_is_held_against_its_md5(
    server: Start,
) -> None:
    content = bytes(CHUNK + 1)
    etag = hashlib.md5(content).hexdigest() + "-1"  # tells nothing of the content

    def answer(request: Request) -> Reply:
        if request.method == "GET":
            return Reply(200, content, {"ETag": f'"{etag}"'})
        if request.method == "HEAD":
            return Reply(404)
        return Reply(headers={"ETag": '"' + "0" * 32 + '"'})  # damaged on its way

    src, fake = server(answer).storage(), server(confirming, answer)
    dst = fake.storage()
    write(dst)
    assert dst.wanted() == Wanted(crc32=True)
    outcome = copy(src, dst, Entry(b"k", len(content), None, 1, etag), b"k", None)
    assert "destination's MD5" in outcome.error


# Uploads


def opened(kind: str | None) -> Reply:
    """The answer to the beginning of an upload, if the store makes ``kind`` of its parts' sums."""
    text = "<InitiateMultipartUploadResult><UploadId>id</UploadId></InitiateMultipartUploadResult>"
    headers = {"x-amz-checksum-algorithm": "CRC32", "x-amz-checksum-type": kind} if kind else {}
    return Reply(200, text.encode(), headers)


NO_STRAYS = Reply(200, b"<ListMultipartUploadsResult></ListMultipartUploadsResult>")


@pytest.mark.parametrize("kind", ["FULL_OBJECT", "COMPOSITE", None])
def test_an_upload_knows_what_the_store_makes_of_its_parts(server: Start, kind: str) -> None:
    fake = server(NO_STRAYS, opened(kind))
    upload = fake.storage().begin_upload(b"object", ENTRY, Meta(), True)
    assert upload.vouched == (kind or "")
    assert fake.requests[-1].headers["x-amz-checksum-algorithm"] == "CRC32"
    assert fake.requests[-1].headers["x-amz-checksum-type"] == "FULL_OBJECT"


def test_an_upload_of_what_is_read_once_announces_none(server: Start) -> None:
    fake = server(NO_STRAYS, opened("FULL_OBJECT"))
    assert fake.storage().begin_upload(b"object", ENTRY, Meta()).vouched == ""
    assert "x-amz-checksum-algorithm" not in fake.requests[-1].headers


def test_an_upload_that_is_refused_for_them_is_opened_without(server: Start) -> None:
    fake = server(NO_STRAYS, error(400, "InvalidArgument"), opened(None))
    assert fake.storage().begin_upload(b"object", ENTRY, Meta(), True).vouched == ""
    assert "x-amz-checksum-algorithm" not in fake.requests[-1].headers


@pytest.mark.parametrize("kind", ["FULL_OBJECT", "COMPOSITE"])
def test_the_parts_crc32s_end_an_upload_and_that_of_the_whole(server: Start, kind: str) -> None:
    etag = hashlib.md5(bytes.fromhex(MD5) * 2).hexdigest() + "-2"
    text = f"<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>"
    there = Reply(200, b"", {"ETag": f'"{etag}"', "Content-Length": "14"})
    fake = server(Reply(200, text.encode()), there)
    upload = Upload(Entry(b"object", 14, None, 1), "id", 7, kind)
    parts = [Part(number, MD5, None, None, CRC) for number in (1, 2)]
    fake.storage().complete(b"object", upload, parts, Meta())
    request = fake.requests[0]
    assert request.body.decode().count(f"<ChecksumCRC32>{CRC}</ChecksumCRC32>") == 2
    whole = crc32_text(zlib.crc32(CONTENT + CONTENT))
    assert request.headers.get(CRC_HEADER) == (whole if kind == "FULL_OBJECT" else None)
    assert request.headers.get("x-amz-checksum-type") == (kind if kind == "FULL_OBJECT" else None)


def files(path: Any) -> LocalStorage:
    return LocalStorage(parse(f"{path}/"), Options())


@pytest.fixture
def part(tmp_path: Any) -> Callable[[S3Storage], Part]:
    """Copies the one part of a file, of an upload that is vouched for."""
    (tmp_path / "object").write_bytes(CONTENT)
    src = files(tmp_path)
    upload = Upload(src.stat(b"object"), "id", 7, "FULL_OBJECT")
    return lambda dst: put_part(src, dst, b"object", upload, 1, None)


def test_a_part_goes_with_its_crc32_and_without_an_md5_once_that_is_confirmed(
    server: Start, part: Callable[[S3Storage], Part]
) -> None:
    fake = server(confirming)
    storage = fake.storage()
    assert part(storage)[3:] == (MD5, CRC)
    assert part(storage)[3:] == (None, CRC)
    assert [one.headers[CRC_HEADER] for one in fake.requests] == [CRC, CRC]


def test_a_part_that_is_not_confirmed_is_held_against_its_md5(
    server: Start, part: Callable[[S3Storage], Part]
) -> None:
    damaged = Reply(headers={"ETag": '"' + "0" * 32 + '"'})
    fake = server(stored, damaged, confirming, stored, stored)
    storage = fake.storage()
    assert part(storage)[3:] == (MD5, CRC)
    with pytest.raises(TransientError, match="destination's MD5"):
        part(storage)
    part(storage)
    with pytest.raises(TransientError, match="does not confirm"):
        part(storage)  # no MD5 was at hand, as it had confirmed the last
    assert part(storage)[3:] == (MD5, CRC)


# What is read


def object_with(headers: dict[str, str]) -> Reply:
    return Reply(200, CONTENT, {"ETag": f'"{MD5}"', **headers})


def test_a_whole_object_comes_with_the_crc32_that_is_kept_with_it(server: Start) -> None:
    fake = server(object_with({CRC_HEADER: CRC}))
    with fake.storage().read(ENTRY) as body:
        assert body.crc32 == CRC
    assert fake.requests[0].headers["x-amz-checksum-mode"] == "ENABLED"
    assert fake.storage().crc32(ENTRY) == CRC
    assert fake.requests[1].headers["if-match"] == f'"{MD5}"'


def test_that_of_parts_is_not_taken_for_that_of_the_whole(server: Start) -> None:
    fake = server(object_with({CRC_HEADER: f"{CRC}-2", "x-amz-checksum-type": "COMPOSITE"}))
    with fake.storage().read(ENTRY) as body:
        assert body.crc32 is None
    assert fake.storage().crc32(ENTRY) is None


def test_a_span_is_not_held_against_it(server: Start) -> None:
    headers = {"Content-Range": "bytes 0-2/7", CRC_HEADER: CRC, "ETag": f'"{MD5}"'}
    fake = server(Reply(206, CONTENT[:3], headers))
    with fake.storage().read(ENTRY, 0, 3) as body:
        assert body.crc32 is None
    assert "x-amz-checksum-mode" not in fake.requests[0].headers


def test_who_refuses_to_be_asked_is_asked_without(server: Start) -> None:
    fake = server(error(400, "InvalidRequest"), object_with({}))
    storage = fake.storage()
    for _ in range(2):
        with storage.read(ENTRY) as body:
            assert body.crc32 is None
    asked = ["x-amz-checksum-mode" in one.headers for one in fake.requests]
    assert asked == [True, False, False]


def test_a_refusal_after_it_was_answered_once_is_of_something_else(server: Start) -> None:
    fake = server(object_with({}), error(400, "InvalidObjectState"))
    storage = fake.storage()
    with storage.read(ENTRY):
        pass
    with pytest.raises(ObjectError):
        storage.read(ENTRY)


@pytest.mark.parametrize("answer", [Reply(403), Reply(404), Reply(412), Reply(501)])
def test_a_store_that_does_not_tell_has_none(server: Start, answer: Reply) -> None:
    assert server(answer).storage().crc32(ENTRY) is None


def test_an_object_damaged_on_its_way_is_read_again(
    server: Start, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "wait", lambda *_: None)
    headers = {CRC_HEADER: CRC, "ETag": '"opaque"'}
    fake = server(Reply(200, b"cOntent", headers), Reply(200, CONTENT, headers))
    entry = ENTRY._replace(etag="opaque")
    place = Location("file", bytes(tmp_path / "out") + b"/")
    dst = LocalStorage(place, Options(), destination=True)
    dst.prepare()
    outcome = copy(fake.storage(), dst, entry, b"object", None)
    assert not outcome.error
    assert (tmp_path / "out" / "object").read_bytes() == CONTENT
    assert len(fake.requests) == 2


def test_parts_are_held_against_that_of_the_whole_source() -> None:
    entry = Entry(b"k", 14, None, 1, "0" * 32 + "-2")
    upload = Upload(entry, "id", 7, "", crc32_text(zlib.crc32(CONTENT + CONTENT)))
    parts = [Part(number, "e", None, None, CRC) for number in (1, 2)]
    src: Any = None  # nothing else has to be asked
    prove_source(src, upload, parts)
    with pytest.raises(SourceChanged, match="CRC-32"):
        prove_source(src, upload, [parts[0], parts[1]._replace(crc32=crc32_text(5))])
    prove_source(src, upload, [parts[0], parts[1]._replace(crc32=None)])  # copied by the service
